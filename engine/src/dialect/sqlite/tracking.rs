//! Triggers that log which rows changed.
//!
//! They only append: they read nothing that others could lock, judge nothing, and use nothing newer than SQLite 3.24, no
//! function of ours, and no conflict clause (the outer statement's would override it). Whether a key is gone is read from
//! the base table later, so an entry too many is harmless.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use syncline::error::Result;
use syncline::ids::TableId;

use super::catalog::{CatalogColumn, CatalogTable};
use super::errors::DatabaseResult as _;
use super::fold::{self, Tracked};
use super::names::is_own_trigger;
use super::statements::{self, dirty, key_names, log, noted, quote, record};
use crate::limits;

/// Microseconds since 1970 UTC, exact to the millisecond, in SQL that every SQLite reads.
const NOW: &str = "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000";
/// Notes of statements that wrote nothing in the end are swept above this.
const NOTES_MAX: u32 = 64;

/// What a table is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Hub,
    Leaf,
}

impl Role {
    pub(super) const fn number(self) -> i64 {
        match self {
            Self::Hub => 0,
            Self::Leaf => 1,
        }
    }
}

/// What was provisioned for a table: kept, and compared with what is there. Without triggers it is not tracked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Provisioned {
    /// The names and texts of the triggers.
    pub(super) triggers: Vec<(String, String)>,
    /// What they were made for: key columns with declared type and collation, then unique indexes.
    pub(super) shape: Vec<String>,
    /// At a leaf: whether we created the table, so that columns may be added to it.
    #[serde(default)]
    pub(super) created: bool,
}

impl Provisioned {
    /// Whether the key is the same, so that what is recorded stays true.
    pub(super) fn same_key(&self, other: &Self) -> bool {
        let key = |shape: &[String]| -> Vec<String> {
            shape.iter().filter(|part| part.starts_with("key ")).cloned().collect()
        };
        key(&self.shape) == key(&other.shape)
    }
}

/// All that is created for a table, in order.
pub(super) fn create(id: TableId, table: &CatalogTable, role: Role) -> Vec<String> {
    let columns = table.key.len();
    let key = key_names("", columns);
    let mut statements = vec![format!(
        "CREATE TABLE {} (seq INTEGER PRIMARY KEY, {key}, operation INTEGER NOT NULL, changed_at INTEGER NOT NULL)",
        log(id)
    )];
    match role {
        Role::Hub => {
            let record = record(id);
            statements.push(format!(
                "CREATE TABLE {record} ({key}, peer INTEGER NOT NULL, tick INTEGER NOT NULL, \
                 via INTEGER NOT NULL DEFAULT 0, origin INTEGER NOT NULL DEFAULT 0, changed_at INTEGER NOT NULL, \
                 resolved INTEGER NOT NULL DEFAULT 0, PRIMARY KEY ({key})) WITHOUT ROWID"
            ));
            statements.push(format!("CREATE INDEX {record}_version ON {record} (peer, tick)"));
            statements.push(format!(
                "CREATE TABLE {} ({key}, peer INTEGER NOT NULL, tick INTEGER NOT NULL, PRIMARY KEY ({key})) \
                 WITHOUT ROWID",
                statements::departure(id)
            ));
        }
        Role::Leaf => statements.push(format!(
            "CREATE TABLE {} ({key}, tick INTEGER NOT NULL, changed_at INTEGER NOT NULL, birth INTEGER, \
             PRIMARY KEY ({key})) WITHOUT ROWID",
            dirty(id)
        )),
    }
    if !silent_removals(table).is_empty() {
        statements.push(format!("CREATE TABLE {} ({key})", noted(id)));
    }
    statements.extend(triggers(id, table, role).into_iter().map(|(_, text)| text));
    statements
}

/// All that is dropped again, in order; the triggers first.
pub(super) fn remove(id: TableId, triggers: &[String]) -> Vec<String> {
    let mut statements: Vec<_> =
        triggers.iter().map(|name| format!("DROP TRIGGER IF EXISTS {}", quote(name))).collect();
    let tables = [log(id), record(id), statements::departure(id), dirty(id), noted(id)];
    statements.extend(tables.iter().map(|table| format!("DROP TABLE IF EXISTS {table}")));
    statements
}

/// What is made for a table, and for what.
pub(super) fn provisioned(id: TableId, table: &CatalogTable, role: Role) -> Provisioned {
    Provisioned { triggers: triggers(id, table, role), shape: shape(table), created: false }
}

/// What the triggers are made for.
pub(super) fn shape(table: &CatalogTable) -> Vec<String> {
    let key = table.key.iter().map(|part| {
        let column = &table.columns[part.column];
        format!("key {} {} {}", column.name, column.declared, part.collation)
    });
    let unique = table.unique.iter().map(|index| format!("unique {:?}", index.columns));
    key.chain(unique).collect()
}

