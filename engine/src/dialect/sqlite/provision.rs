//! Puts tables under synchronisation for a scope, and takes that back. Users' tables and rows are never touched.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline::error::Result;
use syncline::ids::{Incarnation, ScopeName, TableId, Tick};
use syncline::knowledge::Version;
use syncline::schema::{ScopeSchema, TableSchema};

use super::define::{DefinedTable, Resolved, resolve};
use super::errors::DatabaseResult as _;
use super::fold;
use super::names;
use super::scope::{self, TrackedTable};
use super::state::{self, State, to_sql};
use super::statements::quote;
use super::tracking::{self, Provisioned, Role};
use crate::scope::{Problem, ScopeDefinition};
use crate::store::{ScopeChange, StoredScope, StoredTable};

/// Defines or changes a scope, within a write transaction. The inner error: all problems, and nothing was changed.
/// Blocks.
pub(super) fn define(
    connection: &Connection,
    definition: &ScopeDefinition,
) -> Result<Result<ScopeChange, Vec<Problem>>> {
    let resolved = resolve(connection, definition)?;
    if !resolved.problems.is_empty() {
        return Ok(Err(resolved.problems));
    }
    let old = scope::load(connection, &definition.name)?;
    let mut provisioner =
        Provisioner { connection, statements: Vec::new(), tick: None, tracked_anew: BTreeSet::new() };
    let mut tables = Vec::new();
    let mut changed = false;
    for table in &resolved.tables {
        let (stored, table_changed) = provisioner.table(table, old.as_ref())?;
        changed |= table_changed;
        tables.push(stored);
    }
    let stored = stored_scope(connection, definition, &resolved, tables, old.as_ref(), changed)?;
    changed |= old.as_ref() != Some(&stored);
    if let Some(old) = &old {
        provisioner.release(old, &stored)?;
    }
    if changed {
        scope::save(connection, &stored)?;
        provisioner.touch_others(&stored)?;
        state::note_durable(connection)?;
    }
    Ok(Ok(ScopeChange { scope: stored, statements: provisioner.statements, changed, notes: resolved.notes }))
}

fn stored_scope(
    connection: &Connection,
    definition: &ScopeDefinition,
    resolved: &Resolved,
    tables: Vec<StoredTable>,
    old: Option<&StoredScope>,
    changed: bool,
) -> Result<StoredScope> {
    let schema = ScopeSchema {
        name: definition.name.clone(),
        incarnation: old.map_or_else(Incarnation::fresh, |old| old.schema.incarnation),
        version: old.map_or(1, |old| old.schema.version),
        tables: resolved.tables.iter().map(|table| table.schema.clone()).collect(),
        conflict_policy: definition.conflict_policy,
        row_error_policy: definition.row_error_policy,
    };
    let id = old.map_or_else(|| scope::next_id(connection), |old| Ok(old.id))?;
    let mut stored = StoredScope { id, schema, tables };
    if let Some(old) = old
        && (changed || *old != stored)
    {
        stored.schema.version += 1;
    }
    Ok(stored)
}

struct Provisioner<'c> {
    connection: &'c Connection,
    statements: Vec<String>,
    /// Drawn once for all that this definition changes.
    tick: Option<(State, Tick)>,
    /// Tables whose tracking was made anew.
    tracked_anew: BTreeSet<TableId>,
}

