//! Batches as an apply reads them: from disk or memory, one ahead, waiting for those that are still on their way.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use syncline::batch::{BatchInfo, Block};
use syncline::error::{Result, SyncError};
use syncline_engine::replica::ChangesEnd;
use syncline_engine::store::{BatchSource, DownloadSource};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::download::{DownloadParts, ListedBatch, Listing, stopped};
use super::session::{SessionParts, Way};

/// A batch that is decoded on a thread of its own.
type Decoding = JoinHandle<Result<Vec<Block>>>;

/// The batches of an upload or a download, verified and decoded as they are asked for. At most two are in memory: the
/// one that was answered last belongs to the caller, and the next one is decoded meanwhile.
#[derive(Debug)]
pub struct PartsSource {
    parts: Arc<SessionParts>,
    way: Way,
    listing: watch::Receiver<Listing>,
    ahead: Mutex<Option<(usize, Decoding)>>,
}

impl PartsSource {
    /// The batches of an upload: they are all here.
    pub(crate) fn of_upload(parts: Arc<SessionParts>, batches: &[BatchInfo]) -> Self {
        let listing = watch::Sender::new(Listing::whole(batches)).subscribe();
        Self { parts, way: Way::Up, listing, ahead: Mutex::default() }
    }

    /// The batches of a download, as they arrive.
    pub(crate) fn of_download(download: &DownloadParts) -> Self {
        let (parts, listing) = (download.parts().clone(), download.subscribe());
        Self { parts, way: Way::Down, listing, ahead: Mutex::default() }
    }

    /// The batch at `index` once it is here; `None` if there are not so many.
    async fn arrived(&self, index: usize) -> Result<Option<ListedBatch>> {
        let known = |listing: &Listing| {
            let complete = listing.batches.get(index).is_some_and(|batch| batch.complete);
            complete || listing.stopped || listing.total.is_some_and(|total| index >= total)
        };
        let mut receiver = self.listing.clone();
        // If the sender is gone, nothing changes any more: what is there decides.
        let _ = receiver.wait_for(known).await;
        let listing = receiver.borrow();
        if listing.stopped {
            return Err(stopped());
        }
        match listing.batches.get(index) {
            Some(batch) if batch.complete => Ok(Some(batch.clone())),
            None if listing.total.is_some() => Ok(None),
            _ => Err(stopped()),
        }
    }

    /// Begins to decode the batch at `index`, if it is here.
    fn look_ahead(&self, index: usize) {
        let next = self.listing.borrow().batches.get(index).filter(|batch| batch.complete).cloned();
        let ahead = next.map(|batch| (index, self.parts.decode_ahead(self.way, batch.info, batch.inline)));
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
    }

    fn take_ahead(&self, index: usize) -> Option<Decoding> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        ahead.filter(|(at, _)| *at == index).map(|(_, decoding)| decoding)
    }
}

#[async_trait]
impl BatchSource for PartsSource {
    async fn blocks(&self, index: usize) -> Result<Option<Vec<Block>>> {
        let Some(batch) = self.arrived(index).await? else { return Ok(None) };
        let blocks = match self.take_ahead(index) {
            Some(decoding) => decoding.await.map_err(SyncError::internal)??,
            None => self.parts.decode(self.way, batch.info, batch.inline).await?,
        };
        self.look_ahead(index + 1);
        Ok(Some(blocks))
    }
}

#[async_trait]
impl DownloadSource for PartsSource {
    async fn end(&self) -> Result<ChangesEnd> {
        let all_here = |listing: &Listing| {
            listing.stopped || (listing.end.is_some() && listing.batches.iter().all(|batch| batch.complete))
        };
        let mut receiver = self.listing.clone();
        let _ = receiver.wait_for(all_here).await;
        let listing = receiver.borrow();
        listing.end.clone().filter(|_| !listing.stopped).ok_or_else(stopped)
    }
}
