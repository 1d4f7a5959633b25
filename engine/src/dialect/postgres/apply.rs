//! Applying an upload in one transaction: claimed, staged, locked, judged, written, recorded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{PgConnection, Postgres, Row as _, Transaction};
use syncline::conflict::RowError;
use syncline::error::{CommitOutcome, ErrorReason, Result, SyncError};
use syncline::ids::TableId;
use syncline::knowledge::{Knowledge, RowKey};
use syncline::schema::RowErrorPolicy;

use super::apply_along::{self, Cascades};
use super::apply_plain::{self, Plain};
use super::apply_stage::{self, StagedTable};
use super::give_up::{self, Backend};
use super::provision::{self, repeat};
use super::snapshot::{self, Replicas};
use super::statements::applying::{Applying, status};
use super::statements::reading::KnownPeer;
use super::{
    PostgresDatabase, apply_judge, apply_write, errors, give_way, meta, own_tick, server_now, statements,
};
use crate::dialect::meta::leaves::LeafRow;
use crate::dialect::meta::{applies, leaves, row_errors};
use crate::replica::ApplyResult;
use crate::store::{ApplyReport, BatchSource, UploadJob, given_up, session_has_ended};

/// What holds during one apply.
pub(super) struct Applier<'a> {
    pub(super) job: &'a UploadJob,
    pub(super) replicas: Replicas,
    /// The tick that this transaction gives its changes.
    pub(super) own_tick: i64,
    /// The sender's number.
    pub(super) leaf: i64,
    /// Microseconds since 1970 UTC, when it began.
    pub(super) now: i64,
    /// What the hub knew of the leaf before.
    pub(super) known: LeafRow,
    /// What was made with, by replica, and nothing.
    made_with: Vec<KnownPeer>,
    /// In the scope's order.
    pub(super) tables: Vec<StagedTable>,
    /// What deletes may take along.
    pub(super) cascades: Cascades,
    pub(super) row_errors: Vec<RowError>,
    pub(super) conflicts: u64,
    /// Rows that the leaf's clock contained already.
    pub(super) known_rows: u64,
    /// Rows that were excepted before and are in this upload.
    pub(super) excepted_seen: Vec<RowKey>,
}

impl PostgresDatabase {
    /// Applies an upload, once.
    pub(super) async fn apply(
        &self,
        job: &UploadJob,
        batches: &dyn BatchSource,
        rows_done: &AtomicU64,
    ) -> Result<ApplyReport> {
        let leaf = repeat(|| async {
            let mut transaction = self.begin_durable().await?;
            let number = provision::add_replica(&mut transaction, job.leaf, 1).await?;
            transaction.commit().await.map_err(errors::commit)?;
            Ok(number)
        })
        .await?;
        let backend = Backend::default();
        let attempts = repeat(|| {
            rows_done.store(0, Ordering::Relaxed);
            self.try_apply(job, leaf, batches, rows_done, &backend)
        });
        match give_up::unless_stopped(&self.pool, &job.stop, &backend, attempts).await {
            Err(error) if error.commit_outcome() == CommitOutcome::Unknown => self.settle(job, error).await,
            answered => answered,
        }
    }

    /// The connection broke while the commit was under way: the stored result tells.
    async fn settle(&self, job: &UploadJob, unknown: SyncError) -> Result<ApplyReport> {
        let Ok(mut connection) = self.pool.acquire().await else { return Err(unknown) };
        match meta::run(&mut connection, applies::load(job.session)).await {
            Err(_) => Err(unknown),
            Ok(rows) => match rows.first().map(applies::from_row).transpose()? {
                Some((_, Some(result))) => Ok(ApplyReport { result, applied_now: true }),
                _ => Err(SyncError::new(
                    ErrorReason::DatabaseUnavailable,
                    "the connection broke before the upload was committed; try again",
                )),
            },
        }
    }

