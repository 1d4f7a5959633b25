//! How a batch's bytes are compressed. Decompression never makes more than was said beforehand.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::BatchError;
use crate::{limits, pb};

const NOT_THAT_LONG: BatchError = BatchError::Malformed("its content is not as long as it says");

/// How a batch's bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Not at all.
    Identity,
    /// One zstd frame.
    Zstd,
    /// One gzip member.
    Gzip,
}

impl Codec {
    /// The number in the protocol's enum.
    #[must_use]
    pub const fn wire(self) -> pb::Codec {
        match self {
            Self::Identity => pb::Codec::Identity,
            Self::Zstd => pb::Codec::Zstd,
            Self::Gzip => pb::Codec::Gzip,
        }
    }

    /// The codec of this number.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<Self> {
        [Self::Identity, Self::Zstd, Self::Gzip].into_iter().find(|codec| codec.wire() as i32 == number)
    }

    /// The compressed form. `None` for what is not compressed at all, and if memory does not suffice: bytes as they are
    /// always do.
    pub(super) fn compress(self, content: &[u8]) -> Option<Vec<u8>> {
        let mut compressed = match self {
            Self::Identity => return None,
            Self::Zstd => zstd::bulk::compress(content, limits::ZSTD_LEVEL).ok()?,
            Self::Gzip => {
                let level = flate2::Compression::new(limits::GZIP_LEVEL);
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(content).and_then(|()| encoder.finish()).ok()?
            }
        };
        // Room was made for bytes that do not shrink, and these wait to be stored and sent.
        compressed.shrink_to_fit();
        Some(compressed)
    }

    /// Decompresses into exactly `decoded_bytes`.
    pub(super) fn decompress(self, stored: &[u8], decoded_bytes: u64) -> Result<Bytes, BatchError> {
        let content = match self {
            Self::Identity => Bytes::copy_from_slice(stored),
            Self::Zstd => {
                check_frame(stored, decoded_bytes)?;
                // In one go: the content is the window that it refers back to.
                let content = zstd::bulk::decompress(stored, decoded_bytes as usize);
                content.map_err(|_| BatchError::Malformed("its compressed form"))?.into()
            }
            Self::Gzip => {
                let mut rest = stored;
                let member = flate2::bufread::GzDecoder::new(&mut rest);
                let content = read_at_most(member, decoded_bytes)?;
                if content.len() as u64 == decoded_bytes && !rest.is_empty() {
                    return Err(BatchError::Malformed("it is not one gzip member"));
                }
                content
            }
        };
        if content.len() as u64 == decoded_bytes { Ok(content) } else { Err(NOT_THAT_LONG) }
    }
}

/// Whether the bytes are one zstd frame of this content, and within the bounds of the protocol: before anything is
/// allocated. Nothing that comes out is longer than the frame says, else zstd refuses it.
fn check_frame(stored: &[u8], decoded_bytes: u64) -> Result<(), BatchError> {
    match zstd::zstd_safe::get_frame_content_size(stored) {
        Ok(Some(size)) if size == decoded_bytes => {}
        _ => return Err(NOT_THAT_LONG),
    }
    if zstd::zstd_safe::find_frame_compressed_size(stored) != Ok(stored.len()) {
        return Err(BatchError::Malformed("it is not one zstd frame"));
    }
    if window_bytes(stored).is_some_and(|window| window > limits::ZSTD_WINDOW_BYTES_MAX) {
        return Err(BatchError::Malformed("its compressed form asks for too large a zstd window"));
    }
    Ok(())
}

/// The window that a zstd frame asks for (RFC 8878, 3.1.1.1.2); `None` for one whose content is its window.
fn window_bytes(frame: &[u8]) -> Option<u64> {
    const MAGIC_BYTES: usize = 4;
    const SINGLE_SEGMENT: u8 = 0b0010_0000;
    let descriptor = frame.get(MAGIC_BYTES)?;
    if descriptor & SINGLE_SEGMENT != 0 {
        return None;
    }
    let window = u64::from(*frame.get(MAGIC_BYTES + 1)?);
    let base = 1_u64 << (10 + (window >> 3));
    Some(base + base / 8 * (window & 7))
}

/// Reads one byte more than there should be at most, so that a bomb is noticed and costs no more.
fn read_at_most(reader: impl std::io::Read, decoded_bytes: u64) -> Result<Bytes, BatchError> {
    let mut content = Vec::new();
    reader
        .take(decoded_bytes + 1)
        .read_to_end(&mut content)
        .map_err(|_| BatchError::Malformed("its compressed form"))?;
    Ok(content.into())
}
