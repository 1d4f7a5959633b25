//! Judges and writes the rows of an upload, one by one.
//!
//! What is written is logged by our triggers, and becomes records at the end ([`super::apply_finish`]): so what triggers
//! and cascades of the user's own do is seen too. Of a table that none of these touches nobody has to be asked: where
//! many rows of it come, our triggers are away meanwhile ([`Quiet`]), and each row's record is written with it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, Value as Stored};
use syncline::batch::Block;
use syncline::conflict::{Outcome, RowError};
use syncline::error::{Result, SyncError};
use syncline::ids::{ColumnId, TableId, Tick};
use syncline::knowledge::{Knowledge, RowKey, Version};
use syncline::schema::{ConflictPolicy, TableSchema};

use super::along::Children;
use super::apply::Upload;
use super::errors::DatabaseResult as _;
use super::incoming::{self, Fate, Pass};
use super::passes::{ApplyRows, Refused};
use super::plan::{BoundKey, TablePlan, row_invalid};
use super::quiet::Quiet;
use super::rows::owned_row;
use super::side_effects::SideEffects;
use super::state::{self, OwnIds};
use super::types::as_ref;
use super::unique::{self, Written};
use super::writer::{RowProblem, RowWriter, Wrote};
use crate::conflict::{HubRow, IncomingRow, Verdict, is_plain, judge_upload};
use crate::dialect::meta::leaves::LeafRow;
use crate::store::{StoredTable, is_unfilled};

/// What an apply counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) upserts: u64,
    pub(super) deletes: u64,
    pub(super) unchanged: u64,
    pub(super) conflicts: u64,
}

/// The rows of an upload, under way.
pub(super) struct UploadRows<'a> {
    pub(super) upload: &'a Upload<'a>,
    pub(super) connection: &'a Connection,
    pub(super) plans: &'a BTreeMap<TableId, TablePlan>,
    pub(super) tick: Tick,
    pub(super) now: i64,
    pub(super) leaf: LeafRow,
    pub(super) leaf_number: i64,
    pub(super) state: state::State,
    pub(super) ids: OwnIds,
    pub(super) side_effects: SideEffects,
    /// What deletes may take along.
    pub(super) children: Children,
    pub(super) counts: Counts,
    /// Rows that could not be written so far.
    pub(super) parked: u64,
    /// Triggers that are away at the moment.
    pub(super) quiet: Quiet,
    /// Whether rows are noted beside those whose records are written.
    pub(super) noted: bool,
    written: Written,
    /// Whether parked rows were freed of unique values.
    freed: bool,
    pub(super) errors: Vec<RowError>,
}

/// A table of the scope, from all sides.
pub(super) struct Table<'a> {
    pub(super) plan: &'a TablePlan,
    pub(super) schema: &'a TableSchema,
    pub(super) stored: &'a StoredTable,
    pub(super) policy: ConflictPolicy,
    pub(super) made_with: &'a Knowledge,
}

/// What the hub holds of a row.
pub(super) struct Held {
    row: HubRow,
    /// The row, read only where it may be a conflict.
    pub(super) values: Option<Vec<Stored>>,
    equal: bool,
}

impl<'a> UploadRows<'a> {
    pub(super) fn new(
        upload: &'a Upload<'a>,
        plans: &'a BTreeMap<TableId, TablePlan>,
        leaf: LeafRow,
        tick: Tick,
        now: i64,
    ) -> Result<Self> {
        let connection = upload.transaction.connection();
        let schema = &upload.job.scope.schema;
        let downloads = |id| schema.table(id).is_some_and(|table| table.direction.downloads());
        Ok(Self {
            upload,
            connection,
            plans,
            tick,
            now,
            leaf,
            leaf_number: state::number_leaf(connection, upload.job.leaf)?,
            state: state::read(connection)?,
            ids: OwnIds::read(connection)?,
            side_effects: SideEffects::watch(connection)?,
            children: Children::read(connection, plans, downloads)?,
            counts: Counts::default(),
            parked: 0,
            quiet: Quiet::default(),
            noted: false,
            written: Written::default(),
            freed: false,
            errors: Vec::new(),
        })
    }

