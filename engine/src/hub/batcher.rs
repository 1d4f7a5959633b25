//! Collects blocks into batches of the agreed size.

use syncline::batch::Block;
use syncline::limits::{BATCH_BLOCKS_MAX, BATCH_ROWS_MAX};

use crate::store::{EnumeratedBlock, Position};

/// Blocks that make up a batch, and where the enumeration goes on after them.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) blocks: Vec<Block>,
    pub(super) position: Option<Position>,
}

/// Collects blocks into batches.
#[derive(Debug)]
pub(super) struct Batcher {
    bytes_max: usize,
    bytes: usize,
    rows: usize,
    collected: Collected,
}

impl Batcher {
    pub(super) fn new(batch_bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(batch_bytes_max).unwrap_or(usize::MAX);
        Self { bytes_max, bytes: 0, rows: 0, collected: Collected::default() }
    }

    /// Adds a block; answers the batch that was full before it. A block that is larger than a batch (one large row)
    /// makes a batch of its own.
    pub(super) fn push(&mut self, next: EnumeratedBlock) -> Option<Collected> {
        let (bytes, rows) = (next.block.encoded_bytes(), next.block.rows());
        let full = self.bytes + bytes > self.bytes_max
            || self.rows + rows > BATCH_ROWS_MAX as usize
            || self.collected.blocks.len() == BATCH_BLOCKS_MAX;
        let batch = if full { self.take() } else { None };
        self.bytes += bytes;
        self.rows += rows;
        self.collected.blocks.push(next.block);
        self.collected.position = next.position.or(self.collected.position.take());
        batch
    }

    /// What was collected, if anything.
    pub(super) fn take(&mut self) -> Option<Collected> {
        self.bytes = 0;
        self.rows = 0;
        let collected = std::mem::take(&mut self.collected);
        (!collected.blocks.is_empty()).then_some(collected)
    }
}
