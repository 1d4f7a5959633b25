//! A hub in memory: its database and its spool outlive everything but themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use syncline::batch::{self, BatchInfo, Codec};
use syncline::conflict::{RowError, RowErrorReason};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchId, BatchSequence, Mark, ReplicaId, ScopeName, SessionId, SessionToken};
use syncline_engine::replica::{
    Agreement, ApplyEvent, ApplyRequest, ApplyResult, BatchStatus, BeginRequest, Begun, ChangesBegin,
    ChangesEnd, ChangesEvent, ChangesMode, ChangesRequest, EndRequest, HubReplica, Pending, PollRequest,
    ResumeState, ServedScope, SessionRef,
};
use tokio::sync::watch;

use super::faults::{Fault, Faults, broken};
use super::rows::{Rows, blocks, changes, row_key, schema};

/// Rows of a batch: a few rows make several.
const BATCH_ROWS: usize = 4;
/// Bytes of a chunk: a small batch has several.
const CHUNK_BYTES: usize = 40;

#[derive(Debug)]
pub(crate) struct FakeHub {
    state: Arc<Mutex<State>>,
    /// Tells watchers of edits.
    edited: watch::Sender<()>,
    pub(crate) faults: Arc<Faults>,
    id: ReplicaId,
}

#[derive(Debug, Default, Clone)]
struct State {
    rows: BTreeMap<i64, Row>,
    tick: u64,
    schema_version: u32,
    /// Small batches travel with the list.
    inline: bool,
    /// Knowledge below this can't be served from.
    forgotten: u64,
    /// Whether that is said to whoever opens a session ahead.
    refuses_knowledge_ahead: bool,
    leaves: BTreeMap<ReplicaId, Leaf>,
    sessions: BTreeMap<SessionId, Session>,
    applies: BTreeMap<SessionId, (Vec<BatchId>, ApplyResult, Vec<RowError>)>,
    applied_rows: u64,
    served_bytes: u64,
}

#[derive(Debug, Clone)]
struct Row {
    name: Option<String>,
    tick: u64,
    origin: Option<ReplicaId>,
}

#[derive(Debug, Default, Clone)]
struct Leaf {
    tick: u64,
    upload_mark: Option<Mark>,
    download_marks: Vec<Option<Mark>>,
}

#[derive(Debug, Clone)]
struct Session {
    replica: ReplicaId,
    token: SessionToken,
    uploads: BTreeMap<BatchId, (BatchInfo, Vec<u8>)>,
    download: Option<Download>,
}

#[derive(Debug, Clone)]
struct Download {
    knowledge: Bytes,
    begin: ChangesBegin,
    batches: Vec<(BatchInfo, Bytes, bool)>,
    end: ChangesEnd,
}

fn error(reason: ErrorReason) -> SyncError {
    SyncError::new(reason, reason.as_str())
}

fn tick_of(knowledge: &[u8]) -> u64 {
    knowledge.try_into().map(u64::from_le_bytes).unwrap_or(0)
}

impl FakeHub {
    pub(crate) fn new(faults: Arc<Faults>) -> Self {
        let state = State { schema_version: 1, ..State::default() };
        Self {
            state: Arc::new(Mutex::new(state)),
            edited: watch::Sender::new(()),
            faults,
            id: ReplicaId::fresh(),
        }
    }

    /// What an application at the hub writes.
    pub(crate) fn edit(&self, id: i64, name: Option<&str>) {
        let mut state = self.state();
        state.tick += 1;
        let tick = state.tick;
        state.rows.insert(id, Row { name: name.map(str::to_owned), tick, origin: None });
        self.edited.send_replace(());
    }

    pub(crate) fn rows(&self) -> Rows {
        self.state().rows.iter().filter_map(|(id, row)| Some((*id, row.name.clone()?))).collect()
    }

    /// How many uploaded rows were written, ever.
    pub(crate) fn applied_rows(&self) -> u64 {
        self.state().applied_rows
    }

    /// Stored bytes that went out by DownloadBatch, ever.
    pub(crate) fn served_bytes(&self) -> u64 {
        self.state().served_bytes
    }

    pub(crate) fn set_inline(&self) {
        self.state().inline = true;
    }

