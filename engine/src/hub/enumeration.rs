//! Enumerating what a leaf lacks, into the spool: a task of the session, not of the call that asked for it.
//!
//! Works in passes. A pass is broken off when the spool has no more room for the session or the snapshot is old, and goes
//! on after the last key under a later snapshot, opened once there is room. **Invariant:** what was read under the first
//! snapshot of a pass may be older than what is read under a later one, so after a pass that was broken off comes
//! another, over the changes since that first snapshot; the last pass is one that was read under a single snapshot. Only
//! then is the learned knowledge that of this snapshot, and no child is without its parent: a row that has not changed
//! since the pass before began was seen by that pass, or an earlier one, under whichever snapshot; all others are sent
//! (again) now. Each pass has to do only with what changed during the one before, so there is a last one.
//!
//! **Invariant:** nobody waits for the client while a snapshot is open: it holds back the database's clean-up, locks on
//! the tables, and one of few places.
//!
//! After each batch its row in the manifest and the position behind it are committed together: a killed process goes
//! on there, and a batch that is in the manifest is whole in the spool, or in its row if it is small.
//!
//! **Invariant:** clients hear of nothing that is not committed. That the enumeration has begun is committed with the
//! first batch, and the last batch with the end, so a small one takes a single commit; Begin, and each batch, are told
//! after the commit that they are in.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use syncline::batch::{BatchInfo, EncodedBatch};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchId, BatchSequence, Mark, SessionToken};
use syncline::knowledge::Knowledge;
use syncline::limits::{INLINE_BATCH_BYTES_MAX, INLINE_CALL_BYTES_MAX, SESSION_BATCHES_MAX};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::batcher::{Batcher, Collected};
use super::session::{CheckedSession, EnumerationState, superseded};
use super::tasks::settled;
use super::{Hub, lock, plan, session_state, view};
use crate::compute::compute_over;
use crate::dialect::meta::batches::{self, BatchRow, Stored, Way};
use crate::dialect::meta::{Statement, leaves, sessions, state};
use crate::limits::{BLOCK_CHANNEL_MAX, NOTE_DELAY_MAX};
use crate::replica::{ChangesBegin, ChangesEnd, ChangesMode};
use crate::store::{EnumeratedBlock, EnumerationPlan, Position, Snapshot, session_has_ended};

/// A batch of the manifest.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) info: BatchInfo,
    /// The bytes of a small one, if the call has room for them.
    pub(super) inline: Option<Bytes>,
    pub(super) released: bool,
}

/// How far the enumeration is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Whether it is in the database that the enumeration has begun. Until then nobody hears of it.
    pub(super) noted: bool,
    pub(super) batches: u32,
    pub(super) rows: u64,
    pub(super) waiting_for_release: bool,
    pub(super) outcome: Option<Result<ChangesEnd>>,
}

/// An enumeration, as calls of the session see it.
pub(super) struct EnumerationTask {
    pub(super) asked: [u8; 32],
    pub(super) begin: ChangesBegin,
    pub(super) stop: CancellationToken,
    token: Mutex<SessionToken>,
    manifest: Mutex<Vec<Listed>>,
    released: Notify,
    progress: watch::Sender<Progress>,
    done: CancellationToken,
}

