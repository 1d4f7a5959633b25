//! What a leaf's database answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use syncline::batch::{BatchInfo, Block};
use syncline::conflict::RowError;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{Mark, ReplicaId, ScopeName, SessionId, TableId};
use syncline::knowledge::Clock;
use syncline::schema::{ScopeSchema, TableSchema};
use tokio::sync::mpsc;

use super::{BatchSource, DownloadSource};
use crate::dialect::meta::MetaStore;
use crate::replica::{ChangesBegin, ChangesEnd, ExceptedKey};

/// What a leaf stores of a scope that it synchronises: one JSON document beside its tables. Everything that is known is
/// kept per scope, so the leaf's id is too: a chain that breaks in one scope does not break the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The scope as the hub described it when the tables were provisioned.
    pub schema: ScopeSchema,
    /// The leaf's id in this scope.
    pub replica: ReplicaId,
    /// The hub that it registered at; an address change is none of our business, another hub is.
    pub hub: ReplicaId,
    /// What it knows, opaque; empty for none.
    pub knowledge: Bytes,
    /// Rows that it could not apply.
    pub excepted_keys: Vec<ExceptedKey>,
    /// The upload mark that was answered last.
    pub upload_mark_answered: Option<Mark>,
    /// The upload mark that was drawn and not answered yet.
    pub upload_mark_drawn: Option<Mark>,
    /// The download mark that is stored with the knowledge.
    pub download_mark: Option<Mark>,
    /// Everything must be compared anew in the next download.
    pub reinitialize: bool,
    /// The replica diverged: pending changes are uploaded with empty made-with knowledge, and clean rows that the next
    /// download replaces or removes are kept in the conflict log.
    pub diverged: bool,
    /// Tables that were not tracked when they came into the scope, until a download has ended: clean rows that it replaces
    /// or removes are the leaf's own, and are kept in the conflict log.
    #[serde(default)]
    pub untracked_first: BTreeSet<TableId>,
    /// The session that is under way, if any.
    pub session: Option<SessionId>,
    /// The upload of that session, from the moment its batches are complete until it is acknowledged.
    pub upload: Option<PendingUpload>,
    /// Whether the download of that session has begun: nothing is uploaded in it any more.
    pub download_started: bool,
    /// Batches of that session's download that are applied already (`--apply per-batch`).
    pub batches_applied: u32,
    /// Whether that session's download was applied, and only the acknowledgement is open.
    pub applied: bool,
    /// The time of the last session that was completed, in microseconds since 1970 UTC.
    pub completed_at: Option<i64>,
}

impl Subscription {
    /// A subscription that knows nothing yet, under a new replica id.
    #[must_use]
    pub fn fresh(schema: ScopeSchema, hub: ReplicaId) -> Self {
        let untracked = schema.tables.iter().filter(|table| !table.direction.uploads());
        Self {
            untracked_first: untracked.map(|table| table.id).collect(),
            schema,
            replica: ReplicaId::fresh(),
            hub,
            knowledge: Bytes::new(),
            excepted_keys: Vec::new(),
            upload_mark_answered: None,
            upload_mark_drawn: None,
            download_mark: None,
            reinitialize: false,
            diverged: false,
            session: None,
            upload: None,
            download_started: false,
            batches_applied: 0,
            applied: false,
            completed_at: None,
        }
    }

    /// The same under the scope's present schema and the hub's present id, which changes when the hub's database finds
    /// that it went back in time.
    ///
    /// # Errors
    /// SCHEMA_MISMATCH if it is another hub's scope of the same name: what is known of the one says nothing of the other.
    pub fn renewed(&self, schema: &ScopeSchema, hub: ReplicaId) -> Result<Self> {
        if self.hub != hub && self.schema.incarnation != schema.incarnation {
            return Err(SyncError::new(
                ErrorReason::SchemaMismatch,
                format!(
                    "scope \"{}\" is synchronised with another hub here; unsubscribe from it first",
                    schema.name
                ),
            )
            .with("scope", &schema.name));
        }
        // Of a table that has left the scope the hub knows nothing, and takes no word of it.
        let excepted_keys =
            self.excepted_keys.iter().filter(|key| schema.table(key.row.table).is_some()).cloned().collect();
        let untracked = |table: &&TableSchema| {
            let before = self.schema.tables.iter().find(|old| old.name.eq_ignore_ascii_case(&table.name));
            match before {
                Some(before) => self.untracked_first.contains(&before.id),
                None => !table.direction.uploads(),
            }
        };
        let untracked = schema.tables.iter().filter(untracked);
        let untracked_first = untracked.map(|table| table.id).collect();
        Ok(Self { schema: schema.clone(), hub, excepted_keys, untracked_first, ..self.clone() })
    }

