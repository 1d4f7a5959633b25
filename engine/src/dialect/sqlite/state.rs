//! The state row, the table of replicas, and who this database is.

use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ReplicaId, Tick};
use syncline::knowledge::{Clock, Clocks, Knowledge, Version};

use super::catalog;
use super::errors::DatabaseResult as _;
use super::fold;
use super::tracking;
use crate::limits;

const SCHEMA: &str = include_str!("sql/schema.sql");
const SCHEMA_VERSION: i64 = 1;

/// Kinds of replicas in our table of them.
const KIND_OWN: i64 = 0;
const KIND_LEAF: i64 = 1;

/// What the engine is doing in the transaction under way, as triggers read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// Nothing, or something that is to be tracked like any other write.
    Nothing,
    /// It applies a download: nothing is tracked at a leaf.
    Download,
    /// It applies an upload: everything is tracked, and no log folds itself.
    Upload,
}

/// The state row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) replica: ReplicaId,
    /// The replica's number in our table of replicas.
    pub(super) number: i64,
    pub(super) tick: Tick,
    pub(super) durable_tick: Tick,
}

/// Creates our tables if they are missing, checks their version, and sets WAL mode. Outside any transaction. Blocks.
pub(super) fn ensure(connection: &Connection) -> Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).db()?;
    if mode != "wal" {
        return Err(SyncError::new(
            ErrorReason::DatabaseUnavailable,
            format!(
                "the database file can't be put into WAL mode (it stays in {mode}); move it to a local disk"
            ),
        ));
    }
    connection.execute_batch("BEGIN IMMEDIATE").db()?;
    let done = create(connection);
    connection.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).db()?;
    done
}

/// A copy made by a backup tool (`VACUUM INTO`, `.backup`) may have lost the WAL mode that provisioning set: sets it
/// again. A file that we have no tables in is left as it is. Blocks.
///
/// # Errors
/// LOCK_TIMEOUT, if others use the file for longer than [`limits::SQLITE_BUSY_TIMEOUT`].
pub(super) fn restore_wal(connection: &Connection) -> Result<()> {
    let ours = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'syncline_state')";
    let is_ours: bool = connection.query_row(ours, [], |row| row.get(0)).db()?;
    if !is_ours || check_wal(connection).is_ok() {
        return Ok(());
    }
    // Here SQLite does not wait for others itself, whatever the timeout.
    let deadline = Instant::now() + limits::SQLITE_BUSY_TIMEOUT;
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).db() {
            Err(error) if error.reason() == ErrorReason::LockTimeout && Instant::now() < deadline => {
                std::thread::sleep(limits::GIVE_UP_INTERVAL);
            }
            set => return set,
        }
    }
}

/// Creates our tables if they are missing, and checks their version. Within a transaction. Blocks.
pub(super) fn create(connection: &Connection) -> Result<()> {
    if !catalog::is_provisioned(connection)? {
        connection.execute_batch(SCHEMA).db()?;
        let replica = ReplicaId::fresh();
        connection
            .execute(
                "INSERT INTO syncline_replicas (number, replica, kind) VALUES (1, ?1, 0)",
                [replica.as_bytes()],
            )
            .db()?;
        connection
            .execute(
                "INSERT INTO syncline_state (id, schema_version, replica, number) VALUES (1, ?1, ?2, 1)",
                rusqlite::params![SCHEMA_VERSION, replica.as_bytes()],
            )
            .db()?;
    }
    let version: i64 =
        connection.query_row("SELECT schema_version FROM syncline_state", [], |row| row.get(0)).db()?;
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    Err(SyncError::new(
        ErrorReason::DatabaseUnavailable,
        format!(
            "our tables in the database have version {version}, this program knows {SCHEMA_VERSION}; update it"
        ),
    ))
}

