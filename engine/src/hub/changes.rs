//! GetChanges and what goes with it: the list of batches as they become ready, their bytes, their release.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use syncline::batch::BatchInfo;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::BatchId;
use syncline::limits::RELEASE_BATCHES_MAX;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::enumeration::{EnumerationTask, Listed, Progress};
use super::excepted::excepted;
use super::session::{CheckedSession, EnumerationState};
use super::{Hub, batch_not_found, plan, session_state, view};
use crate::dialect::meta::batches::{self, BatchRow, Stored, Way};
use crate::limits::PROGRESS_INTERVAL;
use crate::replica::{ChangesBegin, ChangesEvent, ChangesMode, ChangesRequest, SessionRef};
use crate::store::Snapshot;

impl Hub {
    pub(super) async fn stream_changes(
        &self,
        session: SessionRef,
        request: ChangesRequest,
    ) -> Result<BoxStream<'static, Result<ChangesEvent>>> {
        let checked = self.checked(session).await?;
        let call = self.tasks().replace_changes_call(session.id);
        let first = request.first_sequence.saturating_sub(1) as usize;
        let task = self.enumeration_of(checked, &request).await?;
        Ok(events(task, call, first))
    }

    /// The session's enumeration: the one that runs, or one that goes on from what is stored, or a new one.
    async fn enumeration_of(
        &self,
        session: CheckedSession,
        request: &ChangesRequest,
    ) -> Result<Arc<EnumerationTask>> {
        let asked = asked(request);
        let id = session.row.id;
        if let Some(running) = self.tasks().enumeration(id).filter(|task| !task.has_failed()) {
            running.set_token(session.row.token);
            return if running.asked == asked { Ok(running) } else { Err(other_knowledge()) };
        }
        check_version(&session)?;
        let (state, snapshot, manifest) = match session.row.document.enumeration.clone() {
            Some(state) if state.asked == asked => (state, None, self.manifest(&session).await?),
            Some(_) => return Err(other_knowledge()),
            None => {
                let (state, snapshot) = self.new_enumeration(&session, request, asked).await?;
                (state, Some(snapshot), Vec::new())
            }
        };
        let task = Arc::new(EnumerationTask::new(&state, session.row.token, manifest));
        let kept = self.tasks().keep_enumeration(id, task.clone());
        if Arc::ptr_eq(&kept, &task) && state.end.is_none() {
            self.start_enumeration(task, session, state, snapshot);
        }
        Ok(kept)
    }

    /// Decides how the leaf compares. That the download has begun is noted with the first that comes of it, before the
    /// client hears of it.
    async fn new_enumeration(
        &self,
        session: &CheckedSession,
        request: &ChangesRequest,
        asked: [u8; 32],
    ) -> Result<(EnumerationState, Box<dyn Snapshot>)> {
        let scope = &session.scope;
        let known = view::known_of_view(&request.knowledge, scope)?;
        let snapshot = self.store().folded_snapshot(scope).await?;
        let own = snapshot.knowledge().clone();
        if !own.covers(&syncline::knowledge::Knowledge::from_clocks(known.clocks().clone())) {
            return Err(SyncError::new(
                ErrorReason::ReinitializeRequired,
                "the replica knows more than the hub: one of the two was restored; compare everything anew",
            ));
        }
        let mode = plan::mode(scope, &known, |id| snapshot.table(id).cloned());
        let state = EnumerationState {
            asked,
            noted: false,
            echo_rule: mode != ChangesMode::WholeView,
            known,
            excepted: excepted(&request.excepted_keys, scope)?.into_iter().map(|(row, _)| row).collect(),
            begin: ChangesBegin { mode, made_with: view::encode(&own, scope)?, resumed: false },
            since: None,
            first_snapshot: own,
            position: None,
            batches: 0,
            rows: 0,
            end: None,
        };
        Ok((state, snapshot))
    }

    async fn manifest(&self, session: &CheckedSession) -> Result<Vec<Listed>> {
        let rows = self.store().read(batches::of_session(session.row.id, Way::Down)).await?;
        let listed = |row: BatchRow| Listed {
            info: row.info,
            inline: row.bytes,
            released: row.stored == Stored::Released,
        };
        rows.iter().map(|row| batches::from_row(row).map(listed)).collect()
    }

    pub(super) async fn stream_batch(
        &self,
        session: SessionRef,
        batch: BatchId,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.checked(session).await?;
        let row = self.batch_row(session, batch).await?.filter(|row| row.way == Way::Down);
        let row = row.filter(|row| row.stored == Stored::Complete).ok_or_else(|| batch_not_found(batch))?;
        if offset > row.info.stored_bytes {
            return Err(SyncError::new(
                ErrorReason::OffsetMismatch,
                format!("the batch has {} bytes; read from there at most", row.info.stored_bytes),
            )
            .with("batch_id", batch)
            .with("committed_size", row.info.stored_bytes));
        }
        if let Some(bytes) = row.bytes {
            // Bounded by INLINE_BATCH_BYTES_MAX.
            let rest = bytes.slice(usize::try_from(offset).map_err(SyncError::internal)?..);
            return Ok(stream::iter(crate::spool::chunks(rest)).boxed());
        }
        // Removed behind our back, or in the spool of another service that has served this session. Nobody will bring
        // them: who is told that there is no such batch begins anew, who read nothing would come back for ever.
        let listed = row.info.stored_bytes;
        self.spool().read_whole(session.id, batch, offset, listed).await?.ok_or_else(|| {
            tracing::warn!(session = %session.id, %batch, listed, "a batch is not in the spool");
            batch_not_found(batch)
        })
    }

    pub(super) async fn release_batches(&self, session: SessionRef, released: &[BatchId]) -> Result<()> {
        self.checked(session).await?;
        if released.len() > RELEASE_BATCHES_MAX {
            return Err(SyncError::invalid("batch_ids", format!("must be at most {RELEASE_BATCHES_MAX}")));
        }
        // Durably: only what is noted as released is freed below.
        let mut transaction = self.store().begin().await?;
        for batch in released {
            let rows = transaction.run(batches::load(*batch)).await?;
            let row = rows.first().map(batches::from_row).transpose()?;
            match row.filter(|row| row.session == session.id && row.way == Way::Down) {
                Some(row) => transaction.run(batches::release(row)?).await?,
                None => return Err(batch_not_found(*batch)),
            };
        }
        transaction.commit().await?;
        // Only what is noted as released is freed: a process that dies in between leaves files for the sweep.
        for batch in released {
            self.spool().delete_batch(session.id, *batch).await?;
        }
        if let Some(enumeration) = self.tasks().enumeration(session.id) {
            enumeration.release(released);
        }
        Ok(())
    }

    /// A batch of this session; one of another's is as if it were not there.
    pub(super) async fn batch_row(&self, session: SessionRef, batch: BatchId) -> Result<Option<BatchRow>> {
        let rows = self.store().read(batches::load(batch)).await?;
        let row = rows.first().map(batches::from_row).transpose()?;
        Ok(row.filter(|row| row.session == session.id))
    }
}

