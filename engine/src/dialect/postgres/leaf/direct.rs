//! A first download: rows are copied straight into a table that was empty when the download began.

use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::error::Result;
use syncline::value::{CanonicalType, Cell};

use super::apply::Apply;
use super::fold::flag;
use super::stage::places;
use super::tables::LeafTable;
use crate::dialect::postgres::copy::CopyBuffer;
use crate::dialect::postgres::errors::{self, Class};
use crate::dialect::postgres::statements::copy_in;
use crate::dialect::postgres::types::{self, ColumnType, StageError, Wire};

/// Bytes of a COPY that are sent as one piece: little, so that the server soon has something to do.
const PIECE_BYTES: usize = 128 << 10;

impl Apply<'_> {
    /// Copies as many of a batch's blocks as can be written alike into their table, if it was empty when the download
    /// began and holds nothing of the application's own. Answers how many are there now; if none, nothing has happened,
    /// and the first is to be staged.
    ///
    /// All of them are one COPY: each begins with a thousand empty slots, whose bookkeeping at the server takes longer
    /// than the rows of a block do. If a row can't be written, or meets one of the application's, the whole is taken
    /// back, and this table's rows are staged block by block from here on.
    pub(super) async fn copy_directly(&mut self, blocks: &[Block]) -> Result<usize> {
        let Some(first) = blocks.first() else { return Ok(0) };
        let (index, table) = self.table(first)?;
        let may = !self.context.held_rows[index]
            && !self.progress.indirect.contains(&index)
            && self.progress.late.is_empty()
            && table.takes_copies();
        let count = if may { alike(blocks) } else { 0 };
        if count == 0 || (table.tracks() && flag(self.connection, &table.any_dirty()).await?) {
            self.progress.indirect.insert(index);
            return Ok(0);
        }
        self.run("SAVEPOINT syncline_direct").await?;
        let copied = self.copy_blocks(table, &blocks[..count]).await?;
        // Whoever inserted one of these keys before us made our copy wait, and has an entry now.
        let met = copied.is_some() && table.tracks() && flag(self.connection, &table.any_dirty()).await?;
        if let (Some(rows), false) = (copied, met) {
            self.run("RELEASE SAVEPOINT syncline_direct").await?;
            self.progress.report.upserts += rows;
            return Ok(count);
        }
        self.run("ROLLBACK TO SAVEPOINT syncline_direct; RELEASE SAVEPOINT syncline_direct").await?;
        self.progress.indirect.insert(index);
        Ok(0)
    }

    /// Answers how many rows were written: fewer than came, if a trigger of the user's swallows some. `None` if a row
    /// can't be.
    async fn copy_blocks(&mut self, table: &LeafTable, blocks: &[Block]) -> Result<Option<u64>> {
        let Some(first) = blocks.first() else { return Ok(Some(0)) };
        let sql = table.copy_base(&places(table, first)?);
        let mut buffer = CopyBuffer::new();
        let mut copy = copy_in(self.connection, &sql).await.map_err(errors::database)?;
        for block in blocks {
            // An upsert has a place for each of its columns.
            let types = places(table, block)?.into_iter().map(|place| &table.tracked.columns[place].ty);
            let columns: Vec<(&Column, &ColumnType)> = block.columns.iter().zip(types).collect();
            for row in 0..block.rows() {
                if push_row(&columns, row, &mut buffer).is_err() {
                    copy.abort("a row is written another way").await.map_err(errors::database)?;
                    return Ok(None);
                }
                if buffer.len() >= PIECE_BYTES {
                    copy.send(buffer.bytes()).await.map_err(errors::database)?;
                    buffer.clear();
                }
            }
        }
        buffer.end();
        copy.send(buffer.bytes()).await.map_err(errors::database)?;
        let rows = match copy.finish().await {
            Ok(rows) => rows,
            Err(error) if matches!(errors::classify(&error), Class::Row(_)) => return Ok(None),
            Err(error) => return Err(errors::database(error)),
        };
        if let Some(sequence) = table.key_sequence() {
            self.run(&table.move_sequence_past_keys(sequence)).await?;
        }
        Ok(Some(rows))
    }
}

/// How many of the first blocks are upserts into the same columns of one table, of cells that have its types.
fn alike(blocks: &[Block]) -> usize {
    let Some(first) = blocks.first() else { return 0 };
    let columns = |block: &Block| block.columns.iter().map(Column::id).collect::<Vec<_>>();
    let wanted = columns(first);
    let like_first = |block: &&Block| {
        block.table == first.table
            && block.operation == Operation::Upsert
            && block.columns.iter().all(|column| column.ty() != CanonicalType::Any)
            && columns(block) == wanted
    };
    blocks.iter().take_while(like_first).count()
}

fn push_row(
    columns: &[(&Column, &ColumnType)],
    row: usize,
    buffer: &mut CopyBuffer,
) -> Result<(), StageError> {
    buffer.row(columns.len());
    for (column, ty) in columns {
        buffer.cell(|out| direct(ty.wire, ty.canonical, column.cell(row), out))?;
    }
    Ok(())
}

impl LeafTable {
    /// Whether the binary form of every column is one that we write, and a sequence fills the first key column only.
    fn takes_copies(&self) -> bool {
        let columns = self.tracked.columns.iter().enumerate();
        columns.into_iter().all(|(place, column)| {
            let written = !matches!(column.ty.wire, Wire::CastText | Wire::Float4);
            written && (column.sequence.is_none() || place == self.tracked.key[0])
        })
    }

    fn key_sequence(&self) -> Option<&str> {
        self.tracked.columns[self.tracked.key[0]].sequence.as_deref()
    }
}

/// Adds a cell in the binary form of its column's own type. Answers whether it is not NULL.
fn direct(wire: Wire, ty: CanonicalType, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<bool, StageError> {
    match (wire, cell) {
        (Wire::Int2, Cell::Int64(value)) => {
            out.extend(i16::try_from(value).map_err(|_| StageError::BeyondRange)?.to_be_bytes());
        }
        (Wire::Int4, Cell::Int64(value)) => {
            out.extend(i32::try_from(value).map_err(|_| StageError::BeyondRange)?.to_be_bytes());
        }
        (Wire::Jsonb, Cell::Json(_)) => {
            // Its version.
            out.push(1);
            return types::stage(ty, cell, out);
        }
        _ => return types::stage(ty, cell, out),
    }
    Ok(true)
}