impl EnumerationTask {
    pub(super) fn new(state: &EnumerationState, token: SessionToken, manifest: Vec<Listed>) -> Self {
        let progress = Progress {
            noted: state.noted,
            batches: state.batches,
            rows: state.rows,
            waiting_for_release: false,
            outcome: state.end.clone().map(Ok),
        };
        Self {
            asked: state.asked,
            begin: state.begin.clone(),
            stop: CancellationToken::new(),
            token: Mutex::new(token),
            manifest: Mutex::new(manifest),
            released: Notify::new(),
            progress: watch::Sender::new(progress),
            done: CancellationToken::new(),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.progress.borrow().outcome, Some(Err(_)))
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(super) fn set_token(&self, token: SessionToken) {
        *lock(&self.token) = token;
    }

    /// The batch at this place of the manifest, from 0.
    pub(super) fn listed(&self, index: usize) -> Option<Listed> {
        lock(&self.manifest).get(index).cloned()
    }

    /// The client holds these batches.
    pub(super) fn release(&self, released: &[BatchId]) {
        for listed in lock(&self.manifest).iter_mut().filter(|listed| released.contains(&listed.info.id)) {
            listed.released = true;
            listed.inline = None;
        }
        self.released.notify_one();
    }

    /// Answers when the task has ended.
    pub(super) async fn stopped(&self) {
        if self.progress.borrow().outcome.is_none() {
            self.done.cancelled().await;
        }
    }

    /// Bytes that wait in the spool. Those of inline batches don't, and clients need not release them: together they are
    /// at most INLINE_CALL_BYTES_MAX, until the session ends.
    fn waiting_bytes(&self) -> u64 {
        let manifest = lock(&self.manifest);
        let spooled = manifest.iter().filter(|listed| !listed.released && listed.inline.is_none());
        spooled.map(|listed| listed.info.stored_bytes).sum()
    }

    fn inline_bytes(&self) -> usize {
        lock(&self.manifest).iter().filter_map(|listed| listed.inline.as_ref()).map(Bytes::len).sum()
    }
}

impl Hub {
    /// Runs the enumeration to its end; `snapshot` is the first leg's, already open.
    pub(super) fn start_enumeration(
        &self,
        task: Arc<EnumerationTask>,
        session: CheckedSession,
        state: EnumerationState,
        snapshot: Option<Box<dyn Snapshot>>,
    ) {
        let compressing = Arc::default();
        let mut run =
            Run { hub: self.clone(), task, session, state, compressing, held_back: None, witness: None };
        self.tasks().spawn(async move {
            let _done = run.task.done.clone().drop_guard();
            let outcome = settled(run.run_to_end(snapshot)).await;
            if let Err(error) = &outcome {
                tracing::info!(session = %run.session.row.id, %error, "the enumeration stopped");
            }
            run.task.progress.send_modify(|progress| progress.outcome = Some(outcome));
        });
    }
}

struct Run {
    hub: Hub,
    task: Arc<EnumerationTask>,
    session: CheckedSession,
    state: EnumerationState,
    /// Held while a batch is compressed.
    compressing: Arc<tokio::sync::Mutex<()>>,
    /// The last batch of a pass, with its row: committed with what comes next.
    held_back: Option<(Statement, Listed)>,
    /// What the next commit has to ask: see [`Run::commit`].
    witness: Option<Statement>,
}

impl Run {
    async fn run_to_end(&mut self, first: Option<Box<dyn Snapshot>>) -> Result<ChangesEnd> {
        // Whether the pass goes on under another snapshot than its first.
        let mut broken_off = first.is_none();
        let mut next = first.map(|snapshot| (snapshot, Instant::now()));
        loop {
            let (snapshot, opened) = match next.take() {
                Some(open) => open,
                None => tokio::select! {
                    biased;
                    () = self.task.stop.cancelled() => return Err(parked()),
                    snapshot = self.later_snapshot() => (snapshot?, Instant::now()),
                },
            };
            let seen = snapshot.knowledge().clone();
            self.witness = snapshot.witness();
            match self.pass(snapshot, opened, !broken_off).await? {
                Some(snapshot) if !broken_off => {
                    let end = self.finish(&seen).await;
                    drop(snapshot);
                    return end;
                }
                Some(snapshot) => {
                    self.state.begin_pass(seen);
                    broken_off = false;
                    next = Some((snapshot, opened));
                }
                None => {
                    broken_off = true;
                    self.wait_for_room().await?;
                }
            }
        }
    }

    /// Opens a later snapshot than the pass's first. If a table has to be compared as a whole that was not before (it was
    /// truncated meanwhile), the enumeration can't go on.
    async fn later_snapshot(&self) -> Result<Box<dyn Snapshot>> {
        let snapshot = self.hub.store().folded_snapshot(&self.session.scope).await?;
        let known = self.state.known.merge(&self.state.first_snapshot);
        let mode = plan::mode(&self.session.scope, &known, |id| snapshot.table(id).cloned());
        if mode == (ChangesMode::Delta { whole_tables: Vec::new() }) {
            return Ok(snapshot);
        }
        Err(SyncError::new(
            ErrorReason::SessionExpired,
            "a table was truncated or changed its form while it was enumerated; begin a new session",
        ))
    }

    /// What is left of the pass.
    fn plan(&self) -> EnumerationPlan {
        let agreement = &self.session.row.document.agreement;
        // Since the first snapshot the leaf has uploaded nothing: in later passes there is no echo to leave out.
        let echo_rule = self.state.echo_rule && self.state.since.is_none();
        plan::plan(
            &self.session.scope,
            plan::pass(&self.session.scope, &self.state),
            &self.state.known_in_pass(),
            echo_rule.then_some(self.session.row.replica),
            agreement.batch_bytes_max,
            agreement.row_bytes_max,
        )
    }

