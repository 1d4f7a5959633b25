//! What a hub's database answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use syncline::batch::{BatchInfo, Block, Operation};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ColumnId, Mark, ReplicaId, ScopeName, SessionId, TableId};
use syncline::knowledge::{Clock, Knowledge, Version};
use syncline::schema::{ColumnSchema, ScopeSchema, TableSchema};
use syncline::value::{Cell, row_json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::BatchSource;
use crate::dialect::meta::{MetaStore, Statement};
use crate::limits::PROBE_RECORDS_MAX;
use crate::replica::{ApplyResult, Pending};
use crate::scope::{DefineError, ScopeDefinition};

/// A scope as the hub's database holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredScope {
    /// The number by which our tables name it.
    pub id: i64,
    /// What clients see.
    pub schema: ScopeSchema,
    /// The tables in the schema's order, with what only the hub knows of them.
    pub tables: Vec<StoredTable>,
}

/// A table of a scope, as the hub's database holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTable {
    /// The table's number: names our tables of it.
    pub id: TableId,
    /// The schema in the hub's database; empty in SQLite.
    pub source_schema: String,
    /// The name in the hub's database.
    pub source_name: String,
    /// When this table, its columns and direction took their present form in this scope. A leaf whose knowledge lacks
    /// it gets the table compared as a whole.
    pub since: Version,
    /// When it last changed other than by columns that were added, however often those were since: made-with knowledge
    /// that contains it stays valid for the table.
    pub reshaped: Version,
    /// Columns that joined the table later than the scope did, and when: what a leaf sends that lacks it says nothing
    /// of them.
    #[serde(default)]
    pub columns_since: Vec<(ColumnId, Version)>,
    /// Columns that the table had in the scope once. Leaves still have them, with what was in them then: if one joins
    /// again, that must not pass for what they have seen.
    #[serde(default)]
    pub columns_left: Vec<ColumnId>,
    /// The version of rows without record or entry.
    pub baseline: Version,
    /// When those rows count as changed, in microseconds since 1970 UTC.
    pub baseline_changed_at: i64,
}

impl StoredTable {
    /// When columns joined: those that did before, as far as they are still there, and those that join at `now`.
    #[must_use]
    pub fn columns_since(
        before: Option<(&TableSchema, &Self)>,
        schema: &TableSchema,
        now: Version,
    ) -> Vec<(ColumnId, Version)> {
        let Some((old, stored)) = before else { return Vec::new() };
        let mut since = stored.columns_since.clone();
        since.retain(|(id, _)| schema.column(*id).is_some());
        let joins = schema.columns.iter().filter(|column| old.column(column.id).is_none());
        since.extend(joins.map(|column| (column.id, now)));
        since
    }

    /// The columns that left, and whether one of them joins again: the table is reshaped then.
    #[must_use]
    pub fn columns_left(
        before: Option<(&TableSchema, &Self)>,
        schema: &TableSchema,
    ) -> (Vec<ColumnId>, bool) {
        let Some((old, stored)) = before else { return (Vec::new(), false) };
        let leave = old.columns.iter().map(|column| column.id);
        let known = leave.chain(stored.columns_left.iter().copied());
        let left = known.filter(|id| schema.column(*id).is_none()).collect();
        (left, stored.columns_left.iter().any(|id| schema.column(*id).is_some()))
    }
}

/// Whether a leaf has left a column, which it has just got, as it was made: empty, or with its default.
#[must_use]
pub fn is_unfilled(column: &ColumnSchema, cell: Cell<'_>) -> bool {
    if matches!(cell, Cell::Null) {
        return true;
    }
    let json = row_json([(column.name.as_str(), cell)]);
    let found = &json[&column.name];
    let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
    column.default.as_ref() == Some(&text)
}

impl StoredScope {
    /// A table's two halves.
    #[must_use]
    pub fn table(&self, id: TableId) -> Option<(&TableSchema, &StoredTable)> {
        let stored = self.tables.iter().find(|table| table.id == id)?;
        Some((self.schema.table(id)?, stored))
    }

    /// Whether it is still what is stored, which a snapshot asks in itself. **Invariant:** what a leaf is told that it knows
    /// afterwards is as new as the scope by which it was read. Else it would know when a table joined or was provisioned
    /// anew, and never be sent the rows that were there before.
    ///
    /// # Errors
    /// `SESSION_EXPIRED` if it was changed, put under synchronisation anew, or dropped.
    pub fn check_present(&self, stored: Option<&Self>) -> Result<()> {
        if stored == Some(self) {
            return Ok(());
        }
        let name = &self.schema.name;
        Err(SyncError::new(
            ErrorReason::SessionExpired,
            format!("the scope \"{name}\" was changed since the session read it; begin a new session"),
        )
        .with("scope", name))
    }
}

