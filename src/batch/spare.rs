//! Memory of batches that is used again.
//!
//! A batch's buffer is so large that the allocator maps it anew each time and gives it back afterwards. Each of its pages
//! is then faulted in and cleared by the kernel, which takes longer than what is written there: of a first download a
//! tenth of the processor time of both sides. What is kept is bounded by [`limits`], whatever was used.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::limits::{SPARE_BUFFER_BYTES_MAX, SPARE_BUFFER_BYTES_MIN, SPARES_MAX};

/// Things that were used and are kept for the next who needs one.
pub(super) struct Spares<T>(Mutex<Vec<T>>);

impl<T> Spares<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// One that is fit, if there is one.
    pub(super) fn take(&self, is_fit: impl FnMut(&T) -> bool) -> Option<T> {
        let mut kept = self.kept();
        let place = kept.iter().position(is_fit)?;
        Some(kept.swap_remove(place))
    }

    /// Keeps it, if there are not too many.
    pub(super) fn give(&self, spare: T) {
        let mut kept = self.kept();
        if kept.len() < SPARES_MAX {
            kept.push(spare);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<T>> {
        // Nothing of it is changed halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static BUFFERS: Spares<Vec<u8>> = Spares::new();

/// A vector of bytes whose memory is kept when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    /// An empty one with room for `bytes`.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let spare = if bytes < SPARE_BUFFER_BYTES_MIN {
            None
        } else {
            BUFFERS.take(|spare| spare.capacity() >= bytes)
        };
        Self(spare.unwrap_or_else(|| Vec::with_capacity(bytes)))
    }

    /// Its bytes; the memory is kept when the last who shares them is gone. Few bytes get memory of their own: they may
    /// be held for long.
    pub(super) fn into_bytes(self) -> Bytes {
        if self.len() < SPARE_BUFFER_BYTES_MIN {
            Bytes::copy_from_slice(&self)
        } else {
            Bytes::from_owner(self)
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if (SPARE_BUFFER_BYTES_MIN..=SPARE_BUFFER_BYTES_MAX).contains(&self.0.capacity()) {
            let mut spare = std::mem::take(&mut self.0);
            spare.clear();
            BUFFERS.give(spare);
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_is_allowed() {
        let spares = Spares::new();
        (0..2 * SPARES_MAX).for_each(|spare| spares.give(spare));
        let fit = |spare: &usize| spare % 2 == 1;
        assert!(std::iter::from_fn(|| spares.take(fit)).all(|spare| spare % 2 == 1));
        assert_eq!(std::iter::from_fn(|| spares.take(|_| true)).count(), SPARES_MAX.div_ceil(2));
    }

    #[test]
    fn a_buffer_is_empty_and_has_room_whoever_used_it_before() {
        for bytes in [0, 1, SPARE_BUFFER_BYTES_MIN, SPARE_BUFFER_BYTES_MAX, SPARE_BUFFER_BYTES_MAX + 1] {
            for _ in 0..2 {
                let mut buffer = Buffer::with_capacity(bytes);
                assert!(buffer.is_empty() && buffer.capacity() >= bytes);
                buffer.resize(bytes, 7);
                let shared = buffer.into_bytes();
                assert!(shared.len() == bytes && shared.iter().all(|byte| *byte == 7));
            }
        }
    }
}
