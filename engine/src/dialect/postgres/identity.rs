//! Whether the database is still the one that its replica id was made for, and what happens if it is not.
//!
//! A copy, a restored backup and a failover that lost commits would hand out ticks that others have seen already. The
//! identity is the cluster's system identifier and timeline, and the oids of the database and of our state table; beside
//! it, no stored tick may lie above the current transaction id.

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row as _};
use syncline::error::{Result, SyncError};
use syncline::ids::{ReplicaId, TableId, Tick};
use syncline::knowledge::Version;

use super::provision::{self, State};
use super::{PostgresDatabase, errors, fold, own_tick, statements};

/// What tells one database from its copies. Where the role may not read the cluster's control file, its parts are
/// `None`: then only the oids and the transaction ids tell, which a physical copy shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    system: Option<String>,
    timeline: Option<i64>,
    database: i64,
    state_table: i64,
}

impl Identity {
    /// What can't be read now counts as equal: a right that was taken away is no restore.
    fn is_another(&self, stored: &Self) -> bool {
        fn differs<T: PartialEq>(now: Option<&T>, stored: Option<&T>) -> bool {
            matches!((now, stored), (Some(now), Some(stored)) if now != stored)
        }
        differs(self.system.as_ref(), stored.system.as_ref())
            || differs(self.timeline.as_ref(), stored.timeline.as_ref())
            || (self.database, self.state_table) != (stored.database, stored.state_table)
    }
}

impl Identity {
    /// Whether transactions are counted by another cluster; where the system identifier can't be read, whether the
    /// database is another one.
    pub(super) fn is_of_another_cluster(&self, stored: &Self) -> bool {
        match (&self.system, &stored.system) {
            (Some(now), Some(stored)) => now != stored,
            _ => (self.database, self.state_table) != (stored.database, stored.state_table),
        }
    }
}

impl PostgresDatabase {
    /// Makes our schema if it is missing, and takes a new replica id if the database is another one, or behind its past.
    pub(super) async fn open_identity(&self) -> Result<ReplicaId> {
        let control = self.control_file().await?;
        let mut transaction = self.begin_durable().await?;
        let state = provision::ensure_schema(&mut transaction).await?;
        let now = identity(&mut transaction, control).await?;
        let document = serde_json::to_string(&now).map_err(SyncError::internal)?;
        let stored: Option<Identity> = serde_json::from_str(&state.identity).ok();
        // Before our own tick is drawn: whatever is seen here has a smaller one then, though applications write meanwhile.
        // Read afterwards, what they have just written would look like the future of a database that went back in time.
        let greatest = greatest_tick(&mut transaction, &state).await?;
        let tick = own_tick(&mut transaction).await?;
        let replica = match stored {
            Some(stored) if now.is_another(&stored) || greatest > tick => {
                tracing::warn!(
                    ?now,
                    ?stored,
                    tick,
                    greatest,
                    "the database is a copy, or went back in time: the hub takes a new replica id"
                );
                take_new_id(&mut transaction, &state, tick).await?
            }
            _ => state.replica,
        };
        if state.identity != document {
            sqlx::query("UPDATE syncline.state SET identity = $1")
                .bind(document)
                .execute(&mut *transaction)
                .await
                .map_err(errors::database)?;
        }
        transaction.commit().await.map_err(errors::commit)?;
        Ok(replica)
    }

    /// Takes a new replica id, unless a snapshot of now contains `seen`.
    pub(super) async fn new_id_unless_seen(&self, seen: Version) -> Result<ReplicaId> {
        let mut transaction = self.begin_durable().await?;
        let state = provision::ensure_schema(&mut transaction).await?;
        // Read before this transaction has an id of its own.
        let clock = super::snapshot::clock(&mut transaction).await?;
        if seen.replica != state.replica || clock.contains(seen.tick) {
            // Another id's ticks are not ours to judge.
            return Ok(state.replica);
        }
        let tick = own_tick(&mut transaction).await?;
        tracing::warn!(
            seen = seen.tick.0,
            tick,
            "a replica knows more of this database than it does itself: the hub takes a new replica id"
        );
        let replica = take_new_id(&mut transaction, &state, tick).await?;
        transaction.commit().await.map_err(errors::commit)?;
        Ok(replica)
    }

    /// System identifier and timeline, where the role may read them.
    pub(super) async fn control_file(&self) -> Result<Option<(String, i64)>> {
        let read = sqlx::query_as(
            "SELECT s.system_identifier::text, c.timeline_id::bigint \
             FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c",
        )
        .fetch_one(&self.pool)
        .await;
        match read {
            Ok(control) => Ok(Some(control)),
            Err(error) if errors::is_forbidden(&error) => Ok(None),
            Err(error) => Err(errors::database(error)),
        }
    }
}

