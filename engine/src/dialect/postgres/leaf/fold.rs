//! The log of a leaf's table, folded into its dirty records.

use sqlx::{PgConnection, Row as _};
use syncline::error::Result;
use syncline::ids::TableId;
use syncline::schema::ScopeSchema;

use super::{statements, tables};
use crate::dialect::postgres::fold::advisory_number;
use crate::dialect::postgres::provision::{advisory_lock, repeat};
use crate::dialect::postgres::statements::{query, run};
use crate::dialect::postgres::{PostgresDatabase, errors, give_way};

/// Folds the logs of the scope's tables, one table per transaction, one folder of a table at a time.
///
/// Only our own tables are read and written: no lock on the application's is needed.
pub(super) async fn fold_all(database: &PostgresDatabase, schema: &ScopeSchema) -> Result<()> {
    let mut connection = database.pool.acquire().await.map_err(errors::database)?;
    let ids = tables::tracked_ids(&mut connection, schema).await?;
    drop(connection);
    for (id, keys) in ids {
        repeat(|| fold_table(database, id, keys)).await?;
    }
    Ok(())
}

async fn fold_table(database: &PostgresDatabase, id: TableId, keys: usize) -> Result<()> {
    let mut transaction = database.begin_durable().await?;
    advisory_lock(&mut transaction, advisory_number(id)?).await?;
    if flag(&mut transaction, &statements::log_is_empty(id)).await? {
        return Ok(());
    }
    give_way(&mut transaction).await?;
    run(&mut transaction, &statements::fold(id, keys)).await.map_err(errors::database)?;
    transaction.commit().await.map_err(errors::commit)
}

/// Local changes of a table that wait; entries that are not folded yet count each.
pub(super) async fn count_pending(connection: &mut PgConnection, id: TableId) -> Result<u64> {
    number(connection, &statements::count_pending(id)).await.map(i64::unsigned_abs)
}

/// The answer of a statement that says yes or no.
pub(super) async fn flag(connection: &mut PgConnection, sql: &str) -> Result<bool> {
    let row = query(sql).fetch_one(connection).await.map_err(errors::database)?;
    row.try_get(0).map_err(errors::database)
}

/// The answer of a statement that counts.
pub(super) async fn number(connection: &mut PgConnection, sql: &str) -> Result<i64> {
    let row = query(sql).fetch_one(connection).await.map_err(errors::database)?;
    row.try_get(0).map_err(errors::database)
}