/// The triggers of ours that are on a table now: names and texts, by name. Blocks.
pub(super) fn present_triggers(connection: &Connection, table: &str) -> Result<Vec<(String, String)>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE \
             ORDER BY name",
        )
        .db()?;
    let triggers = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?))).db()?;
    let triggers = triggers.collect::<rusqlite::Result<Vec<(String, String)>>>().db()?;
    Ok(triggers.into_iter().filter(|(name, _)| is_own_trigger(name)).collect())
}

/// The fold trigger of a log, if it is there: name and text. Blocks.
pub(super) fn log_triggers(connection: &Connection, id: TableId) -> Result<Vec<(String, String)>> {
    present_triggers(connection, &log(id))
}

/// Whether the triggers that are there, on the table and on its log, are those that are wanted.
pub(super) fn same_triggers(
    wanted: &Provisioned,
    on_table: &[(String, String)],
    on_log: &[(String, String)],
) -> bool {
    let mut present = [on_table, on_log].concat();
    present.sort();
    present == wanted.triggers
}

/// Makes the triggers anew over the tables of ours that are there.
pub(super) fn remake(id: TableId, table: &CatalogTable, role: Role, old: &[String]) -> Vec<String> {
    let mut statements: Vec<_> =
        old.iter().map(|name| format!("DROP TRIGGER IF EXISTS {}", quote(name))).collect();
    statements.push(format!("DROP TABLE IF EXISTS {}", noted(id)));
    if !silent_removals(table).is_empty() {
        statements.push(format!("CREATE TABLE {} ({})", noted(id), key_names("", table.key.len())));
    }
    statements.extend(triggers(id, table, role).into_iter().map(|(_, text)| text));
    statements
}

/// Sets of columns over which a statement may remove another row without a trigger: all unique indexes but the key's,
/// and the key too if its collation takes different bytes as equal.
fn silent_removals(table: &CatalogTable) -> Vec<Vec<(usize, String)>> {
    let mut sets: Vec<_> = table.unique.iter().filter_map(|index| index.columns.clone()).collect();
    if table.key.iter().any(|part| !part.collation.eq_ignore_ascii_case("BINARY")) {
        sets.push(table.key.iter().map(|part| (part.column, part.collation.clone())).collect());
    }
    sets
}

/// The triggers of a table: names and texts, by name.
fn triggers(id: TableId, table: &CatalogTable, role: Role) -> Vec<(String, String)> {
    let writer = TriggerWriter { id, table, role };
    let mut triggers = vec![
        writer.trigger("delete", "AFTER DELETE", None, &[writer.append("OLD", 2)]),
        writer.fold_trigger(),
        writer.trigger("update", "AFTER UPDATE", Some(&writer.same_key()), &[writer.append("NEW", 0)]),
    ];
    let removals = silent_removals(table);
    let caught = if removals.is_empty() { Vec::new() } else { writer.log_noted() };
    let insert = [vec![writer.append("NEW", 1)], caught.clone()].concat();
    triggers.push(writer.trigger("insert", "AFTER INSERT", None, &insert));
    let rekey = [writer.append("OLD", 2), writer.append("NEW", 1)];
    triggers.push(writer.trigger("rekey", "AFTER UPDATE", Some(&writer.other_key()), &rekey));
    if !removals.is_empty() {
        triggers.push(writer.trigger("caught", "AFTER UPDATE", None, &caught));
        triggers.push(writer.trigger("note_insert", "BEFORE INSERT", None, &writer.note(&removals, false)));
        triggers.push(writer.trigger("note_update", "BEFORE UPDATE", None, &writer.note(&removals, true)));
    }
    triggers.sort();
    triggers
}

struct TriggerWriter<'t> {
    id: TableId,
    table: &'t CatalogTable,
    role: Role,
}

