//! One read snapshot of a hub's database.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::TableId;
use syncline::knowledge::Knowledge;
use tokio::sync::mpsc;

use super::connection::{Connections, ReadTransaction, blocking};
use super::enumerate::Enumeration;
use super::errors::{DatabaseResult as _, null_in_key, tracking_broken};
use super::fold;
use super::plan::TablePlan;
use super::scope::{self, TrackedTable};
use super::state::{self, OwnIds};
use super::tracking;
use crate::limits;
use crate::store::{EnumeratedBlock, EnumerationPlan, Snapshot, StoredScope, TableState};

/// A read transaction in which every entry of the scope's tables is folded.
///
/// **Invariant:** the logs are empty in this snapshot. So records tell all, the clock is the state's tick, and no entry
/// has ever to be united with the records.
pub(super) struct SqliteSnapshot {
    /// What an enumeration reads with; it is away while one runs on its thread.
    reading: Option<Reading>,
    knowledge: Knowledge,
    tables: BTreeMap<TableId, TableState>,
}

struct Reading {
    transaction: ReadTransaction,
    plans: BTreeMap<TableId, TablePlan>,
    scope: StoredScope,
    ids: OwnIds,
}

/// Opens a read transaction in which the logs of these tables are empty, and goes on with it: looks, folds if they are
/// not, and looks again: someone may have committed in between.
pub(super) async fn read_folded<T: Send + 'static>(
    connections: &Arc<Connections>,
    tables: Vec<TableId>,
    read: impl FnOnce(ReadTransaction) -> Result<T> + Send + 'static,
) -> Result<T> {
    let mut waiting = read;
    for _ in 0..limits::FOLD_RETRIES {
        let (home, ids) = (Arc::clone(connections), tables.clone());
        let read = waiting;
        let found = blocking(move || {
            let reader = home.begin_read()?;
            if fold::any_entries(reader.connection(), ids)? {
                return Ok(Err(read));
            }
            read(reader).map(Ok)
        })
        .await?;
        waiting = match found {
            Ok(answer) => return Ok(answer),
            Err(read) => read,
        };
        fold::in_pieces(connections).await?;
    }
    Err(SyncError::new(
        ErrorReason::LockTimeout,
        "other programs write without a pause, so that no snapshot could be taken; try again",
    ))
}

impl SqliteSnapshot {
    pub(super) async fn open(connections: &Arc<Connections>, scope: &StoredScope) -> Result<Self> {
        let ids = scope.tables.iter().map(|table| table.id).collect();
        let scope = scope.clone();
        read_folded(connections, ids, move |transaction| Self::over(transaction, scope)).await
    }

    fn over(transaction: ReadTransaction, scope: StoredScope) -> Result<Self> {
        let connection = transaction.connection();
        state::check_wal(connection)?;
        scope.check_present(scope::load(connection, &scope.schema.name)?.as_ref())?;
        let state = state::read(connection)?;
        let ids = OwnIds::read(connection)?;
        let mut plans = BTreeMap::new();
        let mut tables = BTreeMap::new();
        for (schema, stored) in scope.schema.tables.iter().zip(&scope.tables) {
            let plan = TablePlan::load(connection, schema, &stored.source_name)?;
            check_tracking(connection, &plan)?;
            let empty = connection.query_row(&plan.names.is_empty(), [], |row| row.get(0)).db()?;
            tables.insert(stored.id, TableState { truncated: None, empty });
            plans.insert(stored.id, plan);
        }
        let knowledge = ids.knowledge(&state);
        let reading = Some(Reading { transaction, plans, scope, ids });
        Ok(Self { reading, knowledge, tables })
    }
}

/// Checks that triggers, keys and unique indexes are as provisioned, and that no key holds NULL. Blocks.
pub(super) fn check_tracking(connection: &Connection, plan: &TablePlan) -> Result<()> {
    let tracked = TrackedTable::find(connection, &plan.name)?
        .ok_or_else(|| tracking_broken(&plan.name, "it is not tracked any more"))?;
    let present = tracking::present_triggers(connection, &plan.name)?;
    let log = tracking::log_triggers(connection, plan.local)?;
    if !tracking::same_triggers(&tracked.provisioned, &present, &log) {
        return Err(tracking_broken(&plan.name, "its triggers are not as they were provisioned"));
    }
    if tracking::shape(&plan.catalog) != tracked.provisioned.shape {
        return Err(tracking_broken(&plan.name, "its key or unique indexes are not as they were"));
    }
    let nullable: Vec<_> = plan.catalog.key.iter().map(|part| part.nullable).collect();
    if let Some(sql) = plan.names.null_key(&nullable)
        && connection.query_row(&sql, [], |row| row.get(0)).db()?
    {
        return Err(null_in_key(&plan.name));
    }
    Ok(())
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    fn table(&self, id: TableId) -> Option<&TableState> {
        self.tables.get(&id)
    }

    async fn enumerate(&mut self, plan: EnumerationPlan, blocks: mpsc::Sender<Result<EnumeratedBlock>>) {
        let errors = blocks.clone();
        let Some(reading) = self.reading.take() else {
            let _ = errors.send(Err(SyncError::internal("the snapshot was lost in an enumeration"))).await;
            return;
        };
        let done = blocking(move || {
            let enumeration = Enumeration {
                connection: reading.transaction.connection(),
                plans: &reading.plans,
                scope: &reading.scope,
                ids: &reading.ids,
                plan: &plan,
                blocks: &blocks,
            };
            let outcome = enumeration.run();
            Ok((reading, outcome))
        })
        .await;
        let outcome = done.and_then(|(reading, outcome)| {
            self.reading = Some(reading);
            outcome
        });
        if let Err(error) = outcome {
            // The receiver may be gone: then nobody wants to hear of it.
            let _ = errors.send(Err(error)).await;
        }
    }
}
