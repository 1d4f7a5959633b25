//! The rows of an apply under way, in temporary tables of the writer's connection: so memory does not grow with them.

use std::ops::ControlFlow;

use bytes::Bytes;
use rusqlite::types::Value as Stored;
use rusqlite::{Connection, OptionalExtension as _};
use syncline::error::{Result, SyncError};
use syncline::ids::TableId;

use super::errors::DatabaseResult as _;
use crate::limits::KEYS_PAGE;

/// Made once, when the writer is opened. `changed_at` of incoming rows: at a hub when the row was changed at its sender, at
/// a leaf the place of the block that named the row last.
pub(super) const CREATE: &str = "\
    CREATE TEMP TABLE syncline_incoming (table_id INTEGER, row_key BLOB, fate INTEGER NOT NULL, \
      changed_at INTEGER NOT NULL, PRIMARY KEY (table_id, row_key)) WITHOUT ROWID; \
    CREATE TEMP TABLE syncline_touched (table_id INTEGER, row_key BLOB, PRIMARY KEY (table_id, row_key)) \
      WITHOUT ROWID; \
    CREATE TEMP TABLE syncline_freed (table_id INTEGER, row_key BLOB, place INTEGER, held, \
      PRIMARY KEY (table_id, row_key, place)) WITHOUT ROWID";

/// Which rows a pass looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// All.
    First,
    /// Those that could not be written so far.
    Again,
    /// The same, and those that got stuck; what can't be written now is a row error.
    Last,
}

impl Pass {
    /// Whether the pass looks at a row of this fate.
    pub(super) fn takes(self, fate: Option<Fate>) -> bool {
        match self {
            Self::First => true,
            Self::Again => fate == Some(Fate::Parked),
            Self::Last => matches!(fate, Some(Fate::Parked | Fate::Stuck)),
        }
    }
}

/// What became of a row that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing was to be done: known, or the same already.
    Unchanged,
    /// Written, and the row is now just what came in.
    Written,
    /// Written, and its record with it: nothing is left to be done for it.
    Recorded,
    /// Written, and the row is something else now.
    WrittenOtherwise,
    /// A user's trigger dropped the write.
    Swallowed,
    /// A conflict that it lost, and the database has neither row nor tombstone.
    Tombstone,
    /// A conflict that it lost.
    Lost,
    /// It could not be written so far.
    Parked,
    /// It could not be written though other rows made room.
    Stuck,
    /// It can't be written.
    Failed,
    /// A delete that lost to a row which refers to this one: the sender gets it back.
    Kept,
    /// A row of a table that is compared as a whole, which no batch named.
    Unnamed,
}

impl Fate {
    const ALL: [Self; 12] = [
        Self::Unchanged,
        Self::Written,
        Self::Recorded,
        Self::WrittenOtherwise,
        Self::Swallowed,
        Self::Tombstone,
        Self::Lost,
        Self::Parked,
        Self::Stuck,
        Self::Failed,
        Self::Kept,
        Self::Unnamed,
    ];

    /// Its number in the temporary table.
    pub(super) fn number(self) -> i64 {
        Self::ALL.iter().position(|fate| *fate == self).map_or(-1, |place| place as i64)
    }

    fn from_number(number: i64) -> Result<Self> {
        let place = usize::try_from(number).ok().and_then(|place| Self::ALL.get(place).copied());
        place.ok_or_else(|| SyncError::internal("a fate that is none"))
    }

    /// Whether what the database holds now is the sender's doing, and it has to hear of it.
    pub(super) fn is_senders(self) -> bool {
        matches!(
            self,
            Self::Written | Self::WrittenOtherwise | Self::Swallowed | Self::Tombstone | Self::Kept
        )
    }
}

/// Forgets what an earlier apply left. Blocks.
pub(super) fn clear(connection: &Connection) -> Result<()> {
    connection
        .execute_batch(
            "DELETE FROM temp.syncline_incoming; DELETE FROM temp.syncline_touched; DELETE FROM temp.syncline_freed",
        )
        .db()
}

/// Notes a row. Answers false if its key is there already. Blocks.
pub(super) fn add(
    connection: &Connection,
    table: TableId,
    key: &Bytes,
    fate: Fate,
    changed_at: i64,
) -> Result<bool> {
    let added = connection
        .prepare_cached(
            "INSERT INTO temp.syncline_incoming (table_id, row_key, fate, changed_at) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO NOTHING",
        )
        .db()?
        .execute(rusqlite::params![table.0, &key[..], fate.number(), changed_at])
        .db()?;
    Ok(added == 1)
}

/// Notes a row of a download, or what became of one that is there already, and the place of the block that names it.
/// Blocks.
pub(super) fn put(
    connection: &Connection,
    table: TableId,
    key: &Bytes,
    fate: Fate,
    place: i64,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO temp.syncline_incoming (table_id, row_key, fate, changed_at) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET fate = excluded.fate, changed_at = excluded.changed_at",
        )
        .db()?
        .execute(rusqlite::params![table.0, &key[..], fate.number(), place])
        .db()?;
    Ok(())
}

/// Changes what became of a row. Blocks.
pub(super) fn set(connection: &Connection, table: TableId, key: &Bytes, fate: Fate) -> Result<()> {
    connection
        .prepare_cached("UPDATE temp.syncline_incoming SET fate = ?3 WHERE table_id = ?1 AND row_key = ?2")
        .db()?
        .execute(rusqlite::params![table.0, &key[..], fate.number()])
        .db()?;
    Ok(())
}

