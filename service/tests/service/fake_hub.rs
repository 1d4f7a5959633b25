//! A hub in memory: enough of one to see what the service hands it, and to make it wait or fail.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use syncline::batch::{BatchInfo, Codec, EncodedBatch, Operation};
use syncline::conflict::{ConflictKind, ConflictSummary, Outcome, RowError, RowErrorReason, Side};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{
    BatchId, ColumnId, ConflictId, Incarnation, Mark, ReplicaId, ScopeName, SessionId, SessionToken, TableId,
};
use syncline::knowledge::RowKey;
use syncline::schema::{ColumnSchema, ConflictPolicy, Direction, RowErrorPolicy, ScopeSchema, TableSchema};
use syncline::value::CanonicalType;
use syncline_engine::replica::*;
use syncline_service::{ScopeSummary, ServedHub};
use tokio_util::sync::CancellationToken;

pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(crate) struct FakeHub {
    pub(crate) replica: ReplicaId,
    pub(crate) schema: ScopeSchema,
    /// What GetChanges lists.
    pub(crate) downloads: Mutex<Vec<EncodedBatch>>,
    sessions: Mutex<HashMap<SessionId, HubSession>>,
    pub(crate) begun: Mutex<Option<BeginRequest>>,
    pub(crate) polled: Mutex<Option<PollRequest>>,
    /// How often a watcher wants to be told.
    pub(crate) watched: Mutex<Option<Duration>>,
    pub(crate) asked: Mutex<Option<ChangesRequest>>,
    pub(crate) applied: Mutex<Option<ApplyRequest>>,
    pub(crate) ended: Mutex<Option<EndRequest>>,
    /// The next call fails with this.
    pub(crate) failure: Mutex<Option<SyncError>>,
    /// While set, an enumeration waits before its end until [`go_on`](Self::go_on).
    pub(crate) waits: AtomicBool,
    pub(crate) go_on: CancellationToken,
    pub(crate) calls: AtomicUsize,
    pub(crate) drained: AtomicBool,
}

struct HubSession {
    token: SessionToken,
    uploads: HashMap<BatchId, (BatchInfo, Vec<u8>)>,
    released: Vec<BatchId>,
}

impl FakeHub {
    pub(crate) fn new() -> Self {
        Self {
            replica: ReplicaId::fresh(),
            schema: schema(),
            downloads: Mutex::default(),
            sessions: Mutex::default(),
            begun: Mutex::default(),
            polled: Mutex::default(),
            watched: Mutex::default(),
            asked: Mutex::default(),
            applied: Mutex::default(),
            ended: Mutex::default(),
            failure: Mutex::default(),
            waits: AtomicBool::new(false),
            go_on: CancellationToken::new(),
            calls: AtomicUsize::new(0),
            drained: AtomicBool::new(false),
        }
    }

    /// The bytes of an upload so far.
    pub(crate) fn uploaded(&self, batch: BatchId) -> Option<Vec<u8>> {
        let sessions = self.sessions.lock().unwrap();
        sessions.values().find_map(|session| session.uploads.get(&batch).map(|(_, bytes)| bytes.clone()))
    }

    fn call(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.failure.lock().unwrap().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn with<T>(&self, session: SessionRef, work: impl FnOnce(&mut HubSession) -> Result<T>) -> Result<T> {
        self.call()?;
        let mut sessions = self.sessions.lock().unwrap();
        let found = sessions
            .get_mut(&session.id)
            .ok_or_else(|| SyncError::new(ErrorReason::SessionNotFound, "no such session; begin one"))?;
        if found.token != session.token {
            return Err(SyncError::new(ErrorReason::SessionSuperseded, "another holder went on"));
        }
        work(found)
    }
}

fn schema() -> ScopeSchema {
    let column = |id, name: &str, ty| ColumnSchema {
        id: ColumnId(id),
        name: name.to_owned(),
        ty,
        not_null: true,
        precision_scale: None,
        default: None,
    };
    ScopeSchema {
        name: "shop".parse().unwrap(),
        incarnation: Incarnation::fresh(),
        version: 3,
        tables: vec![TableSchema {
            id: TableId(1),
            name: "customer".into(),
            columns: vec![column(1, "id", CanonicalType::Int64), column(2, "data", CanonicalType::Json)],
            key: vec![ColumnId(1)],
            foreign_keys: Vec::new(),
            unique: Vec::new(),
            direction: Direction::Both,
            conflict_policy: None,
        }],
        conflict_policy: ConflictPolicy::ServerWins,
        row_error_policy: RowErrorPolicy::Skip,
    }
}

#[async_trait]
impl ServedHub for FakeHub {
    fn replica(&self) -> ReplicaId {
        self.replica
    }

