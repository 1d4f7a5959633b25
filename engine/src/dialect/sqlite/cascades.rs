//! Keeps rows from going along with what a download removes, however the leaf's own foreign keys act.
//!
//! **Invariant:** a download removes a row only where the row itself came in (or, in a comparison, did not) and was
//! judged: then the loser is in the conflict log. A cascade (of however many levels, into whichever table that is
//! synchronised here, of another scope too) that would take along a row with a local change, or one that the download
//! does not remove too, fails, and with it the removal that set it off: that row waits, and is a row error at last,
//! which comes again once what stands in its way has gone up, or has changed at the hub. The same for SET NULL and SET
//! DEFAULT, which would take the reference from such a row.
//!
//! For that the rows that the download removes are noted before the first of them goes: parents may come before their
//! children. Where clean rows go to the conflict log, each is noted only as it goes itself, so that none goes unlogged.
//!
//! Upheld by temporary triggers of the writer's own connection: nobody else has them, and they go with the transaction.
//! Tables that are not synchronised, and rows of ones that only upload, go along as their foreign keys say.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use syncline::batch::Block;
use syncline::error::Result;
use syncline::ids::TableId;
use syncline::schema::TableSchema;

use super::apply_rows::bind;
use super::catalog::{self, CatalogTable, Found, OnDelete};
use super::errors::DatabaseResult as _;
use super::guard::{self, Guard, Guarded};
use super::plan::{BoundKey, TablePlan};
use super::scope::TrackedTable;
use super::tracking::Role;
use super::{leaf_provision, statements};

/// The guards of one transaction of a download.
pub(super) struct Cascades<'c> {
    connection: &'c Connection,
    /// The tables of the download of which some rows are guarded and others go, by the numbers of its blocks.
    going: BTreeMap<TableId, Going>,
    /// Whether what goes has been noted.
    pub(super) noted: bool,
    guarded: bool,
    /// What [`guard::CREATE_REMOVING`] holds; `None` if that is not known.
    removing: Option<bool>,
}

/// Statements over the rows of a table that go; parameters: the key.
struct Going {
    note: String,
    forget: String,
    /// Whether each is noted only as it goes.
    at_once: bool,
}

impl<'c> Cascades<'c> {
    /// Makes the guards. Within a write transaction, which must end with [`remove`](Self::remove) or be rolled back.
    /// `logged`: whether clean rows that go to the conflict log. `noted`: whether an earlier transaction of this download
    /// has noted what goes. Blocks.
    pub(super) fn set<'p>(
        connection: &'c Connection,
        tables: impl Iterator<Item = (&'p TableSchema, &'p TablePlan)>,
        logged: impl Fn(&TableSchema) -> bool,
        noted: bool,
    ) -> Result<Self> {
        let mut cascades = Self { connection, going: BTreeMap::new(), noted, guarded: false, removing: None };
        if !catalog::may_have_references(connection)? {
            return Ok(cascades);
        }
        let mut own: BTreeMap<TableId, _> =
            tables.map(|(schema, plan)| (plan.local, (schema, plan))).collect();
        for (id, guarded, table) in guarded_tables(connection, &own)? {
            if !cascades.guarded {
                connection.execute_batch(guard::CREATE_REMOVING).db()?;
                cascades.guarded = true;
            }
            let going = own.remove(&id).filter(|_| guarded.some_go);
            if let Some((schema, plan)) = going {
                connection.execute_batch(&guard::create_going(id, plan.key_columns())).db()?;
                cascades.going.insert(plan.id, Going::of(plan, logged(schema)));
            }
            for guard in guards(connection, id, guarded, &table)? {
                connection.execute_batch(&guard.create()).db()?;
            }
        }
        Ok(cascades)
    }

    /// Takes the guards away; what goes is forgotten after the `last` transaction of a download. Blocks.
    pub(super) fn remove(self, last: bool) -> Result<()> {
        for name in temporary(self.connection, "trigger", "syncline\\_guard\\_%")? {
            self.connection.execute_batch(&guard::drop(&name)).db()?;
        }
        if last { forget(self.connection) } else { Ok(()) }
    }

    /// Whether the rows that a block removes must be known before the first of them goes.
    pub(super) fn must_note(&self) -> bool {
        !self.noted && self.going.values().any(|going| !going.at_once)
    }

    /// Notes the rows that a block removes; one that it brings does not go after all. Blocks.
    pub(super) fn note_block(&mut self, plan: &TablePlan, block: &Block) -> Result<()> {
        let Some(going) = self.going.get(&plan.id).filter(|going| !going.at_once) else { return Ok(()) };
        let sql = if block.operation.removes() { &going.note } else { &going.forget };
        for row in 0..block.rows() {
            // One that can't be a key here is a row error, and removes nothing.
            if let Ok(key) = plan.block_key(block, row)? {
                self.run(sql, &key)?;
            }
        }
        Ok(())
    }

    /// Notes a row that a comparison removes. Blocks.
    pub(super) fn note(&self, plan: &TablePlan, key: &BoundKey<'_>) -> Result<()> {
        match self.going.get(&plan.id) {
            Some(going) if !going.at_once => self.run(&going.note, key),
            _ => Ok(()),
        }
    }

    /// Before a row is removed. Blocks.
    pub(super) fn goes(&self, plan: &TablePlan, key: &BoundKey<'_>) -> Result<()> {
        match self.going.get(&plan.id) {
            Some(going) if going.at_once => self.run(&going.note, key),
            _ => Ok(()),
        }
    }

    /// The row could not be removed. Blocks.
    pub(super) fn stays(&self, plan: &TablePlan, key: &BoundKey<'_>) -> Result<()> {
        match self.going.get(&plan.id) {
            Some(going) if going.at_once => self.run(&going.forget, key),
            _ => Ok(()),
        }
    }

    /// Says whether rows are removed from now on, or written. Blocks.
    pub(super) fn set_removing(&mut self, removing: bool) -> Result<()> {
        if self.guarded && self.removing != Some(removing) {
            let sql = "UPDATE temp.syncline_removing SET yes = ?1";
            self.connection.prepare_cached(sql).db()?.execute([removing]).db()?;
            self.removing = Some(removing);
        }
        Ok(())
    }

    /// A savepoint was rolled back.
    pub(super) fn rewind(&mut self) {
        self.removing = None;
    }

    fn run(&self, sql: &str, key: &BoundKey<'_>) -> Result<()> {
        let mut statement = self.connection.prepare_cached(sql).db()?;
        bind(&mut statement, &key.values)?;
        statement.raw_execute().db()?;
        Ok(())
    }
}

