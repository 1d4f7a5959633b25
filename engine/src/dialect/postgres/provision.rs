//! Making and removing what is ours: the schema `syncline`, and logs, records and triggers of tracked tables.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Postgres, Row as _, Transaction};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ReplicaId, TableId, Tick};
use syncline::knowledge::Version;

use super::catalog::{self, CatalogTable};
use super::statements::tracking::{self, Role};
use super::{PostgresDatabase, errors, own_tick, server_now, statements};
use crate::limits;

/// Our fixed tables.
pub(super) const SCHEMA: &str = include_str!("sql/schema.sql");
const SCHEMA_VERSION: i64 = 1;
/// Our advisory locks: the class, and within it the number of a table, or this for the schema as a whole.
pub(super) const ADVISORY_CLASS: i32 = 0x5359_4e43;
const ADVISORY_SCHEMA: i32 = 0;

/// The state row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) replica: ReplicaId,
    pub(super) number: i64,
    pub(super) durable_tick: i64,
    pub(super) identity: String,
    pub(super) next_table: i64,
}

/// What triggers and columns of a tracked table must look like: a table that is otherwise was changed behind our back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Provisioned {
    pub(super) oid: i64,
    /// Name and type of the key's columns.
    pub(super) key: Vec<(String, String)>,
    pub(super) partitions: Vec<i64>,
    /// The row triggers of the partitions. A partition that is detached loses its own, and gets another when it is
    /// attached again: what was written to it in between fired nothing, so it is not the partition that it was.
    #[serde(default)]
    pub(super) partition_triggers: Vec<i64>,
}

impl Provisioned {
    /// As the table is, read again now that its triggers are made.
    pub(super) async fn read(connection: &mut PgConnection, oid: i64) -> Result<Self> {
        let table = catalog::load(connection, &[oid]).await?.pop();
        table.as_ref().map(Self::of).ok_or_else(|| SyncError::internal("a table that is locked is gone"))
    }

    /// As the table is now.
    pub(super) fn of(table: &CatalogTable) -> Self {
        let key = table.key_columns();
        Self {
            oid: table.oid,
            key: key.iter().map(|column| (column.name.clone(), column.declared.clone())).collect(),
            partitions: table.partitions.iter().map(|partition| partition.oid).collect(),
            partition_triggers: {
                let rows = table.triggers.iter().filter(|trigger| trigger.name == tracking::ROW_TRIGGER);
                rows.filter(|trigger| trigger.table != table.oid).map(|trigger| trigger.oid).collect()
            },
        }
    }

    /// The same table where a dump was restored, under other oids. Where it was not, a partition's trigger that is
    /// another one tells what it always tells.
    pub(super) fn moved_to(&self, now: &Self) -> Self {
        let is_restored = now.oid != self.oid;
        let partition_triggers = if is_restored { &now.partition_triggers } else { &self.partition_triggers };
        Self {
            oid: now.oid,
            key: self.key.clone(),
            partitions: now.partitions.clone(),
            partition_triggers: partition_triggers.clone(),
        }
    }

    /// What is not as it was provisioned, if anything.
    pub(super) fn difference(&self, table: &CatalogTable, role: Role) -> Option<&'static str> {
        let now = Self::of(table);
        if now.oid != self.oid {
            return Some("the table itself");
        }
        if now.key != self.key {
            return Some("the primary key");
        }
        if now.partitions != self.partitions {
            return Some("the set of partitions");
        }
        if now.partition_triggers != self.partition_triggers {
            return Some("a partition that was detached for a while");
        }
        let (own, of_partitions) = tracking::trigger_names(table, role);
        let enabled = |oid: i64, name: &str, how: &str| {
            let mut all = table.triggers.iter();
            all.any(|found| found.table == oid && found.name == name && found.enabled == how)
        };
        let always = |oid: i64, name: &str| enabled(oid, name, "A");
        let replicated = table.is_partitioned() || enabled(self.oid, tracking::REPLICA_TRIGGER, "R");
        let complete = own.iter().all(|name| always(self.oid, name))
            && self.partitions.iter().all(|oid| of_partitions.iter().all(|name| always(*oid, name)));
        (!(complete && replicated)).then_some("a tracking trigger")
    }
}

