//! Defining, changing and dropping scopes: one table per transaction, then the scope's document.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use syncline::error::{Result, SyncError};
use syncline::ids::{ReplicaId, ScopeName, TableId, Tick};
use syncline::knowledge::Version;

use super::catalog::{self, CatalogTable};
use super::define_check::{ColumnIds, KnownTable, Planned, PlannedTable, Present, check};
use super::provision::{self, Provisioned, SCHEMA, provisioning, repeat};
use super::statements::tracking::{self, Role};
use super::{PostgresDatabase, errors, own_tick, scopes};
use crate::scope::{DefineError, ScopeDefinition};
use crate::store::{ScopeChange, StoredScope, StoredTable};

/// A row of our table of tables.
struct TrackedRow {
    id: TableId,
    name: (String, String),
    columns: ColumnIds,
    provisioned: Provisioned,
    baseline: (i64, i64, i64),
}

/// All that is looked at before a scope is defined, and what it becomes.
struct Plan {
    planned: Planned,
    scope: Option<StoredScope>,
    /// Tables that must be provisioned, for the first time or anew.
    to_provision: BTreeSet<TableId>,
    /// Tables that were provisioned anew by an attempt that did not come as far as the scopes' documents, with their
    /// baselines: all scopes that carry them have to compare them.
    made_before: BTreeMap<TableId, (Version, i64)>,
    /// Tables that other scopes do not need and this one no longer names.
    to_drop: Vec<TableId>,
    tracked: Vec<TrackedRow>,
    schema_is_there: bool,
}

impl PostgresDatabase {
    /// Defines or changes a scope.
    pub(super) async fn define(
        &self,
        definition: &ScopeDefinition,
        dry_run: bool,
    ) -> Result<ScopeChange, DefineError> {
        // Held by a transaction of its own, which reads nothing: even the catalogue's functions leave locks on tables.
        let mut lock = self.pool.begin().await.map_err(errors::database)?;
        provision::lock_schema(&mut lock).await?;
        let plan = {
            let mut connection = self.pool.acquire().await.map_err(errors::database)?;
            plan(&mut connection, definition).await?
        };
        if dry_run {
            return Ok(described(&plan));
        }
        if !plan.schema_is_there {
            lock.rollback().await.map_err(errors::database)?;
            self.open_identity().await?;
            lock = self.pool.begin().await.map_err(errors::database)?;
            provision::lock_schema(&mut lock).await?;
        }
        let change = self.carry_out(&plan).await?;
        lock.rollback().await.map_err(errors::database)?;
        Ok(change)
    }

    async fn carry_out(&self, plan: &Plan) -> Result<ScopeChange> {
        let described = described(plan);
        if !described.changed {
            return Ok(described);
        }
        self.reserve_tables(plan.planned.next_table).await?;
        let mut baselines = plan.made_before.clone();
        for table in &plan.planned.tables {
            let columns = serde_json::to_string(&table.columns).map_err(SyncError::internal)?;
            if plan.to_provision.contains(&table.schema.id) {
                let made = self.provision_hub_table(table.schema.id, &table.catalog, &columns).await?;
                baselines.insert(table.schema.id, made);
            } else {
                sqlx::query("UPDATE syncline.tables SET columns = $1 WHERE id = $2")
                    .bind(columns)
                    .bind(i64::from(table.schema.id.0))
                    .execute(&self.pool)
                    .await
                    .map_err(errors::database)?;
            }
        }
        let scope = repeat(|| self.save_scope(plan, &baselines)).await?;
        for id in &plan.to_drop {
            self.drop_tracking(*id).await?;
        }
        Ok(ScopeChange { scope, ..described })
    }

    /// The numbers up to here were given out.
    async fn reserve_tables(&self, next_table: u32) -> Result<()> {
        sqlx::query("UPDATE syncline.state SET next_table = greatest(next_table, $1)")
            .bind(i64::from(next_table))
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(errors::database)
    }

