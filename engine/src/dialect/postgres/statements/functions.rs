//! The functions that triggers call: they append to a table's log.

use syncline::ids::TableId;

use super::tracking::{Role, key_names};
use super::{list, literal, quote};
use crate::dialect::postgres::catalog::CatalogTable;

/// What the functions of a table may be called, each followed by the table's number. Earlier versions had `track` for
/// every table.
const NAMES: [&str; 6] = ["inserted", "updated", "deleted", "track", "replicated", "truncated"];

/// What the functions begin with: the writer's tick (its transaction id), and the time.
///
/// Beside columns of the application's, variables stand with this label and columns with their relation: PL/pgSQL refuses
/// a name that may be either, and has variables of its own (`found`).
const DECLARE: &str = "<<entry>>\nDECLARE\n  own_tick bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;\n  \
     now_us bigint := (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) \
     OPERATOR(pg_catalog.*) 1000000)::bigint;\n";

/// How a function is kept from meaning what the application's search path makes of it.
///
/// **Invariant:** the functions run with the rights of the scope's owner, since the application's role has none on our
/// tables. So nothing that they name is looked up in a path that the application sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookup {
    /// The function has a path of its own. To set it takes about 30 microseconds a call.
    OwnPath,
    /// Each function, operator and table in its text stands with its schema, and each type is a word of the grammar.
    Qualified,
}

/// Makes the functions of a table.
pub(super) fn create(id: TableId, table: &CatalogTable, role: Role) -> Vec<String> {
    let mut made = vec![("truncated", Lookup::OwnPath, truncated(id, table, role))];
    if table.is_partitioned() {
        made.push(("track", Lookup::OwnPath, of_row(id, table)));
    } else {
        made.push(("inserted", Lookup::Qualified, of_statement(id, table, 'I', "syncline_new")));
        made.push(("deleted", Lookup::Qualified, of_statement(id, table, 'D', "syncline_old")));
        made.push(match role {
            Role::Hub => ("updated", Lookup::Qualified, of_statement(id, table, 'U', "syncline_new")),
            Role::Leaf => ("updated", Lookup::OwnPath, of_update_at_leaf(id, table)),
        });
        made.push(("replicated", Lookup::OwnPath, of_row(id, table)));
    }
    made.iter().flat_map(|(name, lookup, body)| function(&format!("{name}_{id}"), *lookup, body)).collect()
}

/// Removes them, with the triggers that call them.
pub(super) fn drop(id: TableId) -> impl Iterator<Item = String> {
    NAMES.iter().map(move |name| format!("DROP FUNCTION IF EXISTS syncline.{name}_{id}() CASCADE"))
}

fn function(name: &str, lookup: Lookup, body: &str) -> [String; 2] {
    let path = match lookup {
        Lookup::OwnPath => " SET search_path = pg_catalog, pg_temp",
        Lookup::Qualified => "",
    };
    let text = literal(&format!("{DECLARE}BEGIN\n{body}  RETURN NULL;\nEND"));
    [
        format!(
            "CREATE FUNCTION syncline.{name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER{path} AS {text}"
        ),
        format!("REVOKE ALL ON FUNCTION syncline.{name}() FROM PUBLIC"),
    ]
}

/// `OLD."a", OLD."b" ...`
pub(super) fn keys_of(row: &str, table: &CatalogTable) -> String {
    list(table.key_columns().iter().map(|column| format!("{row}.{}", quote(&column.name))))
}

fn insert(id: TableId, table: &CatalogTable) -> String {
    let names = list(key_names(table.key_columns().len()));
    format!("INSERT INTO syncline.log_{id} ({names}, operation, tick, changed_at)")
}

/// A function for each operation, since it costs 2 microseconds a transaction to ask which one it is.
fn of_statement(id: TableId, table: &CatalogTable, operation: char, rows: &str) -> String {
    let (insert, keys) = (insert(id, table), keys_of("r", table));
    format!("  {insert}\n    SELECT {keys}, '{operation}', entry.own_tick, entry.now_us FROM {rows} r;\n")
}

/// A key that changes is a delete and an insert.
fn of_update_at_leaf(id: TableId, table: &CatalogTable) -> String {
    let names = key_names(table.key_columns().len());
    let keys = table.key_columns().into_iter().zip(&names);
    let aliased = list(keys.map(|(column, name)| format!("o.{} AS {name}", quote(&column.name))));
    let (names, keys) = (list(names), keys_of("n", table));
    format!(
        "  {insert}\n    SELECT {names},\n      \
         CASE WHEN min(is_new) = 1 THEN 'I' WHEN max(is_new) = 1 THEN 'U' ELSE 'D' END::\"char\",\n      entry.own_tick, entry.now_us\n    \
         FROM (SELECT {aliased}, 0 AS is_new FROM syncline_old o\n      \
         UNION ALL SELECT {keys}, 1 FROM syncline_new n) k\n    GROUP BY {names};\n",
        insert = insert(id, table)
    )
}

fn of_row(id: TableId, table: &CatalogTable) -> String {
    let (old, new) = (keys_of("OLD", table), keys_of("NEW", table));
    let insert = insert(id, table);
    format!(
        "  IF TG_OP = 'INSERT' THEN\n    {insert} VALUES ({new}, 'I', own_tick, now_us);\n  \
         ELSIF TG_OP = 'DELETE' THEN\n    {insert} VALUES ({old}, 'D', own_tick, now_us);\n  \
         ELSIF ({old}) IS NOT DISTINCT FROM ({new}) THEN\n    {insert} VALUES ({new}, 'U', own_tick, now_us);\n  \
         ELSE\n    {insert} VALUES ({old}, 'D', own_tick, now_us), ({new}, 'I', own_tick, now_us);\n  END IF;\n"
    )
}

fn truncated(id: TableId, table: &CatalogTable, role: Role) -> String {
    match role {
        // Of one partition: the others' entries and records still count, so that only a comparison is asked for.
        Role::Hub => format!(
            "  INSERT INTO syncline.truncations (table_id, seq, tick, whole, changed_at)\n    \
             VALUES ({id}, nextval('syncline.seq_{id}'), own_tick, TG_RELID = {oid}::oid, now_us);\n",
            oid = table.oid
        ),
        Role::Leaf => {
            let keys = list(table.key_columns().iter().map(|column| quote(&column.name)));
            format!(
                "  EXECUTE format('{insert} '\n    \
                 'SELECT {keys}, ''D'', $1, $2 FROM ONLY %s', TG_RELID::regclass) USING own_tick, now_us;\n",
                insert = insert(id, table),
                keys = keys.replace('%', "%%").replace('\'', "''")
            )
        }
    }
}
