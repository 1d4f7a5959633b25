//! Staged cells in the base table's types. Rows that don't fit are row errors.

use bytes::Bytes;
use sqlx::{PgConnection, Row as _};
use syncline::batch::Operation;
use syncline::conflict::RowErrorReason;
use syncline::error::{Result, SyncError};

use super::apply::Applier;
use super::apply_stage::add_error;
use super::apply_write::{Failure, bisect};
use super::copy::{CopyRow, CopyRows};
use super::{errors, statements};

/// Turns staged rows into the base table's types. Those that don't fit are row errors, except deletes: of them there are
/// only keys, and a row whose key the table can't hold is not in it. So a leaf that deletes the row it was refused is
/// rid of it.
pub(super) async fn convert(
    connection: &mut PgConnection,
    applier: &mut Applier<'_>,
    at: usize,
) -> Result<()> {
    let rows = applier.tables[at].rows;
    let applying = applier.applying(at);
    let mut failures =
        bisect(connection, 1, rows, &|first, last| Some(applying.convert(first, last))).await?;
    if !failures.is_empty() {
        let numbers: Vec<i64> = failures.iter().map(|failure| failure.n).collect();
        let removed = numbers_of(connection, &applying.staged_removals(&numbers)).await?;
        let sql = applying.staged_keys_of(&numbers);
        failures.retain(|failure| !removed.contains(&failure.n));
        applier.known_rows += removed.len() as u64;
        applier.tables[at].all_converted = false;
        report(connection, applier, at, &sql, &failures).await?;
    }
    refuse_other_keys(connection, applier, at).await?;
    let drop_staged = applier.applying(at).drop_staged();
    statements::run(connection, &drop_staged).await.map(drop).map_err(errors::database)
}

/// Refuses rows whose key the table would keep in another form. Such a row would come back to its sender as a second
/// one, or overwrite the row that has that form.
async fn refuse_other_keys(
    connection: &mut PgConnection,
    applier: &mut Applier<'_>,
    at: usize,
) -> Result<()> {
    let applying = applier.applying(at);
    let Some(sql) = applying.other_keys(syncline::limits::ROW_ERRORS_MAX + 1) else { return Ok(()) };
    let numbers = numbers_of(connection, &sql).await?;
    let (keys_of, drop_them) = (applying.keys_of(&numbers), applying.drop_other_keys());
    let failures: Vec<_> = numbers.iter().map(|n| other_key(*n)).collect();
    if !failures.is_empty() {
        report(connection, applier, at, &keys_of, &failures).await?;
    }
    let dropped = statements::run(connection, &drop_them).await.map_err(errors::database)?;
    if dropped > 0 {
        applier.tables[at].all_converted = false;
    }
    applier.known_rows += dropped.saturating_sub(failures.len() as u64);
    Ok(())
}

fn other_key(n: i64) -> Failure {
    let message = "the key's column would keep it in another form, which is another key elsewhere; write it in the \
                   column's own form (1.50 in a numeric(10,2))";
    Failure { n, reason: RowErrorReason::Type, message: message.to_owned() }
}

/// The numbers of rows that a query answers.
async fn numbers_of(connection: &mut PgConnection, sql: &str) -> Result<Vec<i64>> {
    let rows = statements::query_once(sql).fetch_all(connection).await.map_err(errors::database)?;
    rows.iter().map(|row| row.try_get(0).map_err(errors::database)).collect()
}

/// Notes failed rows as row errors, with the keys that `sql` reads: those that were sent, so that the sender finds its
/// rows by them and keeps them dirty, and the clock excepts what the sender will ask for.
pub(super) async fn report(
    connection: &mut PgConnection,
    applier: &mut Applier<'_>,
    at: usize,
    sql: &str,
    failures: &[Failure],
) -> Result<()> {
    let mut keys = Vec::with_capacity(failures.len());
    {
        let mut rows = CopyRows::new(statements::copy_out(connection, sql).await.map_err(errors::database)?);
        let mut row = CopyRow::new();
        while rows.next(&mut row).await? {
            let key = Bytes::copy_from_slice(row.cell(2).unwrap_or_default());
            keys.push((row.int8(0)?.unwrap_or(0), row.bool(1), key));
        }
    }
    let scope = &applier.job.scope;
    let id = applier.tables[at].tracked.id;
    let schema = scope.schema.table(id).ok_or_else(|| SyncError::internal("a table without a schema"))?;
    for failure in failures {
        let Some((_, removes, key)) = keys.iter().find(|(n, ..)| *n == failure.n) else { continue };
        let operation = if *removes { Operation::Delete } else { Operation::Upsert };
        add_error(applier, schema, key.clone(), operation, failure.reason, failure.message.clone())?;
    }
    Ok(())
}
