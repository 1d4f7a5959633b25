//! ApplyChanges: one apply a session, exactly once, as a task of the session and not of the call.
//!
//! **Invariant:** the apply's transaction claims the session under a unique key first and stores the result last. So an
//! apply that is called for twice (a repeated call, a second process) is done once, and both hear the same result.
//!
//! **Invariant:** an apply ends before its session does. Whoever ends a session (EndSession, a newer session of the same
//! replica, the end of the lease) first stops the apply and waits for its end; an apply of another process holds the
//! session's row, so that the row can't go before it. So once a session has ended, its upload is either recorded as
//! applied, with its result, or nothing of it was applied, and that is final: no apply of an ended session commits into
//! the next session of the replica.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use syncline::batch::{BatchInfo, Block};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchId, ColumnId, SessionId, TableId};
use syncline::knowledge::Knowledge;
use syncline::limits::{
    CONFLICTS_LISTED_MAX, INLINE_BATCH_BYTES_MAX, INLINE_CALL_BYTES_MAX, UPLOAD_BATCHES_MAX,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::session::CheckedSession;
use super::tasks::settled;
use super::upload::check_acceptable;
use super::{Hub, excepted, session_state, upload_block, view};
use crate::compute::compute_over;
use crate::dialect::meta::batches::{self, Stored, Way};
use crate::dialect::meta::{applies, conflicts, row_errors, sessions};
use crate::limits::PROGRESS_INTERVAL;
use crate::replica::{ApplyEvent, ApplyRequest, ApplyResult, SessionRef};
use crate::spool::Spool;
use crate::store::{BatchSource, StoredScope, UploadJob, session_has_ended};

/// An apply, as calls of the session see it.
pub(super) struct ApplyTask {
    digest: [u8; 32],
    rows_done: Arc<AtomicU64>,
    rows_total: u64,
    outcome: watch::Sender<Option<Result<ApplyResult>>>,
    /// Cancelled: the apply is to be given up.
    stop: CancellationToken,
    /// Cancelled once the task has ended, however.
    done: CancellationToken,
}

impl ApplyTask {
    pub(super) fn has_failed(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Err(_)))
    }

    /// Gives the apply up, and answers when it has ended: committed or rolled back.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.done.cancelled().await;
    }
}

