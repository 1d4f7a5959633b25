//! A first download: rows are copied straight into a table that was empty when the download began.

use syncline::batch::{Block, Operation};
use syncline::error::Result;
use syncline::value::{CanonicalType, Cell};

use super::apply::Apply;
use super::fold::flag;
use super::stage::places;
use super::tables::LeafTable;
use crate::dialect::postgres::copy::CopyBuffer;
use crate::dialect::postgres::errors::{self, Class};
use crate::dialect::postgres::statements::copy_in;
use crate::dialect::postgres::types::{self, StageError, Wire};

/// Bytes of a COPY that are sent as one piece.
const PIECE_BYTES: usize = 1 << 20;

impl Apply<'_> {
    /// Copies a block's rows into their table, if it was empty when the download began and holds nothing of the
    /// application's own. Answers whether they are there now; if not, nothing has happened, and they are to be staged.
    pub(super) async fn copy_directly(&mut self, block: &Block) -> Result<bool> {
        let (index, table) = self.table(block)?;
        let may = block.operation == Operation::Upsert
            && !self.context.held_rows[index]
            && !self.progress.indirect.contains(&index)
            && self.progress.late.is_empty()
            && table.takes_copies()
            && block.columns.iter().all(|column| column.ty() != CanonicalType::Any);
        if !may || (table.tracks() && flag(self.connection, &table.any_dirty()).await?) {
            self.progress.indirect.insert(index);
            return Ok(false);
        }
        self.run("SAVEPOINT syncline_direct").await?;
        let copied = self.copy_block(table, block).await?;
        // Whoever inserted one of these keys before us made our copy wait, and has an entry now.
        if copied && !(table.tracks() && flag(self.connection, &table.any_dirty()).await?) {
            self.run("RELEASE SAVEPOINT syncline_direct").await?;
            self.progress.report.upserts += block.rows() as u64;
            return Ok(true);
        }
        self.run("ROLLBACK TO SAVEPOINT syncline_direct; RELEASE SAVEPOINT syncline_direct").await?;
        self.progress.indirect.insert(index);
        Ok(false)
    }

    /// Answers `false` if a row can't be written.
    async fn copy_block(&mut self, table: &LeafTable, block: &Block) -> Result<bool> {
        let places = places(table, block)?;
        let sql = table.copy_base(&places);
        let mut buffer = CopyBuffer::new();
        let mut copy = copy_in(self.connection, &sql).await.map_err(errors::database)?;
        for row in 0..block.rows() {
            buffer.row(places.len());
            for place in &places {
                let column = &table.tracked.columns[*place];
                let cell = block.cell(column.id, row);
                if buffer.cell(|out| direct(column.ty.wire, column.ty.canonical, cell, out)).is_err() {
                    copy.abort("a row is written another way").await.map_err(errors::database)?;
                    return Ok(false);
                }
            }
            if buffer.len() >= PIECE_BYTES {
                copy.send(buffer.take()).await.map_err(errors::database)?;
            }
        }
        buffer.end();
        copy.send(buffer.take()).await.map_err(errors::database)?;
        match copy.finish().await {
            Ok(_) => {}
            Err(error) if matches!(errors::classify(&error), Class::Row(_)) => return Ok(false),
            Err(error) => return Err(errors::database(error)),
        }
        if let Some(sequence) = table.key_sequence() {
            self.run(&table.move_sequence_past_keys(sequence)).await?;
        }
        Ok(true)
    }
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