impl Going {
    fn of(plan: &TablePlan, at_once: bool) -> Self {
        let table = guard::going(plan.local);
        Self { note: plan.names.copy_key(&table), forget: plan.names.delete_copied(&table), at_once }
    }
}

/// Forgets what an earlier download noted. Within a write transaction. Blocks.
pub(super) fn forget(connection: &Connection) -> Result<()> {
    for name in temporary(connection, "table", "syncline\\_going\\_%")? {
        connection.execute_batch(&format!("DROP TABLE temp.{}", statements::quote(&name))).db()?;
    }
    Ok(())
}

fn temporary(connection: &Connection, kind: &str, like: &str) -> Result<Vec<String>> {
    connection
        .prepare_cached("SELECT name FROM temp.sqlite_master WHERE type = ?1 AND name LIKE ?2 ESCAPE '\\'")
        .db()?
        .query_map([kind, like], |row| row.get(0))
        .db()?
        .collect::<rusqlite::Result<_>>()
        .db()
}

/// Tables that a delete elsewhere may change, of all scopes of this database.
fn guarded_tables(
    connection: &Connection,
    own: &BTreeMap<TableId, (&TableSchema, &TablePlan)>,
) -> Result<Vec<(TableId, Guarded, CatalogTable)>> {
    let mut tables = Vec::new();
    let mut others = None;
    for name in catalog::user_tables(connection)? {
        let Found::Table(table) = catalog::find(connection, &name)? else { continue };
        if table.references.iter().all(|reference| reference.on_delete == OnDelete::Nothing) {
            continue;
        }
        let Some(tracked) = TrackedTable::find(connection, &table.name)? else { continue };
        if tracked.role != Role::Leaf {
            continue;
        }
        let some_go = own.get(&tracked.id).is_some_and(|(schema, _)| schema.direction.downloads());
        if others.is_none() {
            others = Some(downloaded(connection)?);
        }
        let elsewhere = others.as_ref().is_some_and(|others| others.contains(&table.name.to_lowercase()));
        let dirty = !tracked.provisioned.triggers.is_empty() && has_dirty(connection, tracked.id)?;
        let guarded = Guarded { dirty, downloaded: some_go || elsewhere, some_go };
        if guarded.dirty || guarded.downloaded {
            tables.push((tracked.id, guarded, table));
        }
    }
    Ok(tables)
}

/// The tables that downloads bring, of all scopes, in lower case.
fn downloaded(connection: &Connection) -> Result<BTreeSet<String>> {
    let subscriptions = leaf_provision::load_all(connection)?;
    let tables = subscriptions.iter().flat_map(|subscription| &subscription.schema.tables);
    Ok(tables.filter(|table| table.direction.downloads()).map(|table| table.name.to_lowercase()).collect())
}

fn has_dirty(connection: &Connection, id: TableId) -> Result<bool> {
    connection.query_row(&statements::has_dirty(id), [], |row| row.get(0)).db()
}

fn guards(
    connection: &Connection,
    id: TableId,
    guarded: Guarded,
    table: &CatalogTable,
) -> Result<Vec<Guard>> {
    let mut cascading = Vec::new();
    let mut guards = Vec::new();
    for (place, reference) in table.references.iter().enumerate() {
        let Found::Table(parent) = catalog::find(connection, &reference.parent)? else { continue };
        match reference.on_delete {
            OnDelete::Nothing => {}
            OnDelete::Cascades => cascading.push((reference, parent)),
            OnDelete::Clears => {
                guards.push(Guard::of_clearing(id, guarded, place, table, reference, &parent));
            }
        }
    }
    if !cascading.is_empty() {
        guards.push(Guard::of_deletes(id, guarded, table, &cascading));
    }
    Ok(guards)
}
