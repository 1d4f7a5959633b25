//! The blocks of an upload as they are staged: those of one batch, and the next batch at hand.

use std::collections::VecDeque;

use syncline::batch::Block;
use syncline::error::Result;
use syncline::ids::TableId;

use crate::store::BatchSource;

/// The batch that is being staged, and the one after it.
pub(super) struct Incoming<'b> {
    pub(super) blocks: VecDeque<Block>,
    pub(super) ahead: Ahead<'b>,
}

impl<'b> Incoming<'b> {
    pub(super) const fn new(batches: &'b dyn BatchSource) -> Self {
        let ahead = Ahead { batches, index: 0, following: None, ended: false };
        Self { blocks: VecDeque::new(), ahead }
    }

    /// The table of the next block; `None` after the last.
    pub(super) async fn table(&mut self) -> Result<Option<TableId>> {
        loop {
            if let Some(block) = self.blocks.front() {
                return Ok(Some(block.table));
            }
            self.ahead.read().await?;
            match self.ahead.following.take() {
                Some(following) => self.blocks = following.into(),
                None => return Ok(None),
            }
        }
    }
}

/// The batch that is staged next.
pub(super) struct Ahead<'b> {
    batches: &'b dyn BatchSource,
    /// The batch that is read next.
    index: usize,
    following: Option<Vec<Block>>,
    ended: bool,
}

impl Ahead<'_> {
    /// Has the next batch at hand, if there is one.
    pub(super) async fn read(&mut self) -> Result<()> {
        if self.following.is_none() && !self.ended {
            self.following = self.batches.blocks(self.index).await?;
            self.index += 1;
            self.ended = self.following.is_none();
        }
        Ok(())
    }
}
