//! The way up: dirty rows of one snapshot.

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::Tick;
use syncline::schema::ScopeSchema;
use syncline::value::row_json;
use tokio::sync::mpsc;

use super::tables::{self, LeafTable};
use crate::dialect::postgres::copy::{CopyRow, CopyRows};
use crate::dialect::postgres::provision::repeat;
use crate::dialect::postgres::snapshot::clock;
use crate::dialect::postgres::statements::{copy_out, qualified, reading, run};
use crate::dialect::postgres::types::{self, CellError};
use crate::dialect::postgres::{PostgresDatabase, errors, give_way};
use crate::limits;
use crate::store::{LeafUpload, UploadSnapshot};

/// A connection that holds a snapshot. Dropped before it is finished it is closed: a COPY may still be running on it.
struct Reader {
    connection: PoolConnection<Postgres>,
    finished: bool,
}

impl Reader {
    /// **Invariant:** what the snapshot has seen is on disk before anybody hears of it. Something is written and committed
    /// durably on the same connection: its server has not failed in between, or it would not be there. Else the ticks that
    /// were read might be given to later edits, of which the hub would believe that it has them.
    async fn finish(&mut self) -> Result<()> {
        run(&mut self.connection, "COMMIT").await.map_err(errors::database)?;
        let flushed = "BEGIN READ WRITE; SET LOCAL synchronous_commit = on; \
                       SELECT pg_catalog.pg_logical_emit_message(true, 'syncline', ''); COMMIT";
        run(&mut self.connection, flushed).await.map_err(errors::database)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.finished {
            self.connection.close_on_drop();
        }
    }
}

/// Opens one snapshot over the scope's tables, and sends its dirty rows from a task of its own.
pub(super) async fn enumerate(
    database: &PostgresDatabase,
    schema: &ScopeSchema,
    upload: LeafUpload,
) -> Result<UploadSnapshot> {
    let (mut reader, clock, tables) = repeat(|| open(database, schema)).await?;
    let (sender, blocks) = mpsc::channel(limits::BLOCK_CHANNEL_MAX);
    tokio::spawn(async move {
        let result = match send_all(&mut reader, &tables, upload, &sender).await {
            Ok(true) => reader.finish().await,
            // The receiver is gone: nobody wants the rest, and nobody hears an error.
            Ok(false) => return,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            // A receiver that is gone does not want to know.
            drop(sender.send(Err(error)).await);
        }
    });
    Ok(UploadSnapshot { clock, blocks })
}

async fn open(
    database: &PostgresDatabase,
    schema: &ScopeSchema,
) -> Result<(Reader, syncline::knowledge::Clock, Vec<LeafTable>)> {
    let connection = database.pool.acquire().await.map_err(errors::database)?;
    let mut reader = Reader { connection, finished: false };
    let connection = &mut reader.connection;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL row_security = off";
    run(connection, begin).await.map_err(errors::database)?;
    give_way(connection).await?;
    // Before the snapshot is taken: a table that is rewritten or truncated in between would read as empty.
    let tracked = schema.tables.iter().filter(|table| table.direction.uploads());
    let bases: Vec<_> = tracked.map(|table| qualified(super::LEAF_SCHEMA, &table.name)).collect();
    if !bases.is_empty() {
        run(connection, &reading::lock_shared(&bases)).await.map_err(missing_is_broken)?;
    }
    let clock = clock(connection).await?;
    let tables = tables::load(connection, schema).await?;
    Ok((reader, clock, tables))
}

fn missing_is_broken(error: sqlx::Error) -> SyncError {
    if errors::is_missing(&error) {
        return tables::broken("(missing)", "the table itself").with_detail(errors::describe(&error));
    }
    errors::database(error)
}

