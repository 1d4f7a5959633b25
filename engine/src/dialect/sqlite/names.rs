//! Which tables and triggers of a database are ours. Nothing else is ever dropped, whatever it is called: a user may
//! have a trigger `syncline_audit`.

use rusqlite::Connection;
use syncline::error::Result;

use super::errors::DatabaseResult as _;

/// The tables that each database of ours has.
const TABLES: [&str; 11] = [
    "state",
    "replicas",
    "tables",
    "scopes",
    "leaves",
    "sessions",
    "batches",
    "applies",
    "row_errors",
    "conflicts",
    "subscriptions",
];
/// Those of a tracked table, with its number.
const TABLES_OF_A_TABLE: [&str; 5] = ["log", "record", "departure", "dirty", "noted"];
/// The triggers of a tracked table, with its number.
const TRIGGERS_OF_A_TABLE: [&str; 8] =
    ["insert", "update", "delete", "rekey", "caught", "note_insert", "note_update", "fold"];

/// Whether a table is ours.
pub(super) fn is_own_table(name: &str) -> bool {
    name.strip_prefix("syncline_")
        .is_some_and(|rest| TABLES.contains(&rest) || is_numbered(rest, &TABLES_OF_A_TABLE))
}

/// Whether a trigger is ours.
pub(super) fn is_own_trigger(name: &str) -> bool {
    name.strip_prefix("syncline_").is_some_and(|rest| is_numbered(rest, &TRIGGERS_OF_A_TABLE))
}

fn is_numbered(name: &str, kinds: &[&str]) -> bool {
    name.rsplit_once('_').is_some_and(|(kind, number)| {
        kinds.contains(&kind) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The names of all ordinary tables, ours included. Blocks.
pub(super) fn tables(connection: &Connection) -> Result<Vec<String>> {
    all(connection, "table")
}

/// The names of all triggers, ours included. Blocks.
pub(super) fn triggers(connection: &Connection) -> Result<Vec<String>> {
    all(connection, "trigger")
}

fn all(connection: &Connection, kind: &str) -> Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT name FROM main.sqlite_master WHERE type = ?1 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             ORDER BY name",
        )
        .db()?
        .query_map([kind], |row| row.get(0))
        .db()?
        .collect::<rusqlite::Result<_>>()
        .db()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_table_that_is_made_is_known_as_ours() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("sql/schema.sql")).unwrap();
        let made = tables(&connection).unwrap();
        assert_eq!(made.len(), TABLES.len());
        assert!(made.iter().all(|name| is_own_table(name)), "{made:?}");
    }

    #[test]
    fn what_a_user_may_have_called_so_is_not_ours() {
        for name in ["syncline_notes", "syncline_log", "syncline_log_", "syncline_log_1b", "synclinelog_1"] {
            assert!(!is_own_table(name), "{name}");
        }
        for name in ["syncline_audit", "syncline_insert", "syncline_audit_1", "syncline_insert_x"] {
            assert!(!is_own_trigger(name), "{name}");
        }
        assert!(is_own_table("syncline_log_12") && is_own_trigger("syncline_note_insert_3"));
    }
}