    /// Enumerates what is left of the pass into batches. Answers the snapshot, or `None` if it was closed because the
    /// spool is full or the snapshot old: then the pass goes on behind its position, which is written with each batch.
    /// If it may be the `last` pass, its last batch is held back, to be committed with the end.
    async fn pass(
        &mut self,
        mut snapshot: Box<dyn Snapshot>,
        opened: Instant,
        last: bool,
    ) -> Result<Option<Box<dyn Snapshot>>> {
        let plan = self.plan();
        let (sender, mut blocks) = mpsc::channel(BLOCK_CHANNEL_MAX);
        let reader = tokio::spawn(async move {
            snapshot.enumerate(plan, sender).await;
            snapshot
        });
        let mut batcher = Batcher::new(self.session.row.document.agreement.batch_bytes_max);
        let mut encoding = VecDeque::new();
        while let Some(block) = self.receive(&mut blocks, opened).await? {
            if let Some(full) = batcher.push(block?).await? {
                self.enqueue(&mut encoding, full).await?;
            }
            if self.must_park(opened) {
                drop(blocks);
                // The reader still holds the snapshot, whose server process the commit asks for.
                self.flush(&mut encoding, batcher.take(), false).await?;
                return Ok(None);
            }
        }
        self.flush(&mut encoding, batcher.take(), last).await?;
        reader.await.map(Some).map_err(SyncError::internal)
    }

    /// The next block. If the first is long in coming, that the enumeration has begun is committed alone: who asked is
    /// waiting to hear of it.
    async fn receive(
        &mut self,
        blocks: &mut mpsc::Receiver<Result<EnumeratedBlock>>,
        opened: Instant,
    ) -> Result<Option<Result<EnumeratedBlock>>> {
        let note_at = tokio::time::Instant::from_std(opened + NOTE_DELAY_MAX);
        loop {
            tokio::select! {
                biased;
                () = self.task.stop.cancelled() => return Err(parked()),
                block = blocks.recv() => return Ok(block),
                () = tokio::time::sleep_until(note_at), if !self.state.noted => {}
            }
            self.commit(Vec::new()).await?;
        }
    }

    fn must_park(&self, opened: Instant) -> bool {
        self.is_full() || opened.elapsed() > self.hub.config().snapshot_age_max
    }

    fn is_full(&self) -> bool {
        self.task.waiting_bytes() >= self.hub.config().spool_session_bytes_max
    }

    /// Waits until the client has released enough. Holds no snapshot and no connection.
    async fn wait_for_room(&self) -> Result<()> {
        while self.is_full() {
            self.task.progress.send_modify(|progress| progress.waiting_for_release = true);
            tokio::select! {
                biased;
                () = self.task.stop.cancelled() => return Err(parked()),
                () = self.task.released.notified() => {}
            }
        }
        self.task.progress.send_modify(|progress| progress.waiting_for_release = false);
        Ok(())
    }

    /// Compresses on another thread, one batch ahead of the one that is being stored.
    async fn enqueue(&mut self, encoding: &mut Encoding, collected: Collected) -> Result<()> {
        let place = self.state.batches + u32::try_from(encoding.len()).unwrap_or(u32::MAX);
        if place >= SESSION_BATCHES_MAX {
            return Err(SyncError::new(
                ErrorReason::BatchTooLarge,
                format!("the download has more than {SESSION_BATCHES_MAX} batches; agree on larger ones"),
            ));
        }
        let codec = self.session.row.document.agreement.codec;
        let scope_version = self.session.row.document.scope_version;
        let Collected { encoder, position, bytes } = collected;
        // One at a time, whatever waits to be stored: only one is held in both forms.
        let turn = Arc::clone(&self.compressing).lock_owned().await;
        let encode = move || {
            let batch = encoder.finish(BatchSequence(place + 1), codec, scope_version);
            drop(turn);
            Ok(batch)
        };
        encoding.push_back((tokio::spawn(compute_over(bytes, encode)), position));
        if encoding.len() > 1 { self.store_first(encoding, false).await } else { Ok(()) }
    }

    /// Stores what is left; the last batch is held back if that is asked.
    async fn flush(
        &mut self,
        encoding: &mut Encoding,
        rest: Option<Collected>,
        hold_back: bool,
    ) -> Result<()> {
        if let Some(rest) = rest {
            self.enqueue(encoding, rest).await?;
        }
        while !encoding.is_empty() {
            let is_last = encoding.len() == 1;
            self.store_first(encoding, hold_back && is_last).await?;
        }
        Ok(())
    }

    async fn store_first(&mut self, encoding: &mut Encoding, hold_back: bool) -> Result<()> {
        let Some((batch, position)) = encoding.pop_front() else { return Ok(()) };
        let batch = batch.await.map_err(SyncError::internal)??;
        let session = self.session.row.id;
        let is_inline = self.has_room_inline(&batch);
        let EncodedBatch { info, stored, .. } = batch;
        let inline = is_inline.then(|| stored.clone());
        if inline.is_none() {
            self.hub.check_spool_quota(info.stored_bytes).await?;
            self.hub.spool().put(session, info.id, 0, stored).await?;
        }
        self.state.batches += 1;
        self.state.rows += u64::from(info.rows);
        self.state.position = position.or(self.state.position.take());
        let listed = Listed { info: info.clone(), inline: inline.clone(), released: false };
        let row = BatchRow { session, way: Way::Down, info, stored: Stored::Complete, bytes: inline };
        let insert = batches::insert(&row)?;
        if hold_back {
            self.held_back = Some((insert, listed));
            return Ok(());
        }
        self.commit(vec![insert]).await?;
        self.list(listed);
        Ok(())
    }

