//! The hub's changes come here: transferred into parts, applied in the local database.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::{Either, join, select};
use syncline::error::{CommitOutcome, ErrorReason, Result};
use syncline_engine::store::{DownloadJob, DownloadReport};

use super::Run;
use super::begin::Session;
use super::options::ApplyMode;
use super::progress::Phase;
use super::retry::Backoff;
use super::transfer::Transfer;
use crate::limits::PROGRESS_INTERVAL;
use crate::parts::{DownloadParts, PartsSource};

/// Tells who waits for batches that none will come, however the download is left: so a store that applies on a thread
/// of its own rolls back.
struct StopOnDrop<'a>(&'a DownloadParts);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Run<'_> {
    /// Downloads and applies what the stored knowledge lacks; all of it if that can't be served from.
    pub(super) async fn download(&mut self, session: &mut Session) -> Result<()> {
        if !self.options.direction.downloads() {
            return Ok(());
        }
        if !session.subscription.download_started {
            session.subscription.download_started = true;
            session.is_stored = false;
        }
        let report = match self.download_once(session).await {
            Err(error)
                if error.reason() == ErrorReason::ReinitializeRequired
                    && !session.subscription.reinitialize =>
            {
                // What is pending was uploaded before; everything is compared now.
                session.subscription.reinitialize = true;
                self.save(&session.subscription).await?;
                session.is_stored = true;
                session.parts.remove_downloads().await?;
                self.download_once(session).await?
            }
            outcome => outcome?,
        };
        self.report.downloaded.upserts += report.upserts;
        self.report.downloaded.deletes += report.deletes;
        self.report.conflicts += report.conflicts;
        self.report.row_errors += report.row_errors.len() as u64;
        session.conflicts_here = report.conflicts;
        session.row_errors_here = report.row_errors.len() as u64;
        self.report.row_errors_here.extend(report.row_errors);
        // The store has changed it: knowledge, mark, excepted keys.
        session.subscription = self.stored().await?;
        Ok(())
    }

    async fn download_once(&mut self, session: &Session) -> Result<DownloadReport> {
        self.progress.begin(Phase::Downloading);
        let parts = DownloadParts::open(session.parts.clone()).await?;
        let (batches_kept, bytes_kept) = parts.kept().await?;
        self.report.resumed_bytes += bytes_kept;
        self.progress.update(|state| state.bytes_total = parts.listed_bytes());
        self.progress.resumed(batches_kept, bytes_kept, parts.listed_bytes());
        let _stop = StopOnDrop(&parts);
        let transfer = Transfer::new(self, session, &parts);
        let outcome = self.transfer_and_apply(session, &parts, &transfer).await;
        let (batches, bytes) = transfer.totals();
        self.report.downloaded.batches += batches;
        self.report.downloaded.bytes += bytes;
        outcome
    }

    async fn transfer_and_apply(
        &self,
        session: &Session,
        parts: &DownloadParts,
        transfer: &Transfer<'_>,
    ) -> Result<DownloadReport> {
        if !self.applies_while_transferring(session) {
            // Both to their ends: what is saved must not be overtaken by what is saved after a failure.
            let (noted, transferred) = join(self.note_begun(session), transfer.run()).await;
            transferred.and(noted)?;
            self.progress.phase(Phase::Applying);
            return self.apply_here(session, parts).await;
        }
        self.note_begun(session).await?;
        let (transferred, applied) = (pin!(transfer.run()), pin!(self.apply_here(session, parts)));
        match select(transferred, applied).await {
            Either::Left((Ok(()), applied)) => {
                self.progress.phase(Phase::Applying);
                applied.await
            }
            Either::Left((Err(error), applied)) => {
                parts.stop();
                // It ends with an error of its own, rolled back; the transfer's says why.
                let _ = applied.await;
                Err(error)
            }
            // All batches were there: what the transfer still does is to release them, and so does the session's end.
            Either::Right((outcome, _)) => outcome,
        }
    }

    /// Stores that the download has begun, and of which session, if that is not stored yet. Lost, the hub says so, and
    /// refuses an upload; a run that is killed before it loses no more than has come by then.
    async fn note_begun(&self, session: &Session) -> Result<()> {
        if session.is_stored { Ok(()) } else { self.save_losable(&session.subscription).await }
    }

    /// SQLite's write lock is not held over a download, a first one into empty tables aside.
    fn applies_while_transferring(&self, session: &Session) -> bool {
        let subscription = &session.subscription;
        match self.options.apply {
            ApplyMode::AfterTransfer => false,
            ApplyMode::PerBatch => true,
            ApplyMode::Once => {
                subscription.knowledge.is_empty() && !subscription.reinitialize && !subscription.diverged
            }
        }
    }

    /// Applies the download; a lock that does not come in time is waited for.
    async fn apply_here(&self, session: &Session, parts: &DownloadParts) -> Result<DownloadReport> {
        let begin = parts.begun().await?;
        let source = Arc::new(PartsSource::of_download(parts));
        let mut backoff = Backoff::new(self.options.retry_for, self.progress);
        let mut stored = Some(session.subscription.clone());
        loop {
            let job = DownloadJob {
                session: session.reference.id,
                begin: begin.clone(),
                per_batch: self.options.apply == ApplyMode::PerBatch,
                clock_offset_us: session.clock_offset_us,
            };
            // Read anew for another attempt: with a transaction a batch, the one before may have come some way.
            let subscription = match stored.take() {
                Some(subscription) => subscription,
                None => self.stored().await?,
            };
            let rows_done = Arc::new(AtomicU64::new(0));
            let applying = self.store.apply_download(&subscription, job, source.clone(), rows_done.clone());
            let error = match self.watched(applying, &rows_done).await {
                Ok(report) => return Ok(report),
                Err(error) => error,
            };
            if error.commit_outcome() == CommitOutcome::Unknown && self.stored().await?.applied {
                // Committed, and only the answer was lost; what it did is in the database.
                return Ok(DownloadReport::default());
            }
            if parts.is_stopped() {
                return Err(error);
            }
            backoff.pause_after(error).await?;
        }
    }

    /// Shows the rows that are done while it waits.
    async fn watched<T>(&self, applying: impl Future<Output = T>, rows_done: &AtomicU64) -> T {
        let mut applying = pin!(applying);
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                outcome = &mut applying => {
                    self.progress.update(|state| state.rows = rows_done.load(Ordering::Relaxed));
                    return outcome;
                }
                _ = tick.tick() => {
                    self.progress.update(|state| state.rows = rows_done.load(Ordering::Relaxed));
                }
            }
        }
    }

    async fn stored(&self) -> Result<syncline_engine::store::Subscription> {
        let stored = self.store.subscription(&self.options.scope).await?;
        stored
            .ok_or_else(|| syncline::error::SyncError::internal("the subscription is gone from the database"))
    }
}
