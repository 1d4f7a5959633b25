//! What a PostgreSQL database answers as a hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use sqlx::Row as _;
use syncline::error::Result;
use syncline::ids::{ReplicaId, ScopeName, TableId, Tick};
use syncline::knowledge::{Knowledge, Version};

use super::statements::reading;
use super::{PostgresDatabase, errors, own_tick, provision, scopes, statements};
use crate::limits::LOG_ENTRIES_READ_MAX;
use crate::scope::{DefineError, ScopeDefinition};
use crate::store::{
    ApplyReport, BatchSource, Glance, HubStore, Probed, ScopeChange, Snapshot, StoredScope, UploadJob,
};

#[async_trait]
impl HubStore for PostgresDatabase {
    async fn open_hub(&self) -> Result<ReplicaId> {
        self.open_identity().await
    }

    async fn check_not_behind(&self, seen: Version) -> Result<ReplicaId> {
        self.new_id_unless_seen(seen).await
    }

    async fn define_scope(
        &self,
        definition: &ScopeDefinition,
        dry_run: bool,
    ) -> Result<ScopeChange, DefineError> {
        self.define(definition, dry_run).await
    }

    async fn scope(&self, name: &ScopeName) -> Result<Option<StoredScope>> {
        let mut connection = self.pool.acquire().await.map_err(errors::database)?;
        scopes::load_if_there(&mut connection, name).await
    }

    async fn scope_names(&self) -> Result<Vec<ScopeName>> {
        let mut connection = self.pool.acquire().await.map_err(errors::database)?;
        if !provision::is_there(&mut connection).await? {
            return Ok(Vec::new());
        }
        Ok(scopes::all(&mut connection).await?.into_iter().map(|scope| scope.schema.name).collect())
    }

    async fn drop_scope(&self, name: &ScopeName) -> Result<bool> {
        self.drop_named(name).await
    }

    async fn fold(&self, scope: &StoredScope) -> Result<()> {
        self.fold_scope(scope, 0).await
    }

    async fn fold_long(&self, scope: &StoredScope) -> Result<()> {
        self.fold_scope(scope, LOG_ENTRIES_READ_MAX).await
    }

    async fn snapshot(&self, scope: &StoredScope) -> Result<Box<dyn Snapshot>> {
        Ok(Box::new(self.open_snapshot(scope).await?))
    }

    async fn folded_snapshot(&self, scope: &StoredScope) -> Result<Box<dyn Snapshot>> {
        // Mostly there is nothing to fold: the snapshot itself says so.
        let snapshot = self.open_snapshot(scope).await?;
        if !snapshot.has_long_log {
            return Ok(Box::new(snapshot));
        }
        drop(snapshot);
        self.fold_long(scope).await?;
        self.snapshot(scope).await
    }

    async fn probe(&self, scope: &StoredScope, leaf: ReplicaId, known: &Knowledge) -> Result<Probed> {
        let mut transaction = self.begin_with(super::BEGIN_READING).await?;
        let pending = super::probe::probe(&mut transaction, scope, leaf, known).await?;
        transaction.rollback().await.map_err(errors::database)?;
        Ok(pending)
    }

    async fn glance(&self, name: &ScopeName, floor: &Knowledge) -> Result<Option<Glance>> {
        self.look_at(name, floor).await
    }

    async fn apply_upload(
        &self,
        job: UploadJob,
        batches: Arc<dyn BatchSource>,
        rows_done: Arc<AtomicU64>,
    ) -> Result<ApplyReport> {
        self.apply(&job, &*batches, &rows_done).await
    }

    async fn durable_tick(&self) -> Result<Version> {
        let mut transaction = self.begin_durable().await?;
        let tick = own_tick(&mut transaction).await?;
        let replica: Vec<u8> = sqlx::query_scalar(
            "UPDATE syncline.state SET durable_tick = greatest(durable_tick, $1) RETURNING replica",
        )
        .bind(tick)
        .fetch_one(&mut *transaction)
        .await
        .map_err(errors::database)?;
        transaction.commit().await.map_err(errors::commit)?;
        Ok(Version { replica: ReplicaId::from_slice(&replica)?, tick: Tick(tick.unsigned_abs()) })
    }

    async fn tracking_counts(&self, scope: &StoredScope) -> Result<BTreeMap<TableId, (u64, u64)>> {
        let mut connection = self.pool.acquire().await.map_err(errors::database)?;
        let mut counts = BTreeMap::new();
        for table in &scope.tables {
            let row = statements::query_once(&reading::counts(table.id))
                .fetch_one(&mut *connection)
                .await
                .map_err(errors::database)?;
            let (log, records): (i64, i64) = (row.get(0), row.get(1));
            counts.insert(table.id, (log.unsigned_abs(), records.unsigned_abs()));
        }
        Ok(counts)
    }
}
