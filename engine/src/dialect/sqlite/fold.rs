//! Folding logs into keyed records.
//!
//! All entries that a transaction folds share one tick, so a row's newest version is one of its entries' if it has any:
//! entries are always newer than the record. That holds because everyone who writes records folds first, in the same
//! transaction, under SQLite's one write lock. So records need no order among themselves (`seq`) here.
//!
//! A long log is folded in pieces, so that an application's writers wait for a piece and not for the whole. **Invariant:** a
//! piece is the beginning of a log, in the order in which its entries were written, and nobody takes a snapshot for one
//! that tells all while a log has entries. So what is left is newer than every record, and gets a later tick.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;
use syncline::error::Result;
use syncline::ids::{TableId, Tick};

use super::connection::{Connections, WriteTransaction, blocking};
use super::errors::DatabaseResult as _;
use super::statements::{self, dirty, key_names, literal, log, noted, record};
use super::tracking::{Provisioned, Role};
use crate::limits;

/// Draws a tick.
pub(super) const DRAW_TICK: &str = "UPDATE syncline_state SET tick = tick + 1";

/// Folds all logs, in transactions of its own, whose commits do not wait for the disk: a fold that is lost leaves the
/// entries in the log, whole.
///
/// Between two pieces it waits for as long as the last one took: without a pause nobody else would get the write lock, since
/// SQLite's waiting writers look for it from time to time only. After [`limits::SQLITE_FOLD_PIECES_MAX`] of them the rest is
/// folded at once: somebody writes as fast as we fold.
///
/// **Invariant:** its tick is handed out again only if nobody has heard of it. The write-ahead log keeps its order, so a
/// crash that loses the fold loses everything that was committed later; and what names the tick (a download's knowledge, an
/// upload) is committed durably, after the fold, before it is handed out.
pub(super) async fn in_pieces(connections: &Arc<Connections>) -> Result<()> {
    for piece in 0..=limits::SQLITE_FOLD_PIECES_MAX {
        let entries =
            if piece < limits::SQLITE_FOLD_PIECES_MAX { limits::SQLITE_FOLD_ENTRIES_MAX } else { u32::MAX };
        let writer = connections.writer().await;
        let (folded, took) = blocking(move || {
            let transaction = WriteTransaction::begin_losable(writer)?;
            let started = Instant::now();
            let folded = fold_some(transaction.connection(), entries)?;
            transaction.commit()?;
            Ok((folded, started.elapsed()))
        })
        .await?;
        if folded == Folded::All {
            break;
        }
        tokio::time::sleep(took).await;
    }
    Ok(())
}

/// What a fold has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folded {
    /// Nothing.
    All,
    /// Entries that are newer than those that it folded.
    Piece,
}

/// Folds all logs of the database, within a write transaction, and answers the tick that is then the newest. An empty
/// fold draws none. Blocks.
pub(super) fn all(connection: &Connection) -> Result<Tick> {
    fold_some(connection, u32::MAX)?;
    super::state::tick(connection)
}

/// Folds at most so many entries.
fn fold_some(connection: &Connection, entries_max: u32) -> Result<Folded> {
    let (mut left, mut drawn) = (i64::from(entries_max), false);
    for table in tracked(connection)? {
        let Some((first, last)) = range(connection, table.id)? else { continue };
        if left == 0 {
            return Ok(Folded::Piece);
        }
        if !drawn {
            connection.prepare_cached(DRAW_TICK).db()?.execute([]).db()?;
            drawn = true;
        }
        // Numbers may be missing: then the piece is a smaller one.
        let entries = last - first + 1;
        if entries > left {
            let [keep, remove] = statements_of(table, " AND l.seq < ?1", " WHERE seq < ?1");
            for statement in [keep, remove] {
                connection.prepare_cached(&statement).db()?.execute([first + left]).db()?;
            }
            return Ok(Folded::Piece);
        }
        fold_table(connection, table)?;
        // Of statements that wrote nothing in the end.
        if has_table(connection, &noted(table.id))? {
            connection.execute(&format!("DELETE FROM {}", noted(table.id)), []).db()?;
        }
        left -= entries;
    }
    Ok(Folded::All)
}

/// Folds what is in the logs at the tick that was drawn last, within the same write transaction. Blocks.
pub(super) fn rest(connection: &Connection) -> Result<()> {
    for table in tracked(connection)? {
        if any_entries(connection, [table.id])? {
            fold_table(connection, table)?;
        }
    }
    Ok(())
}

fn fold_table(connection: &Connection, table: Tracked) -> Result<()> {
    for statement in of_log(table) {
        connection.prepare_cached(&statement).db()?.execute([]).db()?;
    }
    Ok(())
}

/// Draws a tick, within a write transaction. Blocks.
pub(super) fn draw_tick(connection: &Connection) -> Result<Tick> {
    connection.prepare_cached(DRAW_TICK).db()?.execute([]).db()?;
    super::state::tick(connection)
}