/// Does it again, with pauses that grow, as long as it gives way to other transactions.
pub(super) async fn repeat<T, F>(mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut repeated = 0;
    loop {
        match attempt().await {
            Err(error) if error.reason() == ErrorReason::LockTimeout && repeated < limits::LOCK_RETRIES => {
                repeated += 1;
                // Two that met must not meet again: the pause is as random as a UUID.
                let jitter = u64::from(uuid::Uuid::new_v4().as_bytes()[0]) % 16;
                tokio::time::sleep(Duration::from_millis(u64::from(repeated) * 4 + jitter)).await;
            }
            result => return result,
        }
    }
}

/// Whether our schema is there.
pub(super) async fn is_there(connection: &mut PgConnection) -> Result<bool> {
    sqlx::query_scalar("SELECT pg_catalog.to_regclass('syncline.state') IS NOT NULL")
        .fetch_one(connection)
        .await
        .map_err(errors::database)
}

/// Reads the state row.
pub(super) async fn state(connection: &mut PgConnection) -> Result<State> {
    let row = sqlx::query(
        "SELECT schema_version, replica, number, durable_tick, identity, next_table FROM syncline.state WHERE id = 1",
    )
    .fetch_one(connection)
    .await
    .map_err(errors::database)?;
    let version: i64 = row.get(0);
    if version != SCHEMA_VERSION {
        return Err(SyncError::new(
            ErrorReason::FeatureUnsupported,
            format!(
                "the schema syncline has version {version}; this program knows {SCHEMA_VERSION}: update it"
            ),
        ));
    }
    Ok(State {
        replica: ReplicaId::from_slice(row.get(1))?,
        number: row.get(2),
        durable_tick: row.get(3),
        identity: row.get(4),
        next_table: row.get(5),
    })
}

/// Makes our schema if it is missing, and answers the state. The transaction holds the schema's lock from here on.
pub(super) async fn ensure_schema(connection: &mut PgConnection) -> Result<State> {
    lock_schema(connection).await?;
    if !is_there(connection).await? {
        statements::run(connection, SCHEMA).await.map_err(errors::database)?;
        let replica = ReplicaId::fresh();
        let number = add_replica(connection, replica, 0).await?;
        sqlx::query(
            "INSERT INTO syncline.state (id, schema_version, replica, number) VALUES (1, $1, $2, $3)",
        )
        .bind(SCHEMA_VERSION)
        .bind(replica.as_bytes())
        .bind(number)
        .execute(&mut *connection)
        .await
        .map_err(errors::database)?;
    }
    state(connection).await
}

/// One at a time defines scopes, or changes the database's identity.
pub(super) async fn lock_schema(connection: &mut PgConnection) -> Result<()> {
    advisory_lock(connection, ADVISORY_SCHEMA).await
}

/// Waits for an advisory lock of ours, until the end of the transaction. To be taken before any other lock.
pub(super) async fn advisory_lock(connection: &mut PgConnection, number: i32) -> Result<()> {
    sqlx::query("SELECT pg_catalog.pg_advisory_xact_lock($1, $2)")
        .bind(ADVISORY_CLASS)
        .bind(number)
        .execute(connection)
        .await
        .map(drop)
        .map_err(errors::database)
}

