//! Registers a leaf for a scope: creates or checks its tables, and puts those that upload under tracking.

use rusqlite::Connection;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ReplicaId, ScopeName, TableId};
use syncline::schema::{ScopeSchema, TableSchema};

use super::catalog::{self, CatalogTable, Found};
use super::errors::DatabaseResult as _;
use super::plan::TablePlan;
use super::provision::drop_if_unused;
use super::scope::TrackedTable;
use super::statements::{self, dirty, key_names, quote};
use super::tracking::{self, Provisioned, Role};
use super::{fold, leaf_ddl, meta, state};
use crate::dialect::meta::subscriptions;
use crate::store::Subscription;

/// Reads a subscription. Blocks.
pub(super) fn load(connection: &Connection, scope: &ScopeName) -> Result<Option<Subscription>> {
    if !catalog::is_provisioned(connection)? {
        return Ok(None);
    }
    meta::run(connection, &subscriptions::load(scope))?.first().map(subscriptions::from_row).transpose()
}

/// Reads all subscriptions. Blocks.
pub(super) fn load_all(connection: &Connection) -> Result<Vec<Subscription>> {
    if !catalog::is_provisioned(connection)? {
        return Ok(Vec::new());
    }
    meta::run(connection, &subscriptions::list())?.iter().map(subscriptions::from_row).collect()
}

/// Stores all of a subscription but its schema. Within a write transaction. Blocks.
pub(super) fn save(connection: &Connection, subscription: &Subscription) -> Result<()> {
    let scope = &subscription.schema.name;
    let stored = load(connection, scope)?.ok_or_else(|| not_subscribed(scope))?;
    let subscription = Subscription { schema: stored.schema, ..subscription.clone() };
    meta::run(connection, &subscriptions::save(&subscription)?)?;
    state::note_durable(connection)
}

/// There is no subscription of this name.
pub(super) fn not_subscribed(scope: &ScopeName) -> SyncError {
    SyncError::new(
        ErrorReason::ScopeNotFound,
        format!("the database does not synchronise a scope \"{scope}\""),
    )
    .with("scope", scope)
}

/// Registers for a scope. Within a write transaction. Blocks.
pub(super) fn subscribe(
    connection: &Connection,
    schema: &ScopeSchema,
    hub: ReplicaId,
) -> Result<Subscription> {
    let known = load(connection, &schema.name)?;
    let renewed = known.as_ref().map(|known| known.renewed(schema, hub)).transpose()?;
    let tables = fit_all(connection, schema)?;
    let mut missed = false;
    for (table, fitting) in schema.tables.iter().zip(tables) {
        missed |= provision(connection, table, fitting)?;
    }
    if let Some(known) = &known {
        for table in schema.tables.iter().filter(|table| known.is_of_another_id(table)) {
            give_new_ticks(connection, table)?;
        }
        let left = known
            .schema
            .tables
            .iter()
            .filter(|old| !schema.tables.iter().any(|table| table.name.eq_ignore_ascii_case(&old.name)));
        for table in left {
            release(connection, table)?;
        }
    }
    let subscription = match renewed {
        // What was written meanwhile nobody has seen: what is known says nothing of the table any more.
        Some(known) if missed => known.diverged(),
        Some(known) => known,
        None => Subscription::fresh(schema.clone(), hub),
    };
    meta::run(connection, &subscriptions::save(&subscription)?)?;
    state::note_durable(connection)?;
    Ok(subscription)
}

/// Gives what is pending in a table a tick that was never uploaded. Born stays born, and a delete a delete.
fn give_new_ticks(connection: &Connection, table: &TableSchema) -> Result<()> {
    if !table.direction.uploads() {
        return Ok(());
    }
    let Some(tracked) = TrackedTable::find(connection, &table.name)? else { return Ok(()) };
    fold::all(connection)?;
    let tick = fold::draw_tick(connection)?;
    let sql = format!(
        "UPDATE {} SET tick = ?1, birth = CASE WHEN birth > 0 THEN ?1 ELSE birth END",
        dirty(tracked.id)
    );
    connection.execute(&sql, [state::to_sql(tick)]).db()?;
    Ok(())
}

/// Looks whether all tables fit; changes nothing, and needs nothing of ours to be there. Blocks.
///
/// # Errors
/// SCHEMA_MISMATCH, naming every difference.
pub(super) fn check(connection: &Connection, schema: &ScopeSchema) -> Result<()> {
    fit_all(connection, schema).map(drop)
}

