//! The questions that a hub answers, whether it is a database next to you or a service across the network: so one
//! driver synchronises with either.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use syncline::batch::{BatchInfo, Codec};
use syncline::conflict::{ConflictSummary, RowError};
use syncline::error::Result;
use syncline::ids::{BatchId, Mark, ReplicaId, ScopeName, SessionId, SessionToken, TableId};
use syncline::knowledge::{Clock, RowKey};
use syncline::schema::ScopeSchema;

/// A session, as its later calls name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRef {
    /// The session.
    pub id: SessionId,
    /// The token of its newest BeginSession.
    pub token: SessionToken,
}

/// What a client says when it opens a session, or takes one up again.
#[derive(Debug, Clone)]
pub struct BeginRequest {
    /// Made by the client; the same id is the same session.
    pub session: SessionId,
    /// The leaf.
    pub replica: ReplicaId,
    /// The scope.
    pub scope: ScopeName,
    /// Values of the scope's parameters, by name.
    pub parameters: Vec<(String, String)>,
    /// The leaf's stored knowledge, opaque to it; empty for none.
    pub knowledge: Bytes,
    /// The upload mark that was answered last.
    pub upload_mark_answered: Option<Mark>,
    /// The upload mark that was drawn and not answered yet.
    pub upload_mark_drawn: Option<Mark>,
    /// The download mark that is stored with the knowledge.
    pub download_mark: Option<Mark>,
    /// The codecs that the client decodes.
    pub codecs: Vec<Codec>,
    /// The largest batch that the client takes; `None` for the service's default.
    pub batch_bytes_max: Option<u64>,
    /// The largest row that the client takes; `None` for the service's default.
    pub row_bytes_max: Option<u64>,
    /// The fingerprint of the schema that the client has.
    pub schema_fingerprint: [u8; 32],
    /// What the client calls itself, for people.
    pub client_name: String,
    /// The client has nothing to do in the session yet: it is refused first where many are open.
    pub ahead: bool,
}

/// What both sides keep to in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Agreement {
    /// The codec of batches, both ways.
    pub codec: Codec,
    /// The largest batch before compression.
    pub batch_bytes_max: u64,
    /// The largest row.
    pub row_bytes_max: u64,
    /// Batches in flight, each way.
    pub batches_in_flight_max: u32,
}

/// The session is open.
#[derive(Debug, Clone)]
pub struct Begun {
    /// Names the session from now on.
    pub session: SessionRef,
    /// What both sides keep to.
    pub agreement: Agreement,
    /// How far the session has come.
    pub resume: ResumeState,
    /// Whether everything must be compared anew: upload what is pending, then ask with empty knowledge.
    pub reinitialize: bool,
    /// The upload mark that the hub holds.
    pub upload_mark: Option<Mark>,
    /// The hub.
    pub hub: ReplicaId,
    /// The hub's clock when it answered.
    pub hub_time: SystemTime,
}

/// How far a session that was begun before has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResumeState {
    /// Whether the session was taken up again.
    pub resumed: bool,
    /// The uploaded batches that the hub holds, with the bytes that are stored durably and whether all are.
    pub uploads: Vec<(BatchId, BatchStatus)>,
    /// Whether the apply was called for.
    pub apply_started: bool,
    /// Whether the apply has committed.
    pub applied: bool,
    /// Whether the download has begun: nothing can be uploaded any more.
    pub download_started: bool,
}

/// What a hub has of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchStatus {
    /// Nothing.
    Absent,
    /// The first bytes.
    Partial {
        /// Bytes that are stored durably.
        committed_size: u64,
    },
    /// All of it.
    Complete,
    /// It had it, and the client released it.
    Released,
}

/// Asks whether there is something new, without a session.
#[derive(Debug, Clone)]
pub struct PollRequest {
    /// The leaf.
    pub replica: ReplicaId,
    /// The scope.
    pub scope: ScopeName,
    /// Values of the scope's parameters.
    pub parameters: Vec<(String, String)>,
    /// The leaf's stored knowledge.
    pub knowledge: Bytes,
    /// The fingerprint of the schema that the client has.
    pub schema_fingerprint: [u8; 32],
}

