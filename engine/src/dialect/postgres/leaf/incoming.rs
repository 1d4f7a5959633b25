//! The blocks of a download as an apply comes by them, batch by batch.

use syncline::batch::Block;
use syncline::error::{Result, SyncError};

use crate::store::DownloadSource;

/// The batch that is being applied, and how far. No other is held.
pub(super) struct Incoming<'s> {
    source: &'s dyn DownloadSource,
    /// The batch that is read next.
    next: u32,
    blocks: Vec<Block>,
    /// Blocks that are done.
    done: usize,
    ended: bool,
}

/// A place among the blocks that can be gone back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    next: u32,
    done: usize,
}

impl<'s> Incoming<'s> {
    /// From this batch on.
    pub(super) const fn from(source: &'s dyn DownloadSource, next: u32) -> Self {
        Self { source, next, blocks: Vec::new(), done: 0, ended: false }
    }

    /// What is left of the batch.
    pub(super) fn left(&self) -> &[Block] {
        self.blocks.get(self.done..).unwrap_or_default()
    }

    /// These blocks, the first that are left, are done.
    pub(super) fn pass(&mut self, blocks: usize) {
        self.done += blocks;
    }

    /// Waits for the next batch. Answers `false` after the last.
    pub(super) async fn read(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.blocks = Vec::new();
        self.done = 0;
        let index = usize::try_from(self.next).map_err(SyncError::internal)?;
        let Some(blocks) = self.source.blocks(index).await? else {
            self.ended = true;
            return Ok(false);
        };
        self.blocks = blocks;
        self.next += 1;
        Ok(true)
    }

    /// The number of the batch that is read next.
    pub(super) const fn next(&self) -> u32 {
        self.next
    }

    /// Where we are.
    pub(super) const fn place(&self) -> Place {
        Place { next: self.next, done: self.done }
    }

    /// Goes back to a place; batches are read again if it lies before the present one.
    pub(super) async fn go_back(&mut self, place: Place) -> Result<()> {
        if self.ended || self.next != place.next {
            self.ended = false;
            self.next = place.next - 1;
            self.read().await?;
        }
        self.done = place.done;
        Ok(())
    }
}
