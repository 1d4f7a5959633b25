//! What is made beside a tracked table: log, records, triggers.

use syncline::ids::TableId;

use super::{list, literal, qualified, quote};
use crate::dialect::postgres::catalog::CatalogTable;

/// Which half of the engine the table is tracked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect::postgres) enum Role {
    /// All changes count; truncation is an entry of the table.
    Hub,
    /// The engine's own writes do not count; truncation logs each key.
    Leaf,
}

/// While the engine writes at a leaf, this setting is `on` in its transaction.
pub(in crate::dialect::postgres) const WRITING_SETTING: &str = "syncline.writing";

/// A key column of one of our tables, as its definition: `k1 type COLLATE ...`.
fn key_definition(table: &CatalogTable) -> Vec<String> {
    let columns = table.key_columns();
    columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let collation =
                column.collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
            format!("k{} {}{collation} NOT NULL", at + 1, column.declared)
        })
        .collect()
}

/// `k1, k2 ...` of our tables.
pub(in crate::dialect::postgres) fn key_names(count: usize) -> Vec<String> {
    (1..=count).map(|at| format!("k{at}")).collect()
}

/// Makes the log of a table: appended to by triggers, read and emptied by folds.
///
/// The sequence has CACHE 1: with more, the second writer of a row could get the smaller number.
pub(in crate::dialect::postgres) fn create_log(id: TableId, table: &CatalogTable) -> Vec<String> {
    vec![
        format!("CREATE SEQUENCE syncline.seq_{id} CACHE 1"),
        format!(
            "CREATE TABLE syncline.log_{id} (seq bigint NOT NULL DEFAULT nextval('syncline.seq_{id}'), {}, \
             tick bigint NOT NULL, operation \"char\" NOT NULL, changed_at bigint NOT NULL)",
            list(key_definition(table))
        ),
    ]
}

/// Makes the records of a table at a hub, and its departures.
pub(in crate::dialect::postgres) fn create_record(id: TableId, table: &CatalogTable) -> Vec<String> {
    let (definition, names) = (list(key_definition(table)), list(key_names(table.key_columns().len())));
    vec![
        format!(
            "CREATE TABLE syncline.record_{id} ({definition}, peer bigint NOT NULL, tick bigint NOT NULL, \
             via bigint NOT NULL, origin bigint NOT NULL, changed_at bigint NOT NULL, seq bigint NOT NULL, \
             resolved boolean NOT NULL DEFAULT false, PRIMARY KEY ({names}))"
        ),
        format!("CREATE INDEX record_{id}_version ON syncline.record_{id} (peer, tick)"),
        format!(
            "CREATE TABLE syncline.departure_{id} ({definition}, peer bigint NOT NULL, tick bigint NOT NULL, \
             seq bigint NOT NULL, PRIMARY KEY ({names}))"
        ),
    ]
}

/// Makes the functions and triggers of a table.
pub(in crate::dialect::postgres) fn create_triggers(
    id: TableId,
    table: &CatalogTable,
    role: Role,
) -> Vec<String> {
    let mut functions = vec!["track", "truncated"];
    let mut statements = vec![truncate_function(id, table, role)];
    if table.is_partitioned() {
        statements.push(row_function("track", id, table));
    } else {
        statements.push(statement_function(id, table, role));
        statements.push(row_function("replicated", id, table));
        functions.push("replicated");
    }
    statements.extend(
        functions.iter().map(|name| format!("REVOKE ALL ON FUNCTION syncline.{name}_{id}() FROM PUBLIC")),
    );
    let base = table.quoted();
    for (name, event) in trigger_events(table, role) {
        statements.push(format!(
            "CREATE TRIGGER {name} {event} EXECUTE FUNCTION syncline.track_{id}()",
            event = event.replace("{base}", &base)
        ));
    }
    statements.extend(always(
        table,
        &trigger_events(table, role).iter().map(|(name, _)| *name).collect::<Vec<_>>(),
    ));
    statements.extend(key_trigger(id, table, role));
    statements.extend(replica_trigger(id, table, role));
    statements.extend(truncate_triggers(id, table, role));
    statements
}

