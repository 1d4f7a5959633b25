//! Writing an upload: set statements, upserts parents first, then deletes children first. A statement that a row breaks
//! is halved until the row is found; rows that failed are tried again once the others are there.

use sqlx::{PgConnection, Row as _};
use syncline::conflict::RowErrorReason;
use syncline::error::{ErrorReason, Result, SyncError};

use super::apply::Applier;
use super::apply_convert::report;
use super::errors::{self, Class};
use super::statements::applying::{Applying, Write, describe, status};
use super::{apply_along, apply_mend, statements};

/// Passes over rows that failed: each is worth it only if the one before mended something.
const PASSES_MAX: usize = 64;

/// A row that a statement failed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) n: i64,
    pub(super) reason: RowErrorReason,
    pub(super) message: String,
}

/// Writes all rows that are to be written. What can't be is noted as row errors.
pub(super) async fn write(connection: &mut PgConnection, applier: &mut Applier<'_>) -> Result<()> {
    let mut failed = pass(connection, applier, status::WRITE).await?;
    for _ in 0..PASSES_MAX {
        let before = count(&failed);
        if before == 0 {
            break;
        }
        failed = pass(connection, applier, status::FAILED).await?;
        if count(&failed) == before {
            break;
        }
    }
    if count(&failed) > 0 {
        failed = apply_mend::mend(connection, applier, failed).await?;
    }
    for (at, failures) in failed.iter().filter(|(_, failures)| !failures.is_empty()) {
        let numbers: Vec<i64> = failures.iter().map(|failure| failure.n).collect();
        let keys_of = applier.applying(*at).keys_of(&numbers);
        report(connection, applier, *at, &keys_of, failures).await?;
        // A conflict that the incoming row was to win did not come to that: the hub's row stands, and the leaf's comes
        // again with the next session. Entries were written before the rows, so that both sides of them are there.
        let (session, table) = (applier.job.session, i64::from(applier.tables[*at].tracked.id.0));
        let taken_back = statements::query_once(&applier.applying(*at).take_back_conflicts())
            .bind(session.as_bytes())
            .bind(table)
            .bind(&numbers)
            .execute(&mut *connection)
            .await
            .map_err(errors::database)?;
        applier.conflicts = applier.conflicts.saturating_sub(taken_back.rows_affected());
    }
    apply_along::log(connection, applier).await?;
    advance_sequences(connection, applier).await?;
    for at in applier.staged() {
        let judged_otherwise: bool =
            statements::query_once(&applier.applying(at).judged_by_another_version())
                .fetch_one(&mut *connection)
                .await
                .and_then(|row| row.try_get(0))
                .map_err(errors::database)?;
        if judged_otherwise {
            return Err(begin_anew());
        }
    }
    Ok(())
}

/// Moves sequences past what came in.
pub(super) async fn advance_sequences(connection: &mut PgConnection, applier: &Applier<'_>) -> Result<()> {
    for at in applier.staged() {
        for statement in applier.applying(at).advance_sequences() {
            statements::run(connection, &statement).await.map_err(errors::database)?;
        }
    }
    Ok(())
}

/// Rows that failed, in all.
pub(super) fn count(failed: &[(usize, Vec<Failure>)]) -> usize {
    failed.iter().map(|(_, failures)| failures.len()).sum()
}

/// Somebody wrote a key between its judgement and our insert: the whole apply is done again.
fn begin_anew() -> SyncError {
    SyncError::new(ErrorReason::LockTimeout, "another transaction wrote the same rows; try again")
}

/// Writes all rows of this status. Answers those that failed, table by table.
async fn pass(
    connection: &mut PgConnection,
    applier: &Applier<'_>,
    status: &str,
) -> Result<Vec<(usize, Vec<Failure>)>> {
    let tables = applier.staged();
    let mut failed: Vec<(usize, Vec<Failure>)> = tables.iter().map(|at| (*at, Vec::new())).collect();
    for (at, failures) in &mut failed {
        for what in [Write::Update, Write::Insert] {
            failures.extend(write_rows(connection, applier, *at, what, status).await?);
        }
    }
    apply_along::judge(connection, applier, status).await?;
    for (at, failures) in failed.iter_mut().rev() {
        failures.extend(write_rows(connection, applier, *at, Write::Delete, status).await?);
    }
    for (at, failures) in &failed {
        let numbers: Vec<i64> = failures.iter().map(|failure| failure.n).collect();
        if numbers.is_empty() && status == status::WRITE {
            continue;
        }
        statements::query_once(&applier.applying(*at).set_failed())
            .bind(numbers)
            .execute(&mut *connection)
            .await
            .map_err(errors::database)?;
    }
    Ok(failed)
}

async fn write_rows(
    connection: &mut PgConnection,
    applier: &Applier<'_>,
    at: usize,
    what: Write,
    status: &str,
) -> Result<Vec<Failure>> {
    let applying = applier.applying(at);
    let rows = applier.tables[at].rows;
    let failures =
        bisect(connection, 1, rows, &|first, last| applying.write(what, status, first, last)).await?;
    if what == Write::Insert {
        for failure in failures.iter().filter(|failure| failure.reason == RowErrorReason::Unique) {
            if is_there(connection, &applying, failure.n).await? {
                return Err(begin_anew());
            }
        }
    }
    Ok(failures)
}

/// Whether a row that was absent when it was judged is there now: another transaction inserted it.
async fn is_there(connection: &mut PgConnection, applying: &Applying<'_>, n: i64) -> Result<bool> {
    statements::query_once(&applying.is_there(n))
        .fetch_one(connection)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(errors::database)
}

/// Runs a statement over the rows `first..=last` under a savepoint. If a row breaks it, over the halves, down to single
/// rows: those that fail alone are answered. Bounded by the logarithm of the rows for each that fails.
pub(super) async fn bisect(
    connection: &mut PgConnection,
    first: i64,
    last: i64,
    statement: &(dyn Fn(i64, i64) -> Option<String> + Sync),
) -> Result<Vec<Failure>> {
    let mut failures = Vec::new();
    let mut open = vec![(first, last)];
    while let Some((first, last)) = open.pop() {
        let Some(sql) = statement(first, last) else { continue };
        statements::run(connection, "SAVEPOINT syncline_rows").await.map_err(errors::database)?;
        let error = match statements::run(connection, &sql).await {
            Ok(_) => {
                statements::run(connection, "RELEASE SAVEPOINT syncline_rows")
                    .await
                    .map_err(errors::database)?;
                continue;
            }
            Err(error) => error,
        };
        let Class::Row(reason) = errors::classify(&error) else { return Err(errors::database(error)) };
        statements::run(connection, "ROLLBACK TO SAVEPOINT syncline_rows; RELEASE SAVEPOINT syncline_rows")
            .await
            .map_err(errors::database)?;
        if first < last {
            let middle = first + (last - first) / 2;
            // The lower half comes first.
            open.push((middle + 1, last));
            open.push((first, middle));
            continue;
        }
        let said = errors::message(&error);
        failures.push(Failure { n: first, reason, message: format!("{}: {said}", describe(reason)) });
        if failures.len() > syncline::limits::ROW_ERRORS_MAX {
            return Err(SyncError::new(
                ErrorReason::RowErrors,
                "too many rows can't be applied; mend them and try again",
            ));
        }
    }
    Ok(failures)
}
