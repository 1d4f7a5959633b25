//! The hub has applied an upload: what was uploaded is not dirty any more, as far as it has not changed since.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use syncline::batch::Block;
use syncline::conflict::RowError;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::TableId;
use syncline::knowledge::RowKey;

use super::tables::{self, LeafTable};
use super::{fold, save_within};
use crate::dialect::postgres::copy::CopyBuffer;
use crate::dialect::postgres::provision::repeat;
use crate::dialect::postgres::statements::{copy_in, run};
use crate::dialect::postgres::{PostgresDatabase, errors, give_way, types};
use crate::store::{BatchSource, Subscription};

/// See [`crate::store::LeafStore::acknowledge_upload`].
///
/// Base rows are not touched, so none is locked: an edit that commits later than this has an entry of its own, which
/// builds on what was acknowledged.
pub(super) async fn acknowledge(
    database: &PostgresDatabase,
    after: &Subscription,
    batches: &dyn BatchSource,
    failed: &[RowError],
) -> Result<()> {
    // Whatever the upload's snapshot saw is in the records then, however it was read.
    fold::fold_all(database, &after.schema).await?;
    repeat(|| try_acknowledge(database, after, batches, failed)).await
}

async fn try_acknowledge(
    database: &PostgresDatabase,
    after: &Subscription,
    batches: &dyn BatchSource,
    failed: &[RowError],
) -> Result<()> {
    let mut transaction = database.begin_durable().await?;
    give_way(&mut transaction).await?;
    let tables: BTreeMap<TableId, LeafTable> = tables::load(&mut transaction, &after.schema)
        .await?
        .into_iter()
        .map(|table| (table.schema.id, table))
        .collect();
    let failed: BTreeSet<&RowKey> = failed.iter().map(|error| &error.row).collect();
    let mut staged = BTreeSet::new();
    for index in 0.. {
        let Some(blocks) = batches.blocks(index).await? else { break };
        for block in &blocks {
            let table = tables.get(&block.table).ok_or_else(unknown_table)?;
            if staged.insert(block.table) {
                run(&mut transaction, &table.create_uploaded()).await.map_err(errors::database)?;
            }
            stage(&mut transaction, table, block, &failed).await?;
        }
    }
    for id in &staged {
        let table = &tables[id];
        run(&mut transaction, &table.clear_acknowledged()).await.map_err(errors::database)?;
        run(&mut transaction, &table.correct_birth()).await.map_err(errors::database)?;
    }
    save_within(&mut transaction, after).await?;
    transaction.commit().await.map_err(errors::commit)
}

fn unknown_table() -> SyncError {
    SyncError::new(ErrorReason::BatchCorrupt, "an uploaded batch names a table that is not in the scope")
}

/// Copies keys and ticks of the block's rows, those that failed aside.
async fn stage(
    connection: &mut PgConnection,
    table: &LeafTable,
    block: &Block,
    failed: &BTreeSet<&RowKey>,
) -> Result<()> {
    let mut buffer = CopyBuffer::new();
    for row in 0..block.rows() {
        let key = block.key(&table.schema.key, row).map_err(SyncError::internal)?;
        let row_key = RowKey { table: block.table, key };
        if failed.contains(&row_key) {
            continue;
        }
        let tick =
            block.ticks.get(row).ok_or_else(|| SyncError::internal("an uploaded row without a tick"))?;
        buffer.row(table.schema.key.len() + 2);
        for id in &table.schema.key {
            let cell = block.cell(*id, row);
            let ty =
                block.column(*id).map_or(syncline::value::CanonicalType::Any, syncline::column::Column::ty);
            buffer
                .cell(|out| types::stage(ty, cell, out))
                .map_err(|_| SyncError::internal("an uploaded key can't be staged"))?;
        }
        buffer.bytes_cell(&tick.0.to_be_bytes());
        buffer.bytes_cell(&[u8::from(block.operation.removes())]);
    }
    buffer.end();
    let mut copy = copy_in(connection, &table.copy_uploaded()).await.map_err(errors::database)?;
    copy.send(buffer.take()).await.map_err(errors::database)?;
    copy.finish().await.map(drop).map_err(errors::database)
}