impl Hub {
    pub(super) async fn apply_changes(
        &self,
        session: SessionRef,
        request: ApplyRequest,
    ) -> Result<BoxStream<'static, Result<ApplyEvent>>> {
        let checked = self.checked(session).await?;
        check_list(&request)?;
        if request.leaf != checked.row.replica {
            return Err(SyncError::invalid(
                "leaf_clock.replica_id",
                "is not the replica that began the session",
            ));
        }
        let digest = list_digest(&request);
        if let Some(result) = self.stored_result(session.id, &digest).await? {
            return self.report(session.id, result).await;
        }
        if checked.row.document.enumeration.is_some() || self.tasks().enumerates(session.id) {
            return Err(session_state(
                "nothing can be applied once GetChanges was called; begin a new session",
            ));
        }
        if checked.row.document.apply.is_some_and(|claimed| claimed != digest) {
            return Err(other_list());
        }
        let task = match self.tasks().apply(session.id).filter(|task| !task.has_failed()) {
            Some(running) if running.digest == digest => running,
            Some(_) => return Err(other_list()),
            None => self.start_apply(checked, request, digest).await?,
        };
        Ok(self.watch_apply(session.id, task))
    }

    /// The result of an apply that has committed: whoever asks hears it again.
    async fn stored_result(&self, session: SessionId, digest: &[u8; 32]) -> Result<Option<ApplyResult>> {
        let rows = self.store().read(applies::load(session)).await?;
        match rows.first().map(applies::from_row).transpose()? {
            Some((applied, _)) if applied != *digest => Err(other_list()),
            Some((_, result)) => Ok(result),
            None => Ok(None),
        }
    }

    async fn start_apply(
        &self,
        session: CheckedSession,
        request: ApplyRequest,
        digest: [u8; 32],
    ) -> Result<Arc<ApplyTask>> {
        let source = self.upload_source(&session, &request).await?;
        let stop = self.tasks().apply_stop();
        let job = upload_job(&session, &request, digest, stop.clone())?;
        self.note_apply(&session, digest).await?;
        let rows_total = job.batches.iter().map(|batch| u64::from(batch.rows)).sum();
        let task = Arc::new(ApplyTask {
            digest,
            rows_done: Arc::default(),
            rows_total,
            outcome: watch::Sender::new(None),
            stop,
            done: CancellationToken::new(),
        });
        let kept = self.tasks().keep_apply(session.row.id, task.clone());
        if Arc::ptr_eq(&kept, &task) {
            let hub = self.clone();
            self.tasks().spawn(async move {
                let _done = task.done.clone().drop_guard();
                let outcome = settled(hub.run_apply(job, source, task.rows_done.clone())).await;
                task.outcome.send_replace(Some(outcome));
            });
        }
        Ok(kept)
    }

    async fn run_apply(
        &self,
        job: UploadJob,
        source: Arc<dyn BatchSource>,
        rows_done: Arc<AtomicU64>,
    ) -> Result<ApplyResult> {
        let (session, batches, digest) = (job.session, job.batches.clone(), job.list_digest);
        let stop = job.stop.clone();
        let report = match self.store().apply_upload(job, source, rows_done).await {
            Ok(report) => report.result,
            // The connection broke during the commit: only a look into the database tells.
            Err(error) if error.commit_outcome() == syncline::error::CommitOutcome::Unknown => {
                self.stored_result(session, &digest).await?.ok_or(error)?
            }
            Err(error) if stop.is_cancelled() => {
                tracing::info!(%session, %error, "an apply was given up");
                // Draining, the session goes on elsewhere; else it has ended.
                self.tasks().check_taking_sessions()?;
                return Err(session_has_ended(session));
            }
            Err(error) => {
                tracing::warn!(%session, %error, detail = error.detail(), "the upload could not be applied");
                return Err(error);
            }
        };
        // The result is stored: the bytes are not needed any more. What can't be freed now, the sweep frees.
        for batch in batches {
            if let Err(error) = self.spool().delete_batch(session, batch.id).await {
                tracing::warn!(%session, %error, "an applied batch could not be freed");
            }
        }
        Ok(report)
    }

    /// Notes which list the session applies: another one is refused from now on.
    pub(super) async fn note_apply(&self, session: &CheckedSession, digest: [u8; 32]) -> Result<()> {
        let mut document = session.row.document.clone();
        document.apply = Some(digest);
        let mut transaction = self.store().begin().await?;
        let saved = transaction.run(sessions::save(session.row.id, session.row.token, &document)?).await?;
        if saved.is_empty() {
            drop(transaction);
            return Err(self.gone_or_superseded(session.row.id).await);
        }
        transaction.commit().await
    }

    /// The batches: small ones from the call, the others from the spool, all whole.
    async fn upload_source(
        &self,
        session: &CheckedSession,
        request: &ApplyRequest,
    ) -> Result<Arc<dyn BatchSource>> {
        let mut complete = HashMap::new();
        for row in self.store().read(batches::of_session(session.row.id, Way::Up)).await? {
            let row = batches::from_row(&row)?;
            complete.insert(row.info.id, row);
        }
        let mut inline = HashMap::new();
        for (info, bytes) in &request.batches {
            check_acceptable(session, info)?;
            if let Some(bytes) = bytes {
                info.verify(bytes)?;
                inline.insert(info.id, bytes.clone());
                continue;
            }
            let stored = complete.get(&info.id).filter(|row| row.info == *info);
            if stored.is_none_or(|row| row.stored != Stored::Complete) {
                let committed = self.spool().committed_size(session.row.id, info.id).await?;
                return Err(SyncError::new(
                    ErrorReason::BatchIncomplete,
                    "not all bytes of a batch have arrived; upload the rest first",
                )
                .with("batch_id", info.id)
                .with("committed_size", committed));
            }
        }
        Ok(Arc::new(UploadSource {
            session: session.row.id,
            spool: self.spool().clone(),
            scope: session.scope.clone(),
            batch_bytes_max: session.row.document.agreement.batch_bytes_max,
            infos: request.batches.iter().map(|(info, _)| info.clone()).collect(),
            inline,
        }))
    }

    fn watch_apply(
        &self,
        session: SessionId,
        task: Arc<ApplyTask>,
    ) -> BoxStream<'static, Result<ApplyEvent>> {
        let hub = self.clone();
        let outcome = task.outcome.subscribe();
        let progress = stream::unfold((task, outcome, false), move |(task, mut outcome, ended)| {
            let hub = hub.clone();
            async move {
                if ended {
                    return None;
                }
                let settled = tokio::select! {
                    biased;
                    settled = outcome.wait_for(Option::is_some) => Some(settled.map(|settled| settled.clone())),
                    () = tokio::time::sleep(PROGRESS_INTERVAL) => None,
                };
                let events = match settled {
                    None => {
                        let rows = task.rows_done.load(Ordering::Relaxed);
                        let event = ApplyEvent::Progress { rows, rows_total: task.rows_total };
                        return Some((stream::iter(vec![Ok(event)]).boxed(), (task, outcome, false)));
                    }
                    Some(Ok(Some(Ok(result)))) => hub.report(session, result).await,
                    Some(Ok(Some(Err(error)))) => Err(error),
                    Some(Ok(None) | Err(_)) => Err(SyncError::internal("the apply's task is gone")),
                };
                let events = events.unwrap_or_else(|error| stream::iter(vec![Err(error)]).boxed());
                Some((events, (task, outcome, true)))
            }
        });
        progress.flatten().boxed()
    }

    /// Conflicts and row errors from their tables, then the result. Bounded by CONFLICTS_LISTED_MAX (the log has all)
    /// and ROW_ERRORS_MAX (more fail the apply): all row errors are told, as a row that is not named counts as accepted.
    async fn report(
        &self,
        session: SessionId,
        result: ApplyResult,
    ) -> Result<BoxStream<'static, Result<ApplyEvent>>> {
        let mut events = Vec::new();
        let listed_max = i64::try_from(CONFLICTS_LISTED_MAX).unwrap_or(i64::MAX);
        for row in self.store().read(conflicts::of_session(session, listed_max)).await? {
            events.push(Ok(ApplyEvent::Conflict(conflicts::from_row(&row)?.summary)));
        }
        for row in self.store().read(row_errors::of_session(session)).await? {
            events.push(Ok(ApplyEvent::RowError(row_errors::from_row(&row)?)));
        }
        events.push(Ok(ApplyEvent::Result(result)));
        Ok(stream::iter(events).boxed())
    }
}

