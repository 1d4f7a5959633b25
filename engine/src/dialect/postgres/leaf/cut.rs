//! Rows of several tables that refer to each other, and wait for each other.

use sqlx::Row as _;
use syncline::error::Result;
use syncline::limits::ROW_ERRORS_MAX;

use super::apply::{Apply, Progress};
use crate::dialect::postgres::errors;
use crate::dialect::postgres::statements::query;
use crate::limits;

/// Rows of a table that are not to be cut.
struct Uncut {
    table: usize,
    /// The numbers with which they wait.
    ordinals: Vec<i64>,
    /// Whether they could not be written whole; otherwise they could not be written cut.
    in_vain: bool,
}

impl Apply<'_> {
    /// Rows that refer to postponed rows of other tables are written with NULL in place of the reference, and again,
    /// whole, once those are there.
    ///
    /// Invariant: no row stays as it was cut, with a NULL that nobody wrote. Where one could not be written whole, because
    /// what it refers to did not come after all, everything is taken back and tried without it: rows that refer to that one
    /// then wait too.
    pub(super) async fn cut_cycles(&mut self) -> Result<()> {
        for index in self.late_tables(false) {
            self.run(&self.context.tables[index].may_be_cut()).await?;
        }
        for _ in 0..limits::POSTGRES_CUT_ROUNDS_MAX {
            let before = self.progress.clone();
            self.run("SAVEPOINT syncline_cut").await?;
            let uncut = self.cut(&before).await?;
            if uncut.is_empty() {
                return self.run("RELEASE SAVEPOINT syncline_cut").await;
            }
            self.run("ROLLBACK TO SAVEPOINT syncline_cut; RELEASE SAVEPOINT syncline_cut").await?;
            self.progress = before;
            for Uncut { table, ordinals, in_vain } in uncut {
                let sql = self.context.tables[table].not_to_be_cut(in_vain);
                let marked = query(&sql).bind(ordinals).execute(&mut *self.connection).await;
                marked.map_err(errors::database)?;
            }
        }
        Ok(())
    }

    /// Answers which rows it could not be done with.
    async fn cut(&mut self, before: &Progress) -> Result<Vec<Uncut>> {
        let context = self.context;
        let mut cut = Vec::new();
        for index in self.late_tables(false) {
            let table = &context.tables[index];
            let conditions = table.cut_references(&context.references[index], context.tables);
            if conditions.is_empty() {
                continue;
            }
            for statement in table.recall_to_cut().into_iter().chain(table.keep_cut(&conditions)) {
                self.run(&statement).await?;
            }
            cut.push(index);
            self.apply_set(&self.late_set(index, false)).await?;
            if self.progress.errors.len() > before.errors.len() {
                return Ok(vec![self.left_over(index, false).await?]);
            }
        }
        if cut.is_empty() {
            return Ok(Vec::new());
        }
        self.retry().await?;
        let mut uncut = Vec::new();
        for index in cut {
            let counted = self.progress.report.upserts;
            for statement in context.tables[index].recall_cut() {
                self.run(&statement).await?;
            }
            self.apply_set(&self.late_set(index, false)).await?;
            // They were counted when they were written first.
            self.progress.report.upserts = counted;
            uncut.push(self.left_over(index, true).await?);
        }
        uncut.retain(|rows| !rows.ordinals.is_empty());
        Ok(uncut)
    }

    /// The rows of the stage that could not be written, whole or cut.
    async fn left_over(&mut self, index: usize, whole: bool) -> Result<Uncut> {
        let sql = self.context.tables[index].left_over(whole, ROW_ERRORS_MAX + 1);
        let rows = query(&sql).fetch_all(&mut *self.connection).await.map_err(errors::database)?;
        let ordinals = rows.iter().map(|row| row.get(0)).collect();
        Ok(Uncut { table: index, ordinals, in_vain: whole })
    }
}