fn fit_all(connection: &Connection, schema: &ScopeSchema) -> Result<Vec<Fitting>> {
    let others: Vec<_> =
        load_all(connection)?.into_iter().filter(|other| other.schema.name != schema.name).collect();
    let mut problems = Vec::new();
    let mut tables = Vec::new();
    for table in &schema.tables {
        match fit(connection, schema, table, &others)? {
            Ok(fitting) => tables.push(fitting),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(SyncError::new(
            ErrorReason::SchemaMismatch,
            format!("the local tables do not fit scope \"{}\": {}", schema.name, problems.join("; ")),
        )
        .with("scope", &schema.name));
    }
    Ok(tables)
}

/// A table that fits, or will once these statements have run.
struct Fitting {
    statements: Vec<String>,
    /// Whether it was made here, now or before.
    created: bool,
    /// Whether it is not there now.
    absent: bool,
    tracked: Option<TrackedTable>,
}

/// Looks whether a table fits; changes nothing. The inner error: every difference.
fn fit(
    connection: &Connection,
    schema: &ScopeSchema,
    table: &TableSchema,
    others: &[Subscription],
) -> Result<Result<Fitting, Vec<String>>> {
    let named = |problem: String| format!("table \"{}\": {problem}", table.name);
    let same = |other: &TableSchema| other.name.eq_ignore_ascii_case(&table.name);
    if let Some(other) = others.iter().find(|other| other.schema.tables.iter().any(same)) {
        let problem = format!("it belongs to scope \"{}\" already", other.schema.name);
        return Ok(Err(vec![named(problem)]));
    }
    let alike = leaf_ddl::names_alike(table);
    if !alike.is_empty() {
        return Ok(Err(alike.into_iter().map(named).collect()));
    }
    let provisioned = catalog::is_provisioned(connection)?;
    let tracked = if provisioned { TrackedTable::find(connection, &table.name)? } else { None };
    if tracked
        .as_ref()
        .is_some_and(|tracked| tracked.role == Role::Hub && !tracked.provisioned.triggers.is_empty())
    {
        return Ok(Err(vec![named("this database is itself a hub of it".to_owned())]));
    }
    let found = match catalog::find(connection, &table.name)? {
        Found::NotATable(kind) => return Ok(Err(vec![named(format!("it is {kind} here"))])),
        Found::Nothing => {
            let statements = leaf_ddl::create(schema, table);
            return Ok(Ok(Fitting { statements, created: true, absent: true, tracked }));
        }
        Found::Table(found) => found,
    };
    let created = tracked.as_ref().is_some_and(|tracked| tracked.provisioned.created);
    let differences = leaf_ddl::compare(table, &found);
    let mut problems: Vec<_> = differences.other.into_iter().map(named).collect();
    let mut statements = Vec::new();
    for column in differences.missing {
        let addable = created && !table.is_key(column.id) && (!column.not_null || column.default.is_some());
        if addable {
            let definition = leaf_ddl::definition(column, false);
            statements.push(format!("ALTER TABLE {} ADD COLUMN {definition}", quote(&found.name)));
        } else {
            problems.push(named(format!("column \"{}\" is missing", column.name)));
        }
    }
    Ok(if problems.is_empty() {
        Ok(Fitting { statements, created, absent: false, tracked })
    } else {
        Err(problems)
    })
}

/// Makes a table what it is to be. Answers whether it was another one before: whether rows, or changes of them, may have
/// come and gone since that nobody has seen.
fn provision(connection: &Connection, table: &TableSchema, fitting: Fitting) -> Result<bool> {
    for statement in &fitting.statements {
        connection.execute_batch(statement).db()?;
    }
    let Found::Table(found) = catalog::find(connection, &table.name)? else {
        return Err(SyncError::internal("a table that was just created is not there"));
    };
    let local = match &fitting.tracked {
        Some(tracked) => tracked.id,
        None => TrackedTable::next_id(connection)?,
    };
    // Checks the key, too.
    TablePlan::new(table, found.clone())?;
    let mut wanted = tracking::provisioned(local, &found, Role::Leaf);
    wanted.created = fitting.created;
    if !table.direction.uploads() {
        // Claimed, but not tracked: local changes of it go nowhere.
        wanted.triggers.clear();
    }
    // A table of a hub's scope that was dropped here keeps its number, and is none of this.
    let of_leaf = fitting.tracked.as_ref().is_some_and(|tracked| tracked.role == Role::Leaf);
    let (anew, claimed) = (of_leaf && fitting.absent, of_leaf && !fitting.absent);
    let before = fitting.tracked.map(|tracked| tracked.provisioned).unwrap_or_default();
    let missed = track(connection, local, &found, &before, &wanted, claimed)?;
    let tracked = TrackedTable {
        id: local,
        name: found.name,
        role: Role::Leaf,
        columns: Default::default(),
        provisioned: wanted,
        baseline: (0, 0),
        baseline_changed_at: 0,
    };
    tracked.save(connection)?;
    Ok(missed || anew)
}

/// Brings triggers and our tables of a table into the wanted form. Rows that no trigger has seen become dirty, as born
/// here: so what the table held before is uploaded, and never overwritten in silence. Answers whether triggers that
/// should have been there were not: the table was dropped and made anew, for example. What was noted of it before says
/// nothing then of what it holds, and is forgotten. So it is, and answers the same, if changes are pending that are not
/// to be uploaded any more: the download that replaces them is to keep them in the conflict log.
///
/// `claimed`: it belonged to this scope before, with triggers or without.
fn track(
    connection: &Connection,
    local: TableId,
    table: &CatalogTable,
    before: &Provisioned,
    wanted: &Provisioned,
    claimed: bool,
) -> Result<bool> {
    let present = tracking::present_triggers(connection, &table.name)?;
    let as_before = tracking::same_triggers(before, &present, &tracking::log_triggers(connection, local)?);
    if as_before && before.triggers == wanted.triggers && before.shape == wanted.shape {
        return Ok(false);
    }
    let names: Vec<_> = before.triggers.iter().chain(&present).map(|(name, _)| name.clone()).collect();
    if as_before && !before.triggers.is_empty() && !wanted.triggers.is_empty() && before.same_key(wanted) {
        fold::all(connection)?;
        run(connection, &tracking::remake(local, table, Role::Leaf, &names))?;
        return Ok(false);
    }
    let mut missed = !as_before && !before.triggers.is_empty();
    if !before.triggers.is_empty() {
        fold::all(connection)?;
        let dirty = statements::has_dirty(local);
        missed |= wanted.triggers.is_empty() && connection.query_row(&dirty, [], |row| row.get(0)).db()?;
        run(connection, &tracking::remove(local, &names))?;
    }
    if wanted.triggers.is_empty() {
        return Ok(missed);
    }
    run(connection, &tracking::create(local, table, Role::Leaf))?;
    // It was downloaded only: what it holds came from the hub, and what was edited here goes nowhere.
    if claimed && before.triggers.is_empty() {
        return Ok(missed);
    }
    let tick = fold::draw_tick(connection)?;
    let key: Vec<_> = table.key.iter().map(|part| quote(&table.columns[part.column].name)).collect();
    let not_null: Vec<_> = key.iter().map(|column| format!("{column} IS NOT NULL")).collect();
    let sql = format!(
        "INSERT INTO {} ({}, tick, changed_at, birth) SELECT {}, ?1, ?2, ?1 FROM {} WHERE {}",
        dirty(local),
        key_names("", key.len()),
        key.join(", "),
        quote(&table.name),
        not_null.join(" AND ")
    );
    connection.execute(&sql, [state::to_sql(tick), state::now()]).db()?;
    Ok(missed)
}

fn run(connection: &Connection, statements: &[String]) -> Result<()> {
    statements.iter().try_for_each(|statement| connection.execute_batch(statement).db())
}

/// Removes tracking and subscription; tables and rows stay. Within a write transaction. Blocks.
pub(super) fn unsubscribe(connection: &Connection, scope: &ScopeName) -> Result<bool> {
    let Some(known) = load(connection, scope)? else { return Ok(false) };
    for table in &known.schema.tables {
        release(connection, table)?;
    }
    meta::run(connection, &subscriptions::delete(scope))?;
    drop_if_unused(connection)?;
    Ok(true)
}

fn release(connection: &Connection, table: &TableSchema) -> Result<()> {
    let Some(tracked) = TrackedTable::find(connection, &table.name)? else { return Ok(()) };
    let names: Vec<_> = tracked.provisioned.triggers.iter().map(|(name, _)| name.clone()).collect();
    run(connection, &tracking::remove(tracked.id, &names))?;
    connection.execute("DELETE FROM syncline_tables WHERE id = ?1", [tracked.id.0]).db()?;
    Ok(())
}

/// The plans of a subscription's tables, in the schema's order, with tracking checked where it is. Blocks.
pub(super) fn plans(connection: &Connection, schema: &ScopeSchema) -> Result<Vec<TablePlan>> {
    schema
        .tables
        .iter()
        .map(|table| {
            let mut plan = TablePlan::load(connection, table, &table.name)?;
            let tracked = TrackedTable::find(connection, &plan.name)?
                .ok_or_else(|| super::errors::tracking_broken(&plan.name, "it is not tracked any more"))?;
            plan.local = tracked.id;
            if table.direction.uploads() {
                super::snapshot::check_tracking(connection, &plan)?;
            }
            Ok(plan)
        })
        .collect()
}