    /// Whether clean rows of a table that a download replaces or removes may be written nowhere else: of a replica that
    /// diverged, and those that were in a table that was not tracked before its first download.
    #[must_use]
    pub fn keeps_replaced(&self, table: &TableSchema) -> bool {
        self.diverged || self.untracked_first.contains(&table.id)
    }

    /// Whether the hub has taken a table out of the scope, and in again, since this was stored: it has another id then.
    ///
    /// **Invariant:** all that is pending in such a table gets a tick that was never uploaded. The hub knows this leaf's
    /// ticks up to its clock, but for rows that it refused; these it knows by the table's old id, and would take a row
    /// that comes under the new one for one that it has.
    #[must_use]
    pub fn is_of_another_id(&self, table: &TableSchema) -> bool {
        let mut same = self.schema.tables.iter().filter(|old| old.name.eq_ignore_ascii_case(&table.name));
        same.any(|old| old.id != table.id)
    }

    /// The same under a new replica id: what is pending goes up as made with nothing, and everything is compared.
    #[must_use]
    pub fn diverged(self) -> Self {
        Self {
            reinitialize: true,
            diverged: true,
            completed_at: self.completed_at,
            ..Self::fresh(self.schema, self.hub)
        }
    }
}

/// An upload whose batches are on the leaf's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingUpload {
    /// The batches, in order.
    pub batches: Vec<BatchInfo>,
    /// The knowledge that the changes were made with.
    pub made_with: Bytes,
    /// Rows that could not be applied here when the changes were read: they were not made with what failed.
    pub excepted_keys: Vec<ExceptedKey>,
    /// The leaf's clock at the snapshot that they were read in.
    pub leaf_clock: Clock,
    /// The mark that was drawn for it.
    pub mark: Mark,
}

/// A snapshot of the dirty rows: its clock, and the blocks as they are read.
#[derive(Debug)]
pub struct UploadSnapshot {
    /// The leaf's clock in this snapshot.
    pub clock: Clock,
    /// The dirty rows of all tables that upload: upserts parents first, then deletes children first; every block with
    /// ticks, changed_at and born. At most `limits::BLOCK_CHANNEL_MAX` wait.
    pub blocks: mpsc::Receiver<Result<Block>>,
}

/// What to read for an upload.
#[derive(Debug, Clone, Copy)]
pub struct LeafUpload {
    /// A block ends when its rows take this much. A larger row has a block of its own.
    pub block_bytes_max: usize,
    /// A larger row is ROW_TOO_LARGE, naming table and key.
    pub row_bytes_max: usize,
}

/// A download to be applied.
#[derive(Debug, Clone)]
pub struct DownloadJob {
    /// The session.
    pub session: SessionId,
    /// How to compare.
    pub begin: ChangesBegin,
    /// A transaction a batch, instead of one for all.
    pub per_batch: bool,
    /// The hub's clock less the leaf's, in microseconds, for last_writer_wins.
    pub clock_offset_us: i64,
}

/// What applying a download did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownloadReport {
    /// Rows inserted or updated.
    pub upserts: u64,
    /// Rows deleted, LEAVE and rows that a comparison removed included.
    pub deletes: u64,
    /// Conflicts with local changes; both sides are in the conflict log.
    pub conflicts: u64,
    /// Rows that could not be applied, at most `limits::ROW_ERRORS_MAX`.
    pub row_errors: Vec<RowError>,
    /// What was learned.
    pub end: Option<ChangesEnd>,
}

/// The right to synchronise a scope of a leaf's database: nobody else has it until this is dropped.
pub struct LeafHold(Option<Box<dyn Send + Sync>>);

