//! Reads a leaf's dirty rows in one snapshot: upserts parents first, then deletes children first.

use std::sync::Arc;

use rusqlite::types::ToSqlOutput;
use syncline::batch::{Block, Operation};
use syncline::error::Result;
use syncline::knowledge::Clock;
use tokio::sync::mpsc;

use super::connection::{Connections, ReadTransaction, blocking};
use super::errors::DatabaseResult as _;
use super::plan::TablePlan;
use super::rows::{Beside, BlockBounds, BlockBuilder};
use super::scope::TrackedTable;
use super::snapshot::read_folded;
use super::{leaf_provision, state, statements};
use crate::limits;
use crate::store::{LeafUpload, Subscription, UploadSnapshot};

/// Folds, opens a snapshot, and sends its dirty rows from a thread of its own.
pub(super) async fn enumerate(
    connections: &Arc<Connections>,
    subscription: &Subscription,
    upload: LeafUpload,
) -> Result<UploadSnapshot> {
    let schema = subscription.schema.clone();
    let home = Arc::clone(connections);
    let uploading: Vec<_> = schema.tables.iter().filter(|table| table.direction.uploads()).cloned().collect();
    let names: Vec<_> = uploading.iter().map(|table| table.name.clone()).collect();
    let ids = blocking(move || {
        let reader = home.begin_read()?;
        let found = names.iter().map(|name| TrackedTable::find(reader.connection(), name));
        Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().map(|table| table.id).collect())
    })
    .await?;
    let transaction = read_folded(connections, ids).await?;
    let (clock, plans, transaction) = blocking(move || {
        let connection = transaction.connection();
        state::check_wal(connection)?;
        let clock = Clock::up_to(state::tick(connection)?);
        let mut plans = leaf_provision::plans(connection, &schema)?;
        plans.retain(|plan| uploading.iter().any(|table| table.id == plan.id));
        Ok((clock, plans, transaction))
    })
    .await?;
    let (sender, blocks) = mpsc::channel(limits::BLOCK_CHANNEL_MAX);
    let bounds = BlockBounds { block_bytes_max: upload.block_bytes_max, row_bytes_max: upload.row_bytes_max };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send_all(&transaction, &plans, bounds, &sender) {
            // The receiver may be gone: then nobody wants to hear of it.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(UploadSnapshot { clock, blocks })
}

fn send_all(
    transaction: &ReadTransaction,
    plans: &[TablePlan],
    bounds: BlockBounds,
    sender: &mpsc::Sender<Result<Block>>,
) -> Result<()> {
    let mut with_deletes = Vec::new();
    for plan in plans {
        match send_table(transaction, plan, Operation::Upsert, bounds, sender)? {
            Sent::All => {}
            Sent::Some => with_deletes.push(plan),
            Sent::NobodyListens => return Ok(()),
        }
    }
    for plan in with_deletes.into_iter().rev() {
        if send_table(transaction, plan, Operation::Delete, bounds, sender)? == Sent::NobodyListens {
            break;
        }
    }
    Ok(())
}

/// How many of a table's dirty rows were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// The others are of the other operation.
    Some,
    NobodyListens,
}

fn send_table(
    transaction: &ReadTransaction,
    plan: &TablePlan,
    operation: Operation,
    bounds: BlockBounds,
    sender: &mpsc::Sender<Result<Block>>,
) -> Result<Sent> {
    let connection = transaction.connection();
    let columns = plan.key_columns();
    let mut dirty = connection.prepare_cached(&statements::scan_dirty(plan.local, columns)).db()?;
    let mut base = connection
        .prepare_cached(&match operation {
            Operation::Upsert => plan.names.select_one(),
            _ => plan.names.exists(),
        })
        .db()?;
    let mut builder = BlockBuilder::new(plan, operation, bounds);
    let mut rows = dirty.raw_query();
    let mut sent = Sent::All;
    let send = |block: Block| sender.blocking_send(Ok(block)).is_ok();
    while let Some(row) = rows.next().db()? {
        for place in 0..columns {
            let value = ToSqlOutput::Borrowed(row.get_ref(place).db()?);
            base.raw_bind_parameter(place + 1, value).db()?;
        }
        let tick = state::from_sql(row.get(columns).db()?);
        let beside = Beside {
            changed_at: Some(row.get(columns + 1).db()?),
            leaf: Some((tick, state::from_sql(row.get(columns + 2).db()?))),
        };
        let mut found = base.raw_query();
        let finished = match (operation, found.next().db()?) {
            (Operation::Upsert, Some(held)) => builder.push(held, beside)?,
            (Operation::Delete, None) => builder.push(row, beside)?,
            _ => {
                sent = Sent::Some;
                None
            }
        };
        if let Some((block, _)) = finished
            && !send(block)
        {
            return Ok(Sent::NobodyListens);
        }
    }
    let all_taken = builder.finish()?.is_none_or(|(block, _)| send(block));
    Ok(if all_taken { sent } else { Sent::NobodyListens })
}
