//! Staging an upload: cells by COPY, in the base table's types where the upload's are as good, else in canonical form
//! first. Rows that can't be staged are row errors here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sqlx::PgConnection;
use sqlx::postgres::PgCopyIn;
use syncline::batch::{Block, Operation};
use syncline::conflict::{RowError, RowErrorReason};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ColumnId, TableId, Tick};
use syncline::knowledge::{RowKey, Version};
use syncline::schema::{ColumnSchema, TableSchema};
use syncline::value::{CanonicalType, Cell, Value, key_cells, row_json};

use super::apply::Applier;
use super::apply_convert::convert;
use super::apply_incoming::Incoming;
use super::copy::CopyBuffer;
use super::errors::{self, UNIQUE_VIOLATION};
use super::statements;
use super::statements::applying::plain::Staged;
use super::tracked::Tracked;
use super::types::{ColumnType, StageError, stage as stage_cell, stage_own};
use crate::dialect::any::from_any;
use crate::store::BatchSource;

/// Bytes that are collected before they are sent to the server.
const COPY_BYTES: usize = 256 << 10;

/// A table of an upload.
#[derive(Debug)]
pub(super) struct StagedTable {
    pub(super) tracked: Tracked,
    /// Whether its staging tables are there.
    created: bool,
    /// Whether cells are staged in the base table's types.
    own_types: bool,
    /// Rows that were staged: they are numbered from 1.
    pub(super) rows: i64,
    /// Of which kinds they are.
    pub(super) staged: Staged,
    /// The earliest time of a row that the hub must have already, microseconds since 1970 UTC.
    pub(super) present_since: i64,
    /// Whether all of them are of the base table's types, with their keys.
    pub(super) all_converted: bool,
    /// Rows for which other made-with clocks hold.
    pub(super) excepted: Vec<i64>,
}

impl StagedTable {
    pub(super) fn new(tracked: Tracked) -> Self {
        Self {
            own_types: tracked.is_staged_as_it_is(),
            tracked,
            created: false,
            rows: 0,
            staged: Staged { updates: 0, births: 0, removals: 0 },
            present_since: i64::MAX,
            all_converted: true,
            excepted: Vec::new(),
        }
    }

    fn count(&mut self, removes: bool, born: bool, changed_at: i64) {
        self.rows += 1;
        match (removes, born) {
            (true, _) => self.staged.removals += 1,
            (false, true) => self.staged.births += 1,
            (false, false) => self.staged.updates += 1,
        }
        if removes || !born {
            self.present_since = self.present_since.min(changed_at);
        }
    }
}

/// Stages all batches; the next is decoded while one is copied.
pub(super) async fn stage(
    connection: &mut PgConnection,
    applier: &mut Applier<'_>,
    batches: &dyn BatchSource,
    rows_done: &AtomicU64,
) -> Result<()> {
    let mut incoming = Incoming::new(batches);
    while let Some(table) = incoming.table().await? {
        stage_run(connection, applier, table, &mut incoming, rows_done).await?;
    }
    for at in applier.staged() {
        if !applier.tables[at].own_types {
            convert(connection, applier, at).await?;
        }
        let done = statements::run(connection, &applier.applying(at).index()).await;
        done.map_err(|error| twice(error, &applier.tables[at].tracked.name))?;
    }
    Ok(())
}

fn twice(error: sqlx::Error, table: &str) -> SyncError {
    if errors::is_code(&error, UNIQUE_VIOLATION) {
        return row_invalid(table, "a key stands in the upload twice");
    }
    errors::database(error)
}

fn row_invalid(table: &str, problem: &str) -> SyncError {
    SyncError::new(ErrorReason::RowInvalid, format!("table \"{table}\": {problem}")).with("table", table)
}

/// Stages a table's blocks, as many of those that come, in one COPY: each COPY has a price of its own, and its end may
/// wait for the server's delayed acknowledgement.
async fn stage_run(
    connection: &mut PgConnection,
    applier: &mut Applier<'_>,
    table: TableId,
    incoming: &mut Incoming<'_>,
    rows_done: &AtomicU64,
) -> Result<()> {
    let scope = &applier.job.scope;
    let found = applier.tables.iter().position(|staged| staged.tracked.id == table);
    let (Some(at), Some(schema)) = (found, scope.schema.table(table)) else {
        return Err(row_invalid(&table.to_string(), "it is not in the scope"));
    };
    if !applier.tables[at].created {
        for statement in applier.applying(at).create() {
            statements::run(connection, &statement).await.map_err(errors::database)?;
        }
        applier.tables[at].created = true;
    }
    let sql = applier.applying(at).stage();
    let mut copy = statements::copy_in(connection, &sql).await.map_err(errors::database)?;
    let mut run = Run { applier, at, schema, buffer: CopyBuffer::new(), rows_done };
    let sent = run.send(&mut copy, incoming).await;
    // It is ended, not aborted, whatever happened: what the server says of it must not be taken for the answer to what
    // comes next on this connection.
    let finished = copy.finish().await;
    sent?;
    finished.map(drop).map_err(errors::database)
}