/// Sends upserts parents first, then deletes children first. Answers whether the receiver wanted all of them.
async fn send_all(
    reader: &mut Reader,
    tables: &[LeafTable],
    upload: LeafUpload,
    blocks: &mpsc::Sender<Result<Block>>,
) -> Result<bool> {
    let up = tables.iter().map(|table| (table, Operation::Upsert));
    let down = tables.iter().rev().map(|table| (table, Operation::Delete));
    for (table, operation) in up.chain(down).filter(|(table, _)| table.tracks()) {
        if !send_table(reader, table, operation, upload, blocks).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn send_table(
    reader: &mut Reader,
    table: &LeafTable,
    operation: Operation,
    upload: LeafUpload,
    blocks: &mpsc::Sender<Result<Block>>,
) -> Result<bool> {
    let places: Vec<usize> = match operation {
        Operation::Upsert => (0..table.tracked.columns.len()).collect(),
        _ => table.tracked.key.clone(),
    };
    let sql = if operation == Operation::Upsert { table.dirty_upserts() } else { table.dirty_deletes() };
    let stream = copy_out(&mut reader.connection, &sql).await.map_err(errors::database)?;
    let (mut rows, mut row) = (CopyRows::new(stream), CopyRow::new());
    let mut block = empty_block(table, operation, &places);
    while rows.next(&mut row).await? {
        let bytes = row_bytes(&row, places.len());
        if bytes > upload.row_bytes_max {
            return Err(too_large(table, &places, &row, upload.row_bytes_max));
        }
        let full =
            block.encoded_bytes() + bytes > upload.block_bytes_max || block.rows() >= limits::BLOCK_ROWS_MAX;
        if full && block.rows() > 0 {
            let whole = std::mem::replace(&mut block, empty_block(table, operation, &places));
            if blocks.send(Ok(whole)).await.is_err() {
                return Ok(false);
            }
        }
        push_row(table, &places, &row, &mut block)?;
    }
    if block.rows() > 0 && blocks.send(Ok(block)).await.is_err() {
        return Ok(false);
    }
    Ok(true)
}

fn empty_block(table: &LeafTable, operation: Operation, places: &[usize]) -> Block {
    let column = |at: &usize| {
        let column = &table.tracked.columns[*at];
        Column::new(column.id, column.ty.canonical)
    };
    Block::new(table.schema.id, operation, places.iter().map(column).collect())
}

/// About what the row takes in a batch: cells, lengths, and what stands beside them.
fn row_bytes(row: &CopyRow, cells: usize) -> usize {
    (0..cells).map(|at| row.cell(at).map_or(1, |cell| cell.len().max(4) + 4)).sum::<usize>() + 17
}

fn push_row(table: &LeafTable, places: &[usize], row: &CopyRow, block: &mut Block) -> Result<()> {
    for (at, place) in places.iter().enumerate() {
        let column = &table.tracked.columns[*place];
        types::push(&mut block.columns[at], column.ty.wire, row.cell(at)).map_err(|error| match error {
            CellError::Malformed => SyncError::internal("a cell's binary form is not as it should be"),
            CellError::BeyondRange => SyncError::new(
                ErrorReason::RowInvalid,
                format!(
                    "a row of table \"{}\" holds a time in column \"{}\" that is beyond what can be carried; its key \
                     is {}: correct the value",
                    table.schema.name,
                    column.name,
                    key_json(table, places, row)
                ),
            )
            .with("table", &table.schema.name),
        })?;
    }
    let missing = || SyncError::internal("a dirty row without tick or time");
    let tick = row.int8(places.len())?.ok_or_else(missing)?;
    block.ticks.push(Tick(tick.unsigned_abs()));
    block.changed_at.push(row.int8(places.len() + 1)?.ok_or_else(missing)?);
    let birth = row.int8(places.len() + 2)?.ok_or_else(missing)?;
    block.births.push(Tick(birth.unsigned_abs()));
    Ok(())
}

fn too_large(table: &LeafTable, places: &[usize], row: &CopyRow, row_bytes_max: usize) -> SyncError {
    let key = key_json(table, places, row);
    SyncError::new(
        ErrorReason::RowTooLarge,
        format!(
            "a row of table \"{}\" is larger than {row_bytes_max} bytes; its key is {key}: make it smaller, or have \
             a greater row size agreed",
            table.schema.name
        ),
    )
    .with("table", &table.schema.name)
    .with("key", key)
}

fn key_json(table: &LeafTable, places: &[usize], row: &CopyRow) -> String {
    let cells = table.tracked.key.iter().filter_map(|place| {
        let at = places.iter().position(|other| other == place)?;
        let column = &table.tracked.columns[*place];
        let cell = types::cell(column.ty.canonical, column.ty.wire, row.cell(at)?).ok()?;
        Some((column.name.as_str(), cell))
    });
    row_json(cells).to_string()
}
