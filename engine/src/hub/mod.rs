//! A hub: a database and a spool that answer a leaf's questions.
//!
//! In the order of a session: [`begin`] (lease, marks, agreement; [`open`]), `upload` (batches into the spool), `apply` (one
//! transaction, exactly once), `changes` (enumeration into the spool and out), `end`. `plan` decides what to enumerate;
//! it is pure. Beside sessions: `poll`, and `watch` for whoever wants to be told. `sweep` removes what nobody asks for any more.
//!
//! Nothing that matters lives in memory: sessions, manifests and results are in the hub's database, bytes in the spool,
//! so a session goes on after the process was killed. What is in memory is who works on it right now.

mod apply;
mod batcher;
mod begin;
mod changes;
mod end;
mod enumeration;
mod excepted;
mod open;
mod plan;
mod poll;
mod scopes;
mod session;
mod sweep;
mod tasks;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_crashes;
#[cfg(test)]
mod tests_over_postgres;
#[cfg(test)]
mod tests_over_sqlite;
mod upload;
mod upload_block;
mod view;
mod watch;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use syncline::batch::BatchInfo;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchId, ReplicaId, ScopeName};

pub use scopes::ScopeSummary;
pub use session::SessionDocument;

use crate::limits;
use crate::replica::{
    ApplyEvent, ApplyRequest, BatchStatus, BeginRequest, Begun, ChangesEvent, ChangesRequest, EndRequest,
    HubReplica, Pending, PollRequest, ServedScope, SessionRef,
};
use crate::spool::Spool;
use crate::store::HubStore;
use poll::Polls;
use tasks::Tasks;
use watch::Watches;

/// What a hub keeps to.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// How long a session is kept without a call.
    pub lease: Duration,
    /// The largest batch before compression.
    pub batch_bytes_max: u64,
    /// The largest row.
    pub row_bytes_max: u64,
    /// Stored bytes of one session that may wait in the spool.
    pub spool_session_bytes_max: u64,
    /// Stored bytes of all sessions that may wait in the spool.
    pub spool_bytes_max: u64,
    /// At this age an enumeration's snapshot is closed, and another opened later.
    pub snapshot_age_max: Duration,
    /// Sessions that may be open at once.
    pub sessions_max: u32,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            lease: limits::LEASE_DEFAULT,
            batch_bytes_max: syncline::limits::BATCH_BYTES_DEFAULT,
            row_bytes_max: syncline::limits::ROW_BYTES_DEFAULT,
            spool_session_bytes_max: limits::SPOOL_SESSION_BYTES_MAX,
            spool_bytes_max: limits::SPOOL_BYTES_MAX,
            snapshot_age_max: limits::SNAPSHOT_AGE_MAX,
            sessions_max: limits::SESSIONS_MAX,
        }
    }
}

/// A hub. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn HubStore>,
    spool: Spool,
    config: HubConfig,
    tasks: Tasks,
    watches: Watches,
    polls: Polls,
    /// The hub's id; it changes when the database finds that it went back in time.
    id: std::sync::Mutex<ReplicaId>,
}

impl Hub {
    /// Opens a hub: checks the database's identity and that the spool is its own.
    ///
    /// # Errors
    /// If either can't be used, or the spool belongs to another hub.
    pub async fn open(store: Arc<dyn HubStore>, spool: Spool, config: HubConfig) -> Result<Self> {
        let id = store.open_hub().await?;
        let hub = Self {
            inner: Arc::new(Inner {
                store,
                spool,
                config,
                tasks: Tasks::default(),
                watches: Watches::default(),
                polls: Polls::default(),
                id: std::sync::Mutex::new(id),
            }),
        };
        hub.claim_spool().await?;
        hub.sweep().await?;
        hub.start_maintenance();
        Ok(hub)
    }

    /// The hub's id.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        *lock(&self.inner.id)
    }

    /// The hub's database.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn HubStore> {
        &self.inner.store
    }

    /// Takes no new sessions, and waits until the applies and enumerations that run have ended, or parked.
    pub async fn drain(&self) {
        self.inner.tasks.drain().await;
    }

    /// Gives up the applies that run, whose sessions stay and go on after the next start, and waits until nothing runs.
    pub async fn abort(&self) {
        self.inner.tasks.abort().await;
    }

    fn set_id(&self, id: ReplicaId) {
        *lock(&self.inner.id) = id;
    }

    fn config(&self) -> &HubConfig {
        &self.inner.config
    }

    fn spool(&self) -> &Spool {
        &self.inner.spool
    }

    fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    fn polls(&self) -> &Polls {
        &self.inner.polls
    }

    fn watches(&self) -> &Watches {
        &self.inner.watches
    }
}

#[async_trait]
impl HubReplica for Hub {
    async fn scope(&self, name: &ScopeName) -> Result<ServedScope> {
        let scope = self.stored_scope(name).await?;
        Ok(ServedScope { schema: scope.schema.clone(), hub: self.id() })
    }

    async fn begin(&self, request: BeginRequest) -> Result<Begun> {
        self.begin_session(request).await
    }

    async fn poll(&self, request: PollRequest) -> Result<Pending> {
        self.poll_knowledge(request).await
    }

    async fn watch(
        &self,
        request: PollRequest,
        interval_min: Duration,
    ) -> Result<BoxStream<'static, Result<Pending>>> {
        self.watch_scope(request, interval_min).await
    }

    async fn changes(
        &self,
        session: SessionRef,
        request: ChangesRequest,
    ) -> Result<BoxStream<'static, Result<ChangesEvent>>> {
        self.stream_changes(session, request).await
    }

    async fn read_batch(
        &self,
        session: SessionRef,
        batch: BatchId,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.stream_batch(session, batch, offset).await
    }

    async fn release(&self, session: SessionRef, batches: &[BatchId]) -> Result<()> {
        self.release_batches(session, batches).await
    }

    async fn write_batch(
        &self,
        session: SessionRef,
        info: BatchInfo,
        offset: u64,
        bytes: BoxStream<'static, Result<Bytes>>,
    ) -> Result<BatchStatus> {
        self.receive_batch(session, info, offset, bytes).await
    }

    async fn query_batch(&self, session: SessionRef, batch: BatchId) -> Result<BatchStatus> {
        self.batch_status(session, batch).await
    }

    async fn apply(
        &self,
        session: SessionRef,
        request: ApplyRequest,
    ) -> Result<BoxStream<'static, Result<ApplyEvent>>> {
        self.apply_changes(session, request).await
    }

    async fn end(&self, session: SessionRef, request: EndRequest) -> Result<()> {
        self.end_session(session, request).await
    }
}

/// The time, in microseconds since 1970 UTC.
fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A poisoned lock means that a thread panicked between two assignments of plain values: they are whole.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn batch_not_found(batch: BatchId) -> SyncError {
    SyncError::new(ErrorReason::BatchNotFound, "the session has no such batch; ask GetChanges for the list")
        .with("batch_id", batch)
}

fn session_state(message: &'static str) -> SyncError {
    SyncError::new(ErrorReason::SessionState, message)
}
