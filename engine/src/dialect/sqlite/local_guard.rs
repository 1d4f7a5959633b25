//! Keeps local changes from going along with what a download removes.
//!
//! **Invariant:** a row with a local change is removed by a download only where the row itself came in and was judged:
//! then the loser is in the conflict log. A cascade (of however many levels, into whichever table that is tracked here,
//! of another scope too) that would take one along fails, and with it the removal that set it off: that row waits, and
//! is a row error at last, which comes again once the local change has gone up. The same for SET NULL and SET DEFAULT,
//! which would take the reference from a row with a local change.
//!
//! Upheld by temporary triggers of the writer's own connection: nobody else has them, and they go with the transaction.

use rusqlite::Connection;
use syncline::error::Result;
use syncline::ids::TableId;

use super::catalog::{self, CatalogTable, Found, OnDelete, Reference};
use super::errors::DatabaseResult as _;
use super::scope::TrackedTable;
use super::statements::{self, Guard, quote};
use super::tracking::Role;

/// Guards the tables that hold local changes now. Within a write transaction, which must end with [`remove`] or be
/// rolled back. Blocks.
pub(super) fn set(connection: &Connection) -> Result<()> {
    for (id, table) in guarded(connection)? {
        for guard in guards(connection, id, &table)? {
            connection.execute_batch(&guard.create()).db()?;
        }
    }
    Ok(())
}

/// Takes the guards away. Blocks.
pub(super) fn remove(connection: &Connection) -> Result<()> {
    let names = connection
        .prepare_cached("SELECT name FROM temp.sqlite_master WHERE type = 'trigger' AND name LIKE 'syncline\\_guard\\_%' ESCAPE '\\'")
        .db()?
        .query_map([], |row| row.get::<_, String>(0))
        .db()?
        .collect::<rusqlite::Result<Vec<_>>>()
        .db()?;
    names.iter().try_for_each(|name| connection.execute_batch(&statements::drop_guard(name)).db())
}

/// Tables that a delete elsewhere may change, and that hold local changes; of all scopes of this database.
fn guarded(connection: &Connection) -> Result<Vec<(TableId, CatalogTable)>> {
    let mut tables = Vec::new();
    for name in catalog::user_tables(connection)? {
        let Found::Table(table) = catalog::find(connection, &name)? else { continue };
        if table.references.iter().all(|reference| reference.on_delete == OnDelete::Nothing) {
            continue;
        }
        let Some(tracked) = TrackedTable::find(connection, &table.name)? else { continue };
        if tracked.role != Role::Leaf || tracked.provisioned.triggers.is_empty() {
            continue;
        }
        let any: bool =
            connection.query_row(&statements::has_dirty(tracked.id), [], |row| row.get(0)).db()?;
        if any {
            tables.push((tracked.id, table));
        }
    }
    Ok(tables)
}

fn guards(connection: &Connection, id: TableId, table: &CatalogTable) -> Result<Vec<Guard>> {
    let key: Vec<_> = table.key.iter().map(|part| quote(&table.columns[part.column].name)).collect();
    let acts =
        |wanted: OnDelete| table.references.iter().filter(move |reference| reference.on_delete == wanted);
    let mut guards = Vec::new();
    if acts(OnDelete::Cascades).next().is_some() {
        guards.push(Guard::of_deletes(id, &table.name, &key));
    }
    for (place, reference) in acts(OnDelete::Clears).enumerate() {
        let Found::Table(parent) = catalog::find(connection, &reference.parent)? else { continue };
        guards.push(clearing(id, place, table, reference, &parent, &key));
    }
    Ok(guards)
}

fn clearing(
    id: TableId,
    place: usize,
    table: &CatalogTable,
    reference: &Reference,
    parent: &CatalogTable,
    key: &[String],
) -> Guard {
    let columns: Vec<_> = reference.columns.iter().map(|column| quote(column)).collect();
    let referenced: Vec<_> = parent.referenced(reference).into_iter().map(quote).collect();
    Guard::of_clearing(id, place, &table.name, key, &columns, &quote(&parent.name), &referenced)
}