/// The number of a replica, given to it if it has none.
pub(super) async fn add_replica(connection: &mut PgConnection, replica: ReplicaId, kind: i64) -> Result<i64> {
    sqlx::query(
        "INSERT INTO syncline.replicas (number, replica, kind) \
         SELECT pg_catalog.nextval('syncline.replica_numbers'), $1, $2 \
         WHERE NOT EXISTS (SELECT FROM syncline.replicas WHERE replica = $1) ON CONFLICT (replica) DO NOTHING",
    )
    .bind(replica.as_bytes())
    .bind(kind)
    .execute(&mut *connection)
    .await
    .map_err(errors::database)?;
    sqlx::query_scalar("SELECT number FROM syncline.replicas WHERE replica = $1")
        .bind(replica.as_bytes())
        .fetch_one(connection)
        .await
        .map_err(errors::database)
}

/// The statements that put a table under synchronisation.
pub(super) fn provisioning(id: TableId, table: &CatalogTable, role: Role) -> Vec<String> {
    let mut all = tracking::create_log(id, table);
    if role == Role::Hub {
        all.extend(tracking::create_record(id, table));
    }
    all.extend(tracking::create_triggers(id, table, role));
    all
}

impl PostgresDatabase {
    /// A durable transaction that waits for the open writers of a table for a moment, and blocks new ones.
    pub(super) async fn begin_provisioning(
        &self,
        table: Option<&CatalogTable>,
    ) -> Result<Transaction<'static, Postgres>> {
        let mut transaction = self.begin_durable().await?;
        statements::set_lock_timeout(&mut transaction, limits::PROVISION_LOCK_TIMEOUT)
            .await
            .map_err(errors::database)?;
        if let Some(table) = table {
            let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", table.quoted());
            statements::run(&mut transaction, &lock).await.map_err(errors::database)?;
        }
        Ok(transaction)
    }

    /// Puts a table of a hub under synchronisation, anew if it was before. Answers its baseline version, and when the
    /// rows without record count as changed.
    pub(super) async fn provision_hub_table(
        &self,
        id: TableId,
        table: &CatalogTable,
        columns: &str,
    ) -> Result<(Version, i64)> {
        repeat(|| async {
            let mut transaction = self.begin_provisioning(Some(table)).await?;
            let state = state(&mut transaction).await?;
            let (tick, now) = (own_tick(&mut transaction).await?, server_now(&mut transaction).await?);
            let mut all = tracking::drop_all(id, Some(table));
            all.extend(provisioning(id, table, Role::Hub));
            for statement in &all {
                statements::run(&mut transaction, statement).await.map_err(errors::database)?;
            }
            let provisioned = Provisioned::read(&mut transaction, table.oid).await?;
            let provisioned = serde_json::to_string(&provisioned).map_err(SyncError::internal)?;
            sqlx::query(include_str!("sql/save_table.sql"))
                .bind(i64::from(id.0))
                .bind(&table.schema)
                .bind(&table.name)
                .bind(0_i64)
                .bind(columns)
                .bind(provisioned)
                .bind(state.number)
                .bind(tick)
                .bind(now)
                .execute(&mut *transaction)
                .await
                .map_err(errors::database)?;
            transaction.commit().await.map_err(errors::commit)?;
            Ok((Version { replica: state.replica, tick: Tick(tick.unsigned_abs()) }, now))
        })
        .await
    }

    /// Removes what was made beside a table.
    pub(super) async fn unprovision_table(&self, id: TableId, table: Option<&CatalogTable>) -> Result<()> {
        repeat(|| async {
            let mut transaction = self.begin_provisioning(table).await?;
            for statement in tracking::drop_all(id, table) {
                statements::run(&mut transaction, &statement).await.map_err(errors::database)?;
            }
            for statement in [
                "DELETE FROM syncline.truncations WHERE table_id = $1",
                "DELETE FROM syncline.tables WHERE id = $1",
            ] {
                sqlx::query(statement)
                    .bind(i64::from(id.0))
                    .execute(&mut *transaction)
                    .await
                    .map_err(errors::database)?;
            }
            transaction.commit().await.map_err(errors::commit)
        })
        .await
    }
}
