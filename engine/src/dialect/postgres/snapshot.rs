//! One read snapshot of a hub's database, and its clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres, Row as _};
use syncline::error::{Result, SyncError};
use syncline::ids::{ReplicaId, TableId, Tick};
use syncline::knowledge::{Clock, Clocks, Knowledge, TickRanges, Version};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::opening::Process;
use super::provision::{Provisioned, repeat};
use super::statements::glance::STILL_THERE;
use super::statements::qualified;
use super::statements::reading::{self, KnownPeer};
use super::statements::tracking::Role;
use super::tracked::{Tracked, broken};
use super::{PostgresDatabase, catalog, errors, statements};
use crate::dialect::meta::Statement;
use crate::store::{EnumeratedBlock, EnumerationPlan, Snapshot, StoredScope, TableState};

/// A snapshot: a REPEATABLE READ READ ONLY transaction that holds ACCESS SHARE on all tables of the scope.
pub(super) struct PostgresSnapshot {
    /// There until the snapshot is dropped.
    pub(super) connection: Option<PoolConnection<Postgres>>,
    /// Whether an enumeration is under way.
    streaming: bool,
    /// Given back with the connection.
    _turn: OwnedSemaphorePermit,
    pub(super) tables: BTreeMap<TableId, SnapshotTable>,
    pub(super) knowledge: Knowledge,
    pub(super) replicas: Replicas,
    /// Whether there is a log in it that should be folded before it is read.
    pub(super) has_long_log: bool,
    process: Process,
}

/// A table in a snapshot.
pub(super) struct SnapshotTable {
    pub(super) tracked: Tracked,
    pub(super) state: TableState,
    pub(super) baseline_changed_at: i64,
}

/// The replicas that records may name, by number.
#[derive(Debug, Clone, Default)]
pub(super) struct Replicas {
    /// Our present number.
    pub(super) own: i64,
    /// Our present id.
    pub(super) id: Option<ReplicaId>,
    /// Ids of this database, present and former, and of peers: those that stand in `peer` of records.
    pub(super) peers: BTreeMap<i64, (ReplicaId, Option<i64>)>,
}

impl Replicas {
    /// What is known of each of them.
    pub(super) fn known(&self, knowledge: &Knowledge) -> Vec<KnownPeer> {
        let of = |(number, (id, _)): (&i64, &(ReplicaId, Option<i64>))| KnownPeer {
            number: *number,
            clock: knowledge.clock(*id).cloned(),
        };
        self.peers.iter().map(of).collect()
    }

    /// The version that a record says.
    pub(super) fn version(&self, peer: i64, tick: i64) -> Result<Version> {
        let (replica, _) = self
            .peers
            .get(&peer)
            .ok_or_else(|| SyncError::internal(format!("no replica has the number {peer}")))?;
        Ok(Version { replica: *replica, tick: Tick(tick.unsigned_abs()) })
    }

    /// What a snapshot with this clock knows: our own clock, those of our former ids, and those of peers.
    pub(super) fn knowledge(&self, own: Clock) -> Knowledge {
        let mut clocks = Clocks::new();
        for (number, (replica, clock_tick)) in &self.peers {
            if *number == self.own {
                clocks.insert(*replica, own.clone());
            } else if let Some(tick) = clock_tick {
                clocks.insert(*replica, Clock::up_to(Tick(tick.unsigned_abs())));
            }
        }
        Knowledge::from_clocks(clocks)
    }
}

/// Reads the replicas that records may name.
pub(super) async fn replicas(connection: &mut PgConnection) -> Result<Replicas> {
    let rows = sqlx::query(
        "SELECT r.number, r.replica, r.clock_tick, s.number FROM syncline.replicas r CROSS JOIN syncline.state s \
         WHERE r.kind <> 1",
    )
    .fetch_all(connection)
    .await
    .map_err(errors::database)?;
    let mut replicas = Replicas::default();
    for row in rows {
        let (number, id) = (row.get(0), ReplicaId::from_slice(row.get(1))?);
        replicas.own = row.get(3);
        if number == replicas.own {
            replicas.id = Some(id);
        }
        replicas.peers.insert(number, (id, row.get(2)));
    }
    Ok(replicas)
}