/// The row trigger of a partitioned table, which PostgreSQL clones to its partitions.
pub(in crate::dialect::postgres) const ROW_TRIGGER: &str = "syncline_track";
/// The row trigger that tracks what a logical subscription writes to an unpartitioned table.
pub(in crate::dialect::postgres) const REPLICA_TRIGGER: &str = "syncline_replica";

/// The row trigger of a hub's unpartitioned table that tells of keys that change.
const KEY_TRIGGER: &str = "syncline_key";

/// An update is logged under the new keys alone, so that the old rows need not be collected. Where a key changes, this
/// trigger logs the old one. **Invariant:** every key of the old rows has an entry: it is that of a new row, or this one.
///
/// It logs the new key too, before the statement trigger does, which says no more than once. A leaf must know whether a
/// key was there before the statement, as after a swap, and compares the old rows with the new.
fn key_trigger(id: TableId, table: &CatalogTable, role: Role) -> Vec<String> {
    if table.is_partitioned() || role == Role::Leaf {
        return Vec::new();
    }
    let (base, [old, new]) = (table.quoted(), ["OLD", "NEW"].map(|row| keys_of(row, table)));
    vec![
        format!(
            "CREATE TRIGGER {KEY_TRIGGER} AFTER UPDATE ON {base} FOR EACH ROW \
             WHEN (({old}) IS DISTINCT FROM ({new})) EXECUTE FUNCTION syncline.replicated_{id}()"
        ),
        format!("ALTER TABLE {base} ENABLE ALWAYS TRIGGER {KEY_TRIGGER}"),
    ]
}

/// `OLD."a", OLD."b" ...`
fn keys_of(row: &str, table: &CatalogTable) -> String {
    list(table.key_columns().iter().map(|column| format!("{row}.{}", quote(&column.name))))
}

/// A subscription's worker fires row triggers only, so the statement triggers see nothing of what it writes. This one
/// fires only where the session's replication role is `replica`, as that worker's is. The statement triggers fire in
/// an ordinary session of that role too: its rows are marked twice, which says no more than once.
fn replica_trigger(id: TableId, table: &CatalogTable, role: Role) -> Vec<String> {
    if table.is_partitioned() {
        return Vec::new();
    }
    let (base, when) = (table.quoted(), when(role));
    vec![
        format!(
            "CREATE TRIGGER {REPLICA_TRIGGER} AFTER INSERT OR UPDATE OR DELETE ON {base} FOR EACH ROW{when} \
             EXECUTE FUNCTION syncline.replicated_{id}()"
        ),
        format!("ALTER TABLE {base} ENABLE REPLICA TRIGGER {REPLICA_TRIGGER}"),
    ]
}

/// The names of the triggers that a table must have enabled always, and those of each of its partitions. An
/// unpartitioned table must have [`REPLICA_TRIGGER`] too.
pub(in crate::dialect::postgres) fn trigger_names(
    table: &CatalogTable,
    role: Role,
) -> (Vec<&'static str>, Vec<&'static str>) {
    if table.is_partitioned() {
        return (vec![ROW_TRIGGER, "syncline_truncate"], vec![ROW_TRIGGER, "syncline_truncate"]);
    }
    let mut own = vec!["syncline_insert", "syncline_update", "syncline_delete", "syncline_truncate"];
    if role == Role::Hub {
        own.push(KEY_TRIGGER);
    }
    (own, Vec::new())
}

fn when(role: Role) -> String {
    match role {
        Role::Hub => String::new(),
        Role::Leaf => format!(" WHEN (current_setting('{WRITING_SETTING}', true) IS DISTINCT FROM 'on')"),
    }
}

fn trigger_events(table: &CatalogTable, role: Role) -> Vec<(&'static str, String)> {
    let when = when(role);
    if table.is_partitioned() {
        // Only row triggers are cloned to partitions, whose rows may be written directly.
        let event = format!("AFTER INSERT OR UPDATE OR DELETE ON {{base}} FOR EACH ROW{when}");
        return vec![(ROW_TRIGGER, event)];
    }
    let (old, new) = ("OLD TABLE AS syncline_old", "NEW TABLE AS syncline_new");
    let updated = match role {
        Role::Hub => new.to_owned(),
        Role::Leaf => format!("{old} {new}"),
    };
    let event = |event: &str, rows: &str| {
        format!("AFTER {event} ON {{base}} REFERENCING {rows} FOR EACH STATEMENT{when}")
    };
    vec![
        ("syncline_insert", event("INSERT", new)),
        ("syncline_update", event("UPDATE", &updated)),
        ("syncline_delete", event("DELETE", old)),
    ]
}