/// Blocks of one table on their way into a COPY.
struct Run<'a, 'j> {
    applier: &'a mut Applier<'j>,
    at: usize,
    schema: &'a TableSchema,
    buffer: CopyBuffer,
    rows_done: &'a AtomicU64,
}

impl Run<'_, '_> {
    /// Whatever it answers, whole rows were sent.
    async fn send(
        &mut self,
        copy: &mut PgCopyIn<&mut PgConnection>,
        incoming: &mut Incoming<'_>,
    ) -> Result<()> {
        loop {
            let Incoming { blocks, ahead } = incoming;
            let (sent, read) = tokio::join!(self.send_blocks(copy, blocks), ahead.read());
            sent?;
            read?;
            if incoming.table().await? != Some(self.schema.id) {
                break;
            }
        }
        self.buffer.end();
        copy.send(self.buffer.take()).await.map(drop).map_err(errors::database)
    }

    /// Sends the blocks of the batch, up to the first of another table.
    async fn send_blocks(
        &mut self,
        copy: &mut PgCopyIn<&mut PgConnection>,
        blocks: &mut VecDeque<Block>,
    ) -> Result<()> {
        while blocks.front().is_some_and(|block| block.table == self.schema.id) {
            let Some(block) = blocks.pop_front() else { break };
            check_block(self.schema, &block)?;
            for row in 0..block.rows() {
                stage_row(self.applier, self.at, self.schema, &block, row, &mut self.buffer)?;
                if self.buffer.len() >= COPY_BYTES {
                    copy.send(self.buffer.take()).await.map_err(errors::database)?;
                }
            }
            self.rows_done.fetch_add(block.rows() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn check_block(schema: &TableSchema, block: &Block) -> Result<()> {
    let rows = block.rows();
    if !schema.direction.uploads() {
        return Err(row_invalid(&schema.name, "leaves don't upload it"));
    }
    if block.operation == Operation::Leave {
        return Err(row_invalid(&schema.name, "a leaf can't say that a row left the view"));
    }
    if [block.ticks.len(), block.changed_at.len(), block.births.len()].iter().any(|count| *count != rows) {
        return Err(row_invalid(&schema.name, "an upload's rows need ticks, changed_at and births"));
    }
    let wanted = |id: &ColumnId| block.operation == Operation::Upsert || schema.is_key(*id);
    for column in schema.columns.iter().filter(|column| wanted(&column.id)) {
        let found = block.column(column.id);
        let fits = found.is_some_and(|found| found.ty() == column.ty || found.ty() == CanonicalType::Any);
        if !fits {
            return Err(row_invalid(
                &schema.name,
                &format!(
                    "column \"{}\" is not there, or of another type: uploads carry whole rows",
                    column.name
                ),
            ));
        }
    }
    Ok(())
}

/// Why a cell can't be staged, for people.
fn stage_message(error: StageError, column: &str) -> String {
    match error {
        StageError::ZeroCharacter => {
            format!("column \"{column}\" holds the character U+0000, which PostgreSQL can't; remove it")
        }
        StageError::BeyondRange => {
            format!("column \"{column}\" holds a number or time beyond the range of its type; correct it")
        }
        // What a hub's column makes of a value goes back to who sent it.
        StageError::NoSuchValue | StageError::NotKept => format!(
            "column \"{column}\" holds what is no value of its type; correct it, or carry it as \"any\" where the \
             hub is SQLite"
        ),
    }
}

fn stage_row(
    applier: &mut Applier<'_>,
    at: usize,
    schema: &TableSchema,
    block: &Block,
    row: usize,
    buffer: &mut CopyBuffer,
) -> Result<()> {
    let key = key_of(schema, block, row)?;
    let key = match key {
        Ok(key) => key,
        // The sender knows its row by the key that it sent, whatever that is here.
        Err(column) => {
            let sent = block.key(&schema.key, row).map_err(|_| null_key(schema))?;
            return refuse_key(applier, schema, sent, block.operation, &column);
        }
    };
    let row_key = RowKey { table: block.table, key };
    let version = Version { replica: applier.job.leaf, tick: block.ticks[row] };
    if applier.known.clock.contains(&row_key, version) {
        applier.known_rows += 1;
        return Ok(());
    }
    if applier.known.clock.exceptions().contains_key(&row_key) {
        applier.excepted_seen.push(row_key.clone());
    }
    let birth = Version { replica: applier.job.leaf, tick: block.births[row] };
    let born = birth.tick != Tick::default() && !applier.known.clock.contains(&row_key, birth);
    let (n, own_types) = (applier.tables[at].rows + 1, applier.tables[at].own_types);
    buffer.row(schema.columns.len() + 5);
    buffer.bytes_cell(&n.to_be_bytes());
    buffer.bytes_cell(&row_key.key);
    buffer.bytes_cell(&[u8::from(block.operation.removes())]);
    buffer.bytes_cell(&[u8::from(born)]);
    let changed_at = block.changed_at[row].saturating_add(applier.job.clock_offset_us).min(applier.now);
    buffer.bytes_cell(&changed_at.to_be_bytes());
    for (place, column) in schema.columns.iter().enumerate() {
        let own = own_types.then(|| &applier.tables[at].tracked.columns[place].ty);
        let sent = block.operation == Operation::Upsert || schema.is_key(column.id);
        let cell = if sent { block.cell(column.id, row) } else { Cell::Null };
        let any = block.column(column.id).is_some_and(|sent| sent.ty() == CanonicalType::Any);
        let staged = write_cell(column, own, cell, any, buffer);
        if let Err(error) = staged {
            buffer.drop_row();
            if block.operation.removes() {
                applier.known_rows += 1;
                return Ok(());
            }
            let message = stage_message(error, &column.name);
            return add_error(applier, schema, row_key.key, block.operation, RowErrorReason::Type, message);
        }
    }
    if applier.job.made_with.exceptions().contains_key(&row_key) {
        applier.tables[at].excepted.push(n);
    }
    applier.tables[at].count(block.operation.removes(), born, changed_at);
    Ok(())
}

/// Adds a cell that was sent: in the form of the column's `own` type, else in that of its canonical type.
fn write_cell(
    column: &ColumnSchema,
    own: Option<&ColumnType>,
    cell: Cell<'_>,
    sent_as_any: bool,
    buffer: &mut CopyBuffer,
) -> Result<(), StageError> {
    let converted = if sent_as_any && column.ty != CanonicalType::Any {
        let value = from_any(cell, column.ty, column.precision_scale);
        Some(value.ok_or(StageError::NoSuchValue)?)
    } else {
        None
    };
    let cell = converted.as_ref().map_or(cell, Value::cell);
    buffer.cell(|out| match own {
        Some(own) => stage_own(own, cell, out),
        None => stage_cell(column.ty, cell, out),
    })
}

/// The column can't hold the key. A delete of it is done already: see [`convert`](super::apply_convert::convert).
fn refuse_key(
    applier: &mut Applier<'_>,
    schema: &TableSchema,
    sent: Bytes,
    operation: Operation,
    column: &str,
) -> Result<()> {
    if operation.removes() {
        applier.known_rows += 1;
        let row = RowKey { table: schema.id, key: sent };
        if applier.known.clock.exceptions().contains_key(&row) {
            applier.excepted_seen.push(row);
        }
        return Ok(());
    }
    let message = stage_message(StageError::NoSuchValue, column);
    add_error(applier, schema, sent, operation, RowErrorReason::Type, message)
}

fn null_key(schema: &TableSchema) -> SyncError {
    row_invalid(&schema.name, "a key must not hold NULL")
}

/// The row's key; the inner error names a column whose cell of type `any` is no value of the key's type.
fn key_of(schema: &TableSchema, block: &Block, row: usize) -> Result<Result<Bytes, String>> {
    let null = |_| null_key(schema);
    let any = |id: &ColumnId| block.column(*id).is_some_and(|column| column.ty() == CanonicalType::Any);
    if !schema.key.iter().any(any) {
        return block.key(&schema.key, row).map(Ok).map_err(null);
    }
    let mut values = Vec::with_capacity(schema.key.len());
    for column in schema.key_columns() {
        let cell = block.cell(column.id, row);
        let value = if any(&column.id) {
            from_any(cell, column.ty, column.precision_scale)
        } else {
            Some(cell.to_value())
        };
        match value {
            Some(value) => values.push(value),
            None => return Ok(Err(column.name.clone())),
        }
    }
    let cells = values.iter().map(Value::cell);
    syncline::value::key_bytes(cells).map(Ok).map_err(null)
}

/// Notes a row that can't be applied; far too many end the apply at once.
pub(super) fn add_error(
    applier: &mut Applier<'_>,
    schema: &TableSchema,
    key: Bytes,
    operation: Operation,
    reason: RowErrorReason,
    message: String,
) -> Result<()> {
    let cells = key_cells(&key).unwrap_or_default();
    let names = schema.key_columns().map(|column| column.name.as_str());
    let key_json = row_json(names.zip(cells.iter().map(Value::cell))).to_string();
    applier.row_errors.push(RowError {
        row: RowKey { table: schema.id, key },
        table_name: schema.name.clone(),
        key_json,
        operation,
        reason,
        message,
    });
    if applier.row_errors.len() > syncline::limits::ROW_ERRORS_MAX {
        return Err(SyncError::new(
            ErrorReason::RowErrors,
            "too many rows can't be applied; mend them and try again",
        ));
    }
    Ok(())
}