    fn block(&mut self, block: &Block, pass: Pass) -> Result<Option<Refused>> {
        let upload = self.upload;
        let Some(table) = self.table(block.table) else {
            return Err(row_invalid(&block.table.to_string(), "it is not in the scope"));
        };
        let (schema, plan) = (table.schema, table.plan);
        if !schema.direction.uploads() {
            return Err(row_invalid(&schema.name, "its rows are downloaded only"));
        }
        if [block.ticks.len(), block.changed_at.len(), block.births.len()]
            .iter()
            .any(|count| *count != block.rows())
        {
            return Err(row_invalid(&schema.name, "an upload's rows need ticks, changed_at and births"));
        }
        if self.side_effects.has_none(plan) && plan.keeps_keys() {
            self.quiet.begin(self.connection, plan, block)?;
        }
        let has_triggers = self.side_effects.has_triggers();
        let writer = RowWriter::new(self.connection, plan, block, has_triggers)?;
        let kept: &[_] = upload.job.columns_kept.get(&block.table).map_or(&[], Vec::as_slice);
        let without = without_columns(block, kept);
        let without_writer = RowWriter::new(self.connection, plan, &without, has_triggers)?;
        for row in 0..block.rows() {
            let (writer, block) = if leaves_unfilled(schema, block, kept, row) {
                (&without_writer, &*without)
            } else {
                (&writer, block)
            };
            if let Some(refused) = self.row(&table, writer, block, row, pass)? {
                return Ok(Some(refused));
            }
            if pass == Pass::First {
                upload.rows_done.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(None)
    }

    /// A table of the scope.
    pub(super) fn table(&self, id: TableId) -> Option<Table<'a>> {
        let job = self.upload.job;
        let ((schema, stored), plan) = job.scope.table(id).zip(self.plans.get(&id))?;
        let made_with =
            if job.made_with_nothing.contains(&id) { &self.upload.nothing } else { &job.made_with };
        Some(Table { plan, schema, stored, policy: job.scope.schema.policy(schema), made_with })
    }

    fn row(
        &mut self,
        table: &Table<'_>,
        writer: &RowWriter<'_, '_>,
        block: &Block,
        row: usize,
        pass: Pass,
    ) -> Result<Option<Refused>> {
        let key = match table.plan.block_key(block, row)? {
            Ok(key) => key,
            Err(problem) => {
                // It has no place here, so it can't be known to temporary tables either.
                if pass == Pass::First {
                    let bytes = block.key(&table.schema.key, row).unwrap_or_default();
                    self.fail(table.plan, block, bytes, &RowProblem::of_type(problem))?;
                }
                return Ok(None);
            }
        };
        if pass != Pass::First {
            let fate = incoming::get(self.connection, block.table, &key.bytes)?.map(|(fate, _)| fate);
            if !pass.takes(fate) {
                return Ok(None);
            }
        }
        let row_key = table.plan.row_key(key.bytes.clone());
        let written = match self.upload.refused.get(&row_key) {
            Some((reason, message)) => {
                Err(RowProblem { reason: *reason, message: message.clone(), rolled_back: false })
            }
            None => self.judge_and_write(table, writer, block, row, &key, &row_key)?,
        };
        let fate = match written {
            Ok(fate) => fate,
            Err(problem) if problem.rolled_back => {
                return Ok(Some(Refused::from([(row_key, (problem.reason, problem.message))])));
            }
            Err(problem) => {
                let fate = self.park_or_fail(table.plan, block, &key.bytes, &problem, pass)?;
                if fate == Fate::Parked && !block.operation.removes() {
                    self.written.note(block.table, writer.values());
                }
                fate
            }
        };
        if pass != Pass::First {
            incoming::set(self.connection, block.table, &key.bytes, fate)?;
        } else {
            self.note(table.plan, &key, fate, self.changed_at(block, row))?;
        }
        Ok(None)
    }

    /// A row that a parent or another row may still make room for waits for the next pass.
    fn park_or_fail(
        &mut self,
        plan: &TablePlan,
        block: &Block,
        key: &Bytes,
        problem: &RowProblem,
        pass: Pass,
    ) -> Result<Fate> {
        let refused = self.upload.refused.contains_key(&plan.row_key(key.clone()));
        if problem.may_wait(refused, pass) {
            self.parked += 1;
            return Ok(Fate::Parked);
        }
        self.fail(plan, block, key.clone(), problem)?;
        Ok(Fate::Failed)
    }

    /// Reports a row that can't be applied.
    pub(super) fn fail(
        &mut self,
        plan: &TablePlan,
        block: &Block,
        key: Bytes,
        problem: &RowProblem,
    ) -> Result<()> {
        let schema = &self.upload.job.scope.schema;
        let table_name = schema.table(plan.id).map_or_else(|| plan.name.clone(), |table| table.name.clone());
        self.errors.push(problem.error(plan, &table_name, block.operation, key));
        let first = Some((table_name, problem.reason, problem.message.clone()));
        super::apply::too_many_errors(schema, self.errors.len(), first)
    }

    fn judge_and_write(
        &mut self,
        table: &Table<'_>,
        writer: &RowWriter<'_, '_>,
        block: &Block,
        row: usize,
        key: &BoundKey<'_>,
        row_key: &RowKey,
    ) -> Result<Result<Fate, RowProblem>> {
        let own = Version { replica: self.upload.job.leaf, tick: block.ticks[row] };
        if self.leaf.clock.contains(row_key, own) {
            self.counts.unchanged += 1;
            return Ok(Ok(Fate::Unchanged));
        }
        let incoming = IncomingRow {
            removes: block.operation.removes(),
            born: self.is_born(row_key, block.births[row]),
            changed_at: self.changed_at(block, row),
        };
        let held = match self.held(table, block, row, key, row_key, &incoming)? {
            Ok(held) => held,
            Err(problem) => return Ok(Err(problem)),
        };
        let verdict = judge_upload(row_key, &held.row, &incoming, table.made_with, held.equal, table.policy);
        let (fate, conflict) = match verdict {
            Verdict::Unchanged => {
                self.counts.unchanged += 1;
                return Ok(Ok(Fate::Unchanged));
            }
            Verdict::ConflictTombstone(kind) => (Ok(Fate::Tombstone), Some((kind, Outcome::Local))),
            Verdict::Conflict(kind, outcome @ (Outcome::Local | Outcome::Merged)) => {
                (Ok(Fate::Lost), Some((kind, outcome)))
            }
            Verdict::Conflict(kind, Outcome::Remote) => (
                self.write_judged(table, writer, block, row, key, &held, &incoming)?,
                Some((kind, Outcome::Remote)),
            ),
            Verdict::Apply => (self.write_judged(table, writer, block, row, key, &held, &incoming)?, None),
        };
        if let Ok(Fate::Kept) = fate {
            self.log_kept(table, key)?;
            return Ok(fate);
        }
        // Logged only once it is written: a row error is no conflict.
        if let (Ok(_), Some((kind, outcome))) = (&fate, conflict) {
            self.log_conflict(table, block, row, key, &held, kind, outcome)?;
        }
        Ok(fate)
    }

    /// Whether the row was born at the leaf and the hub has not had it since: its answer may have been lost.
    fn is_born(&self, row_key: &RowKey, birth: Tick) -> bool {
        let version = Version { replica: self.upload.job.leaf, tick: birth };
        birth != Tick::default() && !self.leaf.clock.contains(row_key, version)
    }

    #[allow(clippy::too_many_arguments)] // a row is told from all sides
    fn write_judged(
        &mut self,
        table: &Table<'_>,
        writer: &RowWriter<'_, '_>,
        block: &Block,
        row: usize,
        key: &BoundKey<'_>,
        held: &Held,
        incoming: &IncomingRow,
    ) -> Result<Result<Fate, RowProblem>> {
        let present = held.row.present;
        let write = |rows: &mut Self| rows.write(table, writer, block, row, key, present);
        let may_take_along = incoming.removes && present && self.children.any(table.plan.id);
        if may_take_along { self.delete_along(table, key, incoming, write) } else { write(self) }
    }

    /// Reads the row and its record. Nobody else writes meanwhile: SQLite has one writer, and it is us.
    fn held(
        &self,
        table: &Table<'_>,
        block: &Block,
        row: usize,
        key: &BoundKey<'_>,
        row_key: &RowKey,
        incoming: &IncomingRow,
    ) -> Result<Result<Held, RowProblem>> {
        let plan = table.plan;
        let mut base = self.connection.prepare_cached(&plan.select_one).db()?;
        bind(&mut base, &key.values)?;
        let mut found = base.raw_query();
        let base_row = found.next().db()?;
        let row_now = self.version_of(table, key, row_key, base_row.is_some())?;
        let mut held = Held { row: row_now, values: None, equal: false };
        let Some(base_row) = base_row.filter(|_| !is_plain(row_key, &held.row, incoming, table.made_with))
        else {
            return Ok(Ok(held));
        };
        let mut values = match owned_row(plan, base_row)? {
            Ok(values) => values,
            Err(problem) => return Ok(Err(problem)),
        };
        held.equal = block.columns.iter().all(|column| {
            plan.column_index(column.id())
                .is_some_and(|place| plan.same_cell(place, (&values[place]).into(), column.cell(row)))
        });
        if self.freed {
            unique::restore(self.connection, plan, &key.bytes, &mut values)?;
        }
        held.values = Some(values);
        Ok(Ok(held))
    }

    fn write(
        &mut self,
        table: &Table<'_>,
        writer: &RowWriter<'_, '_>,
        block: &Block,
        row: usize,
        key: &BoundKey<'_>,
        present: bool,
    ) -> Result<Result<Fate, RowProblem>> {
        let removes = block.operation.removes();
        if removes && !present {
            self.counts.unchanged += 1;
            return Ok(Ok(Fate::Unchanged));
        }
        let wrote = if removes { writer.delete(key)? } else { writer.upsert(block, row, key, present)? };
        let wrote = match wrote {
            Ok(wrote) => wrote,
            Err(problem) => return Ok(Err(problem)),
        };
        *(if removes { &mut self.counts.deletes } else { &mut self.counts.upserts }) += 1;
        self.side_effects.note(self.connection, self.plans, (table.plan.id, &key.bytes))?;
        let exactly = match wrote {
            Wrote::Swallowed => return Ok(Ok(Fate::Swallowed)),
            Wrote::Nothing => return Ok(Ok(Fate::Written)),
            Wrote::Exactly => true,
            Wrote::Done => removes || self.is_stored(table.plan, block, row, key)?,
        };
        if self.quiet.has(table.plan.id) {
            let values = key.values.iter().map(as_ref);
            self.record(table.plan, values, self.leaf_number, exactly, self.changed_at(block, row))?;
            return Ok(Ok(Fate::Recorded));
        }
        Ok(Ok(if exactly { Fate::Written } else { Fate::WrittenOtherwise }))
    }

    /// When the row was changed at the leaf, by the hub's clock and never later than now.
    pub(super) fn changed_at(&self, block: &Block, row: usize) -> i64 {
        block.changed_at[row].saturating_add(self.upload.job.clock_offset_us).min(self.now)
    }
}

pub(super) fn stands_twice(plan: &TablePlan) -> SyncError {
    row_invalid(&plan.name, "a key stands twice in the upload")
}

/// The block less these columns: a column that is not listed keeps its value.
fn without_columns<'b>(block: &'b Block, columns: &[ColumnId]) -> Cow<'b, Block> {
    if columns.is_empty() || block.operation.removes() {
        return Cow::Borrowed(block);
    }
    let mut without = block.clone();
    without.columns.retain(|column| !columns.contains(&column.id()));
    Cow::Owned(without)
}