/// What defining a scope did, or would do.
#[derive(Debug, Clone)]
pub struct ScopeChange {
    /// The scope now (in a dry run: as it would be).
    pub scope: StoredScope,
    /// The statements that were run, or would be.
    pub statements: Vec<String>,
    /// Whether there was anything to do.
    pub changed: bool,
    /// What the user should know (columns that are not carried, for example).
    pub notes: Vec<String>,
}

/// A scope with what is computed of it once.
#[derive(Debug)]
pub struct KnownScope {
    stored: StoredScope,
    /// The schema's fingerprint.
    pub fingerprint: [u8; 32],
}

impl KnownScope {
    /// A scope as it was read.
    #[must_use]
    pub fn new(stored: StoredScope) -> Arc<Self> {
        let fingerprint = stored.schema.fingerprint();
        Arc::new(Self { stored, fingerprint })
    }

    /// The tables whose changes downloads carry.
    pub fn downloaded(&self) -> impl Iterator<Item = &StoredTable> {
        let pairs = self.schema.tables.iter().zip(&self.tables);
        pairs.filter(|(schema, _)| schema.direction.downloads()).map(|(_, stored)| stored)
    }
}

impl std::ops::Deref for KnownScope {
    type Target = StoredScope;

    fn deref(&self) -> &StoredScope {
        &self.stored
    }
}

/// What one cheap read says of a scope, all in one snapshot.
#[derive(Debug, Clone)]
pub struct Glance {
    /// The scope.
    pub scope: Arc<KnownScope>,
    /// What the hub knows in this snapshot.
    pub knowledge: Knowledge,
    /// Whether `knowledge` contains everything that the snapshot has. Not so where changes get their ticks when they are
    /// folded, and some are not.
    pub whole: bool,
    /// Whether the floor contains everything that downloads of the scope carry. False says nothing.
    pub quiet: bool,
}

/// What a leaf lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// Whether there is something that did not come from the leaf.
    pub pending: Pending,
    /// Whether there is nothing, wherever it came from.
    pub quiet: bool,
}

impl Probed {
    /// There is something.
    pub const SOME: Self = Self { pending: Pending::Some, quiet: false };
    /// There is nothing at all.
    pub const NOTHING: Self = Self { pending: Pending::None, quiet: true };

    /// That many records were looked at, and all of them came from the leaf: beyond the bound there may be others.
    pub fn looked_at(records: i64) -> Self {
        let all = records < i64::from(PROBE_RECORDS_MAX);
        Self { pending: if all { Pending::None } else { Pending::Maybe }, quiet: records == 0 }
    }

    /// What is lacking of two together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let pending = match (self.pending, other.pending) {
            (Pending::Some, _) | (_, Pending::Some) => Pending::Some,
            (Pending::Maybe, _) | (_, Pending::Maybe) => Pending::Maybe,
            (Pending::None, Pending::None) => Pending::None,
        };
        Self { pending, quiet: self.quiet && other.quiet }
    }
}

/// What a snapshot says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// When the table was truncated last; whoever lacks it gets the table compared as a whole.
    pub truncated: Option<Version>,
    /// Whether the base table has no rows at all.
    pub empty: bool,
}

/// Where an enumeration goes on: after this row of this part. Opaque to all but the store that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Upserts or deletes.
    pub operation: Operation,
    /// The table.
    pub table: TableId,
    /// The last key that was handed out, in the canonical form. Order is the hub's own.
    pub after: Bytes,
}

/// One table and operation of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Every row of the base table, in key order, with no look at the tracking tables.
    Whole {
        /// The table.
        table: TableId,
        /// Go on after this key.
        after: Option<Bytes>,
    },
    /// Rows that `known` lacks and that are there, in key order.
    Upserts {
        /// The table.
        table: TableId,
        /// Go on after this key.
        after: Option<Bytes>,
    },
    /// Keys that `known` lacks and whose rows are gone, in key order.
    Deletes {
        /// The table.
        table: TableId,
        /// Go on after this key.
        after: Option<Bytes>,
    },
    /// The present state of these rows, whatever their version and origin: a block of upserts for those that are
    /// there, a block of deletes for the others.
    Keys {
        /// The table.
        table: TableId,
        /// Canonical key bytes.
        keys: Vec<Bytes>,
    },
}

/// What to enumerate, in this order.
#[derive(Debug, Clone)]
pub struct EnumerationPlan {
    /// The parts.
    pub parts: Vec<Part>,
    /// What the leaf has: rows whose version it contains are left out of `Upserts` and `Deletes`.
    pub known: Knowledge,
    /// Rows whose origin is this leaf are left out of `Upserts` and `Deletes`; `None` switches the echo rule off.
    pub echo: Option<ReplicaId>,
    /// Tables whose blocks carry `changed_at` (policy last_writer_wins).
    pub changed_at_tables: Vec<TableId>,
    /// A block ends when its rows take this much. A larger row has a block of its own.
    pub block_bytes_max: usize,
    /// A larger row is ROW_TOO_LARGE, naming table and key.
    pub row_bytes_max: usize,
}