/// Batches of an upload, verified and decoded when they are asked for.
struct UploadSource {
    session: SessionId,
    spool: Spool,
    scope: Arc<StoredScope>,
    /// As the session has agreed.
    batch_bytes_max: u64,
    infos: Vec<BatchInfo>,
    inline: HashMap<BatchId, Bytes>,
}

#[async_trait]
impl BatchSource for UploadSource {
    async fn blocks(&self, index: usize) -> Result<Option<Vec<Block>>> {
        let Some(info) = self.infos.get(index).cloned() else { return Ok(None) };
        let stored = match self.inline.get(&info.id) {
            Some(bytes) => bytes.clone(),
            None => self.spool.read_all(self.session, info.id).await?,
        };
        let (scope, bytes_max) = (self.scope.clone(), self.batch_bytes_max);
        let bytes = info.decoded_bytes;
        let decode = move || {
            let blocks = info.decode_within(&stored, bytes_max);
            let blocks = blocks.map_err(|error| SyncError::from(error).with("batch_id", info.id))?;
            upload_block::check(&scope.schema, info.scope_version, &blocks)?;
            Ok(blocks)
        };
        compute_over(bytes, decode).await.map(Some)
    }
}

fn upload_job(
    session: &CheckedSession,
    request: &ApplyRequest,
    list_digest: [u8; 32],
    stop: CancellationToken,
) -> Result<UploadJob> {
    let scope = session.scope.clone();
    let stored = view::known_of_view(&request.made_with, &scope)?;
    let made_with = excepted::made_with(stored, &request.excepted_keys, &scope)?;
    Ok(UploadJob {
        session: session.row.id,
        leaf: session.row.replica,
        list_digest,
        batches: request.batches.iter().map(|(info, _)| info.clone()).collect(),
        made_with_nothing: made_with_nothing(&scope, &made_with),
        columns_kept: columns_kept(&scope, &made_with),
        made_with,
        leaf_clock: request.leaf_clock.clone(),
        upload_mark: request.upload_mark,
        upload_mark_begun: session.row.document.upload_mark_begun,
        clock_offset_us: request.clock_offset_us,
        stop,
        scope,
    })
}

