//! Registering for a scope, and leaving it again.
//!
//! All of it is one transaction: whatever fails, the database is as it was. It waits at most
//! `limits::PROVISION_LOCK_TIMEOUT` for the open writers of a table that exists, and is tried again.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use syncline::error::{Result, SyncError};
use syncline::ids::{ReplicaId, ScopeName, TableId};
use syncline::schema::{ScopeSchema, TableSchema};

use super::fit::{self, Difference};
use super::fold::flag;
use super::tables::{LeafDocument, Registered, registered};
use super::{LEAF_ROLE, LEAF_SCHEMA, create, load_within, recognise, statements};
use crate::dialect::meta::subscriptions;
use crate::dialect::postgres::catalog::{self, CatalogTable};
use crate::dialect::postgres::provision::{
    Provisioned, ensure_schema, is_there, lock_schema, provisioning, repeat,
};
use crate::dialect::postgres::statements::tracking::{self, Role};
use crate::dialect::postgres::statements::{list, run};
use crate::dialect::postgres::{PostgresDatabase, errors, meta};
use crate::store::Subscription;

/// Registers for a scope. See [`crate::store::LeafStore::subscribe`].
pub(super) async fn subscribe(
    database: &PostgresDatabase,
    schema: &ScopeSchema,
    hub: ReplicaId,
) -> Result<Subscription> {
    repeat(|| try_subscribe(database, schema, hub)).await
}

async fn try_subscribe(
    database: &PostgresDatabase,
    schema: &ScopeSchema,
    hub: ReplicaId,
) -> Result<Subscription> {
    let control = database.control_file().await?;
    let mut transaction = database.begin_provisioning(None).await?;
    ensure_schema(&mut transaction).await?;
    recognise::note_identity(&mut transaction, control).await?;
    let stored = load_within(&mut transaction, &schema.name).await?;
    let renewed = stored.as_ref().map(|stored| stored.renewed(schema, hub)).transpose()?;
    if let (Some(stored), Some(renewed)) = (&stored, &renewed)
        && stored.schema == *schema
    {
        if stored != renewed {
            meta::run(&mut transaction, subscriptions::save(renewed)?).await?;
            transaction.commit().await.map_err(errors::commit)?;
        }
        return Ok(renewed.clone());
    }
    let known = registered(&mut transaction).await?;
    let before: BTreeSet<&str> =
        stored.iter().flat_map(|stored| &stored.schema.tables).map(|table| table.name.as_str()).collect();
    let mut found = lock_and_find(&mut transaction, schema).await?;
    let mut differences: Vec<Difference> = schema.tables.iter().flat_map(fit::unsupported).collect();
    differences.extend(taken(&mut transaction, schema, &known, &before).await?);
    differences.extend(misfits(schema, &found, &before));
    if !differences.is_empty() {
        return Err(fit::mismatch(schema, &differences));
    }
    for (table, statement) in missing_tables_and_columns(schema, &found) {
        run(&mut transaction, &statement).await.map_err(|error| refused(schema, &table, error))?;
    }
    let existed: BTreeSet<String> = found.keys().cloned().collect();
    found = find(&mut transaction, schema).await?;
    let mut missed = false;
    for table in &schema.tables {
        let Some(catalog) = found.get(&table.name) else {
            return Err(SyncError::internal("a table that was created is not there"));
        };
        let may_hold_rows = existed.contains(&table.name);
        missed |= !may_hold_rows && before.contains(table.name.as_str());
        let known = known.get(&table.name);
        missed |= provision_table(&mut transaction, table, catalog, known, may_hold_rows).await?;
        let is_another = stored.as_ref().is_some_and(|stored| stored.is_of_another_id(table));
        if let Some(known) = known.filter(|_| is_another && table.direction.uploads()) {
            give_new_ticks(&mut transaction, known.id, catalog).await?;
        }
    }
    let names: BTreeSet<&str> = schema.tables.iter().map(|table| table.name.as_str()).collect();
    for gone in before.iter().filter(|name| !names.contains(**name)) {
        if let Some(table) = known.get(*gone) {
            unprovision_table(&mut transaction, table).await?;
        }
    }
    let subscription = match renewed {
        // What was written meanwhile nobody has seen: what is known says nothing of the table any more.
        Some(known) if missed => known.diverged(),
        Some(known) => known,
        None => Subscription::fresh(schema.clone(), hub),
    };
    meta::run(&mut transaction, subscriptions::save(&subscription)?).await?;
    transaction.commit().await.map_err(errors::commit)?;
    Ok(subscription)
}

/// Blocks writers of the scope's tables that exist, and reads what the catalogue says of them, by name.
async fn lock_and_find(
    connection: &mut PgConnection,
    schema: &ScopeSchema,
) -> Result<BTreeMap<String, CatalogTable>> {
    let present = find(connection, schema).await?;
    let lockable = present.values().filter(|table| matches!(table.kind.as_str(), "r" | "p"));
    let bases: Vec<_> = lockable.map(CatalogTable::quoted).collect();
    if bases.is_empty() {
        return Ok(present);
    }
    let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", list(&bases));
    run(connection, &lock).await.map_err(errors::database)?;
    find(connection, schema).await
}