/// What tells this database from others.
pub(super) async fn identity(
    connection: &mut PgConnection,
    control: Option<(String, i64)>,
) -> Result<Identity> {
    let (database, state_table) = sqlx::query_as(
        "SELECT d.oid::bigint, 'syncline.state'::pg_catalog.regclass::oid::bigint \
         FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
    )
    .fetch_one(connection)
    .await
    .map_err(errors::database)?;
    let (system, timeline) = control.unzip();
    Ok(Identity { system, timeline, database, state_table })
}

/// The greatest tick of our own that is stored.
async fn greatest_tick(connection: &mut PgConnection, state: &State) -> Result<i64> {
    let mut greatest = state.durable_tick;
    for (id, _) in hub_tables(connection).await? {
        let of_table: Option<i64> = statements::query_once(&statements::reading::greatest_own_tick(id))
            .bind(state.number)
            .fetch_one(&mut *connection)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(errors::database)?;
        greatest = greatest.max(of_table.unwrap_or(0));
    }
    Ok(greatest)
}

/// The hub's tracked tables, with the number of their key columns.
pub(super) async fn hub_tables(connection: &mut PgConnection) -> Result<Vec<(TableId, usize)>> {
    let rows: Vec<(i64, String)> =
        sqlx::query_as("SELECT id, provisioned FROM syncline.tables WHERE role = 0 ORDER BY id")
            .fetch_all(connection)
            .await
            .map_err(errors::database)?;
    rows.into_iter()
        .map(|(id, provisioned)| {
            let provisioned: provision::Provisioned =
                serde_json::from_str(&provisioned).map_err(SyncError::internal)?;
            Ok((TableId(u32::try_from(id).map_err(SyncError::internal)?), provisioned.key.len()))
        })
        .collect()
}

/// Folds first, so that entries up to the last durable mark keep the old id. The old id stands still there; what is
/// above it gets versions of the new id.
async fn take_new_id(connection: &mut PgConnection, state: &State, tick: i64) -> Result<ReplicaId> {
    let replica = ReplicaId::fresh();
    let number = provision::add_replica(connection, replica, 0).await?;
    for (id, keys) in hub_tables(connection).await? {
        provision::advisory_lock(connection, fold::advisory_number(id)?).await?;
        let fold = statements::reading::fold(id, keys);
        statements::run(connection, &fold).await.map_err(errors::database)?;
        for statement in statements::reading::renumber(id) {
            statements::query_once(&statement)
                .bind(state.number)
                .bind(state.durable_tick)
                .bind(number)
                .bind(tick)
                .execute(&mut *connection)
                .await
                .map_err(errors::database)?;
        }
    }
    for statement in [
        "UPDATE syncline.truncations SET peer = $1 WHERE peer IS NULL AND tick <= $2 AND $3::bigint > 0 \
         AND $4::bigint > 0",
        "UPDATE syncline.truncations SET tick = $4 WHERE peer IS NULL AND tick > $2 AND $1::bigint > 0 \
         AND $3::bigint > 0",
        "UPDATE syncline.tables SET baseline_replica = $3, baseline_tick = $4 \
         WHERE role = 0 AND baseline_replica = $1 AND baseline_tick > $2",
        "UPDATE syncline.replicas SET clock_tick = $2 WHERE number = $1 AND $3::bigint > 0 AND $4::bigint > 0",
    ] {
        sqlx::query(statement)
            .bind(state.number)
            .bind(state.durable_tick)
            .bind(number)
            .bind(tick)
            .execute(&mut *connection)
            .await
            .map_err(errors::database)?;
    }
    renumber_scopes(connection, state, replica, tick).await?;
    sqlx::query("UPDATE syncline.state SET replica = $1, number = $2, durable_tick = $3")
        .bind(replica.as_bytes())
        .bind(number)
        .bind(tick)
        .execute(connection)
        .await
        .map_err(errors::database)?;
    Ok(replica)
}

/// Baselines and `since` that lie above the last durable mark become versions of the new id too.
async fn renumber_scopes(
    connection: &mut PgConnection,
    state: &State,
    replica: ReplicaId,
    tick: i64,
) -> Result<()> {
    let durable = Tick(state.durable_tick.unsigned_abs());
    let new = Version { replica, tick: Tick(tick.unsigned_abs()) };
    for mut scope in super::scopes::all(connection).await? {
        for table in &mut scope.tables {
            let columns = table.columns_since.iter_mut().map(|(_, since)| since);
            let forms = [&mut table.since, &mut table.reshaped, &mut table.baseline];
            for version in forms.into_iter().chain(columns) {
                if version.replica == state.replica && version.tick > durable {
                    *version = new;
                }
            }
        }
        super::scopes::save(connection, &scope).await?;
    }
    Ok(())
}
