//! From rows of SQLite to columns of a block, without a value per cell in between.

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::{Value as Stored, ValueRef};
use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::Tick;
use syncline::value::{CanonicalType, Value, row_json};

use super::enumerate::owned;
use super::errors::DatabaseResult as _;
use super::plan::TablePlan;
use super::types::{any_cell, single_value, stored_value, typed_cell};
use super::writer::RowProblem;
use crate::limits;

/// What bounds a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockBounds {
    /// A block ends when its rows take this much.
    pub(super) block_bytes_max: usize,
    /// A larger row is ROW_TOO_LARGE.
    pub(super) row_bytes_max: usize,
}

/// What stands beside a row's cells.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beside {
    pub(super) changed_at: Option<i64>,
    /// From a leaf: the row's tick, and that of its birth.
    pub(super) leaf: Option<(Tick, Tick)>,
}

/// Fills blocks of one table and operation.
pub(super) struct BlockBuilder<'p> {
    plan: &'p TablePlan,
    operation: Operation,
    /// The carried columns that blocks have, by place.
    places: Vec<usize>,
    bounds: BlockBounds,
    block: Block,
    bytes: usize,
    scratch: String,
}

impl<'p> BlockBuilder<'p> {
    pub(super) fn new(plan: &'p TablePlan, operation: Operation, bounds: BlockBounds) -> Self {
        let places = if operation.removes() { plan.key.clone() } else { (0..plan.columns.len()).collect() };
        let block = empty(plan, operation, &places);
        Self { plan, operation, places, bounds, block, bytes: 0, scratch: String::new() }
    }

    /// Adds a row whose cells stand in the first columns of `row`: all carried ones for upserts, the key for deletes.
    /// Answers a block that had no room for it, with the key of its last row.
    pub(super) fn push(&mut self, row: &Row<'_>, beside: Beside) -> Result<Option<(Block, Bytes)>> {
        let mut bytes = 0;
        for place in 0..self.places.len() {
            bytes += match row.get_ref(place).db()? {
                ValueRef::Null => 1,
                ValueRef::Integer(_) | ValueRef::Real(_) => 8,
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() + 4,
            };
        }
        if bytes > self.bounds.row_bytes_max {
            return Err(self.too_large(row, bytes));
        }
        let full = self.block.rows() >= limits::BLOCK_ROWS_MAX
            || (self.block.rows() > 0 && self.bytes + bytes > self.bounds.block_bytes_max);
        let finished = if full { self.finish()? } else { None };
        for (at, place) in self.places.iter().enumerate() {
            let column = &mut self.block.columns[at];
            if !push_cell(self.plan, *place, column, row.get_ref(at).db()?, &mut self.scratch)? {
                return Err(self.not_utf8(row, &self.plan.columns[*place].name));
            }
        }
        self.bytes += bytes;
        self.block.changed_at.extend(beside.changed_at);
        if let Some((tick, birth)) = beside.leaf {
            self.block.ticks.push(tick);
            self.block.births.push(birth);
        }
        Ok(finished)
    }

    /// The block so far, if it has rows, with the key of its last row.
    pub(super) fn finish(&mut self) -> Result<Option<(Block, Bytes)>> {
        let rows = self.block.rows();
        if rows == 0 {
            return Ok(None);
        }
        let Ok(key) = self.plan.block_key(&self.block, rows - 1)? else {
            return Err(SyncError::internal("a key that came from this database can't be stored in it"));
        };
        let last_key = key.bytes;
        self.bytes = 0;
        let next = empty(self.plan, self.operation, &self.places);
        Ok(Some((std::mem::replace(&mut self.block, next), last_key)))
    }

    fn too_large(&self, row: &Row<'_>, bytes: usize) -> SyncError {
        let (table, key) = (&self.plan.name, self.key_json(row));
        let text = format!(
            "the row {key} of table \"{table}\" takes {bytes} bytes; at most {} were agreed: allow larger rows, or make it \
             smaller",
            self.bounds.row_bytes_max
        );
        SyncError::new(ErrorReason::RowTooLarge, text).with("table", table).with("key", key)
    }

    fn not_utf8(&self, row: &Row<'_>, column: &str) -> SyncError {
        let (table, key) = (&self.plan.name, self.key_json(row));
        let text = format!(
            "the row {key} of table \"{table}\" has text that is not UTF-8 in column \"{column}\"; correct it, store it as a \
             blob, or delete the row"
        );
        SyncError::new(ErrorReason::RowInvalid, text).with("table", table).with("key", key)
    }

    /// The row's key, for people: what is not UTF-8 is replaced.
    fn key_json(&self, row: &Row<'_>) -> String {
        let cells = self.plan.key.iter().filter_map(|key| {
            let at = self.places.iter().position(|place| place == key)?;
            let value = match row.get_ref(at).ok()? {
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                value => single_value(self.plan.columns[*key].form, value)?,
            };
            Some((self.plan.columns[*key].name.as_str(), value))
        });
        let cells: Vec<_> = cells.collect();
        row_json(cells.iter().map(|(name, value)| (*name, value.cell()))).to_string()
    }
}

/// Whether one of the first columns holds text that is not UTF-8. A row with such a key was never sent to anybody, so nobody
/// has to hear that it is gone.
pub(super) fn can_not_travel(row: &Row<'_>, columns: usize) -> Result<bool> {
    for place in 0..columns {
        if !is_utf8(row.get_ref(place).db()?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_utf8(value: ValueRef<'_>) -> bool {
    !matches!(value, ValueRef::Text(text) if std::str::from_utf8(text).is_err())
}

/// A stored row's carried columns, owned. The inner error: text that is not UTF-8, which can't be compared with what came,
/// nor kept in the conflict log.
pub(super) fn owned_row(plan: &TablePlan, row: &Row<'_>) -> Result<Result<Vec<Stored>, RowProblem>> {
    for (place, column) in plan.columns.iter().enumerate() {
        if !is_utf8(row.get_ref(place).db()?) {
            let name = &column.name;
            let problem = format!(
                "the row that is there has text that is not UTF-8 in column \"{name}\"; correct it there"
            );
            return Ok(Err(RowProblem::of_type(problem)));
        }
    }
    owned(row, plan.columns.len()).map(Ok)
}

fn empty(plan: &TablePlan, operation: Operation, places: &[usize]) -> Block {
    let columns = places.iter().map(|place| &plan.columns[*place]);
    Block::new(plan.id, operation, columns.map(|column| Column::new(column.id, column.form.ty)).collect())
}

/// Adds a cell; answers `false` for text that is not UTF-8, which has no form that travels. A block's column becomes `any`
/// with the first cell that its type can't carry byte for byte.
fn push_cell(
    plan: &TablePlan,
    place: usize,
    column: &mut Column,
    value: ValueRef<'_>,
    scratch: &mut String,
) -> Result<bool> {
    let form = plan.columns[place].form;
    if column.ty() == form.ty {
        if let Some(cell) = typed_cell(form, value, scratch) {
            return column.push(cell).map(|()| true).map_err(SyncError::internal);
        }
        if column.ty() != CanonicalType::Any {
            *column = column.into_any(|cell| stored_value(form, cell)).map_err(SyncError::internal)?;
        }
    }
    let Some(cell) = any_cell(value) else { return Ok(false) };
    column.push(cell).map(|()| true).map_err(SyncError::internal)
}