async fn find(connection: &mut PgConnection, schema: &ScopeSchema) -> Result<BTreeMap<String, CatalogTable>> {
    let names: Vec<_> = schema.tables.iter().map(|table| table.name.clone()).collect();
    find_named(connection, &names).await
}

pub(super) async fn find_named(
    connection: &mut PgConnection,
    names: &[String],
) -> Result<BTreeMap<String, CatalogTable>> {
    let oids: Vec<i64> = sqlx::query_scalar(
        "SELECT c.oid::bigint FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = ANY ($2) AND c.relkind NOT IN ('i', 'I', 'S', 't', 'c')",
    )
    .bind(LEAF_SCHEMA)
    .bind(names)
    .fetch_all(&mut *connection)
    .await
    .map_err(errors::database)?;
    let tables = catalog::load(connection, &oids).await?;
    Ok(tables.into_iter().map(|table| (table.name.clone(), table)).collect())
}

/// Tables that belong to something else already: to a hub's scope, or to another subscription.
async fn taken(
    connection: &mut PgConnection,
    schema: &ScopeSchema,
    known: &BTreeMap<String, Registered>,
    before: &BTreeSet<&str>,
) -> Result<Vec<Difference>> {
    let rows = meta::run(connection, subscriptions::list()).await?;
    let others: Vec<Subscription> = rows.iter().map(subscriptions::from_row).collect::<Result<_>>()?;
    let mut all = Vec::new();
    for table in &schema.tables {
        let other = others.iter().find(|other| {
            other.schema.name != schema.name && other.schema.tables.iter().any(|one| one.name == table.name)
        });
        let problem = match (other, known.get(&table.name)) {
            (Some(other), _) => format!("belongs to the scope \"{}\" already", other.schema.name),
            (None, Some(found)) if found.role != LEAF_ROLE => {
                "belongs to a scope of this database's own hub".to_owned()
            }
            _ => continue,
        };
        debug_assert!(!before.contains(table.name.as_str()));
        let problem = format!("{problem}; at a leaf a table belongs to one scope of one hub");
        all.push(Difference { field: table.name.clone(), problem });
    }
    Ok(all)
}

/// In what the tables that exist do not fit. Tables that were subscribed before may lack columns.
fn misfits(
    schema: &ScopeSchema,
    found: &BTreeMap<String, CatalogTable>,
    before: &BTreeSet<&str>,
) -> Vec<Difference> {
    let mut all = Vec::new();
    for table in &schema.tables {
        if let Some(catalog) = found.get(&table.name) {
            all.extend(fit::differences(table, catalog, before.contains(table.name.as_str())));
            continue;
        }
        for key in &table.foreign_keys {
            let Some(parent) = schema.table(key.referenced_table) else { continue };
            let Some(catalog) = found.get(&parent.name) else { continue };
            let columns = key.referenced_columns.iter().filter_map(|id| parent.column(*id));
            let names: Vec<_> = columns.map(|column| column.name.clone()).collect();
            all.extend(fit::missing_unique(parent, catalog, &names));
        }
    }
    all
}

/// What makes them, each with the name of its table.
fn missing_tables_and_columns(
    schema: &ScopeSchema,
    found: &BTreeMap<String, CatalogTable>,
) -> Vec<(String, String)> {
    let of = |table: &TableSchema, statement| (table.name.clone(), statement);
    let missing = || schema.tables.iter().filter(|table| !found.contains_key(&table.name));
    let mut all: Vec<_> = missing().map(|table| of(table, create::create_table(table))).collect();
    for table in &schema.tables {
        let Some(catalog) = found.get(&table.name) else { continue };
        let absent = table.columns.iter().filter(|column| catalog.column(&column.name).is_none());
        all.extend(absent.map(|column| of(table, create::add_column(table, column))));
    }
    for table in missing() {
        all.extend(create::add_foreign_keys(schema, table).into_iter().map(|key| of(table, key)));
    }
    all
}

/// PostgreSQL does not take a table as another database has it: a column `xmin`, a default that is no value of the
/// column's type, UNIQUE over json. Its own sentence says it best.
fn refused(schema: &ScopeSchema, table: &str, error: sqlx::Error) -> SyncError {
    // Of data, constraints, syntax and names, and limits: what the statement itself is about.
    let code = error.as_database_error().and_then(|database| database.code()).unwrap_or_default();
    let is_about_it = ["22", "23", "42", "54"].iter().any(|class| code.starts_with(class));
    if !is_about_it || errors::is_forbidden(&error) {
        return errors::database(error);
    }
    let problem = format!("PostgreSQL can't make it as the hub has it: {}", errors::message(&error));
    fit::mismatch(schema, &[Difference { field: table.to_owned(), problem }])
}

