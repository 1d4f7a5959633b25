//! Reads a leaf's dirty rows in one snapshot: upserts parents first, then deletes children first.

use std::sync::Arc;

use syncline::batch::{Block, Operation};
use syncline::error::Result;
use syncline::knowledge::Clock;
use tokio::sync::mpsc;

use super::connection::{Connections, ReadTransaction, blocking};
use super::errors::DatabaseResult as _;
use super::leaf_unsendable::{self, Unsendable};
use super::plan::TablePlan;
use super::rows::{Beside, BlockBounds, BlockBuilder, can_not_travel};
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
    let (clock, plans, transaction) = read_folded(connections, ids, move |transaction| {
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
    let home = Arc::clone(connections);
    tokio::spawn(async move {
        let errors = sender.clone();
        let sent = blocking(move || send_all(&transaction, &plans, bounds, &sender)).await;
        let done = match sent {
            Ok(unsendable) => leaf_unsendable::forget(&home, unsendable).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            // The receiver may be gone: then nobody wants to hear of it.
            let _ = errors.send(Err(error)).await;
        }
    });
    Ok(UploadSnapshot { clock, blocks })
}

/// Answers what it can't send.
fn send_all(
    transaction: &ReadTransaction,
    plans: &[TablePlan],
    bounds: BlockBounds,
    sender: &mpsc::Sender<Result<Block>>,
) -> Result<Vec<Unsendable>> {
    let (mut with_deletes, mut unsendable) = (Vec::new(), Vec::new());
    for plan in plans {
        let sent = send_table(transaction, plan, Operation::Upsert, bounds, sender, &mut unsendable)?;
        let Some(upserts) = sent else { return Ok(unsendable) };
        let mut count = transaction.connection().prepare_cached(&statements::count_dirty(plan.local)).db()?;
        if count.query_row([], |row| row.get::<_, i64>(0)).db()? > upserts {
            with_deletes.push(plan);
        }
    }
    for plan in with_deletes.into_iter().rev() {
        if send_table(transaction, plan, Operation::Delete, bounds, sender, &mut unsendable)?.is_none() {
            break;
        }
    }
    Ok(unsendable)
}

/// Sends a table's dirty rows of one operation. Answers how many, or nothing if nobody listens any more.
fn send_table(
    transaction: &ReadTransaction,
    plan: &TablePlan,
    operation: Operation,
    bounds: BlockBounds,
    sender: &mpsc::Sender<Result<Block>>,
    unsendable: &mut Vec<Unsendable>,
) -> Result<Option<i64>> {
    let (sql, columns) = match operation {
        Operation::Upsert => (plan.names.dirty_upserts(plan.local), plan.columns.len()),
        _ => (plan.names.dirty_deletes(plan.local), plan.key_columns()),
    };
    let mut dirty = transaction.connection().prepare_cached(&sql).db()?;
    let mut rows = dirty.raw_query();
    let mut builder = BlockBuilder::new(plan, operation, bounds);
    let mut count = 0_i64;
    while let Some(row) = rows.next().db()? {
        if operation.removes() && can_not_travel(row, columns)? {
            unsendable.push(Unsendable::read(plan, row)?);
            continue;
        }
        let tick = state::from_sql(row.get(columns).db()?);
        let beside = Beside {
            changed_at: Some(row.get(columns + 1).db()?),
            leaf: Some((tick, state::from_sql(row.get(columns + 2).db()?))),
        };
        count += 1;
        if let Some((block, _)) = builder.push(row, beside)?
            && sender.blocking_send(Ok(block)).is_err()
        {
            return Ok(None);
        }
    }
    let all_taken = builder.finish()?.is_none_or(|(block, _)| sender.blocking_send(Ok(block)).is_ok());
    Ok(all_taken.then_some(count))
}