impl LeafHold {
    /// Where something else sees to it that there is one client at a time.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Ends with what it holds.
    #[must_use]
    pub fn by(holder: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(holder)))
    }
}

impl std::fmt::Debug for LeafHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LeafHold").field(&self.0.is_some()).finish()
    }
}

/// A leaf's database.
#[async_trait]
pub trait LeafStore: MetaStore + Send + Sync {
    /// Finds out whether the database was moved to where ticks are counted from another beginning (a dump restored in
    /// another PostgreSQL cluster), and takes new ids for all scopes then. Called before a run. A database whose ticks
    /// move with it has nothing to find out: what went back in time is told by the marks.
    async fn recognise(&self) -> Result<()> {
        Ok(())
    }

    /// What is stored of this scope.
    async fn subscription(&self, scope: &ScopeName) -> Result<Option<Subscription>>;

    /// Takes the right to synchronise the scope, for a run of the driver. A database that clients on several machines
    /// reach sees to it by itself; a file needs nothing, as the directory of parts beside it is locked.
    ///
    /// # Errors
    /// LOCK_TIMEOUT if another client has it.
    async fn hold(&self, scope: &ScopeName) -> Result<LeafHold> {
        let _ = scope;
        Ok(LeafHold::none())
    }

    /// All scopes that this database synchronises, by name.
    async fn subscriptions(&self) -> Result<Vec<Subscription>>;

    /// Registers for a scope: creates the tables that are missing, checks those that exist (SCHEMA_MISMATCH names every
    /// difference), provisions tracking, marks rows that are there already as born here, and stores the subscription.
    /// Idempotent: answers what is stored if the schema is the same. Refuses a table that belongs to another scope.
    async fn subscribe(&self, schema: &ScopeSchema, hub: ReplicaId) -> Result<Subscription>;

    /// Removes tracking and the subscription; the tables and their rows stay. Answers whether there was one.
    async fn unsubscribe(&self, scope: &ScopeName) -> Result<bool>;

    /// Stores the subscription (all of it but the schema) in a durable transaction.
    async fn save(&self, subscription: &Subscription) -> Result<()>;

    /// As [`save`](Self::save), for what may be lost if the machine fails: the commit need not wait for the disk, and is lost
    /// only together with whatever was committed after it.
    async fn save_losable(&self, subscription: &Subscription) -> Result<()> {
        self.save(subscription).await
    }

    /// How many local changes wait in tables that upload (rows; log entries not folded yet count each).
    /// Tables whose tracking is not as it was made count as at least one more: nobody can tell.
    async fn pending_changes(&self, subscription: &Subscription) -> Result<u64>;

    /// Folds, opens one snapshot, and sends its dirty rows.
    async fn enumerate_dirty(
        &self,
        subscription: &Subscription,
        upload: LeafUpload,
    ) -> Result<UploadSnapshot>;

    /// The hub has applied an upload: clears each dirty record whose tick is still equal (entries since then were
    /// folded before, so they gave it a newer one), corrects `born` of the others, keeps the rows that failed dirty,
    /// and stores `after` in the same transaction.
    async fn acknowledge_upload(
        &self,
        after: &Subscription,
        batches: Arc<dyn BatchSource>,
        failed: &[RowError],
    ) -> Result<()>;

    /// Applies a download: folds first, in its own transaction; rows that meet dirty rows are judged; with everything
    /// applied, stores learned knowledge, download mark, excepted keys, `applied = true`, `reinitialize = false` and
    /// `diverged = false` in the same transaction. Begins after `subscription.batches_applied` batches where
    /// `per_batch` is set.
    async fn apply_download(
        &self,
        subscription: &Subscription,
        job: DownloadJob,
        source: Arc<dyn DownloadSource>,
        rows_done: Arc<std::sync::atomic::AtomicU64>,
    ) -> Result<DownloadReport>;

    /// The chain is broken: folds, takes a new replica id, forgets marks, knowledge and session; pending changes stay.
    /// Sets `diverged` and `reinitialize`. Answers what is stored now.
    async fn diverge(&self, scope: &ScopeName) -> Result<Subscription>;
}
