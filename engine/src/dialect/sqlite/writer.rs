//! Writes single rows of a block into the user's table, with prepared statements.

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection};
use syncline::batch::{Block, Operation};
use syncline::conflict::{RowError, RowErrorReason};
use syncline::error::Result;

use super::errors::{DatabaseResult as _, classify, row_error};
use super::incoming::Pass;
use super::plan::{BoundKey, TablePlan, row_invalid};
use super::types::{as_ref, stored, stored_in};

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrote {
    /// The row is now just what came in.
    Exactly,
    /// Columns or triggers may have made something else of it.
    Done,
    /// There was nothing to write: a key alone, which is there.
    Nothing,
    /// A BEFORE trigger of the user's own dropped it.
    Swallowed,
}

/// Why a row could not be written. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowProblem {
    pub(super) reason: RowErrorReason,
    pub(super) message: String,
    /// A trigger rolled back the whole transaction: it must begin anew without this row.
    pub(super) rolled_back: bool,
}

impl RowProblem {
    pub(super) fn of_type(message: impl ToString) -> Self {
        Self { reason: RowErrorReason::Type, message: message.to_string(), rolled_back: false }
    }

    /// Whether a parent or another row may still make room for the row, so that it waits for the next pass. Not if it
    /// was `refused`: if the transaction began anew without it.
    pub(super) fn may_wait(&self, refused: bool, pass: Pass) -> bool {
        let may_mend = matches!(
            self.reason,
            RowErrorReason::Unique
                | RowErrorReason::ForeignKey
                | RowErrorReason::Trigger
                | RowErrorReason::Check
        );
        may_mend && !refused && pass != Pass::Last
    }

    /// The row error that it is, for a table as the sender names it.
    pub(super) fn error(
        &self,
        plan: &TablePlan,
        table_name: &str,
        operation: Operation,
        key: Bytes,
    ) -> RowError {
        RowError {
            key_json: plan.key_json(&key),
            row: plan.row_key(key),
            operation,
            reason: self.reason,
            message: self.message.clone(),
            table_name: table_name.to_owned(),
        }
    }
}

/// The statements for the rows of one block, whose texts are made once.
pub(super) struct RowWriter<'c, 'p> {
    connection: &'c Connection,
    plan: &'p TablePlan,
    /// The block's columns, by place.
    places: Vec<usize>,
    /// Those of them that are not of the key.
    values: Vec<usize>,
    insert: String,
    update: String,
    delete: String,
    guarded: bool,
}

impl<'c, 'p> RowWriter<'c, 'p> {
    /// For the rows of this block. `guarded`: triggers of the user's own may leave a failed statement half done.
    ///
    /// # Errors
    /// ROW_INVALID if the block's columns do not fit the table.
    pub(super) fn new(
        connection: &'c Connection,
        plan: &'p TablePlan,
        block: &Block,
        guarded: bool,
    ) -> Result<Self> {
        let mut places = Vec::with_capacity(block.columns.len());
        for column in &block.columns {
            let place = plan.column_index(column.id()).ok_or_else(|| {
                row_invalid(
                    &plan.name,
                    &format!("a block has column {}, which the scope has not", column.id()),
                )
            })?;
            places.push(place);
        }
        if !plan.key.iter().all(|key| places.contains(key)) {
            return Err(row_invalid(&plan.name, "a block lacks a column of the key"));
        }
        let values: Vec<_> = places.iter().copied().filter(|place| !plan.key.contains(place)).collect();
        let names = &plan.names;
        let (insert, update, delete) = (names.insert(&places), names.update(&values), names.delete());
        Ok(Self { connection, plan, places, values, insert, update, delete, guarded })
    }

    pub(super) fn plan(&self) -> &'p TablePlan {
        self.plan
    }

    /// The columns that a row sets beside its key, by place.
    pub(super) fn values(&self) -> &[usize] {
        &self.values
    }

    /// Inserts or updates a row.
    pub(super) fn upsert(
        &self,
        block: &Block,
        row: usize,
        key: &BoundKey<'_>,
        present: bool,
    ) -> Result<Result<Wrote, RowProblem>> {
        if present && self.values.is_empty() {
            return Ok(Ok(Wrote::Nothing));
        }
        let (sql, places) = if present { (&self.update, &self.values) } else { (&self.insert, &self.places) };
        let mut statement = self.connection.prepare_cached(sql).db()?;
        let mut exactly = !self.guarded && (!present || self.plan.tells_keys_apart(&key.values));
        for (at, place) in places.iter().enumerate() {
            let column = &self.plan.columns[*place];
            match stored(column.form, block.cell(column.id, row)) {
                Ok(value) => {
                    exactly &= column.form.affinity.keeps(as_ref(&value));
                    statement.raw_bind_parameter(at + 1, value).db()?;
                }
                Err(problem) => {
                    return Ok(Err(RowProblem::of_type(format!("column \"{}\": {problem}", column.name))));
                }
            }
        }
        if present {
            for (at, value) in key.values.iter().enumerate() {
                statement.raw_bind_parameter(places.len() + at + 1, value).db()?;
            }
        }
        let wrote = self.execute(&mut statement)?;
        Ok(wrote.map(|wrote| if exactly && wrote == Wrote::Done { Wrote::Exactly } else { wrote }))
    }

    /// Inserts all rows of a block, or those before the first that can't be; answers how many.
    pub(super) fn insert_all(&self, block: &Block) -> Result<u64> {
        let mut statement = self.connection.prepare_cached(&self.insert).db()?;
        // A block's columns stand in the order of `places`.
        let forms: Vec<_> = self.places.iter().map(|place| self.plan.columns[*place].form).collect();
        let mut scratch = String::new();
        for row in 0..block.rows() {
            for (at, (form, column)) in forms.iter().zip(&block.columns).enumerate() {
                match stored_in(*form, column.cell(row), &mut scratch) {
                    Ok(value) => statement.raw_bind_parameter(at + 1, value).db()?,
                    Err(_) => return Ok(row as u64),
                }
            }
            match statement.raw_execute() {
                Ok(_) => {}
                Err(error) if row_error(&error).is_some() => return Ok(row as u64),
                Err(error) => return Err(classify(&error)),
            }
        }
        Ok(block.rows() as u64)
    }

    /// Removes a row that is there.
    pub(super) fn delete(&self, key: &BoundKey<'_>) -> Result<Result<Wrote, RowProblem>> {
        let mut statement = self.connection.prepare_cached(&self.delete).db()?;
        for (at, value) in key.values.iter().enumerate() {
            statement.raw_bind_parameter(at + 1, value).db()?;
        }
        self.execute(&mut statement)
    }

    fn execute(&self, statement: &mut CachedStatement<'_>) -> Result<Result<Wrote, RowProblem>> {
        if self.guarded {
            self.connection.execute_batch("SAVEPOINT syncline_row").db()?;
        }
        let done = statement.raw_execute();
        let problem = match done {
            Ok(changed) => {
                if self.guarded {
                    self.connection.execute_batch("RELEASE syncline_row").db()?;
                }
                return Ok(Ok(if changed > 0 { Wrote::Done } else { Wrote::Swallowed }));
            }
            Err(error) => error,
        };
        let rolled_back = self.connection.is_autocommit();
        if self.guarded && !rolled_back {
            self.connection.execute_batch("ROLLBACK TO syncline_row; RELEASE syncline_row").db()?;
        }
        match row_error(&problem) {
            Some((reason, message)) => Ok(Err(RowProblem { reason, message, rolled_back })),
            None => Err(classify(&problem)),
        }
    }
}
