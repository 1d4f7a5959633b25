//! Batches as an apply reads them: from disk or memory, one ahead, waiting for those that are still on their way.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use syncline::batch::{BatchInfo, Block};
use syncline::error::{Result, SyncError};
use syncline_engine::replica::ChangesEnd;
use syncline_engine::store::{BatchSource, DownloadSource};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::download::{DownloadParts, ListedBatch, Listing, stopped};
use super::session::{SessionParts, Way};

/// The batches of an upload or a download, verified and decoded as they are asked for. At most two are in memory: the
/// one that was answered last belongs to the caller, and the next one is decoded meanwhile, as soon as it is here.
#[derive(Debug)]
pub struct PartsSource {
    reader: Reader,
    ahead: Mutex<Option<Ahead>>,
}

/// The batch that will be asked for next, if all goes its usual way.
#[derive(Debug)]
struct Ahead {
    index: usize,
    decoding: AbortOnDropHandle<Result<Option<Vec<Block>>>>,
}

/// Reads batches in any order.
#[derive(Debug, Clone)]
struct Reader {
    parts: Arc<SessionParts>,
    way: Way,
    listing: watch::Receiver<Listing>,
}

impl Reader {
    /// The batch at `index` once it is here; `None` if there are not so many.
    async fn blocks(mut self, index: usize) -> Result<Option<Vec<Block>>> {
        let Some(batch) = self.arrived(index).await? else { return Ok(None) };
        self.parts.decode(self.way, batch.info, batch.inline).await.map(Some)
    }

    async fn arrived(&mut self, index: usize) -> Result<Option<ListedBatch>> {
        let known = |listing: &Listing| {
            let complete = listing.batches.get(index).is_some_and(|batch| batch.complete);
            complete || listing.stopped || listing.total.is_some_and(|total| index >= total)
        };
        // If the sender is gone, nothing changes any more: what is there decides.
        let _ = self.listing.wait_for(known).await;
        let listing = self.listing.borrow();
        if listing.stopped {
            return Err(stopped());
        }
        match listing.batches.get(index) {
            Some(batch) if batch.complete => Ok(Some(batch.clone())),
            None if listing.total.is_some() => Ok(None),
            _ => Err(stopped()),
        }
    }
}

impl PartsSource {
    /// The batches of an upload: they are all here.
    pub(crate) fn of_upload(parts: Arc<SessionParts>, batches: &[BatchInfo]) -> Self {
        let listing = watch::Sender::new(Listing::whole(batches)).subscribe();
        Self { reader: Reader { parts, way: Way::Up, listing }, ahead: Mutex::default() }
    }

    /// The batches of a download, as they arrive.
    pub(crate) fn of_download(download: &DownloadParts) -> Self {
        let (parts, listing) = (download.parts().clone(), download.subscribe());
        Self { reader: Reader { parts, way: Way::Down, listing }, ahead: Mutex::default() }
    }

    fn look_ahead(&self, index: usize) {
        let decoding = AbortOnDropHandle::new(self.reader.parts.spawn(self.reader.clone().blocks(index)));
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ahead { index, decoding });
    }

    fn take_ahead(&self, index: usize) -> Option<Ahead> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        ahead.filter(|ahead| ahead.index == index)
    }
}

#[async_trait]
impl BatchSource for PartsSource {
    async fn blocks(&self, index: usize) -> Result<Option<Vec<Block>>> {
        let blocks = match self.take_ahead(index) {
            Some(ahead) => ahead.decoding.await.map_err(SyncError::internal)??,
            None => self.reader.clone().blocks(index).await?,
        };
        if blocks.is_some() {
            self.look_ahead(index + 1);
        }
        Ok(blocks)
    }
}

#[async_trait]
impl DownloadSource for PartsSource {
    async fn end(&self) -> Result<ChangesEnd> {
        let all_here = |listing: &Listing| {
            listing.stopped || (listing.end.is_some() && listing.batches.iter().all(|batch| batch.complete))
        };
        let mut receiver = self.reader.listing.clone();
        let _ = receiver.wait_for(all_here).await;
        let listing = receiver.borrow();
        listing.end.clone().filter(|_| !listing.stopped).ok_or_else(stopped)
    }
}
