//! The bytes of an upload on their way, and the apply at the hub.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use syncline::batch::BatchInfo;
use syncline::conflict::{ConflictSummary, RowError};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchId, ReplicaId};
use syncline::limits::{CONFLICTS_LISTED_MAX, INLINE_BATCH_BYTES_MAX, INLINE_CALL_BYTES_MAX, ROW_ERRORS_MAX};
use syncline_engine::replica::{ApplyEvent, ApplyRequest, ApplyResult, BatchStatus, HubReplica, SessionRef};
use syncline_engine::store::PendingUpload;

use super::Run;
use super::begin::Session;
use super::progress::{Phase, Progress};
use super::retry::Backoff;
use crate::parts::SessionParts;

/// What the hub has made of an upload.
pub(super) struct Applied {
    pub(super) result: ApplyResult,
    pub(super) conflicts: Vec<ConflictSummary>,
    pub(super) row_errors: Vec<RowError>,
}

/// Sends one upload.
pub(super) struct Sender<'a> {
    hub: &'a dyn HubReplica,
    session: SessionRef,
    leaf: ReplicaId,
    parts: &'a Arc<SessionParts>,
    upload: &'a PendingUpload,
    clock_offset_us: i64,
    in_flight_max: usize,
    /// Inline bytes of one apply: what a call that breaks sends again is less than a batch.
    inline_bytes_max: u64,
    retry_for: Duration,
    progress: &'a Progress,
    /// The hub has applied it already: only the answer is wanted.
    applied: bool,
    /// What the hub has of each batch.
    at_hub: Mutex<HashMap<BatchId, BatchStatus>>,
    sent_batches: AtomicU64,
    sent_bytes: Arc<AtomicU64>,
}

impl<'a> Sender<'a> {
    pub(super) fn new(run: &Run<'a>, session: &'a Session, upload: &'a PendingUpload) -> Self {
        let begun = &session.begun;
        Self {
            hub: run.hub,
            session: session.reference,
            leaf: session.subscription.replica,
            parts: &session.parts,
            upload,
            clock_offset_us: session.clock_offset_us,
            in_flight_max: begun.agreement.batches_in_flight_max.max(1) as usize,
            inline_bytes_max: begun.agreement.batch_bytes_max.min(INLINE_CALL_BYTES_MAX as u64),
            retry_for: run.options.retry_for,
            progress: run.progress,
            applied: begun.resume.applied || begun.upload_mark == Some(upload.mark),
            at_hub: Mutex::new(begun.resume.uploads.iter().copied().collect()),
            sent_batches: AtomicU64::new(0),
            sent_bytes: Arc::default(),
        }
    }

    /// Batches and bytes that the hub had when the session was taken up.
    pub(super) fn there(&self) -> (u64, u64) {
        let mut there = (0, 0);
        for info in &self.upload.batches {
            match self.status(info) {
                _ if self.applied => there = (there.0 + 1, there.1 + info.stored_bytes),
                BatchStatus::Complete => there = (there.0 + 1, there.1 + info.stored_bytes),
                BatchStatus::Partial { committed_size } => there.1 += committed_size,
                BatchStatus::Absent | BatchStatus::Released => {}
            }
        }
        there
    }

    /// Batches and bytes that were sent.
    pub(super) fn sent(&self) -> (u64, u64) {
        (self.sent_batches.load(Ordering::Relaxed), self.sent_bytes.load(Ordering::Relaxed))
    }

