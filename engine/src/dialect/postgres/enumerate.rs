//! Sending the blocks of a plan, decoded straight from binary COPY into columns.

use bytes::Bytes;
use sqlx::PgConnection;
use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::TableId;
use syncline::value::{Value, key_cells, row_json};
use tokio::sync::mpsc;

use super::copy::{CopyRow, CopyRows};
use super::snapshot::{PostgresSnapshot, SnapshotTable};
use super::statements::reading::{Selection, after_setting, keys_setting};
use super::survey::survey;
use super::tracked::{Tracked, TrackedColumn};
use super::types::{self, CellError, ColumnType, literal_text};
use super::{errors, statements};
use crate::limits;
use crate::store::{EnumeratedBlock, EnumerationPlan, Part, Position};

type Blocks = mpsc::Sender<Result<EnumeratedBlock>>;

/// Sends the blocks of the plan. Answers `false` if the receiver was dropped.
pub(super) async fn enumerate(
    snapshot: &mut PostgresSnapshot,
    plan: &EnumerationPlan,
    blocks: &Blocks,
) -> Result<bool> {
    let survey = survey(snapshot, plan).await?;
    let known = snapshot.replicas.known(&plan.known);
    for part in plan.parts.iter().filter(|part| survey.may_find(part)) {
        let (id, after) = match part {
            Part::Whole { table, after }
            | Part::Upserts { table, after }
            | Part::Deletes { table, after } => (*table, after.as_ref()),
            Part::Keys { table, .. } => (*table, None),
        };
        let Some(SnapshotTable { tracked, baseline_changed_at, .. }) = snapshot.tables.get(&id) else {
            return Err(SyncError::internal(format!(
                "the plan names table {id}, which the scope does not have"
            )));
        };
        let selection = Selection {
            table: tracked,
            own: snapshot.replicas.own,
            known: &known,
            echo: survey.echo,
            after: after.is_some(),
            changed_at: plan.changed_at_tables.contains(&id).then_some(*baseline_changed_at),
        };
        let connection = super::snapshot::connection(&mut snapshot.connection)?;
        if let Some(after) = after {
            set_after(connection, tracked, after).await?;
        }
        let alive = match part {
            Part::Whole { .. } => {
                send(connection, plan, &selection, selection.whole(), Operation::Upsert, true, blocks).await?
            }
            Part::Upserts { .. } => {
                send(connection, plan, &selection, selection.upserts(), Operation::Upsert, true, blocks)
                    .await?
            }
            Part::Deletes { .. } => {
                send(connection, plan, &selection, selection.deletes(), Operation::Delete, true, blocks)
                    .await?
            }
            Part::Keys { keys, .. } => send_keys(connection, plan, &selection, keys, blocks).await?,
        };
        if !alive {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn send_keys(
    connection: &mut PgConnection,
    plan: &EnumerationPlan,
    selection: &Selection<'_>,
    keys: &[Bytes],
    blocks: &Blocks,
) -> Result<bool> {
    if keys.is_empty() {
        return Ok(true);
    }
    set_keys(connection, selection.table, keys).await?;
    let present = selection.present_of_keys();
    let absent = selection.absent_of_keys();
    Ok(send(connection, plan, selection, present, Operation::Upsert, false, blocks).await?
        && send(connection, plan, selection, absent, Operation::Delete, false, blocks).await?)
}

/// Sends the rows of one COPY as blocks.
async fn send(
    connection: &mut PgConnection,
    plan: &EnumerationPlan,
    selection: &Selection<'_>,
    sql: String,
    operation: Operation,
    positions: bool,
    blocks: &Blocks,
) -> Result<bool> {
    let mut builder = BlockBuilder::new(selection.table, operation, selection.changed_at.is_some(), plan);
    let mut rows = CopyRows::new(statements::copy_out(connection, &sql).await.map_err(errors::database)?);
    let mut row = CopyRow::new();
    while rows.next(&mut row).await? {
        if let Some(block) = builder.push(&row)?
            && !send_block(block, selection.table, positions, blocks).await?
        {
            return Ok(false);
        }
        if blocks.is_closed() {
            return Ok(false);
        }
    }
    match builder.finish() {
        Some(block) => send_block(block, selection.table, positions, blocks).await,
        None => Ok(true),
    }
}

async fn send_block(block: Block, table: &Tracked, positions: bool, blocks: &Blocks) -> Result<bool> {
    let position = if positions {
        let key: Vec<_> = table.key_columns().map(|column| column.id).collect();
        let after = block.key(&key, block.rows() - 1).map_err(SyncError::internal)?;
        Some(Position { operation: block.operation, table: table.id, after })
    } else {
        None
    };
    Ok(blocks.send(Ok(EnumeratedBlock { block, position })).await.is_ok())
}

/// Collects rows of a COPY until a block is full.
pub(super) struct BlockBuilder<'a> {
    table: &'a Tracked,
    operation: Operation,
    columns: Vec<&'a TrackedColumn>,
    with_changed_at: bool,
    block_bytes_max: usize,
    row_bytes_max: usize,
    block: Block,
    bytes: usize,
}

impl<'a> BlockBuilder<'a> {
    pub(super) fn new(
        table: &'a Tracked,
        operation: Operation,
        with_changed_at: bool,
        plan: &EnumerationPlan,
    ) -> Self {
        let columns: Vec<_> = match operation {
            Operation::Upsert => table.columns.iter().collect(),
            Operation::Delete | Operation::Leave => table.key_columns().collect(),
        };
        Self {
            table,
            operation,
            block: empty_block(table.id, operation, &columns),
            columns,
            with_changed_at,
            block_bytes_max: plan.block_bytes_max,
            row_bytes_max: plan.row_bytes_max,
            bytes: 0,
        }
    }

    /// Adds a row. Answers the block that was full before it.
    pub(super) fn push(&mut self, row: &CopyRow) -> Result<Option<Block>> {
        let row_bytes = self.row_bytes(row);
        if row_bytes > self.row_bytes_max {
            return Err(row_too_large(self.table, &self.key_json(row), row_bytes, self.row_bytes_max));
        }
        let rows = self.block.rows();
        let full =
            rows > 0 && (self.bytes + row_bytes > self.block_bytes_max || rows >= limits::BLOCK_ROWS_MAX);
        let done = if full { self.finish() } else { None };
        for (at, column) in self.columns.iter().enumerate() {
            let pushed = types::push(&mut self.block.columns[at], column.ty.wire, row.cell(at));
            pushed.map_err(|error| cell_error(error, self.table, column, &self.key_json(row)))?;
        }
        if self.with_changed_at {
            let changed_at = row.int8(self.columns.len())?;
            self.block.changed_at.push(changed_at.unwrap_or(0));
        }
        self.bytes += row_bytes;
        Ok(done)
    }

    /// What was collected, if anything.
    pub(super) fn finish(&mut self) -> Option<Block> {
        let next = empty_block(self.table.id, self.operation, &self.columns);
        let block = std::mem::replace(&mut self.block, next);
        self.bytes = 0;
        (block.rows() > 0).then_some(block)
    }

    /// What the row takes in a decoded batch, about: a fixed cell has eight bytes there.
    fn row_bytes(&self, row: &CopyRow) -> usize {
        let cells = (0..self.columns.len()).map(|at| row.cell(at).map_or(1, |cell| cell.len().max(4) + 4));
        cells.sum::<usize>() + if self.with_changed_at { 8 } else { 0 }
    }

    fn key_json(&self, row: &CopyRow) -> String {
        key_json(self.table, |column| {
            let at = self.columns.iter().position(|found| found.id == column.id)?;
            row.cell(at)
        })
    }
}

fn empty_block(table: TableId, operation: Operation, columns: &[&TrackedColumn]) -> Block {
    let columns = columns.iter().map(|column| Column::new(column.id, column.ty.canonical)).collect();
    Block::new(table, operation, columns)
}

/// A key as a JSON object, for people, from the binary cells of a row.
pub(super) fn key_json<'r>(table: &Tracked, cell: impl Fn(&TrackedColumn) -> Option<&'r [u8]>) -> String {
    let cells = table.key_columns().map(|column| {
        let ColumnType { canonical, wire, .. } = column.ty;
        let value = cell(column).and_then(|bytes| types::cell(canonical, wire, bytes).ok());
        (column.name.as_str(), value.unwrap_or(syncline::value::Cell::Null))
    });
    row_json(cells).to_string()
}

fn row_too_large(table: &Tracked, key: &str, bytes: usize, bytes_max: usize) -> SyncError {
    SyncError::new(
        ErrorReason::RowTooLarge,
        format!(
            "a row of table \"{}\" has {bytes} bytes, more than the {bytes_max} that were agreed; raise row_bytes_max \
             or shorten the row",
            table.name
        ),
    )
    .with("table", &table.name)
    .with("key", key)
}

fn cell_error(error: CellError, table: &Tracked, column: &TrackedColumn, key: &str) -> SyncError {
    match error {
        CellError::Malformed => SyncError::internal(format!(
            "a cell of \"{}\".\"{}\" does not have the binary form of {}",
            table.name, column.name, column.ty.declared
        )),
        CellError::BeyondRange => SyncError::new(
            ErrorReason::RowInvalid,
            format!(
                "column \"{}\" of a row of table \"{}\" holds a time beyond 64 bits of microseconds; correct it",
                column.name, table.name
            ),
        )
        .with("table", &table.name)
        .with("column", &column.name)
        .with("key", key),
    }
}

/// Binds the key after which an enumeration goes on.
async fn set_after(connection: &mut PgConnection, table: &Tracked, after: &Bytes) -> Result<()> {
    for (at, cell) in cells_of(table, after)?.iter().enumerate() {
        set_local(connection, &after_setting(at), &literal_text(cell)).await?;
    }
    Ok(())
}

/// Binds the keys that are asked for, an array of text per key column.
async fn set_keys(connection: &mut PgConnection, table: &Tracked, keys: &[Bytes]) -> Result<()> {
    let mut arrays = vec![String::from("{"); table.key.len()];
    for key in keys {
        for (array, cell) in arrays.iter_mut().zip(cells_of(table, key)?) {
            if array.len() > 1 {
                array.push(',');
            }
            array.push('"');
            array.push_str(&literal_text(&cell).replace('\\', "\\\\").replace('"', "\\\""));
            array.push('"');
        }
    }
    for (at, mut array) in arrays.into_iter().enumerate() {
        array.push('}');
        set_local(connection, &keys_setting(at), &array).await?;
    }
    Ok(())
}

fn cells_of(table: &Tracked, key: &Bytes) -> Result<Vec<Value>> {
    let cells = key_cells(key).ok().filter(|cells| cells.len() == table.key.len());
    cells.ok_or_else(|| SyncError::invalid("key", format!("is no key of table \"{}\"", table.name)))
}

async fn set_local(connection: &mut PgConnection, name: &str, value: &str) -> Result<()> {
    sqlx::query("SELECT pg_catalog.set_config($1, $2, true)")
        .bind(name)
        .bind(value)
        .execute(connection)
        .await
        .map(drop)
        .map_err(errors::database)
}
