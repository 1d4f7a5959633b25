//! Temporary triggers that refuse what would take a row along: their SQL.

use syncline::ids::TableId;

use super::catalog::{CatalogTable, Reference};
use super::statements::{dirty, literal, quote};

/// One row: whether rows are being removed at the moment.
pub(super) const CREATE_REMOVING: &str = "CREATE TEMP TABLE IF NOT EXISTS syncline_removing (yes INTEGER); \
    DELETE FROM temp.syncline_removing; INSERT INTO temp.syncline_removing VALUES (0)";

/// Which rows of a table are guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guarded {
    /// Those with local changes.
    pub(super) dirty: bool,
    /// Those that a download brings.
    pub(super) downloaded: bool,
    /// Of these, those that the download removes itself are noted in [`going`], and may go.
    pub(super) some_go: bool,
}

/// The table of ours that notes the rows that a download removes.
pub(super) fn going(id: TableId) -> String {
    format!("temp.syncline_going_{id}")
}

/// Makes it. Its columns have no affinity: they hold what the table holds, to the byte.
pub(super) fn create_going(id: TableId, key_columns: usize) -> String {
    let key: Vec<_> = (1..=key_columns).map(|place| format!("k{place}")).collect();
    let key = key.join(", ");
    format!("CREATE TEMP TABLE IF NOT EXISTS syncline_going_{id} ({key}, PRIMARY KEY ({key})) WITHOUT ROWID")
}

/// A trigger of the writer's own connection.
pub(super) struct Guard {
    name: String,
    table: String,
    event: String,
    condition: String,
    message: String,
}

impl Guard {
    /// Against deletes by a cascade. `parents`: the references by which one may come, each with the table referred to.
    pub(super) fn of_deletes(
        id: TableId,
        guarded: Guarded,
        table: &CatalogTable,
        parents: &[(&Reference, CatalogTable)],
    ) -> Self {
        let mut conditions = Vec::new();
        if guarded.dirty {
            conditions.push(is_dirty(id, table));
        }
        if guarded.downloaded {
            // Not what a trigger of the user's own deletes: its parent is there still.
            let orphaned = parents.iter().map(|(reference, parent)| {
                format!("({} AND NOT {})", is_set(reference), leads("OLD", reference, parent))
            });
            let orphaned = orphaned.collect::<Vec<_>>().join(" OR ");
            conditions.push(format!("(({orphaned}){})", stays(id, guarded, table)));
        }
        Self {
            name: format!("syncline_guard_{id}"),
            table: table.name.clone(),
            event: "DELETE".to_owned(),
            condition: conditions.join(" OR "),
            message: format!(
                "rows of table \"{}\" that stay refer to it, and would go with it (FOREIGN KEY)",
                table.name
            ),
        }
    }

    /// Against losing a reference whose parent is gone.
    pub(super) fn of_clearing(
        id: TableId,
        guarded: Guarded,
        place: usize,
        table: &CatalogTable,
        reference: &Reference,
        parent: &CatalogTable,
    ) -> Self {
        let columns: Vec<_> = reference.columns.iter().map(|column| quote(column)).collect();
        let any =
            |form: &dyn Fn(&String) -> String| columns.iter().map(form).collect::<Vec<_>>().join(" OR ");
        let mut whose = Vec::new();
        if guarded.dirty {
            whose.push(is_dirty(id, table));
        }
        if guarded.downloaded {
            // Not what a row that comes in says itself.
            let removing = "(SELECT yes FROM temp.syncline_removing)";
            whose.push(format!("({removing}{})", stays(id, guarded, table)));
        }
        // A key that changes, and takes its children along (ON UPDATE CASCADE), loses no reference.
        let condition = format!(
            "{} AND ({}) AND NOT {} AND ({} OR NOT {}) AND ({})",
            is_set(reference),
            any(&|column| format!("OLD.{column} IS NOT NEW.{column}")),
            leads("OLD", reference, parent),
            any(&|column| format!("NEW.{column} IS NULL")),
            leads("NEW", reference, parent),
            whose.join(" OR ")
        );
        Self {
            name: format!("syncline_guard_{id}_{place}"),
            table: table.name.clone(),
            event: format!("UPDATE OF {}", columns.join(", ")),
            condition,
            message: format!(
                "rows of table \"{}\" that stay refer to it, and would lose that (FOREIGN KEY)",
                table.name
            ),
        }
    }

    /// Makes it.
    pub(super) fn create(&self) -> String {
        format!(
            "CREATE TEMP TRIGGER {} BEFORE {} ON main.{} WHEN {} BEGIN SELECT RAISE(ABORT, {}); END",
            quote(&self.name),
            self.event,
            quote(&self.table),
            self.condition,
            literal(&self.message)
        )
    }
}

/// Removes a guard by its name.
pub(super) fn drop(name: &str) -> String {
    format!("DROP TRIGGER temp.{}", quote(name))
}

/// `EXISTS (a row of ours with the old row's key)`. The `+` takes the affinity away, for which no index would serve.
fn is_noted(ours: &str, table: &CatalogTable) -> String {
    let key = table.key.iter().map(|part| quote(&table.columns[part.column].name));
    let same = key.enumerate().map(|(place, column)| format!("d.k{} = +OLD.{column}", place + 1));
    format!("EXISTS (SELECT 1 FROM {ours} d WHERE {})", same.collect::<Vec<_>>().join(" AND "))
}

fn is_dirty(id: TableId, table: &CatalogTable) -> String {
    is_noted(&dirty(id), table)
}

/// ` AND NOT (it goes)`.
fn stays(id: TableId, guarded: Guarded, table: &CatalogTable) -> String {
    if guarded.some_go { format!(" AND NOT {}", is_noted(&going(id), table)) } else { String::new() }
}

fn is_set(reference: &Reference) -> String {
    let columns = reference.columns.iter().map(|column| format!("OLD.{} IS NOT NULL", quote(column)));
    columns.collect::<Vec<_>>().join(" AND ")
}

/// `EXISTS (the parent of the row)`.
fn leads(row: &str, reference: &Reference, parent: &CatalogTable) -> String {
    let pairs = parent.referenced(reference).into_iter().zip(&reference.columns);
    let same = pairs.map(|(to, from)| format!("p.{} = {row}.{}", quote(to), quote(from)));
    let same = same.collect::<Vec<_>>().join(" AND ");
    format!("EXISTS (SELECT 1 FROM {} p WHERE {same})", quote(&parent.name))
}