/// A block of an enumeration, and where to go on after it. Blocks of `Keys` parts have no position.
#[derive(Debug)]
pub struct EnumeratedBlock {
    /// The rows.
    pub block: Block,
    /// Where to go on after it.
    pub position: Option<Position>,
}

/// One read snapshot of a hub's database.
#[async_trait]
pub trait Snapshot: Send {
    /// What the hub knows in this snapshot: its own clock, those of its former ids, and those of its peers.
    fn knowledge(&self) -> &Knowledge;
    /// A statement that answers a row, in a later transaction, if the database's server has not failed since the snapshot was
    /// opened; asked while the snapshot is held. `None` where a failure of the database takes this process along.
    ///
    /// What a snapshot has seen need not be on disk. A server that fails loses it, and gives its ticks to others.
    fn witness(&self) -> Option<Statement> {
        None
    }
    /// What the snapshot says of a table of the scope.
    fn table(&self, id: TableId) -> Option<&TableState>;
    /// Sends the blocks of the plan. Ends early, without an error, when the receiver is dropped. An error is sent as the
    /// last item. May be called again with another plan, under the same snapshot; dropped, the snapshot is closed.
    async fn enumerate(&mut self, plan: EnumerationPlan, blocks: mpsc::Sender<Result<EnumeratedBlock>>);
}

/// An upload to be applied.
#[derive(Debug, Clone)]
pub struct UploadJob {
    /// The scope.
    pub scope: Arc<StoredScope>,
    /// The session: applied once.
    pub session: SessionId,
    /// The sender.
    pub leaf: ReplicaId,
    /// SHA-256 of the list of batches: another list for the same session is REPLICA_DIVERGED.
    pub list_digest: [u8; 32],
    /// The batches.
    pub batches: Vec<BatchInfo>,
    /// The knowledge that the changes were made with, table by table where it differs (a table whose `since` or
    /// truncation the leaf lacks counts as made with nothing).
    pub made_with: Knowledge,
    /// Tables for which made-with knowledge counts as empty: those that don't download are always among them.
    pub made_with_nothing: Vec<TableId>,
    /// Columns that joined a table after what the changes were made with. The leaf has not seen what stands in them: in
    /// rows that are there they stay as they are, unless the leaf has filled them.
    pub columns_kept: BTreeMap<TableId, Vec<ColumnId>>,
    /// The leaf's clock at the snapshot that the changes were read in.
    pub leaf_clock: Clock,
    /// The upload mark to store.
    pub upload_mark: Mark,
    /// The upload mark that the session's BeginSession found.
    pub upload_mark_begun: Option<Mark>,
    /// The hub's clock less the leaf's, in microseconds.
    pub clock_offset_us: i64,
    /// Cancelled when the apply is to be given up: see [`HubStore::apply_upload`].
    pub stop: CancellationToken,
}

impl UploadJob {
    /// To be asked with the upload mark that the hub holds, once the leaf's row is held and the session is claimed.
    ///
    /// **Invariant:** an upload is applied after the one that its session has seen, or is that one again. Two copies of
    /// a leaf count the same ticks for different edits: whoever uploaded in between, its ticks would be taken for this
    /// upload's, and rows of this one be passed over as known.
    ///
    /// # Errors
    /// REPLICA_DIVERGED.
    pub fn check_upload_mark(&self, held: Option<Mark>) -> Result<()> {
        if held == self.upload_mark_begun || held == Some(self.upload_mark) {
            return Ok(());
        }
        Err(SyncError::new(
            ErrorReason::ReplicaDiverged,
            "a copy of the replica has uploaded since the session began; the replica must take a new id and compare \
             everything",
        )
        .with("replica_id", self.leaf)
        .with("mark", "upload"))
    }

    /// To be asked wherever an apply may end, and last right before its commit.
    ///
    /// # Errors
    /// SESSION_STATE if the apply is to be given up.
    pub fn check_wanted(&self) -> Result<()> {
        if self.stop.is_cancelled() { Err(given_up()) } else { Ok(()) }
    }
}

/// What an apply answers that was given up: its transaction was rolled back.
#[must_use]
pub fn given_up() -> SyncError {
    SyncError::new(ErrorReason::SessionState, "the apply was given up; nothing of it was applied")
}