    pub(crate) fn set_schema_version(&self, version: u32) {
        self.state().schema_version = version;
    }

    /// Forgets tombstones: knowledge of now and before is too old.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.tick += 1;
        state.forgotten = state.tick;
        state.rows.retain(|_, row| row.name.is_some());
    }

    /// Sessions that are opened ahead find that what the leaf knows is too old.
    pub(crate) fn refuse_knowledge_ahead(&self) {
        self.state().refuses_knowledge_ahead = true;
    }

    /// How many sessions are open.
    pub(crate) fn sessions(&self) -> usize {
        self.state().sessions.len()
    }

    /// The leases of all sessions run out.
    pub(crate) fn expire_sessions(&self) {
        self.state().sessions.clear();
    }

    /// The same hub, over another network.
    pub(crate) fn reached_by(&self, faults: Arc<Faults>) -> Self {
        Self { state: self.state.clone(), edited: self.edited.clone(), faults, id: self.id }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn session(&mut self, session: SessionRef) -> Result<&mut Session> {
        let found = self.sessions.get_mut(&session.id).ok_or_else(|| error(ErrorReason::SessionNotFound))?;
        if found.token == session.token { Ok(found) } else { Err(error(ErrorReason::SessionSuperseded)) }
    }

    fn check_chain(&self, request: &BeginRequest) -> Result<()> {
        let leaf = self.leaves.get(&request.replica).cloned().unwrap_or_default();
        let upload = leaf.upload_mark == request.upload_mark_answered
            || (leaf.upload_mark.is_some() && leaf.upload_mark == request.upload_mark_drawn);
        let download = match leaf.download_marks.as_slice() {
            [] => request.download_mark.is_none(),
            marks => marks.contains(&request.download_mark),
        };
        if upload && download { Ok(()) } else { Err(error(ErrorReason::ReplicaDiverged)) }
    }

    fn enumerate(&self, replica: ReplicaId, request: &ChangesRequest) -> Result<Download> {
        let known = tick_of(&request.knowledge);
        if known < self.forgotten && !request.knowledge.is_empty() {
            return Err(error(ErrorReason::ReinitializeRequired));
        }
        let whole = request.knowledge.is_empty();
        let wanted = |(id, row): &(&i64, &Row)| {
            let excepted = request.excepted_keys.iter().any(|key| key.row == row_key(**id));
            let new = row.tick > known && row.origin != Some(replica);
            if whole { row.name.is_some() } else { excepted || new }
        };
        let rows: Vec<_> = self.rows.iter().filter(wanted).map(|(id, row)| (*id, row.name.clone())).collect();
        let batch = |(index, rows): (usize, &[_])| {
            let sequence = BatchSequence(index as u32 + 1);
            let made = batch::encode(blocks(rows), sequence, Codec::Identity, self.schema_version).unwrap();
            (made.info, made.stored, false)
        };
        let batches: Vec<_> = rows.chunks(BATCH_ROWS).enumerate().map(batch).collect();
        let learned = Bytes::copy_from_slice(&self.tick.to_le_bytes());
        let mode =
            if whole { ChangesMode::WholeView } else { ChangesMode::Delta { whole_tables: Vec::new() } };
        let end = ChangesEnd {
            learned: learned.clone(),
            download_mark: Mark::fresh(),
            batches: batches.len() as u32,
            rows: rows.len() as u64,
        };
        let begin = ChangesBegin { mode, made_with: learned, resumed: false };
        Ok(Download { knowledge: request.knowledge.clone(), begin, batches, end })
    }

    /// Judges and writes the rows; those named "refused" are.
    fn apply(
        &mut self,
        replica: ReplicaId,
        request: &ApplyRequest,
        stored: &[(BatchInfo, Vec<u8>)],
    ) -> (ApplyResult, Vec<RowError>) {
        let known = self.leaves.get(&replica).map_or(0, |leaf| leaf.tick);
        let made_with = tick_of(&request.made_with);
        let mut result = ApplyResult {
            upserts: 0,
            deletes: 0,
            unchanged: 0,
            conflicts: 0,
            row_errors: 0,
            upload_mark: request.upload_mark,
            committed_at: 0,
        };
        let mut errors = Vec::new();
        self.tick += 1;
        for block in stored.iter().flat_map(|(info, bytes)| info.decode(bytes).unwrap()) {
            for ((id, name), tick) in changes(&block).into_iter().zip(&block.ticks) {
                let present = self.rows.get(&id);
                let same = present.is_some_and(|row| row.name == name);
                let newer = present.is_some_and(|row| row.tick > made_with && row.origin != Some(replica));
                if tick.0 <= known || same {
                    result.unchanged += 1;
                } else if name.as_deref() == Some("refused") {
                    result.row_errors += 1;
                    errors.push(RowError {
                        row: row_key(id),
                        table_name: "customer".to_owned(),
                        key_json: format!("{{\"id\":{id}}}"),
                        operation: block.operation,
                        reason: RowErrorReason::Check,
                        message: "it is refused".to_owned(),
                    });
                } else if newer {
                    result.conflicts += 1;
                } else {
                    if name.is_some() {
                        result.upserts += 1
                    } else {
                        result.deletes += 1
                    }
                    self.applied_rows += 1;
                    self.rows.insert(id, Row { name, tick: self.tick, origin: Some(replica) });
                }
            }
        }
        let leaf = self.leaves.entry(replica).or_default();
        leaf.upload_mark = Some(request.upload_mark);
        if errors.is_empty() {
            leaf.tick = request.leaf_clock.tick().0;
        }
        (result, errors)
    }
}

