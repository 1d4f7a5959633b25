//! Batches on their way from the hub: listed, fetched several at a time, released once they are durable here. Small ones
//! come with the list.
//!
//! ```text
//!  list (GetChanges) --wanted--> fetch (DownloadBatch, in flight) --durable--> release (ReleaseBatches)
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use syncline::batch::{BatchInfo, content_bytes_max};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::BatchId;
use syncline_engine::replica::{Agreement, ChangesEvent, ChangesRequest, HubReplica, SessionRef};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Run;
use super::begin::Session;
use super::progress::Progress;
use super::retry::{Backoff, retry};
use crate::limits::{CHUNKS_WRITTEN_MAX, LISTED_WAITING_MAX, RELEASE_WAITING_MAX};
use crate::parts::{DownloadParts, Listed, ReceivedPart};

/// A batch that is to be fetched, with its bytes if they came with the list.
type Wanted = (BatchInfo, Option<Bytes>);

/// How far the list has come, over all its calls.
#[derive(Debug, Default)]
struct Heard {
    /// Batches at or after the first that is not durable are listed again after a failure: they are wanted once.
    wanted_up_to: u32,
    rows: u64,
}

impl Heard {
    /// Whether the list goes on. That it begins again says nothing: one that fails each time at the same place would be
    /// asked for without end.
    fn is_more(&mut self, event: &ChangesEvent) -> bool {
        match event {
            ChangesEvent::Begin(_) => false,
            ChangesEvent::Batch(info, _) => info.sequence.0 > self.wanted_up_to,
            ChangesEvent::Progress { rows, .. } => {
                let before = self.rows;
                self.rows = before.max(*rows);
                self.rows > before
            }
            ChangesEvent::End(_) => true,
        }
    }
}