/// Whether there is something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    None,
    /// Something.
    Some,
    /// The probe was cut short; treat it as some.
    Maybe,
}

/// A row that the leaf could not apply before.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExceptedKey {
    /// The row.
    pub row: RowKey,
    /// The leaf's stored knowledge from before the change that failed; empty for none.
    pub knowledge_before: Bytes,
}

/// Asks for what the given knowledge lacks.
#[derive(Debug, Clone)]
pub struct ChangesRequest {
    /// What the leaf knows; empty: everything is compared as a whole.
    pub knowledge: Bytes,
    /// Rows that the leaf could not apply before.
    pub excepted_keys: Vec<ExceptedKey>,
    /// List batches from this sequence on.
    pub first_sequence: u32,
}

/// How the leaf compares what comes with what it has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ChangesMode {
    /// Only changes come, and of these tables every row.
    Delta {
        /// Tables that are compared as a whole.
        whole_tables: Vec<TableId>,
    },
    /// Every row of the view comes: a clean row that is not named is deleted.
    WholeView,
}

impl ChangesMode {
    /// Whether the table is compared as a whole.
    #[must_use]
    pub fn is_whole(&self, table: TableId) -> bool {
        match self {
            Self::WholeView => true,
            Self::Delta { whole_tables } => whole_tables.contains(&table),
        }
    }
}

/// The first event of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChangesBegin {
    /// How to compare.
    pub mode: ChangesMode,
    /// The hub's knowledge that the changes are built on.
    pub made_with: Bytes,
    /// Whether an enumeration that was broken off goes on.
    pub resumed: bool,
}

/// The last event of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChangesEnd {
    /// What the leaf knows once it has applied all batches. Stored only together with the mark.
    pub learned: Bytes,
    /// The download mark.
    pub download_mark: Mark,
    /// Batches in all.
    pub batches: u32,
    /// Rows in all.
    pub rows: u64,
}

/// An event of an enumeration.
#[derive(Debug, Clone)]
pub enum ChangesEvent {
    /// First.
    Begin(ChangesBegin),
    /// A batch can be downloaded; small ones come with their bytes.
    Batch(BatchInfo, Option<Bytes>),
    /// Still at it.
    Progress {
        /// Rows enumerated so far.
        rows: u64,
        /// Batches spooled so far.
        batches: u32,
        /// Whether it waits for batches to be released.
        waiting_for_release: bool,
    },
    /// Last.
    End(ChangesEnd),
}

/// Asks to apply an upload.
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    /// All batches in order, small ones with their bytes.
    pub batches: Vec<(BatchInfo, Option<Bytes>)>,
    /// The knowledge that the changes were made with.
    pub made_with: Bytes,
    /// Rows that the leaf could not apply: changes of them were made with the knowledge from before the failure.
    pub excepted_keys: Vec<ExceptedKey>,
    /// Whose clock it is: the replica that began the session, and none other.
    pub leaf: ReplicaId,
    /// The leaf's clock at the snapshot that the changes were read in.
    pub leaf_clock: Clock,
    /// The upload mark that was drawn for it.
    pub upload_mark: Mark,
    /// The hub's clock less the leaf's, in microseconds.
    pub clock_offset_us: i64,
}

/// How an apply ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ApplyResult {
    /// Rows inserted or updated.
    pub upserts: u64,
    /// Rows deleted.
    pub deletes: u64,
    /// Rows that were known already or had equal content.
    pub unchanged: u64,
    /// Conflicts, in all.
    pub conflicts: u64,
    /// Rows that could not be applied, in all.
    pub row_errors: u64,
    /// The upload mark that is stored now.
    pub upload_mark: Mark,
    /// When it was committed, in microseconds since 1970 UTC.
    pub committed_at: i64,
}