    async fn save_scope(
        &self,
        plan: &Plan,
        baselines: &BTreeMap<TableId, (Version, i64)>,
    ) -> Result<StoredScope> {
        let mut transaction = self.begin_durable().await?;
        let state = provision::state(&mut transaction).await?;
        let since =
            Version { replica: state.replica, tick: Tick(own_tick(&mut transaction).await?.unsigned_abs()) };
        let id = match &plan.scope {
            Some(scope) => scope.id,
            None => sqlx::query_scalar("SELECT pg_catalog.nextval('syncline.scope_numbers')")
                .fetch_one(&mut *transaction)
                .await
                .map_err(errors::database)?,
        };
        let mut tables = Vec::with_capacity(plan.planned.tables.len());
        for table in &plan.planned.tables {
            let baseline = match baselines.get(&table.schema.id) {
                Some(made) => *made,
                None => baseline(&mut transaction, table.schema.id).await?,
            };
            tables.push(stored_table(plan, table, since, baseline, baselines.contains_key(&table.schema.id)));
        }
        let scope = StoredScope { id, schema: plan.planned.schema.clone(), tables };
        scopes::save(&mut transaction, &scope).await?;
        // Other scopes that carry a table which was provisioned anew must compare it too.
        for mut other in scopes::all(&mut transaction).await? {
            let mut touched = false;
            for table in other.tables.iter_mut().filter(|_| other.id != id) {
                if let Some((version, changed_at)) = baselines.get(&table.id) {
                    (table.since, table.reshaped) = (since, since);
                    (table.baseline, table.baseline_changed_at) = (*version, *changed_at);
                    touched = true;
                }
            }
            if touched {
                scopes::save(&mut transaction, &other).await?;
            }
        }
        transaction.commit().await.map_err(errors::commit)?;
        Ok(scope)
    }

    /// Removes what is kept beside a table that no scope carries any more.
    async fn drop_tracking(&self, id: TableId) -> Result<()> {
        let mut connection = self.pool.acquire().await.map_err(errors::database)?;
        let tracked = tracked_rows(&mut connection).await?;
        let Some(row) = tracked.iter().find(|row| row.id == id) else { return Ok(()) };
        let table = catalog::load(&mut connection, &[row.provisioned.oid]).await?.pop();
        drop(connection);
        self.unprovision_table(id, table.as_ref()).await
    }

    /// Removes a scope, and with the last one everything of ours.
    pub(super) async fn drop_named(&self, name: &ScopeName) -> Result<bool> {
        // Held by a transaction of its own, which reads nothing: it must not stand in the way of dropping.
        let mut lock = self.pool.begin().await.map_err(errors::database)?;
        provision::lock_schema(&mut lock).await?;
        let (scope, tables, left) = {
            let mut connection = self.pool.acquire().await.map_err(errors::database)?;
            if !provision::is_there(&mut connection).await? {
                return Ok(false);
            }
            let Some(scope) = scopes::load(&mut connection, name).await? else { return Ok(false) };
            let others = scopes::all(&mut connection).await?.into_iter().filter(|other| other.id != scope.id);
            let left: BTreeSet<TableId> =
                others.flat_map(|other| other.tables.into_iter().map(|table| table.id)).collect();
            (scope, tracked_rows(&mut connection).await?, left)
        };
        self.forget_scope(&scope).await?;
        for row in tables.iter().filter(|row| !left.contains(&row.id)) {
            self.drop_tracking(row.id).await?;
        }
        repeat(|| self.drop_schema_if_unused()).await?;
        lock.rollback().await.map_err(errors::database)?;
        Ok(true)
    }

    async fn forget_scope(&self, scope: &StoredScope) -> Result<()> {
        let mut transaction = self.begin_durable().await?;
        for statement in [
            "DELETE FROM syncline.batches WHERE session IN (SELECT id FROM syncline.sessions WHERE scope = $1)",
            "DELETE FROM syncline.sessions WHERE scope = $1",
            "DELETE FROM syncline.leaves WHERE scope = $1",
            "DELETE FROM syncline.applies WHERE scope = $1",
            "DELETE FROM syncline.scopes WHERE id = $1",
        ] {
            sqlx::query(statement)
                .bind(scope.id)
                .execute(&mut *transaction)
                .await
                .map_err(errors::database)?;
        }
        transaction.commit().await.map_err(errors::commit)
    }