/// Triggers fire whatever the session's replication role, which an application may set. A logical subscription's
/// worker fires only those per row: see [`replica_trigger`].
fn always(table: &CatalogTable, names: &[&str]) -> Vec<String> {
    let partitions = table.partitions.iter().map(|partition| qualified(&partition.schema, &partition.name));
    let tables: Vec<_> = std::iter::once(table.quoted()).chain(partitions).collect();
    tables
        .iter()
        .flat_map(|table| {
            names.iter().map(move |name| format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"))
        })
        .collect()
}

/// What the functions begin with: the writer's tick (its transaction id), and the time.
const DECLARE: &str = "DECLARE\n  own_tick bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;\n  \
     now_us bigint := (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) \
     OPERATOR(pg_catalog.*) 1000000)::bigint;\n";

/// How a function is kept from meaning what the application's search path makes of it.
///
/// **Invariant:** the functions run with the rights of the scope's owner, since the application's role has none on our
/// tables. So nothing that they name is looked up in a path that the application sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// The function has a path of its own. To set it takes about 30 microseconds a call.
    OwnPath,
    /// Each function, operator and table in its text stands with its schema, and each type is a word of the grammar.
    Qualified,
}

fn function(name: &str, names: Names, body: &str) -> String {
    let path = match names {
        Names::OwnPath => " SET search_path = pg_catalog, pg_temp",
        Names::Qualified => "",
    };
    format!(
        "CREATE FUNCTION syncline.{name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER{path} AS {}",
        literal(&format!("{DECLARE}BEGIN\n{body}  RETURN NULL;\nEND"))
    )
}

fn statement_function(id: TableId, table: &CatalogTable, role: Role) -> String {
    let names = key_names(table.key_columns().len());
    let keys: Vec<_> = table.key_columns().iter().map(|column| quote(&column.name)).collect();
    let (names_list, keys_list) = (list(&names), list(&keys));
    let insert = format!("INSERT INTO syncline.log_{id} ({names_list}, tick, operation, changed_at)\n    ");
    let (lookup, updates) = match role {
        Role::Hub => {
            (Names::Qualified, format!("SELECT {keys_list}, own_tick, 'U', now_us FROM syncline_new"))
        }
        Role::Leaf => {
            // A key that changes is a delete and an insert.
            let aliased = list(keys.iter().zip(&names).map(|(key, name)| format!("{key} AS {name}")));
            let grouped = format!(
                "SELECT {names_list}, own_tick,\n      \
                 CASE WHEN min(is_new) = 1 THEN 'I' WHEN max(is_new) = 1 THEN 'U' ELSE 'D' END::\"char\", now_us\n    \
                 FROM (SELECT {aliased}, 0 AS is_new FROM syncline_old\n      \
                 UNION ALL SELECT {keys_list}, 1 FROM syncline_new) k\n    GROUP BY {names_list}"
            );
            (Names::OwnPath, grouped)
        }
    };
    let body = format!(
        "  IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN\n    \
         {insert}SELECT {keys_list}, own_tick, 'I', now_us FROM syncline_new;\n  \
         ELSIF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN\n    \
         {insert}SELECT {keys_list}, own_tick, 'D', now_us FROM syncline_old;\n  \
         ELSE\n    {insert}{updates};\n  END IF;\n"
    );
    function(&format!("track_{id}"), lookup, &body)
}