/// Whether the file is still in WAL mode: without it a reader's snapshot would block the application. Blocks.
pub(super) fn check_wal(connection: &Connection) -> Result<()> {
    let mode: String =
        connection.prepare_cached("PRAGMA journal_mode").db()?.query_row([], |row| row.get(0)).db()?;
    if mode == "wal" {
        return Ok(());
    }
    Err(SyncError::new(
        ErrorReason::TrackingBroken,
        format!("the database file was switched from WAL mode to {mode}; apply the scope again"),
    ))
}

/// A number that stays the same for as long as no other connection, of whatever process, commits anything. Blocks.
pub(super) fn data_version(connection: &Connection) -> Result<i64> {
    connection.prepare_cached("PRAGMA data_version").db()?.query_row([], |row| row.get(0)).db()
}

/// Reads the state row. Blocks.
pub(super) fn read(connection: &Connection) -> Result<State> {
    let (replica, number, tick, durable): (Vec<u8>, i64, i64, i64) = connection
        .prepare_cached("SELECT replica, number, tick, durable_tick FROM syncline_state")
        .db()?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .db()?;
    Ok(State {
        replica: ReplicaId::from_slice(&replica)?,
        number,
        tick: from_sql(tick),
        durable_tick: from_sql(durable),
    })
}

/// The newest tick. Blocks.
pub(super) fn tick(connection: &Connection) -> Result<Tick> {
    let tick =
        connection.prepare_cached("SELECT tick FROM syncline_state").db()?.query_row([], |row| row.get(0));
    tick.map(from_sql).db()
}

/// Says what the engine is about to do, or that it is done. Blocks.
pub(super) fn set_writing(connection: &Connection, writing: Writing) -> Result<()> {
    let number = match writing {
        Writing::Nothing => 0,
        Writing::Download => 1,
        Writing::Upload => 2,
    };
    connection.prepare_cached("UPDATE syncline_state SET writing = ?1").db()?.execute([number]).db()?;
    Ok(())
}

/// Notes that the present tick is durable once this transaction is, beside a mark. Blocks.
pub(super) fn note_durable(connection: &Connection) -> Result<()> {
    connection.prepare_cached("UPDATE syncline_state SET durable_tick = tick").db()?.execute([]).db()?;
    Ok(())
}

/// Ticks are counted from 0 by ones: they never reach the sign.
pub(super) fn from_sql(tick: i64) -> Tick {
    Tick(tick.cast_unsigned())
}

/// A tick as it is bound; one beyond what this database can count stands for its greatest.
pub(super) fn to_sql(tick: Tick) -> i64 {
    i64::try_from(tick.0).unwrap_or(i64::MAX)
}

/// The ids of this database, present and former, by number: those that versions of rows name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnIds(pub(super) Vec<(i64, ReplicaId, Option<Tick>)>);

impl OwnIds {
    /// Reads them. Blocks.
    pub(super) fn read(connection: &Connection) -> Result<Self> {
        let mut statement = connection
            .prepare_cached(
                "SELECT number, replica, clock_tick FROM syncline_replicas WHERE kind = 0 ORDER BY number",
            )
            .db()?;
        let mut rows = statement.query([]).db()?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next().db()? {
            let replica =
                ReplicaId::from_slice(row.get_ref(1).db()?.as_blob().map_err(SyncError::internal)?)?;
            ids.push((row.get(0).db()?, replica, row.get::<_, Option<i64>>(2).db()?.map(from_sql)));
        }
        Ok(Self(ids))
    }

    /// The version that a record names.
    pub(super) fn version(&self, number: i64, tick: i64) -> Result<Version> {
        let found = self.0.iter().find(|(known, _, _)| *known == number);
        let (_, replica, _) = found.ok_or_else(|| {
            SyncError::internal(format!("a record names replica {number}, which is not known"))
        })?;
        Ok(Version { replica: *replica, tick: from_sql(tick) })
    }

