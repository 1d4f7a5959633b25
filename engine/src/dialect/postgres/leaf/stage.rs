//! Blocks of a download, copied into the stage of their table.

use syncline::batch::Block;
use syncline::column::Column;
use syncline::conflict::RowErrorReason;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::knowledge::RowKey;
use syncline::value::{CanonicalType, Cell, Value};

use super::apply::{Apply, Set};
use super::tables::LeafTable;
use crate::dialect::any::from_any;
use crate::dialect::postgres::copy::CopyBuffer;
use crate::dialect::postgres::errors;
use crate::dialect::postgres::statements::copy_in;
use crate::dialect::postgres::types::{self, StageError, Wire};

/// Bytes of a COPY that are sent as one piece.
const PIECE_BYTES: usize = 1 << 20;

impl Apply<'_> {
    /// Fills the stage with a block's rows. Rows with a cell that PostgreSQL can't hold become row errors; of them only
    /// the key is staged.
    pub(super) async fn stage_block(&mut self, block: &Block) -> Result<Set> {
        let (index, table) = self.table(block)?;
        let places = places(table, block)?;
        self.run(&table.clear_stage()).await?;
        let mut failed = Vec::new();
        let mut buffer = CopyBuffer::new();
        let sql = table.copy_stage(&places);
        let mut copy = copy_in(self.connection, &sql).await.map_err(errors::database)?;
        for row in 0..block.rows() {
            if let Some((reason, message)) = push_row(table, &places, block, row, &mut buffer)? {
                failed.push((row, reason, message));
            }
            if buffer.len() >= PIECE_BYTES {
                copy.send(buffer.take()).await.map_err(errors::database)?;
            }
        }
        buffer.end();
        copy.send(buffer.take()).await.map_err(errors::database)?;
        copy.finish().await.map_err(errors::database)?;
        let removes = block.operation.removes();
        self.forget_earlier(index, block).await?;
        for (row, reason, message) in failed {
            let cells: Vec<Value> =
                table.schema.key.iter().map(|id| block.cell(*id, row).to_value()).collect();
            self.fail(index, removes, &cells, reason, message)?;
        }
        if !removes {
            self.progress.places.insert(index, places.clone());
        }
        Ok(Set { table: index, removes, places, unnamed: false, again: false })
    }

    /// What was said of rows of the block before (in this download) does not count any more.
    async fn forget_earlier(&mut self, index: usize, block: &Block) -> Result<()> {
        let table = &self.context.tables[index];
        if !self.progress.errors.is_empty() || !self.progress.carried.is_empty() {
            for row in 0..block.rows() {
                let key = block.key(&table.schema.key, row).map_err(SyncError::internal)?;
                let key = RowKey { table: block.table, key };
                self.progress.errors.remove(&key);
                self.progress.carried.remove(&key);
            }
        }
        for removes in [false, true] {
            if self.progress.late.contains(&(index, removes)) {
                self.run(&table.supersede_late(removes)).await?;
            }
        }
        Ok(())
    }
}

/// The columns that the block has, as places.
pub(super) fn places(table: &LeafTable, block: &Block) -> Result<Vec<usize>> {
    let mut places = Vec::with_capacity(block.columns.len());
    for column in &block.columns {
        let place =
            table.place(column.id()).ok_or_else(|| unexpected("names a column that is not in the scope"))?;
        let wanted = table.tracked.columns[place].ty.canonical;
        if column.ty() != wanted && column.ty() != CanonicalType::Any {
            return Err(unexpected("has a column of another type than the scope"));
        }
        if !block.operation.removes() || table.tracked.is_key(place) {
            places.push(place);
        }
    }
    if !table.tracked.key.iter().all(|place| places.contains(place)) {
        return Err(unexpected("lacks a key column"));
    }
    Ok(places)
}

fn unexpected(problem: &str) -> SyncError {
    SyncError::new(ErrorReason::BatchCorrupt, format!("a batch {problem}"))
}

/// Adds a row; answers why it can't be held, if so.
fn push_row(
    table: &LeafTable,
    places: &[usize],
    block: &Block,
    row: usize,
    buffer: &mut CopyBuffer,
) -> Result<Option<(RowErrorReason, String)>> {
    let ordinal = i64::try_from(row).map_err(SyncError::internal)?;
    let mut failed = None;
    begin_row(buffer, places.len(), ordinal, None, block.changed_at.get(row));
    for place in places {
        let column = &table.tracked.columns[*place];
        let cell = block.column(column.id).map_or(Cell::Null, |column| column.cell(row));
        if let Err(error) = push_cell(table, *place, block.column(column.id), cell, buffer) {
            failed = Some((RowErrorReason::Type, message(&column.name, &column.ty.declared, error)));
            break;
        }
    }
    if failed.is_some() {
        buffer.drop_row();
        begin_row(buffer, places.len(), ordinal, Some("e"), None);
        for place in places {
            let column = &table.tracked.columns[*place];
            let cell = if table.tracked.is_key(*place) { block.cell(column.id, row) } else { Cell::Null };
            if push_cell(table, *place, block.column(column.id), cell, buffer).is_err() {
                // A key that can't be held can't be here either: there is nothing to stage.
                buffer.drop_row();
                break;
            }
        }
    }
    Ok(failed)
}

fn begin_row(
    buffer: &mut CopyBuffer,
    cells: usize,
    ordinal: i64,
    verdict: Option<&str>,
    changed_at: Option<&i64>,
) {
    buffer.row(cells + 3);
    buffer.bytes_cell(&ordinal.to_be_bytes());
    optional(buffer, verdict.map(str::as_bytes));
    optional(buffer, changed_at.map(|at| at.to_be_bytes()).as_ref().map(<[u8; 8]>::as_slice));
}

fn optional(buffer: &mut CopyBuffer, bytes: Option<&[u8]>) {
    let _: Result<(), std::convert::Infallible> = buffer.cell(|out| {
        out.extend_from_slice(bytes.unwrap_or_default());
        Ok(bytes.is_some())
    });
}

fn push_cell(
    table: &LeafTable,
    place: usize,
    column: Option<&Column>,
    cell: Cell<'_>,
    buffer: &mut CopyBuffer,
) -> Result<(), StageError> {
    let ty = &table.tracked.columns[place].ty;
    let converted;
    let cell = if column.is_some_and(|column| column.ty() == CanonicalType::Any) {
        let precision_scale = table.schema.columns[place].precision_scale;
        converted = from_any(cell, ty.canonical, precision_scale).ok_or(StageError::NoSuchValue)?;
        converted.cell()
    } else {
        cell
    };
    // Staged as 64 bits: what the column can't hold would fail when keys are compared, outside of any row.
    if let Cell::Int64(value) = cell {
        let fits = match ty.wire {
            Wire::Int2 => i16::try_from(value).is_ok(),
            Wire::Int4 => i32::try_from(value).is_ok(),
            _ => true,
        };
        if !fits {
            return Err(StageError::BeyondRange);
        }
    }
    if !ty.keeps.keeps(cell) {
        return Err(StageError::NotKept);
    }
    buffer.cell(|out| types::stage(ty.canonical, cell, out))
}

fn message(column: &str, declared: &str, error: StageError) -> String {
    let problem = match error {
        StageError::ZeroCharacter => "holds the character U+0000, which PostgreSQL's text can't",
        StageError::BeyondRange => "is beyond the range of its type",
        StageError::NoSuchValue => "holds a value that is none of its type; correct it at its source",
        StageError::NotKept => {
            "would make another value of it, which a later edit here would take to the hub; give it the hub's type"
        }
    };
    format!("column \"{column}\" ({declared}) {problem}")
}
