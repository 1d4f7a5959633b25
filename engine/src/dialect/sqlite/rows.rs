//! From rows of SQLite to columns of a block, without a value per cell in between.

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::ValueRef;
use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::Tick;
use syncline::value::CanonicalType;

use super::errors::DatabaseResult as _;
use super::plan::TablePlan;
use super::types::{any_cell, stored_value, typed_cell};
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
            push_cell(
                self.plan,
                *place,
                &mut self.block.columns[at],
                row.get_ref(at).db()?,
                &mut self.scratch,
            )?;
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
        let at = |key: &usize| self.places.iter().position(|place| place == key);
        let values = self.plan.key.iter().filter_map(|key| row.get_ref(at(key)?).ok());
        let key = self.plan.key_bytes(values).map(|bytes| self.plan.key_json(&bytes)).unwrap_or_default();
        SyncError::new(
            ErrorReason::RowTooLarge,
            format!(
                "the row {key} of table \"{}\" takes {bytes} bytes; at most {} were agreed: allow larger rows, or make \
                 it smaller",
                self.plan.name, self.bounds.row_bytes_max
            ),
        )
        .with("table", &self.plan.name)
        .with("key", key)
    }
}

fn empty(plan: &TablePlan, operation: Operation, places: &[usize]) -> Block {
    let columns = places.iter().map(|place| &plan.columns[*place]);
    Block::new(plan.id, operation, columns.map(|column| Column::new(column.id, column.form.ty)).collect())
}

/// Adds a cell. A block's column becomes `any` with the first cell that its type can't carry byte for byte.
fn push_cell(
    plan: &TablePlan,
    place: usize,
    column: &mut Column,
    value: ValueRef<'_>,
    scratch: &mut String,
) -> Result<()> {
    let form = plan.columns[place].form;
    if column.ty() == form.ty {
        if let Some(cell) = typed_cell(form, value, scratch) {
            return column.push(cell).map_err(SyncError::internal);
        }
        if column.ty() != CanonicalType::Any {
            *column = column.into_any(|cell| stored_value(form, cell)).map_err(SyncError::internal)?;
        }
    }
    let cell =
        any_cell(value).ok_or_else(|| plan.not_utf8(&format!("column \"{}\"", plan.columns[place].name)))?;
    column.push(cell).map_err(SyncError::internal)
}