/// What an apply answers whose session is not there any more.
#[must_use]
pub fn session_has_ended(session: SessionId) -> SyncError {
    SyncError::new(ErrorReason::SessionNotFound, "there is no such session, or it has ended; begin a new one")
        .with("session_id", session)
}

/// What an apply did, with what it has to report (bounded by `limits::CONFLICTS_LISTED_MAX` and `ROW_ERRORS_MAX`).
#[derive(Debug, Clone)]
pub struct ApplyReport {
    /// The result, as stored.
    pub result: ApplyResult,
    /// Whether this call applied it, or an earlier one had.
    pub applied_now: bool,
}

/// A hub's database.
#[async_trait]
pub trait HubStore: MetaStore + Send + Sync {
    /// Creates our tables if they are missing, checks their version and the database's identity (a database that
    /// finds itself behind its own past takes a new replica id), and answers the hub's id.
    async fn open_hub(&self) -> Result<ReplicaId>;

    /// A caller knows ticks of this hub that it has not given out: the database went back in time. Takes a new replica
    /// id, unless the snapshot contains `seen` after all. Answers the hub's id.
    async fn check_not_behind(&self, seen: Version) -> Result<ReplicaId>;

    /// Defines or changes a scope and provisions its tables; in a dry run says what it would do. All problems at once,
    /// and nothing changed, if the definition does not fit the database. Idempotent.
    async fn define_scope(
        &self,
        definition: &ScopeDefinition,
        dry_run: bool,
    ) -> Result<ScopeChange, DefineError>;

    /// The scope of this name.
    async fn scope(&self, name: &ScopeName) -> Result<Option<StoredScope>>;

    /// The names of all scopes, in order.
    async fn scope_names(&self) -> Result<Vec<ScopeName>>;

    /// Removes what provisioning the scope made, and nothing else; with the last scope, everything of ours. Answers
    /// whether there was such a scope.
    async fn drop_scope(&self, name: &ScopeName) -> Result<bool>;

    /// Folds the logs of the scope's tables into records.
    async fn fold(&self, scope: &StoredScope) -> Result<()>;

    /// Folds those logs of the scope's tables that it would be dear to read along with the records.
    async fn fold_long(&self, scope: &StoredScope) -> Result<()> {
        self.fold(scope).await
    }

    /// Opens a read snapshot, after checking in it that the scope is what is stored, and that triggers, partitions and
    /// columns are as provisioned.
    ///
    /// # Errors
    /// TRACKING_BROKEN and SESSION_EXPIRED among others: see [`StoredScope::check_present`].
    async fn snapshot(&self, scope: &StoredScope) -> Result<Box<dyn Snapshot>>;

    /// As [`snapshot`](Self::snapshot), after long logs were folded.
    async fn folded_snapshot(&self, scope: &StoredScope) -> Result<Box<dyn Snapshot>> {
        self.fold_long(scope).await?;
        self.snapshot(scope).await
    }

    /// Whether the leaf lacks something, by index probes of the tracking tables in one snapshot. Writes nothing. A leaf
    /// that knows more than the snapshot is never told that there is nothing.
    async fn probe(&self, scope: &StoredScope, leaf: ReplicaId, known: &Knowledge) -> Result<Probed>;

    /// Looks at a scope in one snapshot, which is taken after the call began, as cheaply as that can be done: what was
    /// read of the scope before is kept, and what the snapshot says tells whether it still holds. `floor` is what is
    /// believed to contain everything that there is. Writes nothing.
    ///
    /// # Errors
    /// TRACKING_BROKEN among others.
    async fn glance(&self, name: &ScopeName, floor: &Knowledge) -> Result<Option<Glance>>;

    /// Applies an upload in one transaction: rows, versions, conflicts, row errors, the leaf's clock, the upload mark
    /// and the result. An upload that was applied before answers the stored result. `rows_done` counts rows looked at.
    ///
    /// The transaction holds the session: it is refused if the session has ended, and the session can't end before the
    /// transaction has. Once `job.stop` is cancelled it ends soon, whatever it waits for, and answers what happened:
    /// the report if it had committed, else an error, and then nothing was applied.
    ///
    /// # Errors
    /// SESSION_NOT_FOUND if the session has ended; SESSION_STATE if it was given up; what the database says.
    async fn apply_upload(
        &self,
        job: UploadJob,
        batches: Arc<dyn BatchSource>,
        rows_done: Arc<std::sync::atomic::AtomicU64>,
    ) -> Result<ApplyReport>;

    /// The tick of the newest durable state, to be stored beside a mark: a restored hub stands still at the last one.
    async fn durable_tick(&self) -> Result<Version>;

    /// Rows that wait in logs, and records, by table, for status.
    async fn tracking_counts(&self, scope: &StoredScope) -> Result<BTreeMap<TableId, (u64, u64)>>;
}