    async fn scopes(&self) -> Result<Vec<ScopeSummary>> {
        self.call()?;
        let names = ["stock", "shop", "audit"];
        Ok(names.map(|name| ScopeSummary { name: name.parse().unwrap(), version: 3, tables: 1 }).to_vec())
    }

    async fn abort(&self) {}

    async fn drain(&self) {
        self.drained.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl HubReplica for FakeHub {
    async fn scope(&self, name: &ScopeName) -> Result<ServedScope> {
        self.call()?;
        if *name != self.schema.name {
            return Err(SyncError::new(ErrorReason::ScopeNotFound, "no such scope").with("scope", name));
        }
        Ok(ServedScope { schema: self.schema.clone(), hub: self.replica })
    }

    async fn begin(&self, request: BeginRequest) -> Result<Begun> {
        self.call()?;
        let token = SessionToken::fresh();
        let session = SessionRef { id: request.session, token };
        let mut sessions = self.sessions.lock().unwrap();
        let resumed = sessions.contains_key(&session.id);
        let entry = sessions.entry(session.id).or_insert_with(|| HubSession {
            token,
            uploads: HashMap::new(),
            released: Vec::new(),
        });
        entry.token = token;
        let uploads = entry.uploads.iter().map(|(id, (info, bytes))| (*id, status(info, bytes))).collect();
        *self.begun.lock().unwrap() = Some(request);
        Ok(Begun {
            session,
            agreement: Agreement {
                codec: Codec::Zstd,
                batch_bytes_max: 4 << 20,
                row_bytes_max: 64 << 20,
                batches_in_flight_max: 4,
            },
            resume: ResumeState { resumed, uploads, ..ResumeState::default() },
            reinitialize: false,
            upload_mark: None,
            hub: self.replica,
            hub_time: SystemTime::now(),
        })
    }

    async fn poll(&self, request: PollRequest) -> Result<Pending> {
        self.call()?;
        *self.polled.lock().unwrap() = Some(request);
        Ok(Pending::Maybe)
    }

    async fn watch(
        &self,
        request: PollRequest,
        interval_min: Duration,
    ) -> Result<BoxStream<'static, Result<Pending>>> {
        self.call()?;
        *self.polled.lock().unwrap() = Some(request);
        *self.watched.lock().unwrap() = Some(interval_min);
        Ok(stream::iter([Ok(Pending::None), Ok(Pending::Some)]).chain(stream::pending()).boxed())
    }

    async fn changes(
        &self,
        session: SessionRef,
        request: ChangesRequest,
    ) -> Result<BoxStream<'static, Result<ChangesEvent>>> {
        self.with(session, |_| Ok(()))?;
        *self.asked.lock().unwrap() = Some(request);
        let begin = ChangesBegin {
            mode: ChangesMode::Delta { whole_tables: vec![TableId(1)] },
            made_with: Bytes::from_static(b"made"),
            resumed: false,
        };
        let batches = self.downloads.lock().unwrap().clone();
        let rows = batches.iter().map(|batch| u64::from(batch.info.rows)).sum();
        let end = ChangesEnd {
            learned: Bytes::from_static(b"learned"),
            download_mark: Mark::fresh(),
            batches: batches.len() as u32,
            rows,
        };
        let infos = batches.into_iter().map(|batch| {
            let small = batch.stored.len() <= syncline::limits::INLINE_BATCH_BYTES_MAX;
            Ok(ChangesEvent::Batch(batch.info, small.then_some(batch.stored)))
        });
        let events = stream::iter([Ok(ChangesEvent::Begin(begin))]).chain(stream::iter(infos));
        let wait = self.waits.load(Ordering::SeqCst).then(|| self.go_on.clone());
        let last = stream::once(async move {
            if let Some(go_on) = wait {
                go_on.cancelled().await;
            }
            Ok(ChangesEvent::End(end))
        });
        Ok(events.chain(last).boxed())
    }