    async fn drop_schema_if_unused(&self) -> Result<()> {
        let mut transaction = self.begin_provisioning(None).await?;
        let used: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM syncline.scopes) OR EXISTS (SELECT FROM syncline.subscriptions) \
             OR EXISTS (SELECT FROM syncline.tables)",
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(errors::database)?;
        if !used {
            super::statements::run(&mut transaction, "DROP SCHEMA syncline CASCADE")
                .await
                .map_err(errors::database)?;
        }
        transaction.commit().await.map_err(errors::commit)
    }
}

async fn plan(connection: &mut PgConnection, definition: &ScopeDefinition) -> Result<Plan, DefineError> {
    let mut present = Present::default();
    let mut oids = Vec::with_capacity(definition.tables.len());
    for table in &definition.tables {
        let (schema, name) = match table.name.value.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, table.name.value.as_str()),
        };
        oids.push(catalog::find(connection, schema, name).await?);
    }
    let wanted: Vec<i64> = oids.iter().flatten().copied().collect();
    let found: BTreeMap<i64, CatalogTable> =
        catalog::load(connection, &wanted).await?.into_iter().map(|table| (table.oid, table)).collect();
    present.found = oids.iter().map(|oid| oid.and_then(|oid| found.get(&oid).cloned())).collect();
    let schema_is_there = provision::is_there(connection).await?;
    let (mut tracked, mut others) = (Vec::new(), Vec::new());
    if schema_is_there {
        present.next_table =
            u32::try_from(provision::state(connection).await?.next_table).map_err(SyncError::internal)?;
        tracked = tracked_rows(connection).await?;
        others = scopes::all(connection).await?;
        present.of_leaf =
            sqlx::query_as("SELECT source_schema, source_name FROM syncline.tables WHERE role = 1")
                .fetch_all(&mut *connection)
                .await
                .map_err(errors::database)?
                .into_iter()
                .collect();
    }
    present.scope = others.iter().find(|scope| scope.schema.name == definition.name).cloned();
    for row in &tracked {
        present.known.insert(row.name.clone(), KnownTable { id: row.id, columns: row.columns.clone() });
    }
    let planned = check(definition, &present).map_err(DefineError::Problems)?;
    let needed: BTreeSet<TableId> = others
        .iter()
        .filter(|scope| scope.schema.name != definition.name)
        .flat_map(|scope| scope.tables.iter().map(|table| table.id))
        .chain(planned.tables.iter().map(|table| table.schema.id))
        .collect();
    let made_before =
        if schema_is_there { made_before(connection, &tracked, &others).await? } else { BTreeMap::new() };
    let to_drop = tracked.iter().map(|row| row.id).filter(|id| !needed.contains(id)).collect();
    let to_provision = planned
        .tables
        .iter()
        .filter(|table| {
            let row = tracked.iter().find(|row| row.id == table.schema.id);
            let broken =
                row.is_none_or(|row| row.provisioned.difference(&table.catalog, Role::Hub).is_some());
            broken || table.compare
        })
        .map(|table| table.schema.id)
        .collect();
    Ok(Plan { planned, scope: present.scope, to_provision, made_before, to_drop, tracked, schema_is_there })
}

/// Each table is provisioned in a transaction of its own, and the documents are saved after the last. **Invariant:** a
/// document that names another baseline than its table has was not saved after the table was provisioned.
async fn made_before(
    connection: &mut PgConnection,
    tracked: &[TrackedRow],
    scopes: &[StoredScope],
) -> Result<BTreeMap<TableId, (Version, i64)>> {
    let replicas = super::snapshot::replicas(connection).await?;
    let mut all = BTreeMap::new();
    for row in tracked {
        let (replica, tick, changed_at) = row.baseline;
        let baseline = (replicas.version(replica, tick)?, changed_at);
        let mut stored = scopes.iter().filter_map(|scope| scope.table(row.id));
        if stored.any(|(_, table)| (table.baseline, table.baseline_changed_at) != baseline) {
            all.insert(row.id, baseline);
        }
    }
    Ok(all)
}

