//! Applies a download at a leaf: all of it in one transaction with what is learned, or a transaction a batch.
//!
//! A transaction may have to begin anew: because a table that was filled by plain inserts turned out to need looking at
//! row by row, because a trigger rolled it back, or because its commit failed for a reference that leads nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::TableId;
use syncline::knowledge::RowKey;
use syncline::schema::ScopeSchema;
use tokio::runtime::Handle;

use super::apply::{Attempt, too_many_errors};
use super::connection::{Connections, WriteTransaction};
use super::errors::{DatabaseResult as _, classify, is_foreign_key_failure};
use super::leaf_rows::{DownloadRows, Setting};
use super::passes::{BlockingBatches, Refused, run_passes};
use super::plan::TablePlan;
use super::state::{self, Writing};
use super::{cascades, dangling, fold, incoming, leaf_provision, leaf_whole, meta};
use crate::dialect::meta::subscriptions;
use crate::replica::{ChangesEnd, ExceptedKey};
use crate::store::{DownloadJob, DownloadReport, DownloadSource, Subscription};

/// Applies a download. Blocks.
pub(super) fn apply(
    connections: &Arc<Connections>,
    transaction: WriteTransaction,
    subscription: &Subscription,
    job: &DownloadJob,
    handle: Handle,
    source: Arc<dyn DownloadSource>,
    rows_done: &AtomicU64,
) -> Result<DownloadReport> {
    let batches = BlockingBatches { handle: handle.clone(), source: source.clone() };
    let begin_at = if job.per_batch { subscription.batches_applied as usize } else { 0 };
    let mut download = Download {
        connections,
        transaction: &transaction,
        subscription: subscription.clone(),
        excepted_before: subscription.excepted_keys.clone(),
        resumed: begin_at > 0,
        job,
        batches: &batches,
        end: &|| handle.block_on(source.end()),
        rows_done,
        fresh: BTreeSet::new(),
        was_empty: BTreeSet::new(),
        report: DownloadReport::default(),
        noted: false,
        plans: None,
    };
    download.prepare(begin_at)?;
    let mut next = begin_at;
    while job.per_batch && batches.batch(next)?.is_some() {
        download.transact(next..next + 1, false)?;
        next += 1;
        transaction.restart()?;
    }
    download.transact(next..usize::MAX, true)?;
    Ok(download.report)
}

/// A download under way.
pub(super) struct Download<'a> {
    connections: &'a Arc<Connections>,
    transaction: &'a WriteTransaction,
    pub(super) subscription: Subscription,
    /// Rows that were excepted when this run began.
    excepted_before: Vec<ExceptedKey>,
    /// Whether an earlier run of this download has applied batches.
    resumed: bool,
    pub(super) job: &'a DownloadJob,
    pub(super) batches: &'a BlockingBatches,
    end: &'a dyn Fn() -> Result<ChangesEnd>,
    pub(super) rows_done: &'a AtomicU64,
    /// Tables that are filled by plain inserts: they were empty, and nothing needs to be looked at.
    fresh: BTreeSet<TableId>,
    /// Tables that were empty at the beginning: whatever they hold now came in, or is dirty.
    pub(super) was_empty: BTreeSet<TableId>,
    report: DownloadReport,
    /// Whether the rows that go have been noted.
    pub(super) noted: bool,
    /// The plans that were read first, and the data version of then.
    plans: Option<(i64, Arc<Plans>)>,
}

type Plans = BTreeMap<TableId, TablePlan>;

fn by_id(plans: Vec<TablePlan>) -> Arc<Plans> {
    Arc::new(plans.into_iter().map(|plan| (plan.id, plan)).collect())
}