    async fn try_apply(
        &self,
        job: &UploadJob,
        leaf: i64,
        batches: &dyn BatchSource,
        rows_done: &AtomicU64,
        backend: &Backend,
    ) -> Result<ApplyReport> {
        let _working = backend.working();
        let mut transaction = tokio::select! {
            biased;
            () = job.stop.cancelled() => return Err(given_up()),
            transaction = self.begin_durable() => transaction?,
        };
        backend.note(&mut transaction).await?;
        let now = server_now(&mut transaction).await?;
        // Waits for another apply of the same leaf, if there is one; nothing is locked yet that anyone else wants.
        let known = hold_leaf(&mut transaction, job, now).await?;
        hold_session(&mut transaction, job).await?;
        let claim = applies::claim(job.session, job.scope.id, job.leaf, &job.list_digest, now);
        if meta::run(&mut transaction, claim).await?.is_empty() {
            return applied_before(&mut transaction, job).await;
        }
        job.check_upload_mark(known.upload_mark)?;
        give_way(&mut transaction).await?;
        // Reads the catalogue, which names types by the search path: it must be ours, as when they were stored.
        let mut applier = Applier::begin(&mut transaction, job, leaf, now, known).await?;
        // Users' triggers run within our statements: they find what they name by the role's own search path.
        statements::run(&mut transaction, "SET LOCAL search_path TO DEFAULT")
            .await
            .map_err(errors::database)?;
        apply_stage::stage(&mut transaction, &mut applier, batches, rows_done).await?;
        applier.check_row_errors()?;
        job.check_wanted()?;
        applier.cascades = apply_along::load(&mut transaction, &applier).await?;
        let plain = apply_plain::write(&mut transaction, &applier).await?;
        job.check_wanted()?;
        if plain.is_none() {
            applier.lock_and_judge(&mut transaction).await?;
            job.check_wanted()?;
            apply_write::write(&mut transaction, &mut applier).await?;
            applier.check_row_errors()?;
        }
        let result = applier.finish(&mut transaction, plain).await?;
        job.check_wanted()?;
        commit(transaction).await?;
        Ok(ApplyReport { result, applied_now: true })
    }
}

async fn commit(transaction: Transaction<'static, Postgres>) -> Result<()> {
    transaction.commit().await.map_err(errors::commit)
}

/// What the hub knows of the leaf, which no other session moves until this transaction has ended: see [`leaves::hold`].
async fn hold_leaf(connection: &mut PgConnection, job: &UploadJob, now: i64) -> Result<LeafRow> {
    let rows = meta::run(connection, leaves::hold(job.scope.id, job.leaf, now)).await?;
    rows.first().map_or_else(|| Ok(LeafRow::default()), leaves::from_row)
}

/// **Invariant:** whoever ends the session waits for this transaction, as the row can't be removed before its end; and
/// once it is removed, no apply begins. A newer token and a newer lease change nothing that this lock guards.
async fn hold_session(connection: &mut PgConnection, job: &UploadJob) -> Result<()> {
    let held = sqlx::query("SELECT 1 FROM syncline.sessions WHERE id = $1 FOR KEY SHARE")
        .bind(job.session.as_bytes())
        .fetch_optional(connection)
        .await
        .map_err(errors::database)?;
    if held.is_some() { Ok(()) } else { Err(session_has_ended(job.session)) }
}

/// The session was claimed before: its stored result, if the list of batches is the same.
async fn applied_before(connection: &mut PgConnection, job: &UploadJob) -> Result<ApplyReport> {
    let rows = meta::run(connection, applies::load(job.session)).await?;
    let stored = rows.first().map(applies::from_row).transpose()?;
    match stored {
        Some((digest, _)) if digest != job.list_digest => Err(SyncError::new(
            ErrorReason::ReplicaDiverged,
            "this session has applied another upload; the leaf was restored or copied",
        )),
        Some((_, Some(result))) => Ok(ApplyReport { result, applied_now: false }),
        _ => Err(SyncError::internal("an apply is claimed and has no result")),
    }
}