/// What became of a row, and when it was changed at its sender (at a leaf: the place). Blocks.
pub(super) fn get(connection: &Connection, table: TableId, key: &Bytes) -> Result<Option<(Fate, i64)>> {
    let found: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT fate, changed_at FROM temp.syncline_incoming WHERE table_id = ?1 AND row_key = ?2",
        )
        .db()?
        .query_row(rusqlite::params![table.0, &key[..]], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .db()?;
    found.map(|(fate, changed_at)| Ok((Fate::from_number(fate)?, changed_at))).transpose()
}

/// Calls `with` for the rows of a table with one of these fates. Blocks.
pub(super) fn each(
    connection: &Connection,
    table: TableId,
    fates: &[Fate],
    mut with: impl FnMut(Bytes, Fate, i64) -> Result<()>,
) -> Result<()> {
    let mut statement = connection
        .prepare_cached("SELECT row_key, fate, changed_at FROM temp.syncline_incoming WHERE table_id = ?1")
        .db()?;
    let mut rows = statement.query([table.0]).db()?;
    while let Some(row) = rows.next().db()? {
        let fate = Fate::from_number(row.get(1).db()?)?;
        if fates.contains(&fate) {
            let key = Bytes::copy_from_slice(row.get_ref(0).db()?.as_blob().map_err(SyncError::internal)?);
            with(key, fate, row.get(2).db()?)?;
        }
    }
    Ok(())
}

/// Calls `with` for the keys of a table's rows with this fate, in order, until it answers `Break`. No statement is open
/// meanwhile, so `with` may change the fate of any row; and only a page of keys is held. Blocks.
pub(super) fn each_key<B>(
    connection: &Connection,
    table: TableId,
    fate: Fate,
    mut with: impl FnMut(&Bytes) -> Result<ControlFlow<B>>,
) -> Result<Option<B>> {
    let mut after = Bytes::new();
    loop {
        let page = page(connection, table, fate, &after)?;
        let Some(last) = page.last() else { return Ok(None) };
        after = last.clone();
        for key in &page {
            if let ControlFlow::Break(answer) = with(key)? {
                return Ok(Some(answer));
            }
        }
    }
}

/// The first keys after this one. No key is empty.
fn page(connection: &Connection, table: TableId, fate: Fate, after: &Bytes) -> Result<Vec<Bytes>> {
    connection
        .prepare_cached(
            "SELECT row_key FROM temp.syncline_incoming WHERE table_id = ?1 AND row_key > ?2 AND fate = ?3 \
             ORDER BY row_key LIMIT ?4",
        )
        .db()?
        .query_map(rusqlite::params![table.0, &after[..], fate.number(), KEYS_PAGE], |row| {
            row.get::<_, Vec<u8>>(0).map(Bytes::from)
        })
        .db()?
        .collect::<rusqlite::Result<_>>()
        .db()
}

/// Notes a row that something else in this transaction changed (a trigger, a cascade). Blocks.
pub(super) fn touch(connection: &Connection, table: TableId, key: &Bytes) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO temp.syncline_touched (table_id, row_key) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )
        .db()?
        .execute(rusqlite::params![table.0, &key[..]])
        .db()?;
    Ok(())
}

/// Whether something else in this transaction changed the row. Blocks.
pub(super) fn is_touched(connection: &Connection, table: TableId, key: &Bytes) -> Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM temp.syncline_touched WHERE table_id = ?1 AND row_key = ?2)",
        )
        .db()?
        .query_row(rusqlite::params![table.0, &key[..]], |row| row.get(0))
        .db()
}

/// Keeps what a column held, by its place among the carried ones, before it was freed for a swap of unique values.
/// Blocks.
pub(super) fn keep_freed(
    connection: &Connection,
    table: TableId,
    key: &Bytes,
    place: usize,
    held: &Stored,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO temp.syncline_freed (table_id, row_key, place, held) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO NOTHING",
        )
        .db()?
        .execute(rusqlite::params![table.0, &key[..], place as i64, held])
        .db()?;
    Ok(())
}

/// Forgets what was freed. Blocks.
pub(super) fn forget_freed(connection: &Connection) -> Result<()> {
    connection.execute_batch("DELETE FROM temp.syncline_freed").db()
}

/// What the freed columns of a row held, with their places. Blocks.
pub(super) fn freed(connection: &Connection, table: TableId, key: &Bytes) -> Result<Vec<(usize, Stored)>> {
    connection
        .prepare_cached("SELECT place, held FROM temp.syncline_freed WHERE table_id = ?1 AND row_key = ?2")
        .db()?
        .query_map(rusqlite::params![table.0, &key[..]], |row| {
            Ok((row.get::<_, i64>(0)? as usize, row.get(1)?))
        })
        .db()?
        .collect::<rusqlite::Result<_>>()
        .db()
}

/// The first freed rows that have none of these fates. Blocks.
pub(super) fn freed_without(
    connection: &Connection,
    fates: &[Fate],
    limit: usize,
) -> Result<Vec<(TableId, Bytes)>> {
    let fates: Vec<_> = fates.iter().map(|fate| fate.number().to_string()).collect();
    let sql = format!(
        "SELECT DISTINCT f.table_id, f.row_key FROM temp.syncline_freed f JOIN temp.syncline_incoming i \
         ON i.table_id = f.table_id AND i.row_key = f.row_key WHERE i.fate NOT IN ({}) LIMIT ?1",
        fates.join(", ")
    );
    connection
        .prepare_cached(&sql)
        .db()?
        .query_map([limit as i64], |row| Ok((TableId(row.get(0)?), row.get::<_, Vec<u8>>(1)?.into())))
        .db()?
        .collect::<rusqlite::Result<_>>()
        .db()
}