impl Provisioner<'_> {
    /// Tracks a table if it isn't yet, mends its tracking if it is broken, and says since when it has its present form
    /// in the scope. Answers whether anything changed.
    fn table(&mut self, table: &DefinedTable, old: Option<&StoredScope>) -> Result<(StoredTable, bool)> {
        let mut tracked = table.tracked.clone();
        let wanted = tracking::provisioned(tracked.id, &table.catalog, Role::Hub);
        let present = tracking::present_triggers(self.connection, &table.catalog.name)?;
        let log = tracking::log_triggers(self.connection, tracked.id)?;
        let is_tracked = !tracked.provisioned.triggers.is_empty();
        let sound = is_tracked
            && !table.compare
            && tracked.provisioned == wanted
            && tracking::same_triggers(&wanted, &present, &log);
        if !sound {
            self.track(table, &mut tracked, &wanted, is_tracked)?;
        }
        // Also where nothing was provisioned: columns may have got numbers.
        tracked.save(self.connection)?;
        let before = old.and_then(|old| old.table(tracked.id));
        let change = before.map(|(schema, _)| Change::between(schema, &table.schema));
        let (columns_left, rejoined) = StoredTable::columns_left(before, &table.schema);
        let (since, reshaped) = match (before, change) {
            (Some((_, stored)), Some(Change::None)) if sound => (stored.since, stored.reshaped),
            (Some((_, stored)), Some(Change::ColumnsAdded)) if sound && !rejoined => {
                (self.version()?.0, stored.reshaped)
            }
            _ => (self.version()?.0, self.version()?.0),
        };
        let baseline =
            state::OwnIds::read(self.connection)?.version(tracked.baseline.0, tracked.baseline.1)?;
        let joined = match change {
            None | Some(Change::None) => since,
            Some(_) => self.version()?.0,
        };
        let stored = StoredTable {
            id: tracked.id,
            columns_since: StoredTable::columns_since(before, &table.schema, joined),
            columns_left,
            source_schema: String::new(),
            source_name: table.catalog.name.clone(),
            since,
            reshaped,
            baseline,
            baseline_changed_at: tracked.baseline_changed_at,
        };
        Ok((stored, !sound || change != Some(Change::None)))
    }

    fn track(
        &mut self,
        table: &DefinedTable,
        tracked: &mut TrackedTable,
        wanted: &Provisioned,
        is_tracked: bool,
    ) -> Result<()> {
        let connection = self.connection;
        let mut names: Vec<_> = tracked.provisioned.triggers.iter().map(|(name, _)| name.clone()).collect();
        names.extend(
            tracking::present_triggers(connection, &table.catalog.name)?.into_iter().map(|(name, _)| name),
        );
        let mut statements = if is_tracked && tracked.provisioned.same_key(wanted) {
            // The records stay: what they say is right. What was missed is found by comparing the table as a whole.
            fold::all(connection)?;
            tracking::remake(tracked.id, &table.catalog, Role::Hub, &names)
        } else {
            let (version, number) = self.version()?;
            tracked.baseline = (number, to_sql(version.tick));
            tracked.baseline_changed_at = state::now();
            let mut statements = if is_tracked { tracking::remove(tracked.id, &names) } else { Vec::new() };
            statements.extend(tracking::create(tracked.id, &table.catalog, Role::Hub));
            statements
        };
        for statement in &statements {
            connection.execute_batch(statement).db()?;
        }
        self.statements.append(&mut statements);
        tracked.provisioned = wanted.clone();
        self.tracked_anew.insert(tracked.id);
        Ok(())
    }

    /// What was missed of a table whose tracking was made anew is missing in every scope that carries it: all of them
    /// compare it as a whole, as this one does.
    fn touch_others(&self, this: &StoredScope) -> Result<()> {
        for mut other in scope::load_all(self.connection)? {
            let mut touched = false;
            for table in other.tables.iter_mut().filter(|_| other.id != this.id) {
                let own = this.table(table.id).filter(|_| self.tracked_anew.contains(&table.id));
                if let Some((_, own)) = own {
                    (table.since, table.reshaped) = (own.since, own.reshaped);
                    (table.baseline, table.baseline_changed_at) = (own.baseline, own.baseline_changed_at);
                    touched = true;
                }
            }
            if touched {
                scope::save(self.connection, &other)?;
            }
        }
        Ok(())
    }

    /// A fresh version of this database's own, with its number.
    fn version(&mut self) -> Result<(Version, i64)> {
        let (state, tick) = match self.tick {
            Some(drawn) => drawn,
            None => {
                let tick = fold::draw_tick(self.connection)?;
                let drawn = (state::read(self.connection)?, tick);
                self.tick = Some(drawn);
                drawn
            }
        };
        Ok((Version { replica: state.replica, tick }, state.number))
    }

    /// Stops tracking tables that left the scope and are in no other.
    fn release(&mut self, old: &StoredScope, new: &StoredScope) -> Result<()> {
        let left: Vec<_> = old.tables.iter().filter(|table| new.table(table.id).is_none()).collect();
        for table in left {
            let statements = untrack(self.connection, table, &old.schema.name)?;
            self.statements.extend(statements);
        }
        Ok(())
    }
}

