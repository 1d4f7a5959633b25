//! What a hub's database answers, each in a transaction on a blocking thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use syncline::error::Result;
use syncline::ids::{ReplicaId, ScopeName, TableId};
use syncline::knowledge::{Knowledge, Version};

use super::SqliteDatabase;
use super::apply::apply_upload;
use super::connection::blocking;
use super::errors::DatabaseResult as _;
use super::passes::BlockingBatches;
use super::probe;
use super::snapshot::SqliteSnapshot;
use super::state;
use super::{catalog, fold, provision, scope, statements};
use crate::scope::{DefineError, ScopeDefinition};
use crate::store::{
    ApplyReport, BatchSource, Glance, HubStore, Probed, ScopeChange, Snapshot, StoredScope, UploadJob,
    given_up,
};

#[async_trait]
impl HubStore for SqliteDatabase {
    async fn open_hub(&self) -> Result<ReplicaId> {
        self.ensure().await?;
        // A SQLite file carries no sign of having been restored: a caller that knows more of it than it does itself
        // finds out (check_not_behind), or the chain's marks do.
        self.read_only(|connection| Ok(state::read(connection)?.replica)).await
    }

    async fn check_not_behind(&self, seen: Version) -> Result<ReplicaId> {
        self.write(move |connection| {
            // Before any fold: a tick that this drew would not be the one that was seen.
            let state = state::read(connection)?;
            if seen.replica == state.replica && seen.tick > state.tick {
                state::take_new_id(connection)
            } else {
                Ok(state.replica)
            }
        })
        .await
    }

    async fn define_scope(
        &self,
        definition: &ScopeDefinition,
        dry_run: bool,
    ) -> Result<ScopeChange, DefineError> {
        if dry_run && !self.read_only(catalog::is_provisioned).await? {
            return self.define_in_a_copy(definition).await;
        }
        self.ensure().await?;
        let transaction = self.connections().begin().await?;
        let definition = definition.clone();
        let answer = blocking(move || {
            let answer = provision::define(transaction.connection(), &definition)?;
            // Dropped, the transaction is rolled back.
            if answer.is_ok() && !dry_run {
                transaction.commit()?;
            }
            Ok(answer)
        })
        .await?;
        answer.map_err(DefineError::Problems)
    }

    async fn scope(&self, name: &ScopeName) -> Result<Option<StoredScope>> {
        let name = name.clone();
        self.read_only(move |connection| {
            if catalog::is_provisioned(connection)? { scope::load(connection, &name) } else { Ok(None) }
        })
        .await
    }

    async fn scope_names(&self) -> Result<Vec<ScopeName>> {
        self.read_only(|connection| {
            if !catalog::is_provisioned(connection)? {
                return Ok(Vec::new());
            }
            Ok(scope::load_all(connection)?.into_iter().map(|scope| scope.schema.name).collect())
        })
        .await
    }

    async fn drop_scope(&self, name: &ScopeName) -> Result<bool> {
        let name = name.clone();
        self.write(move |connection| {
            if catalog::is_provisioned(connection)? {
                provision::drop_scope(connection, &name)
            } else {
                Ok(false)
            }
        })
        .await
    }

    async fn fold(&self, _scope: &StoredScope) -> Result<()> {
        fold::in_pieces(self.connections()).await
    }

    async fn snapshot(&self, scope: &StoredScope) -> Result<Box<dyn Snapshot>> {
        Ok(Box::new(SqliteSnapshot::open(self.connections(), scope).await?))
    }

    async fn folded_snapshot(&self, scope: &StoredScope) -> Result<Box<dyn Snapshot>> {
        // Snapshots of this database are folded in any case.
        self.snapshot(scope).await
    }

    async fn probe(&self, scope: &StoredScope, leaf: ReplicaId, known: &Knowledge) -> Result<Probed> {
        let (connections, scope, known) = (Arc::clone(self.connections()), scope.clone(), known.clone());
        blocking(move || probe::probe(&connections, &scope, leaf, &known)).await
    }

    async fn glance(&self, name: &ScopeName, floor: &Knowledge) -> Result<Option<Glance>> {
        let (connections, scopes) = (Arc::clone(self.connections()), Arc::clone(&self.scopes));
        let (name, floor) = (name.clone(), floor.clone());
        blocking(move || probe::glance(&connections, &scopes, &name, &floor)).await
    }

    async fn apply_upload(
        &self,
        job: UploadJob,
        batches: Arc<dyn BatchSource>,
        rows_done: Arc<AtomicU64>,
    ) -> Result<ApplyReport> {
        // The upload folds what there is in its own transaction, in which writers wait for all of it: so that is little.
        // Why the logs can't be looked at, the apply says better.
        let ids: Vec<_> = job.scope.tables.iter().map(|table| table.id).collect();
        if self.read_only(move |connection| fold::any_long(connection, ids)).await.unwrap_or(false) {
            tokio::select! {
                biased;
                () = job.stop.cancelled() => return Err(given_up()),
                folded = fold::in_pieces(self.connections()) => folded?,
            }
        }
        let transaction = self.connections().begin_unless(&job.stop).await?;
        let batches = BlockingBatches { handle: tokio::runtime::Handle::current(), source: batches };
        let connections = Arc::clone(self.connections());
        let stop = job.stop.clone();
        let applied =
            blocking(move || apply_upload(&connections, transaction, &job, &batches, &rows_done)).await;
        // What a broken-off statement answers says less than why it was.
        applied.map_err(|error| if stop.is_cancelled() { given_up() } else { error })
    }

    async fn durable_tick(&self) -> Result<Version> {
        self.write(|connection| {
            state::note_durable(connection)?;
            let state = state::read(connection)?;
            Ok(Version { replica: state.replica, tick: state.tick })
        })
        .await
    }

    async fn tracking_counts(&self, scope: &StoredScope) -> Result<BTreeMap<TableId, (u64, u64)>> {
        let ids: Vec<_> = scope.tables.iter().map(|table| table.id).collect();
        self.read_only(move |connection| {
            let count = |table: String| -> Result<u64> {
                let rows: i64 =
                    connection.query_row(&statements::count(&table), [], |row| row.get(0)).db()?;
                Ok(rows.unsigned_abs())
            };
            ids.into_iter()
                .map(|id| Ok((id, (count(statements::log(id))?, count(statements::record(id))?))))
                .collect()
        })
        .await
    }
}

impl SqliteDatabase {
    /// Creates our tables if they are missing, and checks them.
    pub(super) async fn ensure(&self) -> Result<()> {
        let writer = self.connections().writer().await;
        blocking(move || state::ensure(&writer)).await
    }

    /// A dry run against a database that has nothing of ours yet: everything happens in one transaction that is rolled
    /// back.
    async fn define_in_a_copy(&self, definition: &ScopeDefinition) -> Result<ScopeChange, DefineError> {
        let transaction = self.connections().begin().await?;
        let definition = definition.clone();
        let answer = blocking(move || {
            state::create(transaction.connection())?;
            provision::define(transaction.connection(), &definition)
        })
        .await?;
        answer.map_err(DefineError::Problems)
    }
}
