//! Rows that can't be written at once may be written later in the same transaction: once their parents have come, or
//! the unique value that they need is free. The same for uploads and downloads.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Connection;
use syncline::batch::Block;
use syncline::conflict::RowErrorReason;
use syncline::error::Result;
use syncline::ids::TableId;
use syncline::knowledge::RowKey;
use syncline::limits::ROW_ERRORS_MAX;
use tokio::runtime::Handle;

use super::errors::DatabaseResult as _;
use super::incoming::{self, Fate, Pass};
use super::plan::TablePlan;
use super::unique::{self, Written};
use crate::store::BatchSource;

/// How often rows that could not be written are tried again, as long as that helps.
const PASSES_MAX: u32 = 8;
/// How often rows that swap unique values are tried with those left out that can't be written even so.
const SWAP_ROUNDS_MAX: u32 = 16;

/// Rows that the transaction must begin anew without, and why.
pub(super) type Refused = BTreeMap<RowKey, (RowErrorReason, String)>;

/// Batches, read from a thread that may block.
pub(super) struct BlockingBatches {
    pub(super) handle: Handle,
    pub(super) source: Arc<dyn BatchSource>,
}

impl BlockingBatches {
    /// The blocks of one batch; `None` after the last. Blocks.
    pub(super) fn batch(&self, index: usize) -> Result<Option<Vec<Block>>> {
        self.handle.block_on(self.source.blocks(index))
    }

    /// Calls `with` for every block, in order. Blocks.
    pub(super) fn each(&self, mut with: impl FnMut(&Block) -> Result<()>) -> Result<()> {
        let mut index = 0;
        while let Some(blocks) = self.batch(index)? {
            blocks.iter().try_for_each(&mut with)?;
            index += 1;
        }
        Ok(())
    }
}

/// The rows of an apply.
pub(super) trait ApplyRows {
    /// What is counted.
    type Counts;

    fn plans(&self) -> &BTreeMap<TableId, TablePlan>;

    /// Rows that could not be written in the last pass.
    fn parked(&self) -> u64;

    /// What the rows write that could not be written.
    fn written(&self) -> &Written;

    /// Goes through the rows that the pass takes. Answers rows to begin anew without, if a trigger rolled the
    /// transaction back.
    fn pass(&mut self, pass: Pass) -> Result<Option<Refused>>;

    /// Parked rows were given unique values that nobody has.
    fn freed(&mut self) -> Result<()>;

    fn counts(&self) -> Self::Counts;

    /// A savepoint was rolled back: what was counted since never was.
    fn rewind(&mut self, counts: Self::Counts) -> Result<()>;
}

/// Goes through all rows, then through those that could not be written as long as that helps. What no pass helps is a
/// row error. Answers rows to begin anew without, if a trigger rolled the transaction back. Blocks.
pub(super) fn run_passes(connection: &Connection, rows: &mut impl ApplyRows) -> Result<Option<Refused>> {
    let mut parked_before = u64::MAX;
    for pass in 0..PASSES_MAX {
        let pass = if pass == 0 { Pass::First } else { Pass::Again };
        let rolled_back = rows.pass(pass)?;
        if rolled_back.is_some() {
            return Ok(rolled_back);
        }
        if rows.parked() == 0 {
            return Ok(None);
        }
        if rows.parked() >= parked_before {
            break;
        }
        parked_before = rows.parked();
    }
    match swap_unique_values(connection, rows)? {
        Swapped::All => Ok(None),
        Swapped::RolledBack(refused) => Ok(Some(refused)),
        Swapped::NotAll => rows.pass(Pass::Last),
    }
}

/// Whether rows that swap unique values could be written.
enum Swapped {
    /// Nothing is left to do.
    All,
    NotAll,
    RolledBack(Refused),
}

/// Rows may swap unique values: gives all that are parked values that nobody has, and then their own. Unless that helps
/// all that are left, nothing is done.
fn swap_unique_values(connection: &Connection, rows: &mut impl ApplyRows) -> Result<Swapped> {
    // As the last pass has left them: each round of these looks at fewer rows.
    let written = rows.written().clone();
    // Of a swap in an earlier transaction of a download by batches.
    incoming::forget_freed(connection)?;
    for _ in 0..SWAP_ROUNDS_MAX {
        let counts = rows.counts();
        connection.execute_batch("SAVEPOINT syncline_swap").db()?;
        let freed = match unique::free_values(connection, rows.plans().values(), &written)? {
            Ok(freed) => freed,
            Err(refused) => return Ok(Swapped::RolledBack(refused)),
        };
        let mut left_free = Vec::new();
        if freed {
            rows.freed()?;
            if let Some(refused) = rows.pass(Pass::Again)? {
                return Ok(Swapped::RolledBack(refused));
            }
            left_free = unique::left_free(connection, ROW_ERRORS_MAX)?;
            if rows.parked() == 0 && left_free.is_empty() {
                connection.execute_batch("RELEASE syncline_swap").db()?;
                let stuck = any_stuck(connection, rows)?;
                return Ok(if stuck { Swapped::NotAll } else { Swapped::All });
            }
        }
        let mut stuck = still_parked(connection, rows)?;
        stuck.extend(left_free);
        stuck.sort();
        stuck.dedup();
        connection.execute_batch("ROLLBACK TO syncline_swap; RELEASE syncline_swap").db()?;
        rows.rewind(counts)?;
        // Of more than may fail, leaving some out mends nothing that matters.
        if !freed || stuck.len() > ROW_ERRORS_MAX {
            break;
        }
        // Without those that can't be written even so, the others may swap.
        for (table, key) in &stuck {
            incoming::set(connection, *table, key, Fate::Stuck)?;
        }
    }
    Ok(Swapped::NotAll)
}

/// The rows that could not be written, at most one more than may fail: they must outlive a savepoint, so no table of the
/// database can keep them.
fn still_parked(connection: &Connection, rows: &impl ApplyRows) -> Result<Vec<(TableId, Bytes)>> {
    let mut stuck = Vec::new();
    for plan in rows.plans().values() {
        incoming::each_key(connection, plan.id, Fate::Parked, |key| {
            stuck.push((plan.id, key.clone()));
            let enough = stuck.len() > ROW_ERRORS_MAX;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    Ok(stuck)
}

fn any_stuck(connection: &Connection, rows: &impl ApplyRows) -> Result<bool> {
    for plan in rows.plans().values() {
        if incoming::each_key(connection, plan.id, Fate::Stuck, |_| Ok(ControlFlow::Break(())))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
