//! The way down: a download, applied in one transaction or one a batch.
//!
//! `incoming` hands out the blocks, batch by batch. `direct` copies as many as can be into a table that was empty. Else
//! per block: `stage` copies it into a temporary table; `judge` settles rows that meet dirty ones; `write` writes the
//! set; `postponed` tries again what had to wait; `whole` removes what a comparison did not name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};
use syncline::batch::Block;
use syncline::conflict::RowError;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::knowledge::RowKey;
use tokio::sync::Mutex;

use super::cascades::Cascades;
use super::fold::flag;
use super::incoming::Incoming;
use super::statements::knots::Reference;
use super::tables::{self, LeafTable};
use super::{cascades, save_within, whole};
use crate::dialect::postgres::provision::repeat;
use crate::dialect::postgres::statements::tracking::WRITING_SETTING;
use crate::dialect::postgres::statements::{reading, run};
use crate::dialect::postgres::{PostgresDatabase, errors, give_way, server_now};
use crate::replica::ExceptedKey;
use crate::store::{DownloadJob, DownloadReport, DownloadSource, Subscription};

/// What an apply is about; does not change while it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) subscription: &'a Subscription,
    pub(super) job: &'a DownloadJob,
    /// The scope's tables, in its order.
    pub(super) tables: &'a [LeafTable],
    /// Each table's foreign keys.
    pub(super) references: &'a [Vec<Reference>],
    /// Whether each table held rows when the download began: an empty one has nothing to compare.
    pub(super) held_rows: &'a [bool],
    /// What removals set off.
    pub(super) cascades: &'a Cascades,
    /// The time by the local server's clock, in microseconds since 1970 UTC.
    pub(super) now_us: i64,
}

/// Staged rows of one table with one operation.
#[derive(Debug, Clone)]
pub(super) struct Set {
    /// The table, among the scope's.
    pub(super) table: usize,
    /// Whether rows are removed.
    pub(super) removes: bool,
    /// The columns that are staged.
    pub(super) places: Vec<usize>,
    /// Whether the rows are those that a comparison did not name: then dirty ones stay as they are.
    pub(super) unnamed: bool,
    /// Whether they are tried again: what they replace is in the conflict log already.
    pub(super) again: bool,
}

/// How far an apply has come. Taken back with the transaction.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) report: DownloadReport,
    /// The batch that comes next.
    next: u32,
    pub(super) rows: u64,
    /// Rows that can't be applied.
    pub(super) errors: BTreeMap<RowKey, RowError>,
    /// Rows that an earlier run of this download could not apply.
    pub(super) carried: BTreeMap<RowKey, ExceptedKey>,
    /// Tables that may have postponed upserts (`false`) or removals (`true`).
    pub(super) late: BTreeSet<(usize, bool)>,
    /// Tables that rows can't be copied into directly any more.
    pub(super) indirect: BTreeSet<usize>,
    /// The columns that upserts of a table carry.
    pub(super) places: BTreeMap<usize, Vec<usize>>,
    /// Whether removals have begun: what upserts had to wait for among themselves has come.
    removing: bool,
}

/// An apply that runs.
#[derive(Debug)]
pub(super) struct Apply<'a> {
    pub(super) connection: &'a mut PgConnection,
    pub(super) context: Context<'a>,
    pub(super) progress: Progress,
    /// As of the last commit.
    committed: Progress,
}

/// A connection with temporary tables and an open transaction: it does not go back to the pool before it is clean.
struct Writer {
    connection: PoolConnection<Postgres>,
    clean: bool,
}