fn asked(request: &ChangesRequest) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    add(&request.knowledge);
    for excepted in &request.excepted_keys {
        add(&excepted.row.table.0.to_le_bytes());
        add(&excepted.row.key);
        add(&excepted.knowledge_before);
    }
    digest.finalize().into()
}

/// What is still to be enumerated is of the version that the session was begun with, which its batches name: a session may
/// wait for long after that. What is enumerated already is handed out as it was.
fn check_version(session: &CheckedSession) -> Result<()> {
    let document = &session.row.document;
    let is_done = document.enumeration.as_ref().is_some_and(|state| state.end.is_some());
    if is_done || document.scope_version == session.scope.schema.version {
        return Ok(());
    }
    Err(SyncError::new(
        ErrorReason::SessionExpired,
        "the scope has another version than the session was begun with; begin a new session",
    )
    .with("scope_version", session.scope.schema.version))
}

fn other_knowledge() -> SyncError {
    session_state("the session has enumerated for other knowledge already; begin a new session")
}

/// What a call of GetChanges has told so far.
struct Telling {
    task: Arc<EnumerationTask>,
    progress: watch::Receiver<Progress>,
    call: CancellationToken,
    begun: bool,
    next: usize,
    ended: bool,
}

/// Begin, the batches from `first` on as they become ready, progress, the end.
fn events(
    task: Arc<EnumerationTask>,
    call: CancellationToken,
    first: usize,
) -> BoxStream<'static, Result<ChangesEvent>> {
    let telling = Telling { progress: task.progress(), task, call, begun: false, next: first, ended: false };
    stream::unfold(telling, |mut telling| async move {
        if telling.ended {
            return None;
        }
        let event = telling.event().await;
        telling.ended = matches!(event, Err(_) | Ok(ChangesEvent::End(_)));
        Some((event, telling))
    })
    .boxed()
}

impl Telling {
    async fn event(&mut self) -> Result<ChangesEvent> {
        loop {
            if !self.begun && self.progress.borrow().noted {
                self.begun = true;
                return Ok(ChangesEvent::Begin(self.task.begin.clone()));
            }
            if self.begun
                && let Some((info, inline)) = self.next_batch()
            {
                return Ok(ChangesEvent::Batch(info, inline));
            }
            let now = self.progress.borrow_and_update().clone();
            // Batches are listed before the outcome is set: what is listed by now is all.
            match now.outcome {
                Some(_) if self.task.listed(self.next).is_some() => continue,
                // Noted since it was asked above.
                Some(Ok(_)) if !self.begun => continue,
                Some(Ok(end)) => return Ok(ChangesEvent::End(end)),
                Some(Err(error)) => return Err(error),
                None => {}
            }
            tokio::select! {
                biased;
                () = self.call.cancelled() => {
                    return Err(SyncError::new(ErrorReason::CallReplaced, "a newer call of the session took over"));
                }
                changed = self.progress.changed() => changed.map_err(SyncError::internal)?,
                () = tokio::time::sleep(PROGRESS_INTERVAL.min(Duration::from_secs(10))), if self.begun => {
                    return Ok(ChangesEvent::Progress {
                        rows: now.rows,
                        batches: now.batches,
                        waiting_for_release: now.waiting_for_release,
                    });
                }
            }
        }
    }

    /// The next batch that is not released.
    fn next_batch(&mut self) -> Option<(BatchInfo, Option<Bytes>)> {
        while let Some(listed) = self.task.listed(self.next) {
            self.next += 1;
            if !listed.released {
                return Some((listed.info, listed.inline));
            }
        }
        None
    }
}
