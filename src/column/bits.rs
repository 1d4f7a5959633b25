//! A bitmap.

use bytes::Bytes;

/// A bitmap, least significant bit first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits {
    words: Vec<u8>,
    length: usize,
}

impl Bits {
    pub(crate) fn zeros(length: usize) -> Self {
        Self { words: vec![0; length.div_ceil(8)], length }
    }

    pub(crate) fn push(&mut self, bit: bool) {
        if self.length.is_multiple_of(8) {
            self.words.push(0);
        }
        self.words[self.length / 8] |= u8::from(bit) << (self.length % 8);
        self.length += 1;
    }

    pub(crate) fn get(&self, index: usize) -> bool {
        self.words[index / 8] >> (index % 8) & 1 == 1
    }

    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.words)
    }

    /// `None` if there are not just enough bytes, or a bit beyond the last is set.
    pub(crate) fn from_bytes(bytes: &[u8], length: usize) -> Option<Self> {
        let tail_clear = match (length % 8, bytes.last()) {
            (0, _) | (_, None) => true,
            (used, Some(last)) => last >> used == 0,
        };
        (bytes.len() == length.div_ceil(8) && tail_clear).then(|| Self { words: bytes.to_vec(), length })
    }
}

impl FromIterator<bool> for Bits {
    fn from_iter<T: IntoIterator<Item = bool>>(bits: T) -> Self {
        let mut all = Self::default();
        bits.into_iter().for_each(|bit| all.push(bit));
        all
    }
}