    /// Sends what the hub lacks and has it apply all; at most `rounds_max` times, since the hub may find that it lacks
    /// bytes after all.
    pub(super) async fn send_and_apply(&self, rounds_max: u32) -> Result<Applied> {
        let mut applied = self.applied;
        let mut round = 1;
        loop {
            let inline = if applied { Vec::new() } else { self.inline() };
            if !applied {
                self.send(&inline).await?;
            }
            let error = match self.apply(&inline).await {
                Err(error) if round < rounds_max && wants_bytes(error.reason()) => error,
                outcome => return outcome,
            };
            tracing::debug!(?error, "the hub lacks bytes of the upload");
            round += 1;
            applied = false;
            self.verify().await?;
            // What it says that it has is not what it has: everything is offered again, and passed over there where
            // it is.
            self.at_hub.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// The batches that travel with the apply: small ones, up to a bound, that the hub does not have.
    fn inline(&self) -> Vec<BatchId> {
        let mut bytes = 0;
        let mut inline = Vec::new();
        for info in &self.upload.batches {
            let small = info.stored_bytes <= INLINE_BATCH_BYTES_MAX as u64;
            let fits = bytes + info.stored_bytes <= self.inline_bytes_max;
            if small && fits && self.status(info) != BatchStatus::Complete {
                bytes += info.stored_bytes;
                inline.push(info.id);
            }
        }
        inline
    }

    async fn send(&self, inline: &[BatchId]) -> Result<()> {
        self.progress.phase(Phase::Uploading);
        stream::iter(self.lacking(inline))
            .map(|info| async move { self.send_batch(&info).await })
            .buffer_unordered(self.in_flight_max)
            .try_collect::<()>()
            .await
    }

    /// What the hub lacks, but for the inline ones. Owned: a run whose streams' types name its lifetimes could not be
    /// given to a task of its own.
    fn lacking(&self, inline: &[BatchId]) -> Vec<BatchInfo> {
        let lacks =
            |info: &&BatchInfo| !inline.contains(&info.id) && self.status(info) != BatchStatus::Complete;
        self.upload.batches.iter().filter(lacks).cloned().collect()
    }

    /// Sends one batch, from where the hub has it on, until it has it all.
    async fn send_batch(&self, info: &BatchInfo) -> Result<()> {
        let mut backoff = Backoff::new(self.retry_for, self.progress);
        let (mut sent_again, mut went_back) = (false, false);
        let mut status = self.status(info);
        loop {
            let offset = match status {
                BatchStatus::Complete => break,
                BatchStatus::Partial { committed_size } => committed_size.min(info.stored_bytes),
                BatchStatus::Absent | BatchStatus::Released => 0,
            };
            let bytes = self.counted(self.parts.stream_upload(info, offset));
            let error = match self.hub.write_batch(self.session, info.clone(), offset, bytes).await {
                Ok(after) if after == BatchStatus::Complete || committed(after) > offset => {
                    backoff.progressed();
                    status = after;
                    continue;
                }
                Ok(_) => {
                    SyncError::new(ErrorReason::DatabaseUnavailable, "the service stored nothing of a batch")
                }
                Err(error) => error,
            };
            match error.reason() {
                ErrorReason::OffsetMismatch if !went_back => went_back = true,
                ErrorReason::BatchCorrupt if !sent_again => {
                    sent_again = true;
                    self.verify_batch(info).await?;
                }
                _ => backoff.pause_after(error).await?,
            }
            let before = offset;
            status = self.query(info, &mut backoff).await?;
            if committed(status) > before {
                backoff.progressed();
            }
        }
        self.at_hub.lock().unwrap_or_else(PoisonError::into_inner).insert(info.id, BatchStatus::Complete);
        self.sent_batches.fetch_add(1, Ordering::Relaxed);
        self.progress.update(|state| state.batches += 1);
        Ok(())
    }

    async fn query(&self, info: &BatchInfo, backoff: &mut Backoff<'_>) -> Result<BatchStatus> {
        loop {
            match self.hub.query_batch(self.session, info.id).await {
                Ok(status) => return Ok(status),
                // It has never heard of it.
                Err(error) if error.reason() == ErrorReason::BatchNotFound => return Ok(BatchStatus::Absent),
                Err(error) => backoff.pause_after(error).await?,
            }
        }
    }

    /// Counts bytes as they leave.
    fn counted(&self, bytes: BoxStream<'static, Result<Bytes>>) -> BoxStream<'static, Result<Bytes>> {
        let (sent, progress) = (self.sent_bytes.clone(), self.progress.clone());
        bytes
            .inspect_ok(move |chunk| {
                sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                progress
                    .update(|state| state.bytes = (state.bytes + chunk.len() as u64).min(state.bytes_total));
            })
            .boxed()
    }

    /// Applies at the hub; a call that breaks is repeated, and watches the apply or answers its stored result.
    async fn apply(&self, inline: &[BatchId]) -> Result<Applied> {
        self.progress.phase(Phase::ApplyingAtHub);
        let mut batches = Vec::with_capacity(self.upload.batches.len());
        let mut inline_bytes = 0;
        for info in &self.upload.batches {
            let bytes =
                if inline.contains(&info.id) { Some(self.parts.read_upload(info).await?) } else { None };
            inline_bytes += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
            batches.push((info.clone(), bytes));
        }
        self.sent_bytes.fetch_add(inline_bytes, Ordering::Relaxed);
        self.sent_batches.fetch_add(inline.len() as u64, Ordering::Relaxed);
        self.progress.update(|state| {
            state.bytes = (state.bytes + inline_bytes).min(state.bytes_total);
            state.batches = (state.batches + inline.len() as u64).min(state.batches_total);
        });
        let request = ApplyRequest {
            batches,
            made_with: self.upload.made_with.clone(),
            excepted_keys: self.upload.excepted_keys.clone(),
            leaf: self.leaf,
            leaf_clock: self.upload.leaf_clock.clone(),
            upload_mark: self.upload.mark,
            clock_offset_us: self.clock_offset_us,
        };
        let mut backoff = Backoff::new(self.retry_for, self.progress);
        let mut rows_most = 0;
        loop {
            match self.apply_once(request.clone(), &mut rows_most, &mut backoff).await {
                Ok(applied) => return Ok(applied),
                Err(error) => backoff.pause_after(error).await?,
            }
        }
    }

    /// An apply that has come further than any before it is progress; one that begins anew each time is not.
    async fn apply_once(
        &self,
        request: ApplyRequest,
        rows_most: &mut u64,
        backoff: &mut Backoff<'_>,
    ) -> Result<Applied> {
        let mut events = self.hub.apply(self.session, request).await?;
        let (mut conflicts, mut row_errors) = (Vec::new(), Vec::new());
        while let Some(event) = events.next().await {
            let event = event?;
            match event {
                ApplyEvent::Progress { rows, rows_total } => {
                    if rows > std::mem::replace(rows_most, rows.max(*rows_most)) {
                        backoff.progressed();
                    }
                    self.progress.update(|state| {
                        state.rows = rows;
                        state.rows_total = Some(rows_total);
                    });
                }
                ApplyEvent::Conflict(conflict) if conflicts.len() < CONFLICTS_LISTED_MAX => {
                    conflicts.push(conflict)
                }
                // The rest is in the hub's log.
                ApplyEvent::Conflict(_) => {}
                ApplyEvent::RowError(error) if row_errors.len() < ROW_ERRORS_MAX => row_errors.push(error),
                ApplyEvent::RowError(_) => {
                    return Err(SyncError::internal("more row errors than there may be"));
                }
                ApplyEvent::Result(result) => {
                    // A row that failed and is not named would be taken for accepted.
                    if result.row_errors != row_errors.len() as u64 {
                        return Err(SyncError::internal("the service did not name all rows that it refused"));
                    }
                    return Ok(Applied { result, conflicts, row_errors });
                }
            }
        }
        Err(SyncError::new(
            ErrorReason::DatabaseUnavailable,
            "the service ended its answer before the result",
        ))
    }

    fn status(&self, info: &BatchInfo) -> BatchStatus {
        let at_hub = self.at_hub.lock().unwrap_or_else(PoisonError::into_inner);
        at_hub.get(&info.id).copied().unwrap_or(BatchStatus::Absent)
    }

    async fn verify(&self) -> Result<()> {
        for info in &self.upload.batches {
            self.verify_batch(info).await?;
        }
        Ok(())
    }

    /// Whether it is our disk that is at fault; then the session is given up, and the rows are read anew.
    async fn verify_batch(&self, info: &BatchInfo) -> Result<()> {
        let damaged = |error: SyncError| {
            let text = "a batch in the directory beside the database was damaged; the upload begins anew";
            SyncError::new(ErrorReason::SessionState, text).with_detail(format!("{error:?}"))
        };
        self.parts.verify_upload(info).await.map_err(damaged)
    }
}

const fn committed(status: BatchStatus) -> u64 {
    match status {
        BatchStatus::Partial { committed_size } => committed_size,
        BatchStatus::Absent | BatchStatus::Released | BatchStatus::Complete => 0,
    }
}

/// Whether the hub lacks bytes that it was believed to have.
const fn wants_bytes(reason: ErrorReason) -> bool {
    matches!(reason, ErrorReason::BatchIncomplete | ErrorReason::BatchCorrupt)
}
