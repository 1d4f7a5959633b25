//! Collects blocks into batches of the agreed size. Each is encoded as it comes: a batch is never held as rows.

use syncline::batch::BatchEncoder;
use syncline::error::{Result, SyncError};
use syncline::limits::{BATCH_BLOCKS_MAX, BATCH_ROWS_MAX};

use crate::compute::compute_over;
use crate::store::{EnumeratedBlock, Position};

/// Blocks that make up a batch, and where the enumeration goes on after them.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) encoder: BatchEncoder,
    pub(super) position: Option<Position>,
    /// What the blocks take.
    pub(super) bytes: u64,
}

/// Collects blocks into batches.
#[derive(Debug)]
pub(super) struct Batcher {
    bytes_max: usize,
    bytes: usize,
    rows: usize,
    blocks: usize,
    collected: Option<Collected>,
}

impl Batcher {
    pub(super) fn new(batch_bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(batch_bytes_max).unwrap_or(usize::MAX);
        Self { bytes_max, bytes: 0, rows: 0, blocks: 0, collected: None }
    }

    /// Adds a block; answers the batch that was full before it. A block that is larger than a batch (one large row)
    /// makes a batch of its own.
    pub(super) async fn push(&mut self, next: EnumeratedBlock) -> Result<Option<Collected>> {
        let EnumeratedBlock { block, position } = next;
        let (bytes, rows) = (block.encoded_bytes(), block.rows());
        let full = self.bytes + bytes > self.bytes_max
            || self.rows + rows > BATCH_ROWS_MAX as usize
            || self.blocks == BATCH_BLOCKS_MAX;
        let batch = if full { self.take() } else { None };
        let (mut encoder, before) = match self.collected.take() {
            Some(collected) => (collected.encoder, collected.position),
            None => (BatchEncoder::with_room(self.bytes_max.max(bytes)), None),
        };
        let add = move || encoder.add(&block).map(|()| encoder).map_err(SyncError::from);
        let encoder = compute_over(bytes as u64, add).await?;
        self.bytes += bytes;
        self.rows += rows;
        self.blocks += 1;
        self.collected = Some(Collected { encoder, position: position.or(before), bytes: self.bytes as u64 });
        Ok(batch)
    }

    /// What was collected, if anything.
    pub(super) fn take(&mut self) -> Option<Collected> {
        (self.bytes, self.rows, self.blocks) = (0, 0, 0);
        self.collected.take()
    }
}