/// What folds a log into records (hub) or dirty records (leaf) at the state's tick, and empties it.
pub(super) fn of_log(table: Tracked) -> [String; 2] {
    statements_of(table, "", "")
}

/// Entry by entry, in their order: each is at least a microsecond later than what was there before. To bring those of a
/// key together first would cost a fifth more. Entries whose key holds NULL are dropped: such rows can't be synchronised,
/// which the enumeration says. `and_piece` and `where_piece` say which of the entries.
fn statements_of(table: Tracked, and_piece: &str, where_piece: &str) -> [String; 2] {
    let Tracked { id, key_columns: columns, role } = table;
    let log = log(id);
    let key = key_names("", columns);
    let own = key_names("l.", columns);
    let not_null =
        (1..=columns).map(|place| format!("l.k{place} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
    let tick = "(SELECT tick FROM syncline_state)";
    let keep = match role {
        Role::Hub => {
            let record = record(id);
            format!(
                "INSERT INTO {record} ({key}, peer, tick, changed_at) \
                 SELECT {own}, (SELECT number FROM syncline_state), {tick}, l.changed_at FROM {log} AS l \
                 WHERE {not_null}{and_piece} ORDER BY l.seq \
                 ON CONFLICT ({key}) DO UPDATE SET peer = excluded.peer, tick = excluded.tick, via = 0, origin = 0, \
                 changed_at = max(excluded.changed_at, {record}.changed_at + 1), resolved = 0"
            )
        }
        // The first insert or delete among the entries since the last acknowledgement decides whether the row was born
        // here, at the fold's tick, or not (0). Updates alone leave it open (NULL).
        Role::Leaf => {
            let dirty = dirty(id);
            format!(
                "INSERT INTO {dirty} ({key}, tick, changed_at, birth) \
                 SELECT {own}, {tick}, l.changed_at, CASE l.operation WHEN 1 THEN {tick} WHEN 2 THEN 0 END \
                 FROM {log} AS l WHERE {not_null}{and_piece} ORDER BY l.seq \
                 ON CONFLICT ({key}) DO UPDATE SET tick = excluded.tick, \
                 changed_at = max(excluded.changed_at, {dirty}.changed_at + 1), \
                 birth = coalesce({dirty}.birth, excluded.birth)"
            )
        }
    };
    [keep, format!("DELETE FROM {log}{where_piece}")]
}

/// A tracked table, as a fold needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tracked {
    pub(super) id: TableId,
    pub(super) key_columns: usize,
    pub(super) role: Role,
}

/// All tracked tables. Blocks.
pub(super) fn tracked(connection: &Connection) -> Result<Vec<Tracked>> {
    let mut statement =
        connection.prepare_cached("SELECT id, role, provisioned FROM syncline_tables ORDER BY id").db()?;
    let mut rows = statement.query([]).db()?;
    let mut tables = Vec::new();
    while let Some(row) = rows.next().db()? {
        let provisioned: Provisioned = super::state::from_json(&row.get::<_, String>(2).db()?)?;
        // Downloads alone are not tracked at a leaf.
        if provisioned.triggers.is_empty() {
            continue;
        }
        tables.push(Tracked {
            id: TableId(row.get(0).db()?),
            key_columns: provisioned.shape.iter().filter(|part| part.starts_with("key ")).count(),
            role: if row.get::<_, i64>(1).db()? == 0 { Role::Hub } else { Role::Leaf },
        });
    }
    Ok(tables)
}

/// Whether any of the logs has entries. Blocks.
pub(super) fn any_entries(
    connection: &Connection,
    tables: impl IntoIterator<Item = TableId>,
) -> Result<bool> {
    for id in tables {
        let sql = statements::has_entries(id);
        if connection.prepare_cached(&sql).db()?.query_row([], |row| row.get(0)).db()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether any of the logs has more entries than a transaction should fold beside other work. Blocks.
pub(super) fn any_long(connection: &Connection, tables: impl IntoIterator<Item = TableId>) -> Result<bool> {
    for id in tables {
        if range(connection, id)?
            .is_some_and(|(first, last)| last - first >= limits::SQLITE_FOLD_ENTRIES_MAX.into())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The numbers of the first and the last entry of a log, if it has any.
fn range(connection: &Connection, id: TableId) -> Result<Option<(i64, i64)>> {
    let mut statement = connection.prepare_cached(&statements::log_range(id)).db()?;
    let (first, last) =
        statement.query_row([], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get(1)?))).db()?;
    Ok(first.zip(last))
}

fn has_table(connection: &Connection, name: &str) -> Result<bool> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = {})",
        literal(name)
    );
    connection.prepare_cached(&sql).db()?.query_row([], |row| row.get(0)).db()
}