/// Puts a table under tracking where its rows go up; rows that are there become dirty, born here. Answers whether its
/// tracking was not as it should have been, so that changes may have come and gone that nobody has seen.
async fn provision_table(
    connection: &mut PgConnection,
    table: &TableSchema,
    catalog: &CatalogTable,
    known: Option<&Registered>,
    may_hold_rows: bool,
) -> Result<bool> {
    let tracks = table.direction.uploads();
    let mut missed = known.is_some_and(|known| known.difference(catalog).is_some());
    if known.is_some_and(|known| known.tracks == tracks && !missed) {
        return Ok(false);
    }
    // It was downloaded only: what it holds came from the hub, and what was edited here goes nowhere.
    let claimed = !missed && known.is_some_and(|known| !known.tracks);
    let id = match known {
        Some(known) => {
            // Changes that are not to be uploaded any more: the download that replaces them is to keep them in the
            // conflict log.
            missed |= known.tracks && !tracks && flag(connection, &statements::any_pending(known.id)).await?;
            drop_tracking(connection, known.id, Some(catalog)).await?;
            known.id
        }
        None => next_table(connection).await?,
    };
    if tracks {
        let mut all = provisioning(id, catalog, Role::Leaf);
        all.extend(statements::create_dirty(id, catalog));
        if may_hold_rows && !claimed {
            all.push(statements::mark_all_born(id, catalog));
        }
        for statement in &all {
            run(connection, statement).await.map_err(errors::database)?;
        }
    }
    let columns = serde_json::to_string(&LeafDocument { tracks }).map_err(SyncError::internal)?;
    let provisioned = Provisioned::read(connection, catalog.oid).await?;
    let provisioned = serde_json::to_string(&provisioned).map_err(SyncError::internal)?;
    sqlx::query(include_str!("../sql/save_table.sql"))
        .bind(i64::from(id.0))
        .bind(&catalog.schema)
        .bind(&catalog.name)
        .bind(LEAF_ROLE)
        .bind(columns)
        .bind(provisioned)
        .bind(0_i64)
        .bind(0_i64)
        .bind(0_i64)
        .execute(connection)
        .await
        .map_err(errors::database)?;
    Ok(missed)
}

/// Gives what is pending in a table a tick that was never uploaded.
async fn give_new_ticks(connection: &mut PgConnection, id: TableId, catalog: &CatalogTable) -> Result<()> {
    let fold = statements::fold(id, catalog.key_columns().len());
    for statement in [fold, statements::give_new_ticks(id)] {
        run(connection, &statement).await.map_err(errors::database)?;
    }
    Ok(())
}

/// Draws the number of a new table; none is ever used again.
async fn next_table(connection: &mut PgConnection) -> Result<TableId> {
    let number: i64 = sqlx::query_scalar(
        "UPDATE syncline.state SET next_table = next_table + 1 WHERE id = 1 RETURNING next_table - 1",
    )
    .fetch_one(connection)
    .await
    .map_err(errors::database)?;
    Ok(TableId(u32::try_from(number).map_err(SyncError::internal)?))
}

async fn drop_tracking(
    connection: &mut PgConnection,
    id: TableId,
    catalog: Option<&CatalogTable>,
) -> Result<()> {
    for statement in tracking::drop_all(id, catalog) {
        run(connection, &statement).await.map_err(errors::database)?;
    }
    Ok(())
}

async fn unprovision_table(connection: &mut PgConnection, table: &Registered) -> Result<()> {
    let catalog = catalog::load(connection, &[table.provisioned.oid]).await?.pop();
    drop_tracking(connection, table.id, catalog.as_ref()).await?;
    sqlx::query("DELETE FROM syncline.tables WHERE id = $1")
        .bind(i64::from(table.id.0))
        .execute(connection)
        .await
        .map(drop)
        .map_err(errors::database)
}

/// Leaves a scope. See [`crate::store::LeafStore::unsubscribe`].
pub(super) async fn unsubscribe(database: &PostgresDatabase, scope: &ScopeName) -> Result<bool> {
    repeat(|| try_unsubscribe(database, scope)).await
}

async fn try_unsubscribe(database: &PostgresDatabase, scope: &ScopeName) -> Result<bool> {
    let mut transaction = database.begin_provisioning(None).await?;
    if !is_there(&mut transaction).await? {
        return Ok(false);
    }
    lock_schema(&mut transaction).await?;
    let Some(stored) = load_within(&mut transaction, scope).await? else { return Ok(false) };
    let known = registered(&mut transaction).await?;
    for table in &stored.schema.tables {
        if let Some(table) = known.get(&table.name).filter(|table| table.role == LEAF_ROLE) {
            unprovision_table(&mut transaction, table).await?;
        }
    }
    meta::run(&mut transaction, subscriptions::delete(scope)).await?;
    let unused: bool = sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT FROM syncline.subscriptions) AND NOT EXISTS (SELECT FROM syncline.scopes) \
         AND NOT EXISTS (SELECT FROM syncline.tables)",
    )
    .fetch_one(&mut *transaction)
    .await
    .map_err(errors::database)?;
    if unused {
        run(&mut transaction, "DROP SCHEMA syncline CASCADE").await.map_err(errors::database)?;
    }
    transaction.commit().await.map_err(errors::commit)?;
    Ok(true)
}
