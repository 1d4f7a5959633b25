//! Scopes as they are stored, and what their definition says against the database.

use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use syncline::error::Result;
use syncline::ids::{ColumnId, ReplicaId, ScopeName, TableId};
use syncline::knowledge::Version;

use super::errors::DatabaseResult as _;
use super::state::{State, from_json, to_json, to_sql};
use super::tracking::{Provisioned, Role};
use crate::store::StoredScope;

/// Reads a scope. Blocks.
pub(super) fn load(connection: &Connection, name: &ScopeName) -> Result<Option<StoredScope>> {
    document(connection, name)?.map(|document| from_json(&document)).transpose()
}

/// A scope as it is stored. Blocks.
pub(super) fn document(connection: &Connection, name: &ScopeName) -> Result<Option<String>> {
    connection
        .prepare_cached("SELECT document FROM syncline_scopes WHERE name = ?1")
        .db()?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()
        .db()
}

/// Reads all scopes, by name. Blocks.
pub(super) fn load_all(connection: &Connection) -> Result<Vec<StoredScope>> {
    let mut statement =
        connection.prepare_cached("SELECT document FROM syncline_scopes ORDER BY name").db()?;
    let documents =
        statement.query_map([], |row| row.get(0)).db()?.collect::<rusqlite::Result<Vec<String>>>().db()?;
    documents.iter().map(|document| from_json(document)).collect()
}

/// Stores a scope, new or known. Blocks.
pub(super) fn save(connection: &Connection, scope: &StoredScope) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO syncline_scopes (id, name, document) VALUES (?1, ?2, ?3) \
             ON CONFLICT (id) DO UPDATE SET document = excluded.document",
        )
        .db()?
        .execute(rusqlite::params![scope.id, scope.schema.name.as_str(), to_json(scope)?])
        .db()?;
    Ok(())
}

/// The number of the next scope. Blocks.
pub(super) fn next_id(connection: &Connection) -> Result<i64> {
    connection.query_row("SELECT coalesce(max(id), 0) + 1 FROM syncline_scopes", [], |row| row.get(0)).db()
}

/// The ids that were given to columns: never reused within the table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct ColumnIds {
    last: u32,
    columns: Vec<(String, ColumnId)>,
}

impl ColumnIds {
    /// The id of a column; a new one if it has none.
    pub(super) fn of(&mut self, name: &str) -> ColumnId {
        if let Some((_, id)) = self.columns.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return *id;
        }
        self.last += 1;
        self.columns.push((name.to_owned(), ColumnId(self.last)));
        ColumnId(self.last)
    }
}

/// A row of our table of tracked tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrackedTable {
    pub(super) id: TableId,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) columns: ColumnIds,
    /// Without triggers: known, but not tracked (any more).
    pub(super) provisioned: Provisioned,
    /// The number of the replica, and the tick.
    pub(super) baseline: (i64, i64),
    pub(super) baseline_changed_at: i64,
}

impl TrackedTable {
    /// Finds one by the table's name. Blocks.
    pub(super) fn find(connection: &Connection, name: &str) -> Result<Option<Self>> {
        let found = connection
            .prepare_cached(
                "SELECT id, source_name, role, columns, provisioned, baseline_replica, baseline_tick, \
                 baseline_changed_at FROM syncline_tables \
                 WHERE source_schema = '' AND source_name = ?1 COLLATE NOCASE",
            )
            .db()?
            .query_row([name], |row| {
                let texts = (row.get::<_, String>(3)?, row.get::<_, String>(4)?);
                let role = if row.get::<_, i64>(2)? == 0 { Role::Hub } else { Role::Leaf };
                let table = Self {
                    id: TableId(row.get(0)?),
                    name: row.get(1)?,
                    role,
                    columns: ColumnIds::default(),
                    provisioned: Provisioned::default(),
                    baseline: (row.get(5)?, row.get(6)?),
                    baseline_changed_at: row.get(7)?,
                };
                Ok((table, texts))
            })
            .optional()
            .db()?;
        let Some((mut table, (columns, provisioned))) = found else { return Ok(None) };
        table.columns = from_json(&columns)?;
        table.provisioned = from_json(&provisioned)?;
        Ok(Some(table))
    }

    /// A number that no table has had. Blocks.
    pub(super) fn next_id(connection: &Connection) -> Result<TableId> {
        let next = connection
            .query_row("SELECT coalesce(max(id), 0) + 1 FROM syncline_tables", [], |row| row.get(0))
            .db()?;
        Ok(TableId(next))
    }

    /// Stores it. Blocks.
    pub(super) fn save(&self, connection: &Connection) -> Result<()> {
        connection
            .prepare_cached(
                "INSERT INTO syncline_tables (id, source_schema, source_name, role, columns, provisioned, \
                 baseline_replica, baseline_tick, baseline_changed_at) VALUES (?1, '', ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
                 ON CONFLICT (id) DO UPDATE SET role = excluded.role, columns = excluded.columns, \
                 provisioned = excluded.provisioned, baseline_replica = excluded.baseline_replica, \
                 baseline_tick = excluded.baseline_tick, baseline_changed_at = excluded.baseline_changed_at",
            )
            .db()?
            .execute(rusqlite::params![
                self.id.0,
                self.name,
                self.role.number(),
                to_json(&self.columns)?,
                to_json(&self.provisioned)?,
                self.baseline.0,
                self.baseline.1,
                self.baseline_changed_at
            ])
            .db()?;
        Ok(())
    }
}

/// The database took a new id: what was defined after the last durable mark of the old one counts under the new one.
/// Within a write transaction. Blocks.
pub(super) fn renew_later_than(connection: &Connection, old: &State, new: ReplicaId) -> Result<()> {
    let renew = |version: &mut Version| {
        if version.replica == old.replica && version.tick > old.durable_tick {
            version.replica = new;
        }
    };
    for mut scope in load_all(connection)? {
        for table in &mut scope.tables {
            renew(&mut table.since);
            renew(&mut table.reshaped);
            renew(&mut table.baseline);
            table.columns_since.iter_mut().for_each(|(_, since)| renew(since));
        }
        save(connection, &scope)?;
    }
    connection
        .execute(
            "UPDATE syncline_tables SET baseline_replica = (SELECT number FROM syncline_state) \
             WHERE baseline_replica = ?1 AND baseline_tick > ?2",
            [old.number, to_sql(old.durable_tick)],
        )
        .db()?;
    Ok(())
}