/// What a plan would do. The ids and versions that only doing it gives are zero.
fn described(plan: &Plan) -> ScopeChange {
    let mut statements = Vec::new();
    if !plan.schema_is_there {
        statements.push(SCHEMA.trim().to_owned());
    }
    for table in plan.planned.tables.iter().filter(|table| plan.to_provision.contains(&table.schema.id)) {
        if plan.tracked.iter().any(|row| row.id == table.schema.id) {
            statements.extend(tracking::drop_all(table.schema.id, Some(&table.catalog)));
        }
        statements.extend(provisioning(table.schema.id, &table.catalog, Role::Hub));
    }
    for id in &plan.to_drop {
        statements.extend(tracking::drop_all(*id, None));
    }
    let same = plan.scope.as_ref().is_some_and(|scope| scope.schema == plan.planned.schema);
    let changed =
        !same || !plan.to_provision.is_empty() || !plan.to_drop.is_empty() || !plan.made_before.is_empty();
    let scope = match &plan.scope {
        Some(scope) if !changed => scope.clone(),
        _ => {
            let nothing = Version { replica: ReplicaId::from_uuid(uuid::Uuid::nil()), tick: Tick(0) };
            let tables = plan.planned.tables.iter();
            StoredScope {
                id: plan.scope.as_ref().map_or(0, |scope| scope.id),
                schema: plan.planned.schema.clone(),
                tables: tables.map(|table| stored_table(plan, table, nothing, (nothing, 0), false)).collect(),
            }
        }
    };
    ScopeChange { scope, statements, changed, notes: plan.planned.notes.clone() }
}

/// A table of the scope as it is stored. `since` is set anew if its columns, key or direction change, or if it was
/// provisioned anew.
fn stored_table(
    plan: &Plan,
    table: &PlannedTable,
    since: Version,
    (baseline, baseline_changed_at): (Version, i64),
    provisioned: bool,
) -> StoredTable {
    let id = table.schema.id;
    let before = plan.scope.as_ref().and_then(|scope| scope.table(id));
    let since_now = since;
    let (columns_left, rejoined) = StoredTable::columns_left(before, &table.schema);
    let (since, reshaped) = match before {
        Some((schema, stored)) if !provisioned && same_form(schema, &table.schema) => {
            (stored.since, stored.reshaped)
        }
        Some((schema, stored)) if !provisioned && !rejoined && only_columns_added(schema, &table.schema) => {
            (since, stored.reshaped)
        }
        _ => (since, since),
    };
    let columns_since = StoredTable::columns_since(before, &table.schema, since_now);
    StoredTable {
        id,
        columns_since,
        columns_left,
        source_schema: table.catalog.schema.clone(),
        source_name: table.catalog.name.clone(),
        since,
        reshaped,
        baseline,
        baseline_changed_at,
    }
}

/// Whether the one is the other with more columns.
fn only_columns_added(before: &syncline::schema::TableSchema, now: &syncline::schema::TableSchema) -> bool {
    let kept = before.columns.iter().all(|column| now.column(column.id) == Some(column));
    kept && before.key == now.key && before.direction == now.direction
}

/// Whether a leaf that has the one has the other.
fn same_form(before: &syncline::schema::TableSchema, now: &syncline::schema::TableSchema) -> bool {
    before.columns == now.columns && before.key == now.key && before.direction == now.direction
}

async fn tracked_rows(connection: &mut PgConnection) -> Result<Vec<TrackedRow>> {
    type Row = (i64, String, String, String, String, i64, i64, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, source_schema, source_name, columns, provisioned, baseline_replica, baseline_tick, \
         baseline_changed_at FROM syncline.tables WHERE role = 0 ORDER BY id",
    )
    .fetch_all(connection)
    .await
    .map_err(errors::database)?;
    rows.into_iter()
        .map(|(id, schema, name, columns, provisioned, replica, tick, changed_at)| {
            Ok(TrackedRow {
                id: TableId(u32::try_from(id).map_err(SyncError::internal)?),
                name: (schema, name),
                columns: serde_json::from_str(&columns).map_err(SyncError::internal)?,
                provisioned: serde_json::from_str(&provisioned).map_err(SyncError::internal)?,
                baseline: (replica, tick, changed_at),
            })
        })
        .collect()
}

/// The baseline of a table that was provisioned before.
async fn baseline(connection: &mut PgConnection, id: TableId) -> Result<(Version, i64)> {
    let replicas = super::snapshot::replicas(connection).await?;
    let row = tracked_rows(connection).await?.into_iter().find(|row| row.id == id);
    let (replica, tick, changed_at) =
        row.ok_or_else(|| SyncError::internal("a table of the scope is not tracked"))?.baseline;
    Ok((replicas.version(replica, tick)?, changed_at))
}