/// The events, or the first of them and then a broken connection.
fn events<T: Send + 'static>(events: Vec<T>, fault: Fault) -> BoxStream<'static, Result<T>> {
    let mut items: Vec<Result<T>> = events.into_iter().map(Ok).collect();
    if let Fault::CutAfter(kept) = fault {
        items.truncate(kept);
        items.push(Err(broken()));
    }
    stream::iter(items).boxed()
}

#[async_trait]
impl HubReplica for FakeHub {
    async fn scope(&self, _: &ScopeName) -> Result<ServedScope> {
        let fault = self.faults.enter("scope").await?;
        let served = ServedScope { schema: schema(self.state().schema_version), hub: self.id };
        self.faults.leave(fault, served).await
    }

    async fn begin(&self, request: BeginRequest) -> Result<Begun> {
        let fault = self.faults.enter("begin").await?;
        let begun = {
            let mut state = self.state();
            if request.schema_fingerprint != schema(state.schema_version).fingerprint() {
                return Err(error(ErrorReason::ScopeVersionUnsupported));
            }
            state.check_chain(&request)?;
            let mut resume = ResumeState::default();
            let token = SessionToken::fresh();
            let applied = state.applies.contains_key(&request.session);
            if let Some(session) = state.sessions.get_mut(&request.session) {
                session.token = token;
                resume.resumed = true;
                resume.applied = applied;
                resume.apply_started = applied;
                resume.download_started = session.download.is_some();
                resume.uploads = session.uploads.iter().map(|(id, upload)| (*id, status(upload))).collect();
            } else {
                state.sessions.retain(|_, session| session.replica != request.replica);
                let session =
                    Session { replica: request.replica, token, uploads: BTreeMap::new(), download: None };
                state.sessions.insert(request.session, session);
                let leaf = state.leaves.entry(request.replica).or_default();
                leaf.download_marks = vec![request.download_mark];
            }
            Begun {
                session: SessionRef { id: request.session, token },
                agreement: Agreement {
                    codec: Codec::Identity,
                    batch_bytes_max: 200,
                    row_bytes_max: 1 << 20,
                    batches_in_flight_max: 2,
                },
                resume,
                reinitialize: request.ahead && state.refuses_knowledge_ahead,
                upload_mark: state.leaves[&request.replica].upload_mark,
                hub: self.id,
                hub_time: std::time::SystemTime::now(),
            }
        };
        self.faults.leave(fault, begun).await
    }

