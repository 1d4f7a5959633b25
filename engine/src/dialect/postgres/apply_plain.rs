//! The short way through an apply: rows are written first and judged by what their records then say.
//!
//! Most uploads are plain from the first row to the last: births of keys that the hub never had, and edits and deletes
//! of rows whose version the leaf knows. Their writes lock them, and their records are written by the one statement
//! that judges them, so that none is locked, read or compared beside that. Everything stands under a savepoint: as soon
//! as one row is not plain, or can't be written, all of it is taken back, and the upload goes the long way (`lock`,
//! `judge`, `write`), which knows of conflicts and errors.
//!
//! **Invariant:** what goes this way ends as it would have the long way. The rules are those of the long way: the rows
//! are locked (by being written) before their versions are read, log first and records after it, so that no fold hides
//! an entry; inserts are judged after they are made, so that a key which was born and deleted meanwhile is noticed; a
//! row that was not there, was there against expectation, or was swallowed by a trigger shows in the counts.

use sqlx::{PgConnection, Row as _};
use syncline::error::Result;

use super::apply::Applier;
use super::errors::{self, Class};
use super::statements::applying::plain::{Staged, Written};
use super::{apply_write, statements};

/// What was written the short way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) upserts: u64,
    pub(super) deletes: u64,
}

/// Writes and records all staged rows, if they are plain. `None`: nothing has happened.
pub(super) async fn write(connection: &mut PgConnection, applier: &Applier<'_>) -> Result<Option<Plain>> {
    if !applier.staged().into_iter().all(|at| may_be_plain(applier, at)) {
        return Ok(None);
    }
    statements::run(connection, "SAVEPOINT syncline_plain").await.map_err(errors::database)?;
    let attempt = attempt(connection, applier).await;
    match attempt {
        Ok(true) => {
            statements::run(connection, "RELEASE SAVEPOINT syncline_plain")
                .await
                .map_err(errors::database)?;
            apply_write::advance_sequences(connection, applier).await?;
            Ok(Some(counted(applier)))
        }
        Err(error) if !matches!(errors::classify(&error), Class::Row(_)) => Err(errors::database(error)),
        // A row can't be written, or is to be judged.
        Ok(false) | Err(_) => {
            let back = "ROLLBACK TO SAVEPOINT syncline_plain; RELEASE SAVEPOINT syncline_plain";
            statements::run(connection, back).await.map_err(errors::database)?;
            Ok(None)
        }
    }
}

/// Whether a table's rows can be plain by what is known of them already.
fn may_be_plain(applier: &Applier<'_>, at: usize) -> bool {
    let (table, applying) = (&applier.tables[at], applier.applying(at));
    let (_, _, baseline_changed_at) = applying.baseline;
    table.all_converted
        // What else goes along is judged first.
        && !(table.staged.removals > 0 && applier.cascades.any(at))
        && table.excepted.is_empty()
        && applier.keep(at).is_none()
        && !(table.staged.updates > 0 && applying.updates_in_part())
        // `changed_at` never goes back: where it could, the long way compares it with the baseline's.
        && (table.staged.present() == 0 || table.present_since > baseline_changed_at)
}

/// Answers whether all rows were plain and are written and recorded.
async fn attempt(connection: &mut PgConnection, applier: &Applier<'_>) -> sqlx::Result<bool> {
    let tables = applier.staged();
    for at in &tables {
        let (applying, staged) = (applier.applying(*at), applier.tables[*at].staged);
        let upserts = [
            (staged.updates, applying.update_undisputed(staged)),
            (staged.births, applying.insert_undisputed(staged)),
        ];
        for (rows, sql) in upserts {
            if rows > 0 && !touches(connection, &sql, rows).await? {
                return Ok(false);
            }
        }
    }
    for at in tables.iter().rev() {
        let (applying, staged) = (applier.applying(*at), applier.tables[*at].staged);
        let delete = applying.delete_undisputed(staged);
        if staged.removals > 0 && !touches(connection, &delete, staged.removals).await? {
            return Ok(false);
        }
    }
    for at in tables {
        if !record(connection, applier, at).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Judges and records the rows of a table, once those of all tables are written.
async fn record(connection: &mut PgConnection, applier: &Applier<'_>, at: usize) -> sqlx::Result<bool> {
    let (applying, staged) = (applier.applying(at), applier.tables[at].staged);
    let marked = statements::query_once(&applying.marked()).fetch_one(&mut *connection).await?;
    let (entries, disputed, truncated, before): (i64, bool, bool, bool) =
        (marked.try_get(0)?, marked.try_get(1)?, marked.try_get(2)?, marked.try_get(3)?);
    if disputed || truncated {
        return Ok(false);
    }
    let written = written(entries, before, staged);
    let mut recorded = 0;
    if staged.present() > 0 {
        recorded = statements::run(connection, &applying.renew_undisputed(written)).await?;
    }
    if recorded < staged.rows().unsigned_abs() {
        let others = applying.record_undisputed(staged, written, recorded > 0);
        recorded += statements::run(connection, &others).await?;
    }
    if recorded != staged.rows().unsigned_abs() {
        return Ok(false);
    }
    statements::run(connection, &applying.drop_entries_undisputed(written)).await?;
    Ok(true)
}

/// **Invariant:** a value that the table does not hold as it was sent is never taken for the sender's own.
///
/// Each row was written by one of our statements, and so has an entry. If there are no more entries than rows, each
/// has that one alone: no trigger and no cascade touched a row once more, and none touched another. What is left are
/// triggers that change a row before it is written; what a column's type makes of a value, the staged row says itself.
const fn written(entries: i64, triggers_before: bool, staged: Staged) -> Written {
    if entries == staged.rows() && !triggers_before { Written::AsSent } else { Written::Perhaps }
}

async fn touches(connection: &mut PgConnection, sql: &str, rows: i64) -> sqlx::Result<bool> {
    Ok(statements::run(connection, sql).await? == rows.unsigned_abs())
}

fn counted(applier: &Applier<'_>) -> Plain {
    applier.staged().into_iter().fold(Plain::default(), |sum, at| {
        let staged = applier.tables[at].staged;
        Plain {
            upserts: sum.upserts + (staged.updates + staged.births).unsigned_abs(),
            deletes: sum.deletes + staged.removals.unsigned_abs(),
        }
    })
}