impl TriggerWriter<'_> {
    fn trigger(&self, name: &str, event: &str, when: Option<&str>, body: &[String]) -> (String, String) {
        let name = format!("syncline_{name}_{}", self.id);
        // At a leaf, what the engine writes while it applies a download is no local change.
        let quiet = match self.role {
            Role::Leaf => Some("(SELECT writing FROM syncline_state) <> 1".to_owned()),
            Role::Hub => None,
        };
        let conditions: Vec<_> = quiet.into_iter().chain(when.map(|when| format!("({when})"))).collect();
        let when =
            if conditions.is_empty() { String::new() } else { format!(" WHEN {}", conditions.join(" AND ")) };
        let text = format!(
            "CREATE TRIGGER {name} {event} ON {}{when} BEGIN {}; END",
            quote(&self.table.name),
            body.join("; ")
        );
        (name, text)
    }

    fn key(&self) -> impl Iterator<Item = String> + '_ {
        self.table.key.iter().map(|part| quote(&self.table.columns[part.column].name))
    }

    /// Operations: 0 update, 1 insert, 2 delete.
    fn append(&self, side: &str, operation: u8) -> String {
        let values = self.key().map(|column| format!("{side}.{column}")).collect::<Vec<_>>().join(", ");
        format!(
            "INSERT INTO {} ({}, operation, changed_at) VALUES ({values}, {operation}, {NOW})",
            log(self.id),
            key_names("", self.table.key.len())
        )
    }

    /// Keys are compared as bytes, with their type: under NOCASE a changed key is otherwise unseen.
    fn same_key(&self) -> String {
        let parts = self.key().map(|column| {
            format!(
                "OLD.{column} IS NEW.{column} COLLATE BINARY AND typeof(OLD.{column}) = typeof(NEW.{column})"
            )
        });
        parts.collect::<Vec<_>>().join(" AND ")
    }

    fn other_key(&self) -> String {
        format!("NOT ({})", self.same_key())
    }

    /// Notes the keys of rows that a REPLACE of this row would remove. A BEFORE trigger can't tell whether it will: so
    /// the AFTER trigger looks which of them are gone.
    fn note(&self, removals: &[Vec<(usize, String)>], update: bool) -> Vec<String> {
        let noted = noted(self.id);
        let key = key_names("", self.table.key.len());
        let values = self.key().map(|column| format!("b.{column}")).collect::<Vec<_>>().join(", ");
        let side = if update { "OLD" } else { "NEW" };
        let itself = self.key().map(|column| format!("b.{column} IS {side}.{column} COLLATE BINARY"));
        let mut itself = itself.collect::<Vec<_>>().join(" AND ");
        if let ([part], false) = (&self.table.key[..], update)
            && !part.indexed
        {
            // A rowid that SQLite has yet to choose is -1 before the insert.
            itself.push_str(&format!(" AND NEW.{} <> -1", quote(&self.table.columns[part.column].name)));
        }
        let mut body =
            vec![format!("DELETE FROM {noted} WHERE (SELECT count(*) FROM {noted}) > {NOTES_MAX}")];
        body.extend(removals.iter().map(|columns| {
            let same = columns.iter().map(|(column, collation)| {
                let column = &self.table.columns[*column];
                let name = quote(&column.name);
                let new = match replaced_null(column) {
                    Some(default) => format!("coalesce(NEW.{name}, {default})"),
                    None => format!("NEW.{name}"),
                };
                format!("b.{name} = {new} COLLATE {}", quote(collation))
            });
            format!(
                "INSERT INTO {noted} ({key}) SELECT {values} FROM {} AS b WHERE {} AND NOT ({itself})",
                quote(&self.table.name),
                same.collect::<Vec<_>>().join(" AND ")
            )
        }));
        body
    }

    /// Logs the noted rows that are gone, and forgets them. Others stay noted: a statement further out may have noted
    /// them, and removes them only later.
    fn log_noted(&self) -> Vec<String> {
        let (noted, log) = (noted(self.id), log(self.id));
        let columns = self.table.key.len();
        let same = self.key().enumerate().map(|(place, column)| {
            format!(
                "b.{column} = {noted}.k{place} AND b.{column} = {noted}.k{place} COLLATE BINARY",
                place = place + 1
            )
        });
        let gone = format!(
            "NOT EXISTS (SELECT 1 FROM {} AS b WHERE {})",
            quote(&self.table.name),
            same.collect::<Vec<_>>().join(" AND ")
        );
        vec![
            format!(
                "INSERT INTO {log} ({}, operation, changed_at) SELECT {}, 2, {NOW} FROM {noted} WHERE {gone}",
                key_names("", columns),
                key_names(&format!("{noted}."), columns),
            ),
            format!("DELETE FROM {noted} WHERE {gone}"),
        ]
    }

    /// A log that has grown long folds itself, so that an application that is offline for months does not collect
    /// entries without end; not while the engine writes, which counts on the log holding its own entries.
    fn fold_trigger(&self) -> (String, String) {
        let name = format!("syncline_fold_{}", self.id);
        let table = Tracked { id: self.id, key_columns: self.table.key.len(), role: self.role };
        let body = [vec![fold::DRAW_TICK.to_owned()], fold::of_log(table).to_vec()].concat();
        // Emptied logs count from 1 again, so the sequence number is the number of entries.
        let text = format!(
            "CREATE TRIGGER {name} AFTER INSERT ON {} WHEN NEW.seq >= {} AND \
             (SELECT writing FROM syncline_state) = 0 BEGIN {}; END",
            log(self.id),
            limits::SQLITE_LOG_ENTRIES_MAX,
            body.join("; ")
        );
        (name, text)
    }
}

/// What REPLACE makes of a NULL in this column, which a BEFORE trigger still sees: its default, if that is a literal. Of
/// others the text may mean something else in a trigger.
fn replaced_null(column: &CatalogColumn) -> Option<&str> {
    let default = column.default.as_deref().filter(|_| column.not_null)?;
    let is_text = default.len() >= 2 && default.starts_with('\'') && default.ends_with('\'');
    (is_text || default.parse::<f64>().is_ok_and(f64::is_finite)).then_some(default)
}