    async fn poll(&self, request: PollRequest) -> Result<Pending> {
        let fault = self.faults.enter("poll").await?;
        let pending = {
            let state = self.state();
            let known = tick_of(&request.knowledge);
            let new = |row: &Row| row.tick > known && row.origin != Some(request.replica);
            let other_schema = request.schema_fingerprint != schema(state.schema_version).fingerprint();
            if other_schema || known < state.forgotten || state.rows.values().any(new) {
                Pending::Some
            } else {
                Pending::None
            }
        };
        self.faults.leave(fault, pending).await
    }

    async fn watch(&self, request: PollRequest, _: Duration) -> Result<BoxStream<'static, Result<Pending>>> {
        let fault = self.faults.enter("watch").await?;
        let mut edited = self.edited.subscribe();
        edited.mark_unchanged();
        let first = self.poll(request).await?;
        let mut told = vec![Ok(first)];
        if let Fault::CutAfter(_) = fault {
            told.push(Err(broken()));
            return Ok(stream::iter(told).boxed());
        }
        // Edits are news to everybody who watches.
        let later = stream::unfold(edited, |mut edited| async move {
            edited.changed().await.ok()?;
            Some((Ok(Pending::Some), edited))
        });
        Ok(stream::iter(told).chain(later).boxed())
    }

    async fn changes(
        &self,
        session: SessionRef,
        request: ChangesRequest,
    ) -> Result<BoxStream<'static, Result<ChangesEvent>>> {
        let fault = self.faults.enter("changes").await?;
        let listed = {
            let mut state = self.state();
            let replica = state.session(session)?.replica;
            if state.session(session)?.download.is_none() {
                let download = state.enumerate(replica, &request)?;
                let mark = Some(download.end.download_mark);
                state.leaves.entry(replica).or_default().download_marks.push(mark);
                state.session(session)?.download = Some(download);
            }
            let inline = state.inline;
            let download = state.session(session)?.download.clone().unwrap();
            if download.knowledge != request.knowledge {
                return Err(error(ErrorReason::SessionState));
            }
            let mut listed = vec![ChangesEvent::Begin(download.begin)];
            for (info, bytes, released) in download.batches {
                if !released && info.sequence.0 >= request.first_sequence {
                    listed.push(ChangesEvent::Batch(info, inline.then_some(bytes)));
                }
            }
            listed.push(ChangesEvent::End(download.end));
            listed
        };
        let listed = self.faults.leave(fault, listed).await?;
        Ok(events(listed, fault))
    }

    async fn read_batch(
        &self,
        session: SessionRef,
        batch: BatchId,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let fault = self.faults.enter("read_batch").await?;
        let bytes = {
            let mut state = self.state();
            let download =
                state.session(session)?.download.as_ref().ok_or_else(|| error(ErrorReason::BatchNotFound))?;
            let found = download.batches.iter().find(|(info, _, released)| info.id == batch && !released);
            let (_, bytes, _) = found.ok_or_else(|| error(ErrorReason::BatchNotFound))?;
            let bytes = bytes.slice(offset as usize..);
            let served = if let Fault::CutAfter(chunks) = fault {
                bytes.len().min(chunks * CHUNK_BYTES)
            } else {
                bytes.len()
            };
            state.served_bytes += served as u64;
            bytes
        };
        let mut chunks: Vec<Bytes> = bytes.chunks(CHUNK_BYTES).map(Bytes::copy_from_slice).collect();
        if let (Fault::Corrupt, Some(first)) = (fault, chunks.first_mut()) {
            *first = first.iter().map(|byte| byte ^ 1).collect();
        }
        let faults = self.faults.clone();
        let chunks = events(chunks, fault).then(move |chunk| {
            let faults = faults.clone();
            async move {
                faults.point().await;
                chunk
            }
        });
        Ok(chunks.boxed())
    }

    async fn release(&self, session: SessionRef, batches: &[BatchId]) -> Result<()> {
        let fault = self.faults.enter("release").await?;
        if let Some(download) = &mut self.state().session(session)?.download {
            for (info, _, released) in &mut download.batches {
                *released |= batches.contains(&info.id);
            }
        }
        self.faults.leave(fault, ()).await
    }

    async fn write_batch(
        &self,
        session: SessionRef,
        info: BatchInfo,
        offset: u64,
        mut bytes: BoxStream<'static, Result<Bytes>>,
    ) -> Result<BatchStatus> {
        let fault = self.faults.enter("write_batch").await?;
        let mut left = if let Fault::CutAfter(bytes) = fault { bytes } else { usize::MAX };
        let mut at = offset as usize;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            let taken = chunk.len().min(left);
            left -= taken;
            {
                let mut state = self.state();
                let uploads = &mut state.session(session)?.uploads;
                let (_, stored) = uploads.entry(info.id).or_insert_with(|| (info.clone(), Vec::new()));
                if at > stored.len() {
                    return Err(error(ErrorReason::OffsetMismatch).with("committed_size", stored.len()));
                }
                stored.truncate(at);
                stored.extend_from_slice(&chunk[..taken]);
            }
            at += taken;
            self.faults.point().await;
            if left == 0 {
                return Err(broken());
            }
        }
        let status = {
            let mut state = self.state();
            let uploads = &mut state.session(session)?.uploads;
            let upload = uploads.get_mut(&info.id).unwrap();
            let (info, stored) = (&upload.0, &mut upload.1);
            if matches!(fault, Fault::Corrupt) {
                stored[0] ^= 1;
            }
            if stored.len() as u64 == info.stored_bytes && info.verify(stored).is_err() {
                stored.clear();
                return Err(error(ErrorReason::BatchCorrupt));
            }
            status(upload)
        };
        self.faults.leave(fault, status).await
    }

    async fn query_batch(&self, session: SessionRef, batch: BatchId) -> Result<BatchStatus> {
        let fault = self.faults.enter("query_batch").await?;
        let status = self.state().session(session)?.uploads.get(&batch).map_or(BatchStatus::Absent, status);
        self.faults.leave(fault, status).await
    }

    async fn apply(
        &self,
        session: SessionRef,
        request: ApplyRequest,
    ) -> Result<BoxStream<'static, Result<ApplyEvent>>> {
        let fault = self.faults.enter("apply").await?;
        let answer = {
            let mut state = self.state();
            let replica = state.session(session)?.replica;
            let list: Vec<_> = request.batches.iter().map(|(info, _)| info.id).collect();
            if let Some((applied, ..)) = state.applies.get(&session.id) {
                if *applied != list {
                    return Err(error(ErrorReason::ReplicaDiverged));
                }
            } else {
                let uploads = &mut state.session(session)?.uploads;
                let mut stored = Vec::new();
                for (info, inline) in &request.batches {
                    if let Some(bytes) = inline {
                        uploads.insert(info.id, (info.clone(), bytes.to_vec()));
                    }
                    match uploads.get(&info.id) {
                        Some(upload) if status(upload) == BatchStatus::Complete => {
                            stored.push(upload.clone())
                        }
                        _ => return Err(error(ErrorReason::BatchIncomplete).with("batch_id", info.id)),
                    }
                }
                let (result, errors) = state.apply(replica, &request, &stored);
                state.applies.insert(session.id, (list, result, errors));
            }
            let (_, result, errors) = &state.applies[&session.id];
            let errors = errors.iter().cloned().map(ApplyEvent::RowError);
            let progress = ApplyEvent::Progress { rows: 1, rows_total: 1 };
            std::iter::once(progress)
                .chain(errors)
                .chain([ApplyEvent::Result(result.clone())])
                .collect::<Vec<_>>()
        };
        let answer = self.faults.leave(fault, answer).await?;
        Ok(events(answer, fault))
    }

    async fn end(&self, session: SessionRef, request: EndRequest) -> Result<()> {
        let fault = self.faults.enter("end").await?;
        {
            let mut state = self.state();
            let replica = state.session(session)?.replica;
            state.sessions.remove(&session.id);
            if let (Some(mark), Some(leaf)) = (request.download_mark, state.leaves.get_mut(&replica)) {
                leaf.download_marks = vec![Some(mark)];
            }
        }
        self.faults.leave(fault, ()).await
    }
}

fn status((info, stored): &(BatchInfo, Vec<u8>)) -> BatchStatus {
    match stored.len() as u64 {
        0 => BatchStatus::Absent,
        length if length == info.stored_bytes => BatchStatus::Complete,
        committed_size => BatchStatus::Partial { committed_size },
    }
}
