//! A first download: rows are copied straight into a table that was empty when the download began.

use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::PgConnection;
use sqlx::postgres::PgCopyIn;
use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::error::Result;
use syncline::value::{CanonicalType, Cell};

use super::apply::Apply;
use super::fold::flag;
use super::incoming::Incoming;
use super::stage::places;
use super::tables::LeafTable;
use crate::dialect::postgres::copy::CopyBuffer;
use crate::dialect::postgres::errors::{self, Class};
use crate::dialect::postgres::statements::copy_in;
use crate::dialect::postgres::types::{self, ColumnType, Keeps, StageError, Wire};
use crate::limits;

/// Bytes of a COPY that are sent as one piece: little, so that the server soon has something to do.
const PIECE_BYTES: usize = 128 << 10;

impl Apply<'_> {
    /// Copies blocks into their table, if it was empty when the download began and holds nothing of the application's
    /// own: as many of those that come as can be written alike. Answers whether they are there now; if not, nothing has
    /// happened, and the first block is to be staged.
    ///
    /// All of them are one COPY, over several batches unless each is committed by itself: every COPY begins with a
    /// thousand slots, whose bookkeeping at the server takes longer than the rows of a block do. If a row can't be
    /// written, or meets one of the application's, all is taken back, read again, and staged block by block.
    pub(super) async fn copy_directly(
        &mut self,
        incoming: &mut Incoming<'_>,
        rows_done: &AtomicU64,
    ) -> Result<bool> {
        let Some(first) = incoming.left().first() else { return Ok(false) };
        let (index, table) = self.table(first)?;
        let may = !self.context.held_rows[index]
            && !self.progress.indirect.contains(&index)
            && self.progress.late.is_empty()
            && self.progress.carried.is_empty()
            && table.takes_copies()
            && is_plain(first);
        if !may || (table.tracks() && flag(self.connection, &table.any_dirty()).await?) {
            self.progress.indirect.insert(index);
            return Ok(false);
        }
        let (start, done) = (incoming.place(), rows_done.load(Ordering::Relaxed));
        self.run("SAVEPOINT syncline_direct").await?;
        let copied = self.copy_blocks(table, incoming, rows_done).await?;
        // Whoever inserted one of these keys before us made our copy wait, and has an entry now.
        let met = copied.is_some() && table.tracks() && flag(self.connection, &table.any_dirty()).await?;
        if let (Some(copied), false) = (copied, met) {
            self.run("RELEASE SAVEPOINT syncline_direct").await?;
            self.progress.report.upserts += copied.written;
            self.progress.rows += copied.rows;
            return Ok(true);
        }
        self.run("ROLLBACK TO SAVEPOINT syncline_direct; RELEASE SAVEPOINT syncline_direct").await?;
        self.progress.indirect.insert(index);
        incoming.go_back(start).await?;
        rows_done.store(done, Ordering::Relaxed);
        Ok(false)
    }

    /// Answers `None` if a row can't be written.
    async fn copy_blocks(
        &mut self,
        table: &LeafTable,
        incoming: &mut Incoming<'_>,
        rows_done: &AtomicU64,
    ) -> Result<Option<Copied>> {
        let Some(first) = incoming.left().first() else { return Ok(None) };
        let places = places(table, first)?;
        let sending = Sending { table, places: &places, goes_on: !self.context.job.per_batch, rows_done };
        let mut copy = copy_in(self.connection, &table.copy_base(&places)).await.map_err(errors::database)?;
        let sent = sending.send(&mut copy, incoming).await;
        // It is ended, not aborted, whatever happened: the server may have refused an earlier row meanwhile, and what it
        // says of that must not be taken for the answer to what comes next on this connection.
        let finished = copy.finish().await;
        let Some(rows) = sent? else { return Ok(None) };
        let written = match finished {
            Ok(written) => written,
            Err(error) if matches!(errors::classify(&error), Class::Row(_)) => return Ok(None),
            Err(error) => return Err(errors::database(error)),
        };
        if let Some(sequence) = table.key_sequence() {
            self.run(&table.move_sequence_past_keys(sequence)).await?;
        }
        Ok(Some(Copied { rows, written }))
    }
}

