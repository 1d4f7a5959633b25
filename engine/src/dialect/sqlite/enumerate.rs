//! Sends what a plan asks for: base tables in key order, or the records that a destination lacks with their rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, Value as Stored};
use rusqlite::{Connection, Row};
use syncline::batch::{Block, Operation};
use syncline::error::{Result, SyncError};
use syncline::ids::{TableId, Tick};
use tokio::sync::mpsc;

use super::errors::DatabaseResult as _;
use super::plan::TablePlan;
use super::rows::{Beside, BlockBounds, BlockBuilder, can_not_travel};
use super::state::{self, OwnIds};
use super::statements;
use crate::store::{EnumeratedBlock, EnumerationPlan, Part, Position, StoredScope, StoredTable};

/// An enumeration under way, within a read transaction.
pub(super) struct Enumeration<'a> {
    pub(super) connection: &'a Connection,
    pub(super) plans: &'a BTreeMap<TableId, TablePlan>,
    pub(super) scope: &'a StoredScope,
    pub(super) ids: &'a OwnIds,
    pub(super) plan: &'a EnumerationPlan,
    pub(super) blocks: &'a mpsc::Sender<Result<EnumeratedBlock>>,
}

/// Whether somebody still listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    GoOn,
    Stop,
}

impl Enumeration<'_> {
    /// Runs all parts, in order. Blocks. Ends early when the receiver is gone.
    pub(super) fn run(&self) -> Result<()> {
        for part in &self.plan.parts {
            let flow = match part {
                Part::Whole { table, after } => self.whole(self.table(*table)?, after.as_ref())?,
                Part::Upserts { table, after } => {
                    self.changes(self.table(*table)?, Operation::Upsert, after.as_ref())?
                }
                Part::Deletes { table, after } => {
                    self.changes(self.table(*table)?, Operation::Delete, after.as_ref())?
                }
                Part::Keys { table, keys } => self.keys(self.table(*table)?, keys)?,
            };
            if flow == Flow::Stop {
                break;
            }
        }
        Ok(())
    }

    fn table(&self, id: TableId) -> Result<(&TablePlan, &StoredTable)> {
        let stored = self.scope.tables.iter().find(|table| table.id == id);
        self.plans.get(&id).zip(stored).ok_or_else(|| {
            SyncError::internal(format!("the enumeration's plan names table {id}, which is not in the scope"))
        })
    }

    fn bounds(&self) -> BlockBounds {
        BlockBounds { block_bytes_max: self.plan.block_bytes_max, row_bytes_max: self.plan.row_bytes_max }
    }

    fn whole(&self, (plan, stored): (&TablePlan, &StoredTable), after: Option<&Bytes>) -> Result<Flow> {
        let with_times = self.plan.changed_at_tables.contains(&plan.id);
        let mut statement = self.connection.prepare_cached(&plan.names.scan(after.is_some())).db()?;
        bind_after(plan, after, 0, &mut statement)?;
        let mut times = Times::new(self.connection, plan, stored)?;
        let mut builder = BlockBuilder::new(plan, Operation::Upsert, self.bounds());
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().db()? {
            let changed_at = if with_times { Some(times.of(row)?) } else { None };
            let finished = builder.push(row, Beside { changed_at, leaf: None })?;
            if self.send(finished) == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(self.send(builder.finish()?))
    }

    /// Rows or deletes whose versions `known` lacks. The records are read in key order; each base row by its key.
    fn changes(
        &self,
        (plan, _): (&TablePlan, &StoredTable),
        operation: Operation,
        after: Option<&Bytes>,
    ) -> Result<Flow> {
        let columns = plan.key_columns();
        let echo = match self.plan.echo {
            Some(leaf) => state::leaf_number(self.connection, leaf)?,
            None => 0,
        };
        let with_times = self.plan.changed_at_tables.contains(&plan.id);
        let sql = statements::records_above(plan.id, columns, self.ids.0.len(), after.is_some());
        let mut records = self.connection.prepare_cached(&sql).db()?;
        for (place, (number, replica, _)) in self.ids.0.iter().enumerate() {
            // Ticks that are missing below are looked at one by one further down.
            let above = self.plan.known.clock(*replica).map_or(-1, |clock| {
                let first_missing =
                    clock.missing().iter().next().map(|(first, _)| Tick(first.0.saturating_sub(1)));
                state::to_sql(first_missing.unwrap_or(clock.tick()))
            });
            records.raw_bind_parameter(place * 2 + 1, number).db()?;
            records.raw_bind_parameter(place * 2 + 2, above).db()?;
        }
        bind_after(plan, after, self.ids.0.len() * 2, &mut records)?;
        let mut base = self
            .connection
            .prepare_cached(&match operation {
                Operation::Upsert => plan.select_one.clone(),
                _ => plan.names.exists(),
            })
            .db()?;
        let mut builder = BlockBuilder::new(plan, operation, self.bounds());
        let mut rows = records.raw_query();
        while let Some(record) = rows.next().db()? {
            let number = |column: usize| record.get::<_, i64>(columns + column).db();
            let version = self.ids.version(number(0)?, number(1)?)?;
            let echoed = echo != 0 && number(2)? == echo;
            if echoed || self.plan.known.contains_version(version) {
                continue;
            }
            for place in 0..columns {
                let value = ToSqlOutput::Borrowed(record.get_ref(place).db()?);
                base.raw_bind_parameter(place + 1, value).db()?;
            }
            let beside = Beside { changed_at: if with_times { Some(number(3)?) } else { None }, leaf: None };
            let mut found = base.raw_query();
            let row = found.next().db()?;
            let finished = match (operation, row) {
                (Operation::Upsert, Some(row)) => builder.push(row, beside)?,
                (Operation::Delete, None) if !can_not_travel(record, columns)? => {
                    builder.push(record, beside)?
                }
                _ => None,
            };
            if self.send(finished) == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(self.send(builder.finish()?))
    }

    /// The present state of single rows.
    fn keys(&self, (plan, stored): (&TablePlan, &StoredTable), keys: &[Bytes]) -> Result<Flow> {
        let with_times = self.plan.changed_at_tables.contains(&plan.id);
        let mut upserts = BlockBuilder::new(plan, Operation::Upsert, self.bounds());
        let mut deletes = BlockBuilder::new(plan, Operation::Delete, self.bounds());
        let mut base = self.connection.prepare_cached(&plan.select_one).db()?;
        let bound_alone = (1..=plan.key_columns()).map(|place| format!("?{place}")).collect::<Vec<_>>();
        let mut alone = self.connection.prepare_cached(&format!("SELECT {}", bound_alone.join(", "))).db()?;
        let mut times = Times::new(self.connection, plan, stored)?;
        for key in keys {
            let values = plan.parse_key(key)?;
            let bound = plan.bind_key(&values)?;
            let changed_at = if with_times { Some(times.of_key(&bound)?) } else { None };
            let beside = Beside { changed_at, leaf: None };
            for (place, value) in bound.iter().enumerate() {
                base.raw_bind_parameter(place + 1, value).db()?;
                alone.raw_bind_parameter(place + 1, value).db()?;
            }
            let mut found = base.raw_query();
            let finished = if let Some(row) = found.next().db()? {
                upserts.push(row, beside)?
            } else {
                let mut key = alone.raw_query();
                match key.next().db()? {
                    Some(row) => deletes.push(row, beside)?,
                    None => None,
                }
            };
            if self.send_without_position(finished) == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        let (upserts, deletes) = (upserts.finish()?, deletes.finish()?);
        if self.send_without_position(upserts) == Flow::Stop {
            return Ok(Flow::Stop);
        }
        Ok(self.send_without_position(deletes))
    }

    fn send(&self, finished: Option<(Block, Bytes)>) -> Flow {
        let Some((block, after)) = finished else { return self.listening() };
        let position = Position { operation: block.operation, table: block.table, after };
        self.hand_out(EnumeratedBlock { block, position: Some(position) })
    }

    fn send_without_position(&self, finished: Option<(Block, Bytes)>) -> Flow {
        let Some((block, _)) = finished else { return self.listening() };
        self.hand_out(EnumeratedBlock { block, position: None })
    }

    fn hand_out(&self, block: EnumeratedBlock) -> Flow {
        if self.blocks.blocking_send(Ok(block)).is_ok() { Flow::GoOn } else { Flow::Stop }
    }

    fn listening(&self) -> Flow {
        if self.blocks.is_closed() { Flow::Stop } else { Flow::GoOn }
    }
}

/// Binds the key to go on after, behind `first` other parameters.
fn bind_after(
    plan: &TablePlan,
    after: Option<&Bytes>,
    first: usize,
    statement: &mut rusqlite::Statement<'_>,
) -> Result<()> {
    let Some(after) = after else { return Ok(()) };
    let values = plan.parse_key(after)?;
    for (place, value) in plan.bind_key(&values)?.iter().enumerate() {
        statement.raw_bind_parameter(first + place + 1, value).db()?;
    }
    Ok(())
}

/// When rows were changed: their record's time, else that of the table's baseline.
struct Times<'c, 'p> {
    record: rusqlite::CachedStatement<'c>,
    plan: &'p TablePlan,
    baseline: i64,
}

impl<'c, 'p> Times<'c, 'p> {
    fn new(connection: &'c Connection, plan: &'p TablePlan, stored: &StoredTable) -> Result<Self> {
        Ok(Self {
            record: connection.prepare_cached(&plan.select_record).db()?,
            plan,
            baseline: stored.baseline_changed_at,
        })
    }

    /// Of a row that holds all carried columns.
    fn of(&mut self, row: &Row<'_>) -> Result<i64> {
        for (place, column) in self.plan.key.iter().enumerate() {
            let value = ToSqlOutput::Borrowed(row.get_ref(*column).db()?);
            self.record.raw_bind_parameter(place + 1, value).db()?;
        }
        self.read()
    }

    fn of_key(&mut self, key: &[ToSqlOutput<'_>]) -> Result<i64> {
        for (place, value) in key.iter().enumerate() {
            self.record.raw_bind_parameter(place + 1, value).db()?;
        }
        self.read()
    }

    fn read(&mut self) -> Result<i64> {
        let mut rows = self.record.raw_query();
        match rows.next().db()? {
            Some(row) => row.get(3).db(),
            None => Ok(self.baseline),
        }
    }
}

/// A stored value, owned.
pub(super) fn owned(row: &Row<'_>, columns: usize) -> Result<Vec<Stored>> {
    (0..columns).map(|column| row.get::<_, Stored>(column).db()).collect()
}
