//! Applies an upload at a hub: in one transaction, judged row by row, exactly once.
//!
//! The transaction may have to begin anew (a trigger rolled it back, or its commit failed for a reference that leads
//! nowhere); then the rows that were to blame are left out as row errors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syncline::conflict::RowErrorReason;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::TableId;
use syncline::knowledge::Knowledge;

use super::apply_finish::finish;
use super::apply_rows::UploadRows;
use super::connection::{Connections, WriteTransaction};
use super::errors::{classify, is_foreign_key_failure};
use super::incoming;
use super::passes::{BlockingBatches, Refused, run_passes};
use super::plan::TablePlan;
use super::state::{self, Writing};
use super::{dangling, fold, meta, snapshot};
use crate::dialect::meta::{applies, leaves, sessions};
use crate::store::{ApplyReport, UploadJob, session_has_ended};

/// What an attempt came to.
pub(super) enum Attempt<T> {
    Done(T),
    /// To begin anew, without these rows.
    Again(Refused),
}

/// Applies an upload. Blocks.
pub(super) fn apply_upload(
    connections: &Arc<Connections>,
    transaction: WriteTransaction,
    job: &UploadJob,
    batches: &BlockingBatches,
    rows_done: &AtomicU64,
) -> Result<ApplyReport> {
    let mut refused = Refused::new();
    let mut defer_references = true;
    loop {
        rows_done.store(0, Ordering::Relaxed);
        let upload = Upload {
            connections,
            transaction: &transaction,
            job,
            batches,
            rows_done,
            refused: &refused,
            defer_references,
            nothing: Knowledge::new(),
        };
        let more = match upload.attempt()? {
            Attempt::Done(report) => return Ok(report),
            Attempt::Again(more) => more,
        };
        if more.is_empty() {
            if !defer_references {
                return Err(SyncError::new(
                    ErrorReason::RowErrors,
                    "a reference leads nowhere once the upload is applied, and no row of it is to blame; mend the \
                     hub's triggers or data",
                ));
            }
            // Checked row by row, the one to blame shows; only references in a circle then can't be followed.
            defer_references = false;
        }
        refused.extend(more);
        check_errors(job, &refused)?;
        transaction.restart()?;
    }
}

fn check_errors(job: &UploadJob, refused: &Refused) -> Result<()> {
    let first = refused.iter().next().map(|(row, (reason, message))| {
        let table = job.scope.schema.table(row.table).map(|table| table.name.clone()).unwrap_or_default();
        (table, *reason, message.clone())
    });
    too_many_errors(&job.scope.schema, refused.len(), first)
}

/// Fails the session if its row errors are too many, or any is one too many.
pub(super) fn too_many_errors(
    schema: &syncline::schema::ScopeSchema,
    errors: usize,
    first: Option<(String, RowErrorReason, String)>,
) -> Result<()> {
    let abort = schema.row_error_policy == syncline::schema::RowErrorPolicy::Abort;
    let bound = if abort { 0 } else { syncline::limits::ROW_ERRORS_MAX };
    if errors <= bound {
        return Ok(());
    }
    let (table, reason, message) = first.unwrap_or((String::new(), RowErrorReason::Other, String::new()));
    let why = if abort {
        "a row can't be applied, and the scope's policy is to abort; nothing was applied".to_owned()
    } else {
        format!("more than {bound} rows can't be applied; nothing was applied")
    };
    Err(SyncError::new(ErrorReason::RowErrors, format!("{why} (table \"{table}\": {})", reason.as_str()))
        .with("table", table)
        .with("row_error", reason.as_str())
        .with_detail(message))
}

/// One attempt at an upload.
pub(super) struct Upload<'a> {
    pub(super) connections: &'a Arc<Connections>,
    pub(super) transaction: &'a WriteTransaction,
    pub(super) job: &'a UploadJob,
    pub(super) batches: &'a BlockingBatches,
    pub(super) rows_done: &'a AtomicU64,
    pub(super) refused: &'a Refused,
    pub(super) defer_references: bool,
    /// What tables were made with that were truncated since.
    pub(super) nothing: Knowledge,
}

impl Upload<'_> {
    fn attempt(&self) -> Result<Attempt<ApplyReport>> {
        let connection = self.transaction.connection();
        let (job, now) = (self.job, state::now());
        // **Invariant:** this transaction has the file's write lock, so the session can't end before it does; and once
        // the session has ended, no apply begins.
        if meta::run(connection, &sessions::is_open(job.session))?.is_empty() {
            return Err(session_has_ended(job.session));
        }
        let claim = applies::claim(job.session, job.scope.id, job.leaf, &job.list_digest, now);
        if meta::run(connection, &claim)?.is_empty() {
            return self.applied_before().map(Attempt::Done);
        }
        let leaf = self.hold_leaf(now)?;
        job.check_upload_mark(leaf.upload_mark)?;
        state::check_wal(connection)?;
        // Entries and records before: all are older than what this transaction writes.
        fold::all(connection)?;
        let tick = fold::draw_tick(connection)?;
        state::set_writing(connection, Writing::Upload)?;
        incoming::clear(connection)?;
        dangling::defer_references(connection, self.defer_references)?;
        let plans = self.plans()?;
        let mut rows = UploadRows::new(self, &plans, leaf, tick, now)?;
        if let Some(refused) = run_passes(connection, &mut rows)? {
            return Ok(Attempt::Again(refused));
        }
        let report = finish(self, &mut rows)?;
        state::set_writing(connection, Writing::Nothing)?;
        job.check_wanted()?;
        match self.transaction.try_commit() {
            Ok(()) => Ok(Attempt::Done(report)),
            Err(error) if is_foreign_key_failure(&error) => {
                let recorded = Some(rows.recorded());
                let refused = dangling::to_blame(self.connections, connection, &plans, recorded)?;
                Ok(Attempt::Again(refused))
            }
            Err(error) => Err(classify(&error)),
        }
    }

    fn applied_before(&self) -> Result<ApplyReport> {
        let rows = meta::run(self.transaction.connection(), &applies::load(self.job.session))?;
        let row = rows.first().ok_or_else(|| SyncError::internal("an apply's row is gone"))?;
        let (digest, result) = applies::from_row(row)?;
        if digest != self.job.list_digest {
            return Err(SyncError::new(
                ErrorReason::ReplicaDiverged,
                "another upload was applied in this session: two clients share one replica id",
            ));
        }
        let result =
            result.ok_or_else(|| SyncError::internal("an apply was committed without its result"))?;
        Ok(ApplyReport { result, applied_now: false })
    }

    fn plans(&self) -> Result<BTreeMap<TableId, TablePlan>> {
        let connection = self.transaction.connection();
        let scope = &self.job.scope;
        let mut plans = BTreeMap::new();
        for (schema, stored) in scope.schema.tables.iter().zip(&scope.tables) {
            let plan = TablePlan::load(connection, schema, &stored.source_name)?;
            // A write that no trigger logs would never leave this hub.
            snapshot::check_tracking(connection, &plan)?;
            plans.insert(stored.id, plan);
        }
        Ok(plans)
    }

    /// What the hub keeps of the leaf.
    fn hold_leaf(&self, now: i64) -> Result<leaves::LeafRow> {
        let hold = leaves::hold(self.job.scope.id, self.job.leaf, now);
        let rows = meta::run(self.transaction.connection(), &hold)?;
        rows.first().map_or_else(|| Ok(leaves::LeafRow::default()), leaves::from_row)
    }
}