/// What a COPY did.
#[derive(Debug, Clone, Copy)]
struct Copied {
    /// Rows that came.
    rows: u64,
    /// Rows that are there: fewer, if a trigger of the user's swallows some.
    written: u64,
}

/// How blocks are sent.
#[derive(Debug, Clone, Copy)]
struct Sending<'a> {
    table: &'a LeafTable,
    /// The columns.
    places: &'a [usize],
    /// Whether the next batch may be sent along.
    goes_on: bool,
    /// Counts the rows, for whoever watches.
    rows_done: &'a AtomicU64,
}

impl Sending<'_> {
    /// Sends blocks that are alike, and passes them. Answers their rows; `None` if a cell can't be sent. Whatever it
    /// answers, whole rows were sent.
    async fn send(
        self,
        copy: &mut PgCopyIn<&mut PgConnection>,
        incoming: &mut Incoming<'_>,
    ) -> Result<Option<u64>> {
        let types: Vec<&ColumnType> =
            self.places.iter().map(|place| &self.table.tracked.columns[*place].ty).collect();
        let mut buffer = CopyBuffer::new();
        let (mut rows, mut bytes) = (0, 0);
        loop {
            while let Some(block) = incoming.left().first().filter(|block| self.takes(block)) {
                let columns: Vec<(&Column, &ColumnType)> =
                    block.columns.iter().zip(types.iter().copied()).collect();
                for row in 0..block.rows() {
                    if push_row(&columns, row, &mut buffer).is_err() {
                        return Ok(None);
                    }
                    if buffer.len() >= PIECE_BYTES {
                        copy.send(buffer.bytes()).await.map_err(errors::database)?;
                        bytes += buffer.len();
                        buffer.clear();
                    }
                }
                let block_rows = block.rows() as u64;
                rows += block_rows;
                self.rows_done.fetch_add(block_rows, Ordering::Relaxed);
                incoming.pass(1);
            }
            // What is taken back at worst, and what the server keeps of it for triggers, is bounded.
            let full = bytes >= limits::FILL_BYTES_MAX;
            let other_kind = !incoming.left().is_empty();
            if other_kind || full || !self.goes_on || !incoming.read().await? {
                break;
            }
        }
        buffer.end();
        copy.send(buffer.bytes()).await.map_err(errors::database)?;
        Ok(Some(rows))
    }

    /// Whether the block goes into these columns, in this order.
    fn takes(self, block: &Block) -> bool {
        let wanted = self.places.iter().map(|place| {
            let column = &self.table.tracked.columns[*place];
            (column.id, column.ty.canonical)
        });
        block.table == self.table.schema.id
            && is_plain(block)
            && block.columns.iter().map(|column| (column.id(), column.ty())).eq(wanted)
    }
}

/// Whether the block's cells have the types of their columns.
fn is_plain(block: &Block) -> bool {
    block.operation == Operation::Upsert
        && block.columns.iter().all(|column| column.ty() != CanonicalType::Any)
}

fn push_row(
    columns: &[(&Column, &ColumnType)],
    row: usize,
    buffer: &mut CopyBuffer,
) -> Result<(), StageError> {
    buffer.row(columns.len());
    for (column, ty) in columns {
        buffer.cell(|out| direct(column, ty, row, out))?;
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
fn direct(column: &Column, ty: &ColumnType, row: usize, out: &mut Vec<u8>) -> Result<bool, StageError> {
    if ty.keeps != Keeps::All && !ty.keeps.keeps(column.cell(row)) {
        return Err(StageError::NotKept);
    }
    if let Some(bytes) = column.bytes(row) {
        if ty.wire == Wire::Jsonb {
            // Its version.
            out.push(1);
        }
        if ty.wire != Wire::Bytea && bytes.contains(&0) {
            return Err(StageError::ZeroCharacter);
        }
        out.extend_from_slice(bytes);
        return Ok(true);
    }
    match (ty.wire, column.cell(row)) {
        (Wire::Int2, Cell::Int64(value)) => {
            out.extend(i16::try_from(value).map_err(|_| StageError::BeyondRange)?.to_be_bytes());
        }
        (Wire::Int4, Cell::Int64(value)) => {
            out.extend(i32::try_from(value).map_err(|_| StageError::BeyondRange)?.to_be_bytes());
        }
        (_, cell) => return types::stage(ty.canonical, cell, out),
    }
    Ok(true)
}
