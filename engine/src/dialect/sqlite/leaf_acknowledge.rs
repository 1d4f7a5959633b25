//! The hub has applied an upload: what it took is dirty no more.

use std::collections::BTreeSet;

use bytes::Bytes;
use rusqlite::Connection;
use syncline::batch::Block;
use syncline::conflict::RowError;
use syncline::error::Result;
use syncline::knowledge::{Clock, RowKey};
use syncline::value::{Value, key_bytes};

use super::apply_rows::bind;
use super::errors::DatabaseResult as _;
use super::passes::BlockingBatches;
use super::plan::TablePlan;
use super::{fold, leaf_provision, state, statements};
use crate::dialect::any::from_any;
use crate::store::Subscription;

/// Clears the dirty records of an upload. Within a write transaction. Blocks.
///
/// A record goes only if its tick is still equal: folding first gives rows that were edited since a newer one. For
/// those, births count from this acknowledgement on: the hub has the row as it was uploaded, so it was born again only
/// if that was a delete, at a tick after it. The record's own tick serves: no upload was made between the two.
pub(super) fn acknowledge(
    connection: &Connection,
    after: &Subscription,
    batches: &BlockingBatches,
    failed: &[RowError],
) -> Result<()> {
    fold::all(connection)?;
    let mut plans = leaf_provision::plans(connection, &after.schema)?;
    if failed.is_empty()
        && let Some(clock) = uploaded_clock(connection, after)?
    {
        plans = clear_unchanged(connection, plans, after, &clock)?;
    }
    if !plans.is_empty() {
        clear_rows(connection, &plans, batches, failed)?;
    }
    leaf_provision::save(connection, after)
}

/// The leaf's clock in the snapshot that the upload was read from.
fn uploaded_clock(connection: &Connection, after: &Subscription) -> Result<Option<Clock>> {
    let stored = leaf_provision::load(connection, &after.schema.name)?;
    Ok(stored.and_then(|stored| stored.upload).map(|upload| upload.leaf_clock))
}

/// Clears at once the tables of which nothing was edited since the snapshot; answers the others.
///
/// **Invariant:** an upload carries every dirty row of its snapshot, and what is edited later gets a newer tick. So a
/// table of which no record is newer than the snapshot has none but those that the hub has accepted.
fn clear_unchanged(
    connection: &Connection,
    mut plans: Vec<TablePlan>,
    after: &Subscription,
    clock: &Clock,
) -> Result<Vec<TablePlan>> {
    let uploads = |id| after.schema.table(id).is_some_and(|table| table.direction.uploads());
    plans.retain(|plan| uploads(plan.id));
    let mut changed = Vec::new();
    for plan in plans {
        let newer = statements::any_dirty_after(plan.local);
        let mut newer = connection.prepare_cached(&newer).db()?;
        if newer.query_row([state::to_sql(clock.tick())], |row| row.get(0)).db()? {
            changed.push(plan);
        } else {
            connection.execute(&statements::clear_dirty(plan.local), []).db()?;
        }
    }
    Ok(changed)
}

/// Clears the uploaded rows of these tables one by one, as far as they are as they were.
fn clear_rows(
    connection: &Connection,
    plans: &[TablePlan],
    batches: &BlockingBatches,
    failed: &[RowError],
) -> Result<()> {
    let failed: BTreeSet<&RowKey> = failed.iter().map(|error| &error.row).collect();
    batches.each(|block| {
        let Some(plan) = plans.iter().find(|plan| plan.id == block.table) else { return Ok(()) };
        for row in 0..block.rows() {
            let Ok(key) = plan.block_key(block, row)? else { continue };
            let has_failed = |bytes: Bytes| failed.contains(&plan.row_key(bytes));
            let is_failed = !failed.is_empty()
                && (has_failed(key.bytes.clone()) || as_the_hub(plan, block, row).any(has_failed));
            let tick = block.ticks.get(row).copied().unwrap_or_default();
            if !is_failed {
                clear(connection, plan, &key.values, tick, block.operation.removes())?;
            }
        }
        Ok(())
    })
}

/// The key of a row as a hub may name it, by forms of its own: as it was sent, and as the value of its column's type that
/// the cell is, if it was sent as another (a number that a decimal is made of).
fn as_the_hub(plan: &TablePlan, block: &Block, row: usize) -> impl Iterator<Item = Bytes> {
    let columns: Vec<_> = plan.key.iter().map(|place| &plan.columns[*place]).collect();
    let cells: Vec<_> = columns.iter().map(|column| block.cell(column.id, row)).collect();
    let sent = key_bytes(cells.iter().copied()).ok();
    let converted: Vec<_> = columns
        .iter()
        .zip(&cells)
        .map(|(column, cell)| {
            // Digits before the point do not change a value's form.
            let digits = column.form.scale.map(|scale| (scale, scale));
            from_any(*cell, column.form.ty, digits).unwrap_or_else(|| cell.to_value())
        })
        .collect();
    let converted = key_bytes(converted.iter().map(Value::cell)).ok();
    sent.into_iter().chain(converted)
}

fn clear(
    connection: &Connection,
    plan: &TablePlan,
    key: &[rusqlite::types::ToSqlOutput<'_>],
    tick: syncline::ids::Tick,
    removed: bool,
) -> Result<()> {
    let columns = plan.key_columns();
    let sql = statements::acknowledge_dirty(plan.local, columns);
    let mut statement = connection.prepare_cached(&sql).db()?;
    bind(&mut statement, key)?;
    statement.raw_bind_parameter(columns + 1, state::to_sql(tick)).db()?;
    if statement.raw_execute().db()? > 0 {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(&statements::correct_birth(plan.local, columns)).db()?;
    bind(&mut statement, key)?;
    statement.raw_bind_parameter(columns + 1, removed).db()?;
    statement.raw_execute().db()?;
    Ok(())
}