/// The clock that the transaction's snapshot is: all ids below `xmax`, less those in progress (prepared ones too).
pub(super) async fn clock(connection: &mut PgConnection) -> Result<Clock> {
    let text: String = sqlx::query_scalar("SELECT pg_catalog.pg_current_snapshot()::text")
        .fetch_one(connection)
        .await
        .map_err(errors::database)?;
    parse_clock(&text)
}

/// The clock that a snapshot is, from its text.
///
/// # Errors
/// INTERNAL, if it is none.
pub(super) fn parse_clock(text: &str) -> Result<Clock> {
    parse_snapshot(text).ok_or_else(|| SyncError::internal(format!("a snapshot reads {text}")))
}

/// `xmin:xmax:xip,xip,...`
fn parse_snapshot(text: &str) -> Option<Clock> {
    let mut parts = text.split(':');
    let (_, xmax) = (parts.next()?, parts.next()?.parse::<u64>().ok()?);
    let in_progress = parts.next()?.split(',').filter(|id| !id.is_empty());
    let missing: TickRanges =
        in_progress.map(|id| id.parse().map(Tick)).collect::<std::result::Result<_, _>>().ok()?;
    Some(Clock::new(Tick(xmax.checked_sub(1)?), &missing))
}

#[async_trait]
impl Snapshot for PostgresSnapshot {
    fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    fn witness(&self) -> Option<Statement> {
        let (id, began) = self.process;
        Some(Statement::new(STILL_THERE, [id.into(), began.into()]))
    }

    fn table(&self, id: TableId) -> Option<&TableState> {
        self.tables.get(&id).map(|table| &table.state)
    }

    async fn enumerate(&mut self, plan: EnumerationPlan, blocks: mpsc::Sender<Result<EnumeratedBlock>>) {
        self.streaming = true;
        match super::enumerate::enumerate(self, &plan, &blocks).await {
            Ok(true) => self.streaming = false,
            // The receiver is gone: nobody wants the rest. A COPY may still be running.
            Ok(false) => {}
            Err(error) => {
                // A receiver that is gone does not want to know.
                let _ = blocks.send(Err(error)).await;
            }
        }
    }
}

impl Drop for PostgresSnapshot {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.streaming {
            // Closing the connection ends a COPY that is still running, and the transaction with it.
            connection.close_on_drop();
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if statements::run(&mut connection, "ROLLBACK").await.is_err() {
                    connection.close_on_drop();
                }
            });
        } else {
            connection.close_on_drop();
        }
    }
}

/// The connection of a snapshot.
///
/// # Errors
/// INTERNAL, if the snapshot was dropped: never, since nobody can hold it then.
pub(super) fn connection(held: &mut Option<PoolConnection<Postgres>>) -> Result<&mut PgConnection> {
    held.as_deref_mut().ok_or_else(|| SyncError::internal("the snapshot has no connection"))
}

impl PostgresDatabase {
    /// Opens a snapshot over the scope's tables.
    pub(super) async fn open_snapshot(&self, scope: &StoredScope) -> Result<PostgresSnapshot> {
        repeat(|| self.try_open_snapshot(scope)).await
    }

    async fn try_open_snapshot(&self, scope: &StoredScope) -> Result<PostgresSnapshot> {
        let turn = Arc::clone(&self.snapshots).acquire_owned().await.map_err(SyncError::internal)?;
        let connection = self.pool.acquire().await.map_err(errors::database)?;
        let mut snapshot = PostgresSnapshot {
            connection: Some(connection),
            streaming: false,
            _turn: turn,
            tables: BTreeMap::new(),
            knowledge: Knowledge::new(),
            replicas: Replicas::default(),
            has_long_log: false,
            process: (0, None),
        };
        let connection = self::connection(&mut snapshot.connection)?;
        // One message; only what comes after it takes the snapshot. The tables are locked before: one that is rewritten
        // or truncated in between would read as empty.
        let bases: Vec<_> =
            scope.tables.iter().map(|table| qualified(&table.source_schema, &table.source_name)).collect();
        statements::run(connection, &reading::begin_snapshot(&bases)).await.map_err(missing_is_broken)?;
        let opening = self.openings.open(connection, scope).await?;
        snapshot.knowledge = opening.replicas.knowledge(opening.clock);
        snapshot.replicas = opening.replicas;
        snapshot.has_long_log = opening.has_long_log;
        snapshot.process = opening.process;
        for (tracked, state) in opening.tables {
            let stored = scope.tables.iter().find(|table| table.id == tracked.id);
            let baseline_changed_at = stored.map_or(0, |table| table.baseline_changed_at);
            snapshot.tables.insert(tracked.id, SnapshotTable { tracked, state, baseline_changed_at });
        }
        Ok(snapshot)
    }
}