impl Download<'_> {
    /// Before the first transaction: what an earlier run named already, and which tables are empty.
    fn prepare(&mut self, begin_at: usize) -> Result<()> {
        let connection = self.transaction.connection();
        state::check_wal(connection)?;
        incoming::clear(connection)?;
        cascades::forget(connection)?;
        let plans = leaf_provision::plans(connection, &self.subscription.schema)?;
        for index in 0..begin_at {
            for block in self.batches.batch(index)?.unwrap_or_default() {
                let Some(plan) = plans.iter().find(|plan| plan.id == block.table) else { continue };
                for row in 0..block.rows() {
                    if let Ok(key) = plan.block_key(&block, row)? {
                        incoming::put(connection, plan.id, &key.bytes, incoming::Fate::Unchanged, 0)?;
                    }
                }
            }
        }
        fold::all(connection)?;
        for (plan, table) in plans.iter().zip(&self.subscription.schema.tables) {
            let empty: bool = connection.query_row(&plan.names.is_empty(), [], |row| row.get(0)).db()?;
            let dirty = table.direction.uploads() && leaf_whole::has_dirty(connection, plan)?;
            if empty && !dirty {
                self.fresh.insert(plan.id);
            }
        }
        self.was_empty = self.fresh.clone();
        self.plans = Some((state::data_version(connection)?, by_id(plans)));
        // Kept, so that transactions that begin anew find it.
        self.transaction.try_commit().db()?;
        self.transaction.restart()
    }

    /// The plans of the tables: those that were read first, if nobody else has committed anything since. We change no
    /// table's form.
    fn plans(&self) -> Result<Arc<Plans>> {
        let connection = self.transaction.connection();
        match &self.plans {
            Some((version, plans)) if *version == state::data_version(connection)? => Ok(Arc::clone(plans)),
            _ => Ok(by_id(leaf_provision::plans(connection, &self.subscription.schema)?)),
        }
    }

    /// Applies some batches in one transaction, which is begun already, and commits it.
    fn transact(&mut self, batches: Range<usize>, last: bool) -> Result<()> {
        let mut refused = Refused::new();
        let mut fresh = self.fresh.clone();
        let mut defer_references = true;
        let rows_before = self.rows_done.load(Ordering::Relaxed);
        loop {
            let setting = Setting {
                batches: batches.clone(),
                fresh: fresh.clone(),
                refused: refused.clone(),
                defer_references,
            };
            let again = match self.attempt(&setting, last)? {
                Attempt::Done(applied) => {
                    self.subscription = applied.subscription;
                    self.noted = applied.noted;
                    self.report.upserts += applied.report.upserts;
                    self.report.deletes += applied.report.deletes;
                    self.report.conflicts += applied.report.conflicts;
                    self.report.row_errors.extend(applied.report.row_errors);
                    self.report.end = applied.report.end;
                    let first = self.report.row_errors.first();
                    let first =
                        first.map(|error| (error.table_name.clone(), error.reason, error.message.clone()));
                    return too_many_errors(&self.subscription.schema, self.report.row_errors.len(), first);
                }
                Attempt::Again(again) => again,
            };
            if !fresh.is_empty() {
                // Row by row from now on: only then is it known which rows were written.
                fresh.clear();
                self.fresh.clear();
            } else if again.is_empty() {
                if !defer_references {
                    return Err(SyncError::new(
                        ErrorReason::RowErrors,
                        "a reference leads nowhere once the download is applied, and no row of it is to blame; mend \
                         the local triggers or data",
                    ));
                }
                defer_references = false;
            }
            refused.extend(again);
            self.rows_done.store(rows_before, Ordering::Relaxed);
            self.transaction.restart()?;
        }
    }

    fn attempt(&self, setting: &Setting, last: bool) -> Result<Attempt<Applied>> {
        let connection = self.transaction.connection();
        // Entries since the last fold are dirty rows: they must meet what comes in.
        fold::all(connection)?;
        state::set_writing(connection, Writing::Download)?;
        dangling::defer_references(connection, setting.defer_references)?;
        let plans = self.plans()?;
        let mut rows = DownloadRows::new(self, connection, &plans, setting, last)?;
        if let Some(refused) = run_passes(connection, &mut rows)? {
            return Ok(Attempt::Again(refused));
        }
        rows.quiet.end(connection)?;
        let applied = self.finish(rows, setting, last)?;
        state::set_writing(connection, Writing::Nothing)?;
        match self.transaction.try_commit() {
            Ok(()) => Ok(Attempt::Done(applied)),
            // Keys of rows that were inserted plainly are not known: looked for in the next attempt.
            Err(error) if is_foreign_key_failure(&error) && !setting.fresh.is_empty() => {
                Ok(Attempt::Again(Refused::new()))
            }
            Err(error) if is_foreign_key_failure(&error) => {
                Ok(Attempt::Again(dangling::to_blame(self.connections, connection, &plans, None)?))
            }
            Err(error) => Err(classify(&error)),
        }
    }

    /// Stores what is known now, in the same transaction.
    fn finish(&self, rows: DownloadRows<'_>, setting: &Setting, last: bool) -> Result<Applied> {
        let connection = self.transaction.connection();
        let mut subscription = self.subscription.clone();
        let noted = rows.cascades.noted;
        rows.cascades.remove(last)?;
        let mut report = rows.report;
        check_errors(&subscription.schema, &report)?;
        subscription.excepted_keys = self.excepted_keys(&report, setting, last)?;
        if last {
            let end = (self.end)()?;
            subscription.knowledge = end.learned.clone();
            subscription.download_mark = Some(end.download_mark);
            subscription.batches_applied = end.batches;
            subscription.applied = true;
            subscription.reinitialize = false;
            subscription.diverged = false;
            subscription.untracked_first.clear();
            report.end = Some(end);
        } else {
            subscription.batches_applied = u32::try_from(setting.batches.end).unwrap_or(u32::MAX);
        }
        meta::run(connection, &subscriptions::save(&subscription)?)?;
        state::note_durable(connection)?;
        Ok(Applied { subscription, report, noted })
    }

    /// Keys that failed keep what was known of them before. Keys that were applied are excepted no more once the download
    /// has ended.
    ///
    /// Invariant: what is stored as known covers a row only if the leaf has it, or the row is excepted. Where a download is
    /// applied batch by batch, rows that were excepted before stay so until its end, which it may never reach; and so do
    /// those that an earlier run of it could not apply, or may have applied, since they come no more.
    fn excepted_keys(
        &self,
        report: &DownloadReport,
        setting: &Setting,
        last: bool,
    ) -> Result<Vec<ExceptedKey>> {
        let failed = self.report.row_errors.iter().chain(&report.row_errors);
        let failed: BTreeSet<&RowKey> = failed.map(|error| &error.row).collect();
        let mut kept = Vec::new();
        for excepted in &self.excepted_before {
            if failed.contains(&excepted.row)
                || !last
                || self.resumed
                || !self.came(&excepted.row, setting)?
            {
                kept.push(excepted.clone());
            }
        }
        let known: BTreeSet<RowKey> = kept.iter().map(|excepted| excepted.row.clone()).collect();
        let knowledge_before = &self.subscription.knowledge;
        kept.extend(
            failed
                .into_iter()
                .filter(|row| !known.contains(row))
                .map(|row| ExceptedKey { row: row.clone(), knowledge_before: knowledge_before.clone() }),
        );
        Ok(kept)
    }

    /// Whether the download has named a row.
    fn came(&self, row: &RowKey, setting: &Setting) -> Result<bool> {
        Ok(setting.fresh.contains(&row.table)
            || incoming::get(self.transaction.connection(), row.table, &row.key)?.is_some())
    }
}

/// What a transaction of a download did.
struct Applied {
    subscription: Subscription,
    report: DownloadReport,
    noted: bool,
}

fn check_errors(schema: &ScopeSchema, report: &DownloadReport) -> Result<()> {
    let first = report.row_errors.first();
    let first = first.map(|error| (error.table_name.clone(), error.reason, error.message.clone()));
    too_many_errors(schema, report.row_errors.len(), first)
}
