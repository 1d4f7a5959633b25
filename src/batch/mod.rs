//! Batches: rows by columns, compressed as a whole, immutable and checksummed from the moment they have an id.

mod block;
mod codec;
mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use block::{Block, Operation};
pub use codec::Codec;

use crate::error::{ErrorReason, SyncError};
use crate::ids::{BatchId, BatchSequence};
use crate::{limits, pb};

/// Bytes that are no batch, or not this one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The digest is another one.
    #[error("the batch's bytes do not have its digest")]
    Digest,
    /// The form is broken.
    #[error("the batch is not well-formed: {0}")]
    Malformed(&'static str),
    /// A bound is passed.
    #[error("the batch is beyond a bound: {0}")]
    TooLarge(&'static str),
}

impl From<BatchError> for SyncError {
    fn from(error: BatchError) -> Self {
        let reason = match error {
            BatchError::TooLarge(_) => ErrorReason::BatchTooLarge,
            _ => ErrorReason::BatchCorrupt,
        };
        Self::new(reason, error.to_string())
    }
}

/// Names a batch and everything that is needed to check it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchInfo {
    /// The batch.
    pub id: BatchId,
    /// Its place in its session and direction.
    pub sequence: BatchSequence,
    /// The length of the stored bytes.
    pub stored_bytes: u64,
    /// The length of the decoded content.
    pub decoded_bytes: u64,
    /// The rows in all of its blocks.
    pub rows: u32,
    /// How the stored bytes are compressed.
    pub codec: Codec,
    /// SHA-256 of the stored bytes.
    pub sha256: [u8; 32],
    /// The version of the scope that it was made for.
    pub scope_version: u32,
}

impl BatchInfo {
    /// The message, without the bytes.
    #[must_use]
    pub fn to_wire(&self) -> pb::BatchInfo {
        pb::BatchInfo {
            batch_id: Bytes::copy_from_slice(self.id.as_bytes()),
            sequence: self.sequence.0,
            stored_bytes: self.stored_bytes,
            decoded_bytes: self.decoded_bytes,
            rows: self.rows,
            codec: self.codec.wire() as i32,
            sha256: Bytes::copy_from_slice(&self.sha256),
            scope_version: self.scope_version,
            inline_data: Bytes::new(),
        }
    }

    /// Checks what came from outside; `content_bytes_max` bounds the decoded content (see [`content_bytes_max`]).
    ///
    /// # Errors
    /// REQUEST_INVALID or BATCH_TOO_LARGE.
    pub fn from_wire(message: &pb::BatchInfo, content_bytes_max: u64) -> Result<Self, SyncError> {
        let id = BatchId::from_slice(&message.batch_id)?;
        let too_large = |what: String| SyncError::new(ErrorReason::BatchTooLarge, what).with("batch_id", id);
        if message.decoded_bytes > content_bytes_max {
            return Err(too_large(format!(
                "the batch holds {} bytes; at most {content_bytes_max} were agreed",
                message.decoded_bytes
            )));
        }
        // Compression that makes bytes larger is not used: identity would have been taken.
        if message.stored_bytes > message.decoded_bytes {
            return Err(SyncError::invalid("batch.stored_bytes", "must not be greater than decoded_bytes"));
        }
        if message.rows > limits::BATCH_ROWS_MAX {
            return Err(too_large(format!("the batch holds more than {} rows", limits::BATCH_ROWS_MAX)));
        }
        if message.rows == 0 {
            return Err(SyncError::invalid(
                "batch.rows",
                "must be 1 at least: a batch without rows is not sent",
            ));
        }
        if message.sequence == 0 || message.sequence > limits::SESSION_BATCHES_MAX {
            return Err(SyncError::invalid(
                "batch.sequence",
                format!("must be 1 to {}", limits::SESSION_BATCHES_MAX),
            ));
        }
        Ok(Self {
            id,
            sequence: BatchSequence(message.sequence),
            stored_bytes: message.stored_bytes,
            decoded_bytes: message.decoded_bytes,
            rows: message.rows,
            codec: Codec::from_wire(message.codec)
                .ok_or_else(|| SyncError::invalid("batch.codec", "is not a codec that this side knows"))?,
            sha256: message.sha256[..]
                .try_into()
                .map_err(|_| SyncError::invalid("batch.sha256", "must be 32 bytes"))?,
            scope_version: message.scope_version,
        })
    }

    /// Whether the bytes are those of the batch.
    ///
    /// # Errors
    /// [`BatchError::Digest`].
    pub fn verify(&self, stored: &[u8]) -> Result<(), BatchError> {
        let same = stored.len() as u64 == self.stored_bytes && Sha256::digest(stored)[..] == self.sha256;
        if same { Ok(()) } else { Err(BatchError::Digest) }
    }