    /// What this database knows: its own clock, and those of its former ids, which stand still.
    pub(super) fn knowledge(&self, state: &State) -> Knowledge {
        let clocks: Clocks = self
            .0
            .iter()
            .map(|(number, replica, stands_at)| {
                let tick = if *number == state.number { state.tick } else { stands_at.unwrap_or_default() };
                (*replica, Clock::up_to(tick))
            })
            .collect();
        Knowledge::from_clocks(clocks)
    }
}

/// The number of a leaf, 0 if it has none. Blocks.
pub(super) fn leaf_number(connection: &Connection, leaf: ReplicaId) -> Result<i64> {
    let number = connection
        .prepare_cached("SELECT number FROM syncline_replicas WHERE replica = ?1")
        .db()?
        .query_row([leaf.as_bytes()], |row| row.get(0))
        .optional()
        .db()?;
    Ok(number.unwrap_or(0))
}

/// The number of a leaf, given to it if it has none. Within a write transaction. Blocks.
pub(super) fn number_leaf(connection: &Connection, leaf: ReplicaId) -> Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO syncline_replicas (replica, kind) VALUES (?1, ?2) ON CONFLICT (replica) DO NOTHING",
        )
        .db()?
        .execute(rusqlite::params![leaf.as_bytes(), KIND_LEAF])
        .db()?;
    leaf_number(connection, leaf)
}

/// The database went back in time: takes a new id. The old one stands still at the last durable mark; what was written
/// since gets versions of the new one. Within a write transaction. Blocks.
pub(super) fn take_new_id(connection: &Connection) -> Result<ReplicaId> {
    // First under the old id, so that no entry is left whose version would be guessed.
    fold::all(connection)?;
    let old = read(connection)?;
    let replica = ReplicaId::fresh();
    connection
        .execute(
            "INSERT INTO syncline_replicas (replica, kind) VALUES (?1, ?2)",
            rusqlite::params![replica.as_bytes(), KIND_OWN],
        )
        .db()?;
    let number = connection.last_insert_rowid();
    connection
        .execute(
            "UPDATE syncline_replicas SET clock_tick = ?1 WHERE number = ?2",
            [to_sql(old.durable_tick), old.number],
        )
        .db()?;
    connection
        .execute(
            "UPDATE syncline_state SET replica = ?1, number = ?2, tick = tick + 1, durable_tick = tick + 1",
            rusqlite::params![replica.as_bytes(), number],
        )
        .db()?;
    for table in fold::tracked(connection)? {
        if table.role == tracking::Role::Hub {
            let record = super::statements::record(table.id);
            connection
                .execute(
                    &format!("UPDATE {record} SET peer = ?1 WHERE peer = ?2 AND tick > ?3"),
                    [number, old.number, to_sql(old.durable_tick)],
                )
                .db()?;
        }
    }
    super::scope::renew_later_than(connection, &old, replica)?;
    Ok(replica)
}

/// A document of ours as JSON.
pub(super) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(SyncError::internal)
}

/// A document of ours from JSON.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(SyncError::internal)
}

/// Microseconds since 1970 UTC.
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_data_version_tells_of_the_commits_of_others_alone() {
        let directory = tempfile::tempdir().unwrap();
        let [ours, other] = [0, 1].map(|_| Connection::open(directory.path().join("a.db")).unwrap());
        ours.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        let before = data_version(&ours).unwrap();
        ours.execute_batch("INSERT INTO t VALUES (1); ALTER TABLE t ADD COLUMN y").unwrap();
        assert_eq!(data_version(&ours).unwrap(), before);
        other.execute_batch("ALTER TABLE t ADD COLUMN z").unwrap();
        let after = data_version(&ours).unwrap();
        assert_ne!(after, before);
        // Within a transaction too, which sees what was committed before it began.
        other.execute_batch("INSERT INTO t VALUES (1, 2, 3)").unwrap();
        ours.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_ne!(data_version(&ours).unwrap(), after);
    }
}
