//! How a batch's bytes are compressed. Decompression never makes more than was said beforehand.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::BatchError;
use crate::{limits, pb};

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

    pub(super) fn compress(self, content: &[u8]) -> Vec<u8> {
        let compressed = match self {
            Self::Identity => return content.to_vec(),
            Self::Zstd => zstd::bulk::compress(content, limits::ZSTD_LEVEL),
            Self::Gzip => {
                let level = flate2::Compression::new(limits::GZIP_LEVEL);
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(content).and_then(|()| encoder.finish())
            }
        };
        // Compressing memory into memory fails only for want of memory; bytes as they are always do.
        let mut compressed = compressed.unwrap_or_else(|_| content.to_vec());
        // Room was made for bytes that do not shrink, and these wait to be stored and sent.
        compressed.shrink_to_fit();
        compressed
    }

    /// Decompresses into exactly `decoded_bytes`.
    pub(super) fn decompress(self, stored: &[u8], decoded_bytes: u64) -> Result<Bytes, BatchError> {
        const NOT_THAT_LONG: BatchError = BatchError::Malformed("its content is not as long as it says");
        let content = match self {
            Self::Identity => Bytes::copy_from_slice(stored),
            Self::Zstd => {
                // The frame's own idea of its size must be ours before anything is allocated.
                match zstd::zstd_safe::get_frame_content_size(stored) {
                    Ok(Some(size)) if size == decoded_bytes => {}
                    _ => return Err(NOT_THAT_LONG),
                }
                if zstd::zstd_safe::find_frame_compressed_size(stored) != Ok(stored.len()) {
                    return Err(BatchError::Malformed("it is not one zstd frame"));
                }
                let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)
                    .map_err(|_| BatchError::Malformed("zstd"))?;
                decoder
                    .window_log_max(limits::ZSTD_WINDOW_LOG_MAX)
                    .map_err(|_| BatchError::Malformed("zstd"))?;
                read_at_most(decoder, decoded_bytes, Vec::with_capacity(decoded_bytes as usize))?
            }
            Self::Gzip => {
                let mut rest = stored;
                let member = flate2::bufread::GzDecoder::new(&mut rest);
                let content = read_at_most(member, decoded_bytes, Vec::new())?;
                if content.len() as u64 == decoded_bytes && !rest.is_empty() {
                    return Err(BatchError::Malformed("it is not one gzip member"));
                }
                content
            }
        };
        if content.len() as u64 == decoded_bytes { Ok(content) } else { Err(NOT_THAT_LONG) }
    }
}

/// Reads one byte more than there should be at most, so that a bomb is noticed and costs no more.
fn read_at_most(
    reader: impl std::io::Read,
    decoded_bytes: u64,
    mut content: Vec<u8>,
) -> Result<Bytes, BatchError> {
    reader
        .take(decoded_bytes + 1)
        .read_to_end(&mut content)
        .map_err(|_| BatchError::Malformed("its compressed form"))?;
    Ok(content.into())
}