impl<'a> Applier<'a> {
    async fn begin(
        connection: &mut PgConnection,
        job: &'a UploadJob,
        leaf: i64,
        now: i64,
        known: LeafRow,
    ) -> Result<Self> {
        // Deferred constraints are checked with the statement that breaks them, so that the row is known.
        statements::run(connection, "SET CONSTRAINTS ALL IMMEDIATE").await.map_err(errors::database)?;
        let own_tick = own_tick(connection).await?;
        let replicas = snapshot::replicas(connection).await?;
        let tables = snapshot::tracked_tables(connection, &job.scope).await?;
        let made_with = replicas.known(&job.made_with);
        Ok(Self {
            job,
            replicas,
            own_tick,
            leaf,
            now,
            known,
            made_with,
            tables: tables.into_iter().map(StagedTable::new).collect(),
            cascades: Cascades::default(),
            row_errors: Vec::new(),
            conflicts: 0,
            known_rows: 0,
            excepted_seen: Vec::new(),
        })
    }

    /// The statements of a table.
    pub(super) fn applying(&self, at: usize) -> Applying<'_> {
        let table = &self.tables[at].tracked;
        let stored = self.job.scope.tables.iter().find(|stored| stored.id == table.id);
        let number =
            |replica| self.replicas.peers.iter().find(|(_, (id, _))| *id == replica).map(|(n, _)| *n);
        let baseline = stored.map_or((self.replicas.own, 0, 0), |stored| {
            let peer = number(stored.baseline.replica).unwrap_or(self.replicas.own);
            (peer, stored.baseline.tick.0.cast_signed(), stored.baseline_changed_at)
        });
        Applying {
            table,
            own: self.replicas.own,
            own_tick: self.own_tick,
            leaf: self.leaf,
            baseline,
            made_with: if self.made_with_nothing(table.id) { &[] } else { &self.made_with },
        }
    }

    /// Whether made-with knowledge counts as empty for a table.
    fn made_with_nothing(&self, table: TableId) -> bool {
        self.job.made_with_nothing.contains(&table)
    }

    /// The knowledge that holds for a table's changes.
    pub(super) fn made_with(&self, table: TableId) -> Knowledge {
        if self.made_with_nothing(table) { Knowledge::new() } else { self.job.made_with.clone() }
    }

    /// Locks the rows that are there, table by table and key by key, and only then reads their versions.
    async fn lock_and_judge(&mut self, connection: &mut PgConnection) -> Result<()> {
        for at in self.staged() {
            let applying = self.applying(at);
            for statement in applying.prepare_judging().into_iter().chain([applying.lock()]) {
                statements::run(connection, &statement).await.map_err(errors::database)?;
            }
        }
        for at in self.staged() {
            if let Some(keep) = self.keep(at) {
                statements::run(connection, &keep).await.map_err(errors::database)?;
            }
        }
        for at in self.staged() {
            let applying = self.applying(at);
            for statement in applying.read_held() {
                statements::run(connection, &statement).await.map_err(errors::database)?;
            }
            if !self.tables[at].excepted.is_empty() {
                statements::query_once(&applying.reopen())
                    .bind(&self.tables[at].excepted)
                    .execute(&mut *connection)
                    .await
                    .map_err(errors::database)?;
            }
            apply_judge::judge(connection, self, at).await?;
        }
        Ok(())
    }

    /// Takes what stands in columns that the leaf has not seen over into the rows that came, where it left them as they
    /// were made. `None` if it has seen all.
    pub(super) fn keep(&self, at: usize) -> Option<String> {
        let table = &self.tables[at].tracked;
        let kept = self.job.columns_kept.get(&table.id)?;
        let schema = self.job.scope.schema.table(table.id)?;
        let default = |id| schema.column(id).and_then(|column| column.default.as_deref());
        let places = table.columns.iter().enumerate().filter(|(_, column)| kept.contains(&column.id));
        let columns: Vec<_> = places.map(|(place, column)| (place, default(column.id))).collect();
        (!columns.is_empty()).then(|| self.applying(at).keep(&columns))
    }

    /// The places of tables that rows came for, parents first.
    pub(super) fn staged(&self) -> Vec<usize> {
        (0..self.tables.len()).filter(|at| self.tables[*at].rows > 0).collect()
    }

    /// Whether rows that can't be applied fail the session.
    fn check_row_errors(&self) -> Result<()> {
        let Some(first) = self.row_errors.first() else { return Ok(()) };
        let abort = self.job.scope.schema.row_error_policy == RowErrorPolicy::Abort;
        if !abort && self.row_errors.len() <= syncline::limits::ROW_ERRORS_MAX {
            return Ok(());
        }
        let message = if abort {
            "rows can't be applied, and the scope says that the session then fails; mend them and try again"
        } else {
            "too many rows can't be applied; mend them and try again"
        };
        Err(SyncError::new(ErrorReason::RowErrors, message)
            .with("row_errors", self.row_errors.len())
            .with("table", &first.table_name)
            .with("key", &first.key_json)
            .with("row_error", first.reason.as_str()))
    }

    /// Records, row errors, the leaf's clock and mark, and the result. `plain`: all rows are recorded already.
    async fn finish(&mut self, connection: &mut PgConnection, plain: Option<Plain>) -> Result<ApplyResult> {
        let Plain { upserts, deletes } = plain.unwrap_or_default();
        let mut result = ApplyResult {
            upserts,
            deletes,
            unchanged: self.known_rows,
            conflicts: self.conflicts,
            row_errors: self.row_errors.len() as u64,
            upload_mark: self.job.upload_mark,
            committed_at: server_now(connection).await?,
        };
        if plain.is_none() {
            self.record(connection, &mut result).await?;
        }
        self.store(connection, &result).await?;
        Ok(result)
    }

    /// Writes the records of rows that were judged, and counts what became of them.
    async fn record(&self, connection: &mut PgConnection, result: &mut ApplyResult) -> Result<()> {
        for at in self.staged() {
            let applying = self.applying(at);
            for statement in [applying.harvest(), applying.drop_entries()] {
                statements::run(connection, &statement).await.map_err(errors::database)?;
            }
            let rows = statements::query_once(&applying.outcome())
                .fetch_all(&mut *connection)
                .await
                .map_err(errors::database)?;
            for row in rows {
                let (state, removes, count): (String, bool, i64) = (row.get(0), row.get(1), row.get(2));
                match (state.as_str(), removes) {
                    (status::WRITE, false) => result.upserts += count.unsigned_abs(),
                    (status::WRITE, true) => result.deletes += count.unsigned_abs(),
                    (status::UNCHANGED, _) => result.unchanged += count.unsigned_abs(),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn store(&self, connection: &mut PgConnection, result: &ApplyResult) -> Result<()> {
        let (job, scope) = (self.job, &self.job.scope);
        let statements = self.row_errors.iter().enumerate().map(|(ordinal, error)| {
            // Bounded by ROW_ERRORS_MAX.
            let ordinal = ordinal as i64;
            row_errors::insert(job.session, ordinal, &scope.schema.name, job.leaf, self.now, error)
        });
        meta::run_many(connection, statements.collect::<Result<_>>()?).await?;
        for statement in [
            row_errors::forget(job.session, &scope.schema.name, job.leaf),
            applies::forget(job.session, scope.id, job.leaf),
            leaves::applied(scope.id, job.leaf, &self.clock_after(), job.upload_mark)?,
            applies::finish(job.session, result)?,
        ] {
            meta::run(connection, statement).await?;
        }
        Ok(())
    }

    /// The leaf's clock once this is applied. A row that failed keeps the clocks that it had; one that was excepted and
    /// came again is known like all others.
    fn clock_after(&self) -> Knowledge {
        let before = &self.known.clock;
        let mut clock = before.clone();
        for row in &self.excepted_seen {
            clock.unexcept(row);
        }
        let merged = match clock.clock(self.job.leaf) {
            Some(known) => known.merge(&self.job.leaf_clock),
            None => self.job.leaf_clock.clone(),
        };
        clock.set_clock(self.job.leaf, merged);
        let failed: BTreeMap<_, _> = self
            .row_errors
            .iter()
            .map(|error| (error.row.clone(), before.clocks_for(&error.row).clone()))
            .collect();
        for (row, clocks) in failed {
            clock.except(row, clocks);
        }
        clock
    }
}
