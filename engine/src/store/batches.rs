//! Batches as an apply reads them: by index, as often as it likes (a second pass reads them again).

use async_trait::async_trait;
use syncline::batch::Block;
use syncline::error::Result;

use crate::replica::ChangesEnd;

/// Batches in order of their sequence, verified and decoded.
#[async_trait]
pub trait BatchSource: Send + Sync {
    /// The blocks of the batch at `index`, from 0; `None` after the last. Waits for a batch that is still on its way.
    async fn blocks(&self, index: usize) -> Result<Option<Vec<Block>>>;
}

/// The batches of a download, and how it ended.
#[async_trait]
pub trait DownloadSource: BatchSource {
    /// What the leaf learns. Answers once all batches are there: to be asked after [`BatchSource::blocks`] answered
    /// `None`.
    async fn end(&self) -> Result<ChangesEnd>;
}