/// Tables of which the leaf knew nothing when it made its changes, whatever its knowledge contains.
///
/// A table whose present form the leaf lacks: what it knew of it was of another form, unless only columns were added since.
///
/// **Invariant:** no change is taken for made in sight of a row that was never sent. Knowledge covers all that the hub
/// had, also in tables that don't download: there only the leaf's own rows are plain to it, by their `via`.
pub(super) fn made_with_nothing(scope: &StoredScope, made_with: &Knowledge) -> Vec<TableId> {
    let of_nothing = scope.schema.tables.iter().zip(&scope.tables).filter(|(schema, table)| {
        let lacks_form = !made_with.is_empty() && !made_with.contains_version(table.reshaped);
        lacks_form || !schema.direction.downloads()
    });
    of_nothing.map(|(_, table)| table.id).collect()
}

/// Columns that joined after what the leaf knew when it made its changes.
fn columns_kept(scope: &StoredScope, made_with: &Knowledge) -> BTreeMap<TableId, Vec<ColumnId>> {
    if made_with.is_empty() {
        return BTreeMap::new();
    }
    let kept = scope.tables.iter().map(|table| {
        let lacks = table.columns_since.iter().filter(|(_, since)| !made_with.contains_version(*since));
        (table.id, lacks.map(|(column, _)| *column).collect::<Vec<_>>())
    });
    kept.filter(|(_, columns)| !columns.is_empty()).collect()
}

fn check_list(request: &ApplyRequest) -> Result<()> {
    if request.batches.is_empty() || request.batches.len() > UPLOAD_BATCHES_MAX {
        return Err(SyncError::invalid("batches", format!("must be 1 to {UPLOAD_BATCHES_MAX}")));
    }
    let in_order =
        request.batches.iter().enumerate().all(|(index, (info, _))| info.sequence.0 as usize == index + 1);
    if !in_order {
        return Err(SyncError::invalid(
            "batches",
            "must be all of the upload, in order of their sequence from 1 on",
        ));
    }
    let mut inline_bytes = 0;
    for (_, bytes) in &request.batches {
        let length = bytes.as_ref().map_or(0, Bytes::len);
        inline_bytes += length;
        if length > INLINE_BATCH_BYTES_MAX || inline_bytes > INLINE_CALL_BYTES_MAX {
            return Err(SyncError::invalid(
                "batches",
                format!(
                    "carry too many bytes: at most {INLINE_BATCH_BYTES_MAX} a batch and {INLINE_CALL_BYTES_MAX} a call; \
                     upload the others"
                ),
            ));
        }
    }
    Ok(())
}

/// Names the list, and what it was made with: the same session with another one is not the same upload.
fn list_digest(request: &ApplyRequest) -> [u8; 32] {
    let mut digest = Sha256::new();
    for (info, _) in &request.batches {
        digest.update(info.id.as_bytes());
        digest.update(info.sha256);
    }
    digest.update(&request.made_with);
    for excepted in &request.excepted_keys {
        digest.update(excepted.row.table.0.to_le_bytes());
        digest.update(&excepted.row.key);
        digest.update(&excepted.knowledge_before);
    }
    digest.update(request.upload_mark.as_bytes());
    digest.finalize().into()
}

fn other_list() -> SyncError {
    SyncError::new(
        ErrorReason::ReplicaDiverged,
        "the session has applied another list of batches; the replica was restored or copied",
    )
}