fn row_function(name: &str, id: TableId, table: &CatalogTable) -> String {
    let names = list(key_names(table.key_columns().len()));
    let (old, new) = (keys_of("OLD", table), keys_of("NEW", table));
    let insert = format!("INSERT INTO syncline.log_{id} ({names}, tick, operation, changed_at)");
    let body = format!(
        "  IF TG_OP = 'INSERT' THEN\n    {insert} VALUES ({new}, own_tick, 'I', now_us);\n  \
         ELSIF TG_OP = 'DELETE' THEN\n    {insert} VALUES ({old}, own_tick, 'D', now_us);\n  \
         ELSIF ({old}) IS NOT DISTINCT FROM ({new}) THEN\n    \
         {insert} VALUES ({new}, own_tick, 'U', now_us);\n  \
         ELSE\n    {insert} VALUES ({old}, own_tick, 'D', now_us), ({new}, own_tick, 'I', now_us);\n  END IF;\n"
    );
    function(&format!("{name}_{id}"), Names::OwnPath, &body)
}

fn truncate_function(id: TableId, table: &CatalogTable, role: Role) -> String {
    let body = match role {
        // Of one partition: the others' entries and records still count, so that only a comparison is asked for.
        Role::Hub => format!(
            "  INSERT INTO syncline.truncations (table_id, seq, tick, whole, changed_at)\n    \
             VALUES ({id}, nextval('syncline.seq_{id}'), own_tick, TG_RELID = {oid}::oid, now_us);\n",
            oid = table.oid
        ),
        Role::Leaf => {
            let names = list(key_names(table.key_columns().len()));
            let keys = list(table.key_columns().iter().map(|column| quote(&column.name)));
            format!(
                "  EXECUTE format('INSERT INTO syncline.log_{id} ({names}, tick, operation, changed_at) '\n    \
                 'SELECT {}, $1, ''D'', $2 FROM ONLY %s', TG_RELID::regclass) USING own_tick, now_us;\n",
                keys.replace('%', "%%").replace('\'', "''")
            )
        }
    };
    function(&format!("truncated_{id}"), Names::OwnPath, &body)
}

fn truncate_triggers(id: TableId, table: &CatalogTable, role: Role) -> Vec<String> {
    let time = if role == Role::Hub { "AFTER" } else { "BEFORE" };
    let partitions = table.partitions.iter().map(|partition| qualified(&partition.schema, &partition.name));
    let mut statements = Vec::new();
    for base in std::iter::once(table.quoted()).chain(partitions) {
        statements.push(format!(
            "CREATE TRIGGER syncline_truncate {time} TRUNCATE ON {base} FOR EACH STATEMENT{} \
             EXECUTE FUNCTION syncline.truncated_{id}()",
            when(role)
        ));
        statements.push(format!("ALTER TABLE {base} ENABLE ALWAYS TRIGGER syncline_truncate"));
    }
    statements
}

/// Removes what was made beside a table. `gone`: whether the base table is not there any more.
pub(in crate::dialect::postgres) fn drop_all(id: TableId, table: Option<&CatalogTable>) -> Vec<String> {
    let mut statements = drop_triggers(id, table);
    statements.extend(
        ["log", "record", "departure", "dirty"]
            .map(|what| format!("DROP TABLE IF EXISTS syncline.{what}_{id}")),
    );
    statements.push(format!("DROP SEQUENCE IF EXISTS syncline.seq_{id}"));
    statements
}

/// Removes the functions and triggers of a table.
pub(in crate::dialect::postgres) fn drop_triggers(id: TableId, table: Option<&CatalogTable>) -> Vec<String> {
    let mut statements = Vec::new();
    if let Some(table) = table {
        let partitions =
            table.partitions.iter().map(|partition| qualified(&partition.schema, &partition.name));
        let (own, _) = trigger_names(table, Role::Hub);
        statements
            .extend(own.iter().map(|name| format!("DROP TRIGGER IF EXISTS {name} ON {}", table.quoted())));
        statements.push(format!("DROP TRIGGER IF EXISTS {REPLICA_TRIGGER} ON {}", table.quoted()));
        // Row triggers of partitions go with their parent's.
        statements
            .extend(partitions.map(|name| format!("DROP TRIGGER IF EXISTS syncline_truncate ON {name}")));
    }
    // A table that was detached or renamed may still have triggers: they go with their function.
    statements.extend(
        ["track", "replicated", "truncated"]
            .map(|name| format!("DROP FUNCTION IF EXISTS syncline.{name}_{id}() CASCADE")),
    );
    statements
}