fn missing_is_broken(error: sqlx::Error) -> SyncError {
    if errors::is_missing(&error) {
        return broken("(missing)", "a table").with_detail(errors::describe(&error));
    }
    errors::database(error)
}

/// The scope's tables as the catalogue has them, in the scope's order.
///
/// # Errors
/// TRACKING_BROKEN if triggers, partitions, key or columns are not as they were provisioned.
pub(super) async fn tracked_tables(
    connection: &mut PgConnection,
    scope: &StoredScope,
) -> Result<Vec<Tracked>> {
    let ids: Vec<i64> = scope.tables.iter().map(|table| i64::from(table.id.0)).collect();
    let rows: Vec<(i64, String)> =
        sqlx::query_as("SELECT id, provisioned FROM syncline.tables WHERE id = ANY ($1)")
            .bind(&ids)
            .fetch_all(&mut *connection)
            .await
            .map_err(errors::database)?;
    let mut provisioned = BTreeMap::new();
    for (id, document) in rows {
        let document: Provisioned = serde_json::from_str(&document).map_err(SyncError::internal)?;
        provisioned.insert(id, document);
    }
    let oids: Vec<i64> = provisioned.values().map(|table| table.oid).collect();
    let mut catalog: BTreeMap<i64, _> =
        catalog::load(connection, &oids).await?.into_iter().map(|table| (table.oid, table)).collect();
    let mut tracked = Vec::with_capacity(scope.tables.len());
    for (schema, stored) in scope.schema.tables.iter().zip(&scope.tables) {
        let Some(as_provisioned) = provisioned.get(&i64::from(stored.id.0)) else {
            return Err(broken(&schema.name, "tracking"));
        };
        let table = catalog.remove(&as_provisioned.oid);
        let named = |table: &catalog::CatalogTable| {
            (&table.schema, &table.name) == (&stored.source_schema, &stored.source_name)
        };
        let Some(table) = table.filter(named) else {
            return Err(broken(&schema.name, "the name or the identity"));
        };
        if let Some(difference) = as_provisioned.difference(&table, Role::Hub) {
            return Err(broken(&schema.name, difference));
        }
        tracked.push(Tracked::at_hub(schema, stored, table)?);
    }
    Ok(tracked)
}

/// The latest truncation by `seq` (its tick need not be the greatest).
pub(super) async fn truncated(
    connection: &mut PgConnection,
    replicas: &Replicas,
    id: TableId,
) -> Result<Option<Version>> {
    let row: Option<(Option<i64>, i64)> = sqlx::query_as(
        "SELECT peer, tick FROM syncline.truncations WHERE table_id = $1 ORDER BY seq DESC LIMIT 1",
    )
    .bind(i64::from(id.0))
    .fetch_optional(connection)
    .await
    .map_err(errors::database)?;
    row.map(|(peer, tick)| replicas.version(peer.unwrap_or(replicas.own), tick)).transpose()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_snapshot_is_a_clock() {
        let clock = parse_snapshot("100:105:100,103").unwrap();
        assert_eq!(clock.tick(), Tick(104));
        assert!(!clock.contains(Tick(100)) && clock.contains(Tick(101)) && !clock.contains(Tick(103)));
        assert_eq!(parse_snapshot("7:7:").unwrap(), Clock::up_to(Tick(6)));
        assert!(parse_snapshot("7").is_none());
    }
}
