//! What is made beside a tracked table: log, records, triggers.

use syncline::ids::TableId;

use super::functions::{self, keys_of};
use super::{list, qualified};
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
    let mut statements = functions::create(id, table, role);
    let base = table.quoted();
    let events = trigger_events(table, role);
    for (name, function, event) in &events {
        statements.push(format!(
            "CREATE TRIGGER {name} {event} EXECUTE FUNCTION syncline.{function}_{id}()",
            event = event.replace("{base}", &base)
        ));
    }
    statements.extend(always(table, events.iter().map(|(name, ..)| *name)));
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

/// The triggers that track rows: name, function, event.
fn trigger_events(table: &CatalogTable, role: Role) -> Vec<(&'static str, &'static str, String)> {
    let when = when(role);
    if table.is_partitioned() {
        // Only row triggers are cloned to partitions, whose rows may be written directly.
        let event = format!("AFTER INSERT OR UPDATE OR DELETE ON {{base}} FOR EACH ROW{when}");
        return vec![(ROW_TRIGGER, "track", event)];
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
        ("syncline_insert", "inserted", event("INSERT", new)),
        ("syncline_update", "updated", event("UPDATE", &updated)),
        ("syncline_delete", "deleted", event("DELETE", old)),
    ]
}

/// Triggers fire whatever the session's replication role, which an application may set. A logical subscription's
/// worker fires only those per row: see [`replica_trigger`].
fn always<'a>(table: &CatalogTable, names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let partitions = table.partitions.iter().map(|partition| qualified(&partition.schema, &partition.name));
    let tables: Vec<_> = std::iter::once(table.quoted()).chain(partitions).collect();
    tables
        .iter()
        .flat_map(|table| {
            names.clone().map(move |name| format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"))
        })
        .collect()
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
    statements.extend(functions::drop(id));
    statements
}
