//! Writing a staged set, as a whole where it can be, and finding the rows that can't.

use sqlx::{PgConnection, Row as _};
use syncline::batch::Operation;
use syncline::conflict::{RowError, RowErrorReason};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::knowledge::RowKey;
use syncline::limits::ROW_ERRORS_MAX;
use syncline::schema::RowErrorPolicy;
use syncline::value::{Value, key_bytes, row_json};

use super::apply::{Apply, Set};
use super::conflicts::staged;
use super::fold::flag;
use crate::dialect::postgres::copy::{CopyRow, CopyRows};
use crate::dialect::postgres::errors::{self, Class};
use crate::dialect::postgres::statements::{copy_out, query, run};
use crate::limits;

/// Why rows could not be written.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) reason: RowErrorReason,
    pub(super) message: String,
    /// Whether it was taken back because a cascade took local changes along: which of the rows is to blame is not to be
    /// seen.
    takes_along: bool,
}

impl Failure {
    /// Whether another row may mend it by coming or going.
    const fn may_mend(&self) -> bool {
        matches!(self.reason, RowErrorReason::ForeignKey | RowErrorReason::Unique)
    }
}

impl Apply<'_> {
    /// Applies the staged set: rows that meet dirty ones are judged, the others are written.
    ///
    /// Rows that seem clean are written without being locked first. Whoever was writing one of them made our write
    /// wait, and has an entry in the log now: then all is taken back and the set judged again.
    pub(super) async fn apply_set(&mut self, set: &Set) -> Result<()> {
        let table = &self.context.tables[set.table];
        for _ in 0..limits::FOLD_RETRIES {
            let before = self.progress.clone();
            self.run("SAVEPOINT syncline_set").await?;
            if self.any(set, &table.meets_dirty()).await? {
                self.judge(set).await?;
            }
            if self.context.keeps_replaced(set.table) && !set.again {
                self.log_replaced(set).await?;
            }
            self.write(set).await?;
            if !self.any(set, &table.changed_since()).await? {
                return self.run("RELEASE SAVEPOINT syncline_set").await;
            }
            self.run("ROLLBACK TO SAVEPOINT syncline_set; RELEASE SAVEPOINT syncline_set").await?;
            self.progress = before;
        }
        Err(SyncError::new(
            ErrorReason::LockTimeout,
            "rows are changed faster than they can be judged; try again",
        ))
    }

    /// Whether something is dirty in the set's table, and the question about it is answered with yes.
    async fn any(&mut self, set: &Set, question: &str) -> Result<bool> {
        let table = &self.context.tables[set.table];
        Ok(table.tracks()
            && flag(self.connection, &table.any_dirty()).await?
            && flag(self.connection, question).await?)
    }

    async fn write(&mut self, set: &Set) -> Result<()> {
        let table = &self.context.tables[set.table];
        if set.removes && table.tracked.catalog.referenced_with_action {
            self.guard_removal(set).await?;
        }
        loop {
            let row =
                query(&table.ordinals()).fetch_one(&mut *self.connection).await.map_err(errors::database)?;
            let (Some(first), Some(last)) = (row.get::<Option<i64>, _>(0), row.get::<Option<i64>, _>(1))
            else {
                return Ok(());
            };
            match self.try_range(set, first, last).await? {
                Ok(rows) => {
                    self.count(set, rows);
                    break;
                }
                Err(failure) if !failure.takes_along && self.postpone_set(set, &failure).await? > 0 => {}
                Err(_) => {
                    self.bisect(set, first, last).await?;
                    break;
                }
            }
        }
        if !set.removes {
            self.move_sequences(set).await?;
        }
        Ok(())
    }

    /// Rows that others refer to which stay have to wait.
    async fn guard_removal(&mut self, set: &Set) -> Result<()> {
        let context = self.context;
        let table = &context.tables[set.table];
        if context.cascades.any(set.table) {
            self.run(&table.lock_staged()).await?;
            let failure = would_go_too(&context.cascades.names(set.table));
            self.postpone(set, &failure, &context.cascades.is_held(set.table, table)).await?;
        }
        self.hold_local_changes().await
    }

    fn count(&mut self, set: &Set, rows: u64) {
        let report = &mut self.progress.report;
        if set.removes {
            report.deletes += rows;
        } else {
            report.upserts += rows;
        }
    }

    /// Writes a range under a savepoint.
    async fn try_range(
        &mut self,
        set: &Set,
        first: i64,
        last: i64,
    ) -> Result<std::result::Result<u64, Failure>> {
        let table = &self.context.tables[set.table];
        let sql =
            if set.removes { table.delete(first, last) } else { table.upsert(&set.places, first, last) };
        if !set.removes || !table.tracked.catalog.referenced_with_action {
            return try_statement(self.connection, &sql).await;
        }
        self.run("SAVEPOINT syncline_cascade").await?;
        let tried = try_statement(self.connection, &sql).await?;
        if tried.is_err() || !self.lost_local_changes().await? {
            self.run("RELEASE SAVEPOINT syncline_cascade").await?;
            return Ok(tried);
        }
        self.run("ROLLBACK TO SAVEPOINT syncline_cascade; RELEASE SAVEPOINT syncline_cascade").await?;
        Ok(Err(would_go_too(&self.context.cascades.names(set.table))))
    }

    /// Postpones all rows that can be seen to lack a parent, to have children still, or to want a unique value that is
    /// taken. Answers how many.
    async fn postpone_set(&mut self, set: &Set, failure: &Failure) -> Result<u64> {
        let context = self.context;
        let table = &context.tables[set.table];
        let condition = match (failure.reason, set.removes) {
            (RowErrorReason::ForeignKey, false) => table.lacks_parent(&context.references[set.table]),
            (RowErrorReason::ForeignKey, true) => table.has_children(&context.children(set.table)),
            (RowErrorReason::Unique, false) => table.unique_is_taken(),
            _ => return Ok(0),
        };
        self.postpone(set, failure, &condition).await
    }

    /// Postpones rows that were recalled, for the reason for which they waited: a unique value.
    pub(super) async fn postpone_again(&mut self, set: &Set, condition: &str) -> Result<u64> {
        let message = "another row has the same unique value".to_owned();
        let failure = Failure { reason: RowErrorReason::Unique, message, takes_along: false };
        self.postpone(set, &failure, condition).await
    }

    async fn postpone(&mut self, set: &Set, failure: &Failure, condition: &str) -> Result<u64> {
        let table = &self.context.tables[set.table];
        self.run("SAVEPOINT syncline_postpone").await?;
        let moved = query(&table.postpone(set.removes, condition))
            .bind(failure.reason.as_str())
            .bind(&failure.message)
            .execute(&mut *self.connection)
            .await;
        match moved {
            Ok(done) => {
                self.run("RELEASE SAVEPOINT syncline_postpone").await?;
                if done.rows_affected() > 0 {
                    self.progress.late.insert((set.table, set.removes));
                }
                Ok(done.rows_affected())
            }
            // A cell that can't be converted: the rows are tried one by one.
            Err(error) if matches!(errors::classify(&error), Class::Row(_)) => {
                self.run("ROLLBACK TO SAVEPOINT syncline_postpone; RELEASE SAVEPOINT syncline_postpone")
                    .await?;
                Ok(0)
            }
            Err(error) => Err(errors::database(error)),
        }
    }

    /// Writes what can be written: halves of a range that fails are tried in turn, down to single rows.
    async fn bisect(&mut self, set: &Set, first: i64, last: i64) -> Result<()> {
        let mut ranges = vec![(first, last)];
        while let Some((first, last)) = ranges.pop() {
            match self.try_range(set, first, last).await? {
                Ok(rows) => self.count(set, rows),
                Err(failure) if first == last => self.refuse(set, first, failure).await?,
                Err(_) => {
                    let middle = first + (last - first) / 2;
                    ranges.push((middle + 1, last));
                    ranges.push((first, middle));
                }
            }
        }
        Ok(())
    }

    /// A single row can't be written: it waits for others, or is a row error.
    async fn refuse(&mut self, set: &Set, ordinal: i64, failure: Failure) -> Result<()> {
        if failure.may_mend() && self.postpone(set, &failure, &format!("s.ordinal = {ordinal}")).await? > 0 {
            return Ok(());
        }
        let table = &self.context.tables[set.table];
        let mut cells = Vec::with_capacity(table.tracked.key.len());
        {
            let sql = table.staged_key(ordinal);
            let stream = copy_out(self.connection, &sql).await.map_err(errors::database)?;
            let (mut rows, mut row) = (CopyRows::new(stream), CopyRow::new());
            while rows.next(&mut row).await? {
                for (at, place) in table.tracked.key.iter().enumerate() {
                    cells.push(staged(table, *place, row.cell(at))?.to_value());
                }
            }
        }
        self.run(&table.fail_one(ordinal)).await?;
        self.fail(set.table, set.removes, &cells, failure.reason, failure.message)
    }

    /// Notes a row error.
    ///
    /// # Errors
    /// ROW_ERRORS if the scope's policy is to abort, or there are too many.
    pub(super) fn fail(
        &mut self,
        table: usize,
        removes: bool,
        key: &[Value],
        reason: RowErrorReason,
        message: String,
    ) -> Result<()> {
        let table = &self.context.tables[table];
        let cells = key.iter().map(Value::cell);
        let named = table.tracked.key_columns().map(|column| column.name.as_str()).zip(cells.clone());
        let key_json = row_json(named).to_string();
        let row = RowKey { table: table.schema.id, key: key_bytes(cells).map_err(SyncError::internal)? };
        let aborts = self.context.subscription.schema.row_error_policy == RowErrorPolicy::Abort;
        if aborts || self.progress.errors.len() >= ROW_ERRORS_MAX {
            let why = if aborts { "the scope's policy is to abort" } else { "there are too many" };
            return Err(SyncError::new(
                ErrorReason::RowErrors,
                format!(
                    "rows could not be applied, and {why}; the last is {key_json} of table \"{}\": {message}",
                    table.schema.name
                ),
            )
            .with("table", &table.schema.name));
        }
        let operation = if removes { Operation::Delete } else { Operation::Upsert };
        let table_name = table.schema.name.clone();
        let error = RowError { row: row.clone(), table_name, key_json, operation, reason, message };
        self.progress.errors.insert(row, error);
        Ok(())
    }

    /// Moves the sequences of the set's columns past the values that came.
    async fn move_sequences(&mut self, set: &Set) -> Result<()> {
        let table = &self.context.tables[set.table];
        for place in &set.places {
            if let Some(sequence) = &table.tracked.columns[*place].sequence {
                self.run(&table.move_sequence(*place, sequence)).await?;
            }
        }
        Ok(())
    }

    /// Runs statements of the apply.
    pub(super) async fn run(&mut self, sql: &str) -> Result<()> {
        run(self.connection, sql).await.map(drop).map_err(errors::database)
    }
}

fn would_go_too(children: &str) -> Failure {
    Failure {
        reason: RowErrorReason::ForeignKey,
        message: format!(
            "rows that stay refer to it (tables: {children}), and would go with it, or lose that"
        ),
        takes_along: true,
    }
}

/// Runs a statement under a savepoint. Answers the rows that it touched, or why it can't be for some row's sake.
pub(super) async fn try_statement(
    connection: &mut PgConnection,
    sql: &str,
) -> Result<std::result::Result<u64, Failure>> {
    run(connection, "SAVEPOINT syncline_try").await.map_err(errors::database)?;
    match run(connection, sql).await {
        Ok(rows) => {
            run(connection, "RELEASE SAVEPOINT syncline_try").await.map_err(errors::database)?;
            Ok(Ok(rows))
        }
        Err(error) => {
            let Class::Row(reason) = errors::classify(&error) else { return Err(errors::database(error)) };
            let back = "ROLLBACK TO SAVEPOINT syncline_try; RELEASE SAVEPOINT syncline_try";
            run(connection, back).await.map_err(errors::database)?;
            Ok(Err(Failure { reason, message: errors::message(&error), takes_along: false }))
        }
    }
}
