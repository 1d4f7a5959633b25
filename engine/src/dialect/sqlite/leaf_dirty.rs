//! The dirty records of a leaf, as a download meets them.

use rusqlite::types::ToSqlOutput;
use syncline::error::Result;

use super::apply_rows::bind;
use super::errors::DatabaseResult as _;
use super::incoming::Fate;
use super::leaf_rows::{Dirty, DownloadRows, Incoming};
use super::plan::{BoundKey, TablePlan};
use super::writer::{RowProblem, RowWriter};
use super::{fold, state, statements};

impl DownloadRows<'_> {
    pub(super) fn dirty_row(&self, plan: &TablePlan, key: &[ToSqlOutput<'_>]) -> Result<Option<Dirty>> {
        let sql = statements::select_dirty(plan.local, plan.key_columns());
        let mut statement = self.connection.prepare_cached(&sql).db()?;
        bind(&mut statement, key)?;
        let mut rows = statement.raw_query();
        let Some(row) = rows.next().db()? else { return Ok(None) };
        Ok(Some(Dirty { changed_at: row.get(1).db()?, birth: row.get(2).db()? }))
    }

    /// Writes over a row with a local change, which is none any more once that is done: so it is cleaned first, and the
    /// guard against cascades lets it pass.
    pub(super) fn replace_dirty(
        &mut self,
        plan: &TablePlan,
        writer: &RowWriter<'_, '_>,
        incoming: &Incoming<'_>,
        present: bool,
    ) -> Result<Result<Fate, RowProblem>> {
        self.connection.execute_batch("SAVEPOINT syncline_replace").db()?;
        self.clean(plan, incoming.key)?;
        let written = self.write(writer, incoming, present)?;
        let settle = match &written {
            // A trigger rolled the transaction back, and the savepoint with it.
            Err(problem) if problem.rolled_back => return Ok(written),
            Err(_) => "ROLLBACK TO syncline_replace; RELEASE syncline_replace",
            Ok(_) => "RELEASE syncline_replace",
        };
        self.connection.execute_batch(settle).db()?;
        Ok(written)
    }

    pub(super) fn clean(&self, plan: &TablePlan, key: &BoundKey<'_>) -> Result<()> {
        let sql = statements::delete_dirty(plan.local, plan.key_columns());
        let mut statement = self.connection.prepare_cached(&sql).db()?;
        bind(&mut statement, &key.values)?;
        statement.raw_execute().db()?;
        Ok(())
    }

    /// A row that is kept gets a new tick: the hub may know the old one already (a lost answer), and would pass it over.
    pub(super) fn renew(&mut self, plan: &TablePlan, key: &BoundKey<'_>, born_again: bool) -> Result<()> {
        let tick = match self.kept_tick {
            Some(tick) => tick,
            None => *self.kept_tick.insert(fold::draw_tick(self.connection)?),
        };
        let columns = plan.key_columns();
        let mut statement =
            self.connection.prepare_cached(&statements::renew_dirty(plan.local, columns)).db()?;
        bind(&mut statement, &key.values)?;
        statement.raw_bind_parameter(columns + 1, state::to_sql(tick)).db()?;
        statement.raw_bind_parameter(columns + 2, born_again).db()?;
        statement.raw_execute().db()?;
        Ok(())
    }
}