impl Writer {
    /// Removes the temporary tables. The download is committed by now: what fails here must not be taken for its
    /// failure, or it would be applied again, over rows that were edited since. The connection is closed then.
    async fn tidy_up(&mut self) {
        match run(&mut self.connection, "DISCARD TEMP").await {
            Ok(_) => self.clean = true,
            Err(error) => {
                let error = errors::database(error);
                tracing::warn!(%error, detail = error.detail(), "a connection could not be tidied up; it is closed");
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.clean {
            self.connection.close_on_drop();
        }
    }
}

/// See [`crate::store::LeafStore::apply_download`]. The log was folded before.
pub(super) async fn apply(
    database: &PostgresDatabase,
    subscription: &Subscription,
    job: &DownloadJob,
    source: &dyn DownloadSource,
    rows_done: &AtomicU64,
) -> Result<DownloadReport> {
    let connection = database.pool.acquire().await.map_err(errors::database)?;
    let mut writer = Writer { connection, clean: false };
    let tables = tables::load(&mut writer.connection, &subscription.schema).await?;
    let references = whole::references(&mut writer.connection, &tables).await?;
    let resumed = job.per_batch && subscription.batches_applied > 0;
    let mut held_rows = Vec::with_capacity(tables.len());
    for table in &tables {
        let held = if resumed {
            whole::is_compared(&mut writer.connection, table).await?
        } else {
            !flag(&mut writer.connection, &reading::is_empty(&table.tracked.base)).await?
        };
        held_rows.push(held);
    }
    let now_us = server_now(&mut writer.connection).await?;
    let cascades = cascades::load(&mut writer.connection, subscription, &tables).await?;
    let context = Context {
        subscription,
        job,
        tables: &tables,
        references: &references,
        held_rows: &held_rows,
        cascades: &cascades,
        now_us,
    };
    let start = Progress {
        next: if job.per_batch { subscription.batches_applied } else { 0 },
        carried: if resumed { context.excepted_before() } else { BTreeMap::new() },
        ..Progress::default()
    };
    let before = rows_done.load(Ordering::Relaxed);
    let apply = Mutex::new(Apply {
        connection: &mut writer.connection,
        context,
        progress: start.clone(),
        committed: start,
    });
    while !repeat(|| async { apply.lock().await.transaction(source, rows_done, before).await }).await? {}
    let report = std::mem::take(&mut apply.into_inner().progress.report);
    writer.tidy_up().await;
    Ok(report)
}

impl<'a> Context<'a> {
    /// Foreign keys of the scope's tables that refer to this one.
    pub(super) fn children(self, table: usize) -> Vec<(&'a LeafTable, &'a Reference)> {
        let all = self.tables.iter().zip(self.references);
        let all =
            all.flat_map(|(child, references)| references.iter().map(move |reference| (child, reference)));
        all.filter(|(_, reference)| reference.in_scope.as_ref().is_some_and(|(parent, _)| *parent == table))
            .collect()
    }

    /// Whether clean rows that are replaced or removed go to the conflict log.
    pub(super) fn keeps_replaced(self, table: usize) -> bool {
        self.held_rows[table] && self.subscription.keeps_replaced(&self.tables[table].schema)
    }

    fn excepted_before(self) -> BTreeMap<RowKey, ExceptedKey> {
        self.subscription.excepted_keys.iter().map(|key| (key.row.clone(), key.clone())).collect()
    }

    /// Whether rows of the table that the download does not name are removed.
    pub(super) fn is_compared(self, table: usize) -> bool {
        let schema = &self.tables[table].schema;
        self.held_rows[table] && schema.direction.downloads() && self.job.begin.mode.is_whole(schema.id)
    }
}

impl<'a> Apply<'a> {
    /// The table of a block.
    pub(super) fn table(&self, block: &Block) -> Result<(usize, &'a LeafTable)> {
        let tables = self.context.tables.iter().enumerate();
        let mut found = tables.filter(|(_, table)| table.schema.id == block.table);
        found.next().ok_or_else(|| {
            SyncError::new(ErrorReason::BatchCorrupt, "a batch names a table that is not in the scope")
        })
    }

    /// One transaction: of all batches, or of one. Answers whether it was the last.
    async fn transaction(
        &mut self,
        source: &dyn DownloadSource,
        rows_done: &AtomicU64,
        before: u64,
    ) -> Result<bool> {
        self.progress = self.committed.clone();
        rows_done.store(before + self.progress.rows, Ordering::Relaxed);
        let last = match self.within_transaction(source, rows_done).await {
            Ok(last) => last,
            Err(error) => {
                // A connection that is broken is closed, which rolls back too.
                let _ = run(self.connection, "ROLLBACK").await;
                return Err(error);
            }
        };
        run(self.connection, "COMMIT").await.map_err(errors::commit)?;
        self.committed = self.progress.clone();
        Ok(last)
    }

    async fn within_transaction(
        &mut self,
        source: &dyn DownloadSource,
        rows_done: &AtomicU64,
    ) -> Result<bool> {
        // User's triggers run within ours: they find what they name by the role's own search path.
        self.run(&format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = on; \
             SET LOCAL row_security = off; SET LOCAL search_path TO DEFAULT; \
             SET LOCAL {WRITING_SETTING} = 'on'; SET CONSTRAINTS ALL IMMEDIATE"
        ))
        .await?;
        give_way(self.connection).await?;
        for table in self.context.tables {
            for statement in table.create_stage() {
                self.run(&statement).await?;
            }
            if self.context.cascades.any_at_all() {
                self.run(&table.create_goes()).await?;
            }
        }
        self.prepare_comparison(self.progress.next == 0).await?;
        let mut incoming = Incoming::from(source, self.progress.next);
        while incoming.read().await? {
            while !incoming.left().is_empty() {
                self.apply_first(&mut incoming, rows_done).await?;
            }
            self.progress.next = incoming.next();
            if self.context.job.per_batch {
                self.settle().await?;
                self.save_batch().await?;
                return Ok(false);
            }
        }
        self.finish(source).await?;
        Ok(true)
    }

    /// Applies the first block that is left, and others that can be written along with it.
    async fn apply_first(&mut self, incoming: &mut Incoming<'_>, rows_done: &AtomicU64) -> Result<()> {
        let Some(block) = incoming.left().first() else { return Ok(()) };
        if block.operation.removes() != self.progress.removing {
            self.settle().await?;
            self.progress.removing = block.operation.removes();
        }
        if block.rows() == 0 {
            incoming.pass(1);
            return Ok(());
        }
        if self.copy_directly(incoming, rows_done).await? {
            return Ok(());
        }
        // Read again, if the attempt went beyond its batch.
        let Some(block) = incoming.left().first() else { return Ok(()) };
        let set = self.stage_block(block).await?;
        if self.context.is_compared(set.table) {
            self.note_seen(set.table).await?;
        }
        self.apply_set(&set).await?;
        let rows = block.rows() as u64;
        incoming.pass(1);
        self.progress.rows += rows;
        rows_done.fetch_add(rows, Ordering::Relaxed);
        Ok(())
    }

    /// Everything has come: compares, tries what waits for the last time, and stores what is known now.
    async fn finish(&mut self, source: &dyn DownloadSource) -> Result<()> {
        self.remove_unnamed().await?;
        self.settle().await?;
        self.fail_postponed().await?;
        let end = source.end().await?;
        self.drop_comparison().await?;
        let after = Subscription {
            knowledge: end.learned.clone(),
            download_mark: Some(end.download_mark),
            excepted_keys: self.excepted(&[]),
            batches_applied: self.progress.next,
            applied: true,
            reinitialize: false,
            diverged: false,
            untracked_first: BTreeSet::new(),
            ..self.context.subscription.clone()
        };
        save_within(self.connection, &after).await?;
        self.progress.report.row_errors = self.progress.errors.values().cloned().collect();
        self.progress.report.end = Some(end);
        Ok(())
    }

    /// Stores how far a download has come that is applied batch by batch. What is postponed counts as not applied. Rows
    /// that were excepted before stay so until the end: a download that is never ended may not have brought them.
    async fn save_batch(&mut self) -> Result<()> {
        let mut excepted = self.postponed_keys().await?;
        excepted.extend(self.context.excepted_before().into_keys());
        let after = Subscription {
            excepted_keys: self.excepted(&excepted),
            batches_applied: self.progress.next,
            ..self.context.subscription.clone()
        };
        save_within(self.connection, &after).await
    }

    /// The rows that could not be applied, and others. One that failed before keeps the knowledge that it had then.
    fn excepted(&self, others: &[RowKey]) -> Vec<ExceptedKey> {
        let earlier = self.context.excepted_before();
        let failed = self.progress.errors.keys().chain(self.progress.carried.keys()).chain(others);
        let failed: BTreeSet<&RowKey> = failed.collect();
        let except = |row: &RowKey| {
            earlier.get(row).cloned().unwrap_or_else(|| ExceptedKey {
                row: row.clone(),
                knowledge_before: self.context.subscription.knowledge.clone(),
            })
        };
        failed.into_iter().map(except).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::throwaway::ThrowawayCluster;

    #[tokio::test]
    async fn a_connection_that_breaks_after_the_commit_is_closed_and_fails_nothing() {
        let database = PostgresDatabase::open(&ThrowawayCluster::shared().fresh_database()).await.unwrap();
        let mut writer = Writer { connection: database.pool.acquire().await.unwrap(), clean: false };
        let pid: i32 =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *writer.connection).await.unwrap();
        let killed = sqlx::query("SELECT pg_terminate_backend($1, 60000)").bind(pid);
        killed.execute(&database.pool).await.unwrap();
        writer.tidy_up().await;
        assert!(!writer.clean);
        drop(writer);
        let other: i32 =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&database.pool).await.unwrap();
        assert_ne!(other, pid);
    }
}
