//! Words by planes.

use bytes::Bytes;

use crate::batch::BatchError;

/// Little-endian words by planes: byte 0 of all, then byte 1 of all. Compresses far better than word by word.
pub(crate) fn planes(words: &[u64]) -> Bytes {
    let mut bytes = vec![0; words.len() * 8];
    if !words.is_empty() {
        for (plane, out) in bytes.chunks_exact_mut(words.len()).enumerate() {
            for (byte, word) in out.iter_mut().zip(words) {
                *byte = (word >> (plane * 8)) as u8;
            }
        }
    }
    bytes.into()
}

/// The words of [`planes`].
pub(crate) fn from_planes(bytes: &[u8], count: usize) -> Result<Vec<u64>, BatchError> {
    if Some(bytes.len()) != count.checked_mul(8) {
        return Err(BatchError::Malformed("a vector's length"));
    }
    let mut words = vec![0; count];
    if count > 0 {
        for (plane, bytes) in bytes.chunks_exact(count).enumerate() {
            for (word, byte) in words.iter_mut().zip(bytes) {
                *word |= u64::from(*byte) << (plane * 8);
            }
        }
    }
    Ok(words)
}