/// The transfer of one download.
pub(super) struct Transfer<'a> {
    hub: &'a dyn HubReplica,
    session: SessionRef,
    parts: &'a DownloadParts,
    request: ChangesRequest,
    agreement: Agreement,
    scope_version: u32,
    retry_for: Duration,
    progress: &'a Progress,
    received_batches: AtomicU64,
    received_bytes: AtomicU64,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(run: &Run<'a>, session: &Session, parts: &'a DownloadParts) -> Self {
        let subscription = &session.subscription;
        let knowledge = if subscription.reinitialize { Bytes::new() } else { subscription.knowledge.clone() };
        Self {
            hub: run.hub,
            session: session.reference,
            parts,
            request: ChangesRequest {
                knowledge,
                excepted_keys: subscription.excepted_keys.clone(),
                first_sequence: 1,
            },
            agreement: session.begun.agreement,
            scope_version: subscription.schema.version,
            retry_for: run.options.retry_for,
            progress: run.progress,
            received_batches: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        }
    }

    /// Batches and bytes that came.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.received_batches.load(Ordering::Relaxed), self.received_bytes.load(Ordering::Relaxed))
    }

    /// Transfers everything. Dropped, it leaves what has come.
    pub(super) async fn run(&self) -> Result<()> {
        let (wanted, to_fetch) = mpsc::channel(LISTED_WAITING_MAX);
        let (durable, to_release) = mpsc::channel(RELEASE_WAITING_MAX);
        // Each ends when the one before it has: the senders are dropped.
        tokio::try_join!(self.list(wanted), self.fetch(to_fetch, durable), self.release(to_release))?;
        Ok(())
    }

    /// Lists the batches until the list is whole.
    async fn list(&self, wanted: mpsc::Sender<Wanted>) -> Result<()> {
        if self.parts.is_listed() {
            // An earlier run heard the end of it.
            for info in self.parts.wanted() {
                want(&wanted, info, None).await?;
            }
            return Ok(());
        }
        let mut backoff = Backoff::new(self.retry_for, self.progress);
        let mut heard = Heard::default();
        loop {
            match self.list_once(&wanted, &mut heard, &mut backoff).await {
                Ok(()) => return Ok(()),
                Err(error) => backoff.pause_after(error).await?,
            }
        }
    }

    async fn list_once(
        &self,
        wanted: &mpsc::Sender<Wanted>,
        heard: &mut Heard,
        backoff: &mut Backoff<'_>,
    ) -> Result<()> {
        let first_sequence = self.parts.first_sequence();
        let request = ChangesRequest { first_sequence, ..self.request.clone() };
        let mut events = self.hub.changes(self.session, request).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            if heard.is_more(&event) {
                backoff.progressed();
            }
            match event {
                ChangesEvent::Begin(begin) => self.parts.begin(begin).await?,
                ChangesEvent::Batch(info, inline) => {
                    self.check(&info)?;
                    let listed = self.parts.list(info.clone()).await?;
                    self.progress.update(|state| {
                        state.batches_total = state.batches_total.max(u64::from(info.sequence.0));
                        state.bytes_total += if listed == Listed::New { info.stored_bytes } else { 0 };
                    });
                    if listed != Listed::Complete && info.sequence.0 > heard.wanted_up_to {
                        heard.wanted_up_to = info.sequence.0;
                        want(wanted, info, inline).await?;
                    }
                }
                ChangesEvent::Progress { batches, .. } => self.progress.update(|state| {
                    state.batches_total = state.batches_total.max(u64::from(batches));
                }),
                ChangesEvent::End(end) => {
                    self.progress.update(|state| {
                        state.rows_total = Some(end.rows);
                        state.batches_total = u64::from(end.batches);
                    });
                    return self.parts.end(end).await;
                }
            }
        }
        Err(SyncError::new(ErrorReason::DatabaseUnavailable, "the service ended its list before the end"))
    }

    /// Whether the batch is one that was agreed upon.
    fn check(&self, info: &BatchInfo) -> Result<()> {
        let bound = content_bytes_max(self.agreement.batch_bytes_max, self.agreement.row_bytes_max);
        if info.decoded_bytes > bound {
            let text = format!(
                "the service sends a batch of {} bytes; at most {bound} were agreed",
                info.decoded_bytes
            );
            return Err(SyncError::new(ErrorReason::BatchTooLarge, text).with("batch_id", info.id));
        }
        if info.scope_version != self.scope_version {
            let text = "the service sends a batch of another version of the scope";
            return Err(SyncError::new(ErrorReason::SessionState, text).with("batch_id", info.id));
        }
        Ok(())
    }

    async fn fetch(&self, to_fetch: mpsc::Receiver<Wanted>, durable: mpsc::Sender<BatchId>) -> Result<()> {
        let in_flight = self.agreement.batches_in_flight_max.max(1) as usize;
        let durable = &durable;
        ReceiverStream::new(to_fetch)
            .map(|(info, inline)| async move {
                if !self.take_inline(&info, inline) {
                    self.fetch_batch(&info).await?;
                    // Who releases goes on for as long as we do; if it failed, so does the whole.
                    let _ = durable.send(info.id).await;
                }
                Ok(())
            })
            .buffer_unordered(in_flight)
            .try_collect::<()>()
            .await
    }

    /// Whether the batch came inline and is kept in memory: it is small, the hub keeps it to the end of the session, and
    /// lists it again to a client that was killed. One that is not is fetched like any other.
    fn take_inline(&self, info: &BatchInfo, inline: Option<Bytes>) -> bool {
        let Some(bytes) = inline else { return false };
        let length = bytes.len() as u64;
        let kept = self.parts.keep_inline(info, bytes).unwrap_or_else(|error| {
            tracing::warn!(batch = %info.id, ?error, "a batch came damaged; it is fetched once more");
            false
        });
        if kept {
            self.count(length);
            self.received();
        }
        kept
    }

    /// Brings one batch onto the disk: from where an earlier attempt got to, and once more from 0 if it is damaged.
    async fn fetch_batch(&self, info: &BatchInfo) -> Result<()> {
        let mut part = self.parts.receive(info.clone()).await?;
        let mut backoff = Backoff::new(self.retry_for, self.progress);
        let mut came_damaged = false;
        loop {
            let finished = match self.receive(info, &mut part, &mut backoff).await {
                Ok(()) if part.is_whole() => part.finish().await,
                Ok(()) => Err(SyncError::new(
                    ErrorReason::DatabaseUnavailable,
                    "the service ended a batch too early",
                )),
                Err(error) => Err(error),
            };
            let error = match finished {
                Ok(()) => {
                    self.received();
                    return Ok(());
                }
                Err(error) => error,
            };
            let damaged = matches!(error.reason(), ErrorReason::BatchCorrupt | ErrorReason::OffsetMismatch);
            if damaged && !came_damaged {
                tracing::warn!(batch = %info.id, ?error, "a batch came damaged; it is fetched once more");
                came_damaged = true;
                part.restart().await?;
                continue;
            }
            backoff.pause_after(error).await?;
        }
    }

    async fn receive(
        &self,
        info: &BatchInfo,
        part: &mut ReceivedPart,
        backoff: &mut Backoff<'_>,
    ) -> Result<()> {
        if part.is_whole() {
            return Ok(());
        }
        let chunks = self.hub.read_batch(self.session, info.id, part.length()).await?;
        // Whatever has come is written at once: each write is a trip to another thread.
        let mut chunks = chunks.ready_chunks(CHUNKS_WRITTEN_MAX);
        while let Some(come) = chunks.next().await {
            let mut broken = Ok(());
            let mut whole = Vec::with_capacity(come.len());
            for chunk in come {
                match chunk {
                    Ok(chunk) => whole.push(chunk),
                    Err(error) => broken = Err(error),
                }
            }
            let length = whole.iter().map(|chunk| chunk.len() as u64).sum();
            if length > 0 {
                part.append(whole).await?;
                backoff.progressed();
                self.count(length);
            }
            broken?;
        }
        Ok(())
    }

    /// A batch is here.
    fn received(&self) {
        self.received_batches.fetch_add(1, Ordering::Relaxed);
        self.progress.update(|state| state.batches += 1);
    }

    fn count(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.progress.update(|state| state.bytes += bytes);
    }

    /// Tells the hub what is durable here, as many as have come about at once.
    async fn release(&self, mut to_release: mpsc::Receiver<BatchId>) -> Result<()> {
        let mut batches = Vec::new();
        while to_release.recv_many(&mut batches, RELEASE_WAITING_MAX).await > 0 {
            let released =
                retry(self.retry_for, self.progress, || self.hub.release(self.session, &batches)).await;
            match released {
                // Released already: the answer of an earlier call was lost.
                Err(error) if error.reason() == ErrorReason::BatchNotFound => {}
                other => other?,
            }
            batches.clear();
        }
        Ok(())
    }
}

async fn want(wanted: &mpsc::Sender<Wanted>, info: BatchInfo, inline: Option<Bytes>) -> Result<()> {
    let gone = |_| SyncError::internal("nobody fetches batches any more");
    wanted.send((info, inline)).await.map_err(gone)
}