/// Whether the leaf has left all of these columns as they were made.
fn leaves_unfilled(schema: &TableSchema, block: &Block, columns: &[ColumnId], row: usize) -> bool {
    !columns.is_empty()
        && !block.operation.removes()
        && columns
            .iter()
            .filter_map(|id| schema.column(*id))
            .all(|column| is_unfilled(column, block.cell(column.id, row)))
}

impl ApplyRows for UploadRows<'_> {
    /// With the number of row errors.
    type Counts = (Counts, usize);

    fn plans(&self) -> &BTreeMap<TableId, TablePlan> {
        self.plans
    }

    fn parked(&self) -> u64 {
        self.parked
    }

    fn pass(&mut self, pass: Pass) -> Result<Option<Refused>> {
        let mut rolled_back = None;
        self.parked = 0;
        self.written = Written::default();
        self.upload.batches.each(|block| {
            if rolled_back.is_none() {
                rolled_back = self.block(block, pass)?;
            }
            Ok(())
        })?;
        Ok(rolled_back)
    }

    fn written(&self) -> &Written {
        &self.written
    }

    fn freed(&mut self) -> Result<()> {
        self.freed = true;
        self.side_effects.note_freed(self.connection, self.plans)
    }

    fn counts(&self) -> Self::Counts {
        (self.counts, self.errors.len())
    }

    fn rewind(&mut self, (counts, errors): Self::Counts) -> Result<()> {
        self.counts = counts;
        self.freed = false;
        self.errors.truncate(errors);
        self.side_effects.rewind(self.connection)
    }
}

/// Binds a key's values to the first parameters.
pub(super) fn bind(statement: &mut rusqlite::Statement<'_>, values: &[ToSqlOutput<'_>]) -> Result<()> {
    for (place, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(place + 1, value).db()?;
    }
    Ok(())
}