/// An event of an apply.
#[derive(Debug, Clone)]
pub enum ApplyEvent {
    /// Still at it.
    Progress {
        /// Rows looked at so far.
        rows: u64,
        /// Rows in all.
        rows_total: u64,
    },
    /// A conflict that was settled.
    Conflict(ConflictSummary),
    /// A row that could not be applied: it stays dirty at the leaf.
    RowError(RowError),
    /// Last.
    Result(ApplyResult),
}

/// Ends a session.
#[derive(Debug, Clone)]
pub struct EndRequest {
    /// Whether the client gives the session up: a running apply is cancelled.
    pub abandoned: bool,
    /// The client's knowledge now; empty if nothing was downloaded.
    pub knowledge: Bytes,
    /// The download mark that is stored with it.
    pub download_mark: Option<Mark>,
    /// Rows applied at the client.
    pub rows_downloaded: u64,
    /// Stored batch bytes received.
    pub bytes_downloaded: u64,
    /// Conflicts found at the client.
    pub conflicts: u64,
    /// Rows that the client could not apply.
    pub row_errors: u64,
}

impl EndRequest {
    /// The end of a session that is given up.
    #[must_use]
    pub const fn abandoned() -> Self {
        Self {
            abandoned: true,
            knowledge: Bytes::new(),
            download_mark: None,
            rows_downloaded: 0,
            bytes_downloaded: 0,
            conflicts: 0,
            row_errors: 0,
        }
    }
}

/// A scope as a hub serves it.
#[derive(Debug, Clone)]
pub struct ServedScope {
    /// The schema.
    pub schema: ScopeSchema,
    /// The hub.
    pub hub: ReplicaId,
}

/// A hub: near ([`crate::hub::Hub`]) or far (the SDK's gRPC client). Every call may be repeated after a failure.
#[async_trait]
pub trait HubReplica: Send + Sync {
    /// A scope's schema.
    async fn scope(&self, name: &ScopeName) -> Result<ServedScope>;
    /// Opens a session, or takes one up again.
    async fn begin(&self, request: BeginRequest) -> Result<Begun>;
    /// Whether there is something new. Writes nothing.
    async fn poll(&self, request: PollRequest) -> Result<Pending>;
    /// Tells at once whether there is something new, and again whenever there may be: at most once in `interval_min`,
    /// the newest state only, now and then in vain, and never missing a commit. Ends only with an error; whoever watches
    /// again, with its knowledge of then, has missed nothing. A newer call of the same replica and scope ends this one.
    async fn watch(
        &self,
        request: PollRequest,
        interval_min: Duration,
    ) -> Result<BoxStream<'static, Result<Pending>>>;
    /// What the knowledge lacks.
    async fn changes(
        &self,
        session: SessionRef,
        request: ChangesRequest,
    ) -> Result<BoxStream<'static, Result<ChangesEvent>>>;
    /// A batch's bytes from `offset` on, in chunks of at most 256 KiB.
    async fn read_batch(
        &self,
        session: SessionRef,
        batch: BatchId,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes>>>;
    /// The client holds these batches durably.
    async fn release(&self, session: SessionRef, batches: &[BatchId]) -> Result<()>;
    /// A batch's bytes from `offset` on. Answers what is stored durably when the stream ends.
    async fn write_batch(
        &self,
        session: SessionRef,
        info: BatchInfo,
        offset: u64,
        bytes: BoxStream<'static, Result<Bytes>>,
    ) -> Result<BatchStatus>;
    /// What the hub has of a batch.
    async fn query_batch(&self, session: SessionRef, batch: BatchId) -> Result<BatchStatus>;
    /// Applies uploaded batches in one transaction, exactly once.
    async fn apply(
        &self,
        session: SessionRef,
        request: ApplyRequest,
    ) -> Result<BoxStream<'static, Result<ApplyEvent>>>;
    /// Acknowledges what the client has committed, and frees the spool.
    async fn end(&self, session: SessionRef, request: EndRequest) -> Result<()>;
}