/// How a table's form in a scope changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    ColumnsAdded,
    Other,
}

impl Change {
    fn between(old: &TableSchema, new: &TableSchema) -> Self {
        // Policies are judged anew in every session: they are no part of the form.
        let form = |schema: &TableSchema, columns: Vec<_>| TableSchema {
            columns,
            foreign_keys: Vec::new(),
            unique: Vec::new(),
            conflict_policy: None,
            ..schema.clone()
        };
        if form(old, old.columns.clone()) == form(new, new.columns.clone()) {
            return Self::None;
        }
        let kept = new.columns.iter().filter(|column| old.column(column.id).is_some()).cloned().collect();
        if form(old, old.columns.clone()) == form(new, kept) { Self::ColumnsAdded } else { Self::Other }
    }
}

/// Stops tracking a table unless another scope has it. Its number stays taken. Blocks.
fn untrack(connection: &Connection, table: &StoredTable, scope: &ScopeName) -> Result<Vec<String>> {
    let others = scope::load_all(connection)?;
    let elsewhere = others.iter().any(|other| other.schema.name != *scope && other.table(table.id).is_some());
    let Some(mut tracked) = TrackedTable::find(connection, &table.source_name)?.filter(|_| !elsewhere) else {
        return Ok(Vec::new());
    };
    let names: Vec<_> = tracked.provisioned.triggers.iter().map(|(name, _)| name.clone()).collect();
    let statements = tracking::remove(tracked.id, &names);
    for statement in &statements {
        connection.execute_batch(statement).db()?;
    }
    tracked.provisioned = Provisioned::default();
    tracked.save(connection)?;
    Ok(statements)
}

/// Removes a scope and what provisioning it made; with the last one, everything of ours. Within a write transaction.
/// Blocks.
pub(super) fn drop_scope(connection: &Connection, name: &ScopeName) -> Result<bool> {
    let Some(scope) = scope::load(connection, name)? else { return Ok(false) };
    for table in &scope.tables {
        untrack(connection, table, name)?;
    }
    for statement in [
        "DELETE FROM syncline_batches WHERE session IN (SELECT id FROM syncline_sessions WHERE scope = ?1)",
        "DELETE FROM syncline_sessions WHERE scope = ?1",
        "DELETE FROM syncline_applies WHERE scope = ?1",
        "DELETE FROM syncline_leaves WHERE scope = ?1",
        "DELETE FROM syncline_scopes WHERE id = ?1",
    ] {
        connection.execute(statement, [scope.id]).db()?;
    }
    drop_if_unused(connection)?;
    Ok(true)
}

/// Drops all of our tables if no scope and no subscription is left. Within a write transaction. Blocks.
pub(super) fn drop_if_unused(connection: &Connection) -> Result<()> {
    let used: bool = connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM syncline_scopes) OR EXISTS (SELECT 1 FROM syncline_subscriptions)",
            [],
            |row| row.get(0),
        )
        .db()?;
    if used {
        return Ok(());
    }
    for name in names::tables(connection)?.iter().filter(|name| names::is_own_table(name)) {
        connection.execute_batch(&format!("DROP TABLE {}", quote(name))).db()?;
    }
    Ok(())
}
