//! Mending what passes alone don't: swapped unique values, and references in a cycle.
//!
//! Under a savepoint, rows that failed over a unique value are parked, and rows that failed over a reference inserted
//! without it; then all of them are written as they came. If some still fail, everything since the savepoint is taken
//! back (a parked row must not stay parked), and the others are tried without them.

use sqlx::PgConnection;
use syncline::conflict::RowErrorReason;
use syncline::error::Result;

use super::apply::Applier;
use super::apply_write::{Failure, bisect, count};
use super::errors::{self, Class};
use super::statements;
use super::statements::applying::{Write, status};

/// What failed, table by table.
type Failed = Vec<(usize, Vec<Failure>)>;

/// Mends what can be mended. Answers what can't; the rows' states say which is which.
pub(super) async fn mend(
    connection: &mut PgConnection,
    applier: &Applier<'_>,
    failed: Failed,
) -> Result<Failed> {
    let mendable =
        |failure: &Failure| matches!(failure.reason, RowErrorReason::Unique | RowErrorReason::ForeignKey);
    let mut open = failed;
    let mut hopeless: Failed = open.iter().map(|(at, _)| (*at, Vec::new())).collect();
    for ((_, failures), (_, given_up)) in open.iter_mut().zip(&mut hopeless) {
        given_up.extend(failures.iter().filter(|failure| !mendable(failure)).cloned());
        failures.retain(|failure| mendable(failure));
    }
    set_status(connection, applier, &hopeless, status::ERROR).await?;
    while count(&open) > 0 {
        statements::run(connection, "SAVEPOINT syncline_mend").await.map_err(errors::database)?;
        let still = try_all(connection, applier, &open).await?;
        if count(&still) == 0 {
            statements::run(connection, "RELEASE SAVEPOINT syncline_mend").await.map_err(errors::database)?;
            set_status(connection, applier, &open, status::WRITE).await?;
            break;
        }
        statements::run(connection, "ROLLBACK TO SAVEPOINT syncline_mend; RELEASE SAVEPOINT syncline_mend")
            .await
            .map_err(errors::database)?;
        set_status(connection, applier, &still, status::ERROR).await?;
        for (((_, failures), (_, given_up)), (_, found)) in open.iter_mut().zip(&mut hopeless).zip(still) {
            failures.retain(|failure| found.iter().all(|other| other.n != failure.n));
            given_up.extend(found);
        }
    }
    Ok(hopeless)
}

/// Parks, inserts without references, then writes all rows that failed as they came. Answers those that fail again.
async fn try_all(connection: &mut PgConnection, applier: &Applier<'_>, open: &Failed) -> Result<Failed> {
    let mut still: Failed = open.iter().map(|(at, _)| (*at, Vec::new())).collect();
    for (at, failures) in open {
        if failures.iter().any(|failure| failure.reason == RowErrorReason::Unique) {
            park(connection, applier, *at).await?;
        }
    }
    for (at, failures) in &mut still {
        let (applying, rows) = (applier.applying(*at), applier.tables[*at].rows);
        let without = |first, last| applying.insert_without_references(first, last);
        failures.extend(bisect(connection, 1, rows, &without).await?);
        statements::run(connection, &applying.look_again()).await.map_err(errors::database)?;
    }
    for what in [Write::Update, Write::Insert, Write::Delete] {
        for (at, failures) in &mut still {
            let (applying, rows) = (applier.applying(*at), applier.tables[*at].rows);
            let write = |first, last| applying.write(what, status::FAILED, first, last);
            for failure in bisect(connection, 1, rows, &write).await? {
                if failures.iter().all(|found| found.n != failure.n) {
                    failures.push(failure);
                }
            }
        }
    }
    Ok(still)
}

/// Parks a table's rows; where that fails (something refers to them), they are tried as they stand.
async fn park(connection: &mut PgConnection, applier: &Applier<'_>, at: usize) -> Result<()> {
    statements::run(connection, "SAVEPOINT syncline_park").await.map_err(errors::database)?;
    for statement in applier.applying(at).park() {
        if let Err(error) = statements::run(connection, &statement).await {
            let Class::Row(_) = errors::classify(&error) else { return Err(errors::database(error)) };
            let back = "ROLLBACK TO SAVEPOINT syncline_park";
            statements::run(connection, back).await.map_err(errors::database)?;
            break;
        }
    }
    statements::run(connection, "RELEASE SAVEPOINT syncline_park").await.map(drop).map_err(errors::database)
}

async fn set_status(
    connection: &mut PgConnection,
    applier: &Applier<'_>,
    rows: &Failed,
    status: &str,
) -> Result<()> {
    for (at, failures) in rows.iter().filter(|(_, failures)| !failures.is_empty()) {
        let numbers: Vec<i64> = failures.iter().map(|failure| failure.n).collect();
        let states = vec![status.to_owned(); numbers.len()];
        statements::query_once(&applier.applying(*at).set_status())
            .bind(numbers)
            .bind(states)
            .execute(&mut *connection)
            .await
            .map_err(errors::database)?;
    }
    Ok(())
}