    async fn read_batch(
        &self,
        session: SessionRef,
        batch: BatchId,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.with(session, |_| Ok(()))?;
        let downloads = self.downloads.lock().unwrap();
        let found = downloads.iter().find(|known| known.info.id == batch).ok_or_else(|| {
            SyncError::new(ErrorReason::BatchNotFound, "no such batch").with("batch_id", batch)
        })?;
        if offset > found.info.stored_bytes {
            return Err(SyncError::new(ErrorReason::OffsetMismatch, "beyond the batch")
                .with("committed_size", found.info.stored_bytes));
        }
        // Pieces larger than a chunk: the service cuts them.
        let bytes = found.stored.slice(offset as usize..);
        Ok(stream::iter([Ok(bytes)]).boxed())
    }

    async fn release(&self, session: SessionRef, batches: &[BatchId]) -> Result<()> {
        self.with(session, |session| {
            session.released.extend_from_slice(batches);
            Ok(())
        })
    }

    async fn write_batch(
        &self,
        session: SessionRef,
        info: BatchInfo,
        offset: u64,
        mut bytes: BoxStream<'static, Result<Bytes>>,
    ) -> Result<BatchStatus> {
        let have = self.with(session, |session| {
            let (_, stored) = session.uploads.entry(info.id).or_insert_with(|| (info.clone(), Vec::new()));
            Ok(stored.len() as u64)
        })?;
        if offset > have {
            return Err(SyncError::new(ErrorReason::OffsetMismatch, "beyond what is stored")
                .with("batch_id", info.id)
                .with("committed_size", have));
        }
        let mut skip = have - offset;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            let passed_over = skip.min(chunk.len() as u64);
            skip -= passed_over;
            let mut sessions = self.sessions.lock().unwrap();
            let uploads = &mut sessions.get_mut(&session.id).unwrap().uploads;
            uploads.get_mut(&info.id).unwrap().1.extend_from_slice(&chunk[passed_over as usize..]);
        }
        let stored = self.uploaded(info.id).unwrap();
        if stored.len() as u64 == info.stored_bytes {
            info.verify(&stored)?;
        }
        Ok(status(&info, &stored))
    }

    async fn query_batch(&self, session: SessionRef, batch: BatchId) -> Result<BatchStatus> {
        self.with(session, |session| {
            if session.released.contains(&batch) {
                return Ok(BatchStatus::Released);
            }
            let found = session.uploads.get(&batch);
            Ok(found.map_or(BatchStatus::Absent, |(info, bytes)| status(info, bytes)))
        })
    }

    async fn apply(
        &self,
        session: SessionRef,
        request: ApplyRequest,
    ) -> Result<BoxStream<'static, Result<ApplyEvent>>> {
        self.with(session, |_| Ok(()))?;
        let upload_mark = request.upload_mark;
        *self.applied.lock().unwrap() = Some(request);
        let key = RowKey { table: TableId(1), key: Bytes::from_static(b"key") };
        let events = [
            ApplyEvent::Progress { rows: 1, rows_total: 2 },
            ApplyEvent::Conflict(ConflictSummary {
                id: ConflictId::fresh(),
                table: TableId(1),
                table_name: "customer".into(),
                key_json: "{\"id\":1}".into(),
                kind: ConflictKind { local: Side::Update, remote: Side::Delete },
                policy: ConflictPolicy::ServerWins,
                outcome: Outcome::Local,
            }),
            ApplyEvent::RowError(RowError {
                row: key,
                table_name: "customer".into(),
                key_json: "{\"id\":2}".into(),
                operation: Operation::Upsert,
                reason: RowErrorReason::Unique,
                message: "the e-mail is taken".into(),
            }),
            ApplyEvent::Result(ApplyResult {
                upserts: 1,
                deletes: 2,
                unchanged: 3,
                conflicts: 1,
                row_errors: 1,
                upload_mark,
                committed_at: -1,
            }),
        ];
        Ok(stream::iter(events.map(Ok)).boxed())
    }

    async fn end(&self, session: SessionRef, request: EndRequest) -> Result<()> {
        self.with(session, |_| Ok(()))?;
        *self.ended.lock().unwrap() = Some(request);
        Ok(())
    }
}

fn status(info: &BatchInfo, bytes: &[u8]) -> BatchStatus {
    match bytes.len() as u64 {
        0 => BatchStatus::Absent,
        size if size == info.stored_bytes => BatchStatus::Complete,
        committed_size => BatchStatus::Partial { committed_size },
    }
}