    /// Verifies and decodes the batch. Bounded before it starts: by `decoded_bytes`, and by a scan of the content's
    /// outline before anything of the size that it claims is allocated.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn decode(&self, stored: &[u8]) -> Result<Vec<Block>, BatchError> {
        self.decode_within(stored, limits::BATCH_BYTES_MAX)
    }

    /// As [`decode`](Self::decode), for a session that has agreed on batches of this size: it also bounds the cells. A
    /// NULL takes a bit in a batch and up to 16 bytes once it is decoded, so a batch's bytes alone bound nothing. Whoever
    /// cuts batches counts a cell as a byte at least.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn decode_within(&self, stored: &[u8], batch_bytes_max: u64) -> Result<Vec<Block>, BatchError> {
        use prost::Message as _;
        let cells_max = batch_bytes_max.saturating_mul(limits::BATCH_CELLS_A_BYTE_MAX);
        self.verify(stored)?;
        let content = self.codec.decompress(stored, self.decoded_bytes)?;
        scan::check_outline(&content, cells_max)?;
        let message =
            pb::BatchContent::decode(content).map_err(|_| BatchError::Malformed("it does not decode"))?;
        let rows: u64 = message.blocks.iter().map(|block| u64::from(block.rows)).sum();
        if rows != u64::from(self.rows) {
            return Err(BatchError::Malformed("its rows are not as many as it says"));
        }
        let cells = |block: &pb::Block| u64::from(block.rows) * block.columns.len() as u64;
        if message.blocks.iter().map(cells).sum::<u64>() > cells_max {
            return Err(BatchError::TooLarge("cells"));
        }
        message.blocks.iter().map(Block::from_wire).collect()
    }
}

/// What bounds a batch's decoded content: the agreed batch size, or a single row, and what framing adds.
#[must_use]
pub const fn content_bytes_max(batch_bytes_max: u64, row_bytes_max: u64) -> u64 {
    let larger = if batch_bytes_max > row_bytes_max { batch_bytes_max } else { row_bytes_max };
    larger + limits::BATCH_OVERHEAD_BYTES_MAX
}

/// A batch that was just made.
#[derive(Debug, Clone)]
pub struct EncodedBatch {
    /// Everything that is needed to check it.
    pub info: BatchInfo,
    /// The bytes that are stored and travel.
    pub stored: Bytes,
}

/// Makes a batch of blocks. Blocks that are handed over are dropped one by one, as they are encoded.
///
/// # Errors
/// [`BatchError::TooLarge`] if there are more rows or blocks than a batch may hold.
pub fn encode<B: Borrow<Block>>(
    blocks: impl IntoIterator<Item = B>,
    sequence: BatchSequence,
    codec: Codec,
    scope_version: u32,
) -> Result<EncodedBatch, BatchError> {
    let blocks: Vec<B> = blocks.into_iter().collect();
    let mut encoder =
        BatchEncoder::with_room(blocks.iter().map(|block| block.borrow().encoded_bytes()).sum());
    blocks.into_iter().try_for_each(|block| encoder.add(block.borrow()))?;
    Ok(encoder.finish(sequence, codec, scope_version))
}

/// A batch that is being made, block by block: only its encoded form is kept.
#[derive(Debug)]
pub struct BatchEncoder {
    content: Vec<u8>,
    room: usize,
    rows: usize,
    blocks: usize,
}

impl BatchEncoder {
    /// A batch without blocks. `bytes` is what they will take, about ([`Block::encoded_bytes`]): room is made for it with
    /// the first one.
    #[must_use]
    pub const fn with_room(bytes: usize) -> Self {
        // What framing adds: a few bytes for each cell of text at the very most.
        Self { content: Vec::new(), room: bytes + bytes / 16, rows: 0, blocks: 0 }
    }

    /// The blocks that were added.
    #[must_use]
    pub const fn blocks(&self) -> usize {
        self.blocks
    }

    /// Whether nothing was added.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// Adds a block.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`] if there are more rows or blocks than a batch may hold; nothing is added.
    pub fn add(&mut self, block: &Block) -> Result<(), BatchError> {
        if self.blocks == limits::BATCH_BLOCKS_MAX {
            return Err(BatchError::TooLarge("blocks"));
        }
        if self.rows + block.rows() > limits::BATCH_ROWS_MAX as usize {
            return Err(BatchError::TooLarge("rows"));
        }
        if self.is_empty() {
            // Grown to its size by doubling it would take twice as much for a moment.
            self.content.reserve(self.room);
        }
        self.blocks += 1;
        self.rows += block.rows();
        // As BatchContent.blocks, without a message that holds all of them.
        prost::encoding::message::encode(1, &block.to_wire(), &mut self.content);
        Ok(())
    }

    /// Compresses it and gives it an id. Where compression does not save 5 %, identity is taken.
    #[must_use]
    pub fn finish(self, sequence: BatchSequence, codec: Codec, scope_version: u32) -> EncodedBatch {
        let decoded_bytes = self.content.len() as u64;
        let (codec, stored): (_, Bytes) = match codec.compress(&self.content) {
            Some(compressed) if compressed.len() as u64 <= decoded_bytes / 20 * 19 => {
                (codec, compressed.into())
            }
            _ => (Codec::Identity, self.content.into()),
        };
        let info = BatchInfo {
            id: BatchId::fresh(),
            sequence,
            stored_bytes: stored.len() as u64,
            decoded_bytes,
            // At most BATCH_ROWS_MAX.
            rows: self.rows as u32,
            codec,
            sha256: Sha256::digest(&stored).into(),
            scope_version,
        };
        EncodedBatch { info, stored }
    }
}
