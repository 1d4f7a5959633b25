//! The end of an apply: the log entries of its transaction become records, and what is known, found and done is stored
//! with them.
//!
//! Nothing is judged in triggers. The entries say which rows this transaction touched, by whatever way: those that came
//! in are the sender's (`via`), and its very own (`origin`: it needn't hear of them) only where the row is now just
//! what came in and nothing else touched it; all others are this database's own changes.

use rusqlite::types::ValueRef;
use syncline::error::Result;
use syncline::knowledge::{Clock, Knowledge};

use super::apply::Upload;
use super::apply_rows::UploadRows;
use super::enumerate::owned;
use super::errors::DatabaseResult as _;
use super::incoming::{self, Fate};
use super::plan::TablePlan;
use super::side_effects::check_key;
use super::types::as_ref;
use super::{fold, meta, state, statements};
use crate::dialect::meta::{applies, leaves, row_errors};
use crate::replica::ApplyResult;
use crate::store::ApplyReport;

/// Stores everything; what is left to do is to commit.
pub(super) fn finish(upload: &Upload<'_>, rows: &mut UploadRows<'_>) -> Result<ApplyReport> {
    let (job, connection) = (upload.job, rows.connection);
    rows.quiet.end(connection)?;
    for plan in rows.plans.values() {
        harvest(rows, plan)?;
    }
    // What is left are logs of tables that are not in the scope: changes of this database's own, by its triggers.
    fold::rest(connection)?;
    let scope = &job.scope.schema.name;
    meta::run(connection, &row_errors::forget(job.session, scope, job.leaf))?;
    meta::run(connection, &applies::forget(job.session, job.scope.id, job.leaf))?;
    for (ordinal, error) in rows.errors.iter().enumerate() {
        // Bounded by ROW_ERRORS_MAX.
        let ordinal = ordinal as i64;
        meta::run(connection, &row_errors::insert(job.session, ordinal, scope, job.leaf, rows.now, error)?)?;
    }
    let clock = leaf_clock(upload, rows);
    meta::run(connection, &leaves::applied(job.scope.id, job.leaf, &clock, job.upload_mark)?)?;
    state::note_durable(connection)?;
    let result = ApplyResult {
        upserts: rows.counts.upserts,
        deletes: rows.counts.deletes,
        unchanged: rows.counts.unchanged,
        conflicts: rows.counts.conflicts,
        row_errors: rows.errors.len() as u64,
        upload_mark: job.upload_mark,
        committed_at: rows.now,
    };
    meta::run(connection, &applies::finish(job.session, &result)?)?;
    Ok(ApplyReport { result, applied_now: true })
}

/// What the hub knows of the leaf's ticks now: its clock, keys that failed excepted with what was known of them before.
fn leaf_clock(upload: &Upload<'_>, rows: &UploadRows<'_>) -> Knowledge {
    let leaf = upload.job.leaf;
    let old = &rows.leaf.clock;
    let new = old
        .clock(leaf)
        .map_or_else(|| upload.job.leaf_clock.clone(), |clock| clock.merge(&upload.job.leaf_clock));
    // Keys that failed earlier and did not come again are the leaf's no more.
    let mut clock = Knowledge::from_clocks([(leaf, new)].into());
    for error in &rows.errors {
        let before: Clock = old.clocks_for(&error.row).get(&leaf).cloned().unwrap_or_else(nothing);
        clock.except(error.row.clone(), [(leaf, before)].into());
    }
    clock
}

fn nothing() -> Clock {
    Clock::up_to(syncline::ids::Tick(0))
}

fn harvest(rows: &UploadRows<'_>, plan: &TablePlan) -> Result<()> {
    let connection = rows.connection;
    let columns = plan.key_columns();
    if fold::any_entries(connection, [plan.id])? {
        let mut entries = connection.prepare_cached(&statements::log_by_key(plan.id, columns)).db()?;
        let mut found = entries.raw_query();
        while let Some(entry) = found.next().db()? {
            check_key(plan, entry)?;
            let key = owned(entry, columns)?;
            let entries: i64 = entry.get(columns).db()?;
            let logged_at: i64 = entry.get(columns + 1).db()?;
            let values = key.iter().map(ValueRef::from);
            let bytes = plan.key_bytes(values.clone())?;
            match incoming::get(connection, plan.id, &bytes)? {
                Some((fate, changed_at)) if fate.is_senders() => {
                    let exact = fate == Fate::Written && entries == 1;
                    rows.record(plan, values, rows.leaf_number, exact, changed_at)?;
                }
                _ => rows.record(plan, values, 0, false, logged_at)?,
            }
        }
        drop(found);
        drop(entries);
        connection.execute(&statements::clear_log(plan.id), []).db()?;
    }
    // Of these no trigger told: the sender hears what became of its row all the same.
    incoming::each(
        connection,
        plan.id,
        &[Fate::Swallowed, Fate::Tombstone, Fate::Kept],
        |key, _, changed_at| {
            let values = plan.parse_key(&key)?;
            let bound = plan.bind_key(&values)?;
            rows.record(plan, bound.iter().map(as_ref), rows.leaf_number, false, changed_at)
        },
    )
}