    /// Whether a batch travels inline. Its bytes then stand in its row: no file, and no commit beside that of the row.
    fn has_room_inline(&self, batch: &EncodedBatch) -> bool {
        // All that a call which breaks has to bring again is less than a batch; and it is no more than the spool may hold.
        let batch_bytes_max = self.session.row.document.agreement.batch_bytes_max;
        let room =
            batch_bytes_max.min(self.hub.config().spool_session_bytes_max).min(INLINE_CALL_BYTES_MAX as u64);
        let inline_bytes = self.task.inline_bytes() + batch.stored.len();
        batch.stored.len() <= INLINE_BATCH_BYTES_MAX && inline_bytes as u64 <= room
    }

    fn list(&self, batch: Listed) {
        lock(&self.task.manifest).push(batch);
        self.task.progress.send_modify(|progress| {
            progress.batches = self.state.batches;
            progress.rows = self.state.rows;
        });
    }

    /// Commits statements together with the session's document, if the session is still ours. The first of an
    /// enumeration is refused if another call has changed the document since this one read it.
    ///
    /// **Invariant:** the first commit after a snapshot was opened is durable, and made by a server that has not failed since.
    /// So all that the snapshot saw is on disk before anybody hears of it, and its ticks are never given to others.
    async fn commit(&mut self, statements: Vec<Statement>) -> Result<()> {
        let id = self.session.row.id;
        let first = !std::mem::replace(&mut self.state.noted, true);
        let before = &self.session.row.document;
        let mut document = before.clone();
        document.enumeration = Some(self.state.clone());
        loop {
            let token = *lock(&self.task.token);
            let mut transaction = self.hub.store().begin().await?;
            let save = if first {
                sessions::save_over(id, token, before, &document)?
            } else {
                sessions::save(id, token, &document)?
            };
            let all = self.witness.iter().chain(&statements).cloned().chain([save]).collect();
            let mut answers = transaction.run_all(all).await?;
            let saved = answers.pop().unwrap_or_default();
            if self.witness.is_some() && answers.first().is_none_or(Vec::is_empty) {
                return Err(server_has_failed());
            }
            if !saved.is_empty() {
                transaction.commit().await?;
                self.witness = None;
                self.task.progress.send_if_modified(|progress| !std::mem::replace(&mut progress.noted, true));
                return Ok(());
            }
            let found = transaction.run(sessions::load(id)).await?;
            drop(transaction);
            let Some(found) = found.first() else {
                // It has ended, or a crash of the database has lost its opening.
                return Err(session_has_ended(id));
            };
            if sessions::from_row(found)?.token == token {
                return Err(session_state("another call of the session was quicker; begin a new session"));
            }
            // The session may have been taken up in between: then there is a newer token to go on with.
            if *lock(&self.task.token) == token {
                return Err(superseded());
            }
        }
    }

    /// Draws the download mark and commits it with what is learned, and the last batch, before they are handed out.
    async fn finish(&mut self, learned: &Knowledge) -> Result<ChangesEnd> {
        let mark = Mark::fresh();
        let row = &self.session.row;
        let end = ChangesEnd {
            learned: view::encode(learned, &self.session.scope)?,
            download_mark: mark,
            batches: self.state.batches,
            rows: self.state.rows,
        };
        self.state.end = Some(end.clone());
        let presented = row.document.download_mark_presented;
        let mut statements = vec![leaves::download_marks(row.scope, row.replica, presented, Some(mark))];
        if let Some(own) = learned.clock(self.hub.id()) {
            statements
                .push(state::raise_durable_tick(i64::try_from(own.tick().0).map_err(SyncError::internal)?));
        }
        let last = self.held_back.take().map(|(insert, batch)| {
            statements.push(insert);
            batch
        });
        self.commit(statements).await?;
        if let Some(batch) = last {
            self.list(batch);
        }
        Ok(end)
    }
}

/// Batches that are being encoded, in order, each with the position behind it.
type Encoding = VecDeque<(JoinHandle<Result<EncodedBatch>>, Option<Position>)>;

fn server_has_failed() -> SyncError {
    SyncError::new(
        ErrorReason::DatabaseUnavailable,
        "the hub's database failed while the download was read; ask again",
    )
}

fn parked() -> SyncError {
    SyncError::new(
        ErrorReason::Draining,
        "the enumeration was parked; ask again, it goes on where it stopped",
    )
}
