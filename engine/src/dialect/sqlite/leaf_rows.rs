//! Judges and writes the rows of a download, one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::Value as Stored;
use syncline::batch::{Block, Operation};
use syncline::conflict::{ConflictKind, Outcome, Side};
use syncline::error::Result;
use syncline::ids::{TableId, Tick};
use syncline::knowledge::RowKey;
use syncline::schema::TableSchema;

use super::apply_rows::bind;
use super::cascades::Cascades;
use super::catalog;
use super::errors::DatabaseResult as _;
use super::incoming::{self, Fate, Pass};
use super::leaf_download::Download;
use super::passes::{ApplyRows, Refused};
use super::plan::{BoundKey, TablePlan, row_invalid};
use super::quiet::Quiet;
use super::rows::owned_row;
use super::unique::{self, Written};
use super::writer::{RowProblem, RowWriter, Wrote};
use super::{leaf_whole, state};
use crate::conflict::{DirtyRow, LeafVerdict, judge_download};
use crate::store::DownloadReport;

/// What an attempt works on.
pub(super) struct Setting {
    pub(super) batches: Range<usize>,
    pub(super) fresh: BTreeSet<TableId>,
    pub(super) refused: Refused,
    pub(super) defer_references: bool,
}

/// The rows of a download, under way.
pub(super) struct DownloadRows<'a> {
    pub(super) download: &'a Download<'a>,
    pub(super) connection: &'a Connection,
    pub(super) plans: &'a BTreeMap<TableId, TablePlan>,
    setting: &'a Setting,
    /// Whether this is the transaction that ends the download.
    last: bool,
    /// Tables with dirty rows.
    pub(super) dirty: BTreeSet<TableId>,
    pub(super) report: DownloadReport,
    /// Keeps other rows from going along.
    pub(super) cascades: Cascades<'a>,
    /// Triggers that are away at the moment.
    pub(super) quiet: Quiet,
    parked: u64,
    written: Written,
    /// Whether parked rows were freed of unique values.
    freed: bool,
    /// Which block of the download is being applied, from 1.
    place: i64,
    guarded: bool,
    pub(super) now: i64,
    /// The tick of rows that are kept against what came, once it is drawn.
    pub(super) kept_tick: Option<Tick>,
}

/// A row that came in.
pub(super) struct Incoming<'r> {
    pub(super) block: &'r Block,
    pub(super) row: usize,
    pub(super) key: &'r BoundKey<'r>,
}

impl Incoming<'_> {
    pub(super) fn removes(&self) -> bool {
        self.block.operation.removes()
    }
}

/// A dirty record, and its row.
pub(super) struct Dirty {
    pub(super) changed_at: i64,
    /// The tick of its birth here; 0 if it was not born here since its last acknowledgement.
    pub(super) birth: i64,
}

impl<'a> DownloadRows<'a> {
    pub(super) fn new(
        download: &'a Download<'a>,
        connection: &'a Connection,
        plans: &'a BTreeMap<TableId, TablePlan>,
        setting: &'a Setting,
        last: bool,
    ) -> Result<Self> {
        let mut dirty = BTreeSet::new();
        for table in download.subscription.schema.tables.iter().filter(|table| table.direction.uploads()) {
            if let Some(plan) = plans.get(&table.id)
                && leaf_whole::has_dirty(connection, plan)?
            {
                dirty.insert(plan.id);
            }
        }
        let schema = &download.subscription.schema;
        let tables = schema.tables.iter().filter_map(|table| Some((table, plans.get(&table.id)?)));
        let logged = |table: &TableSchema| download.subscription.keeps_replaced(table);
        let cascades = Cascades::set(connection, tables, logged, download.noted)?;
        Ok(Self {
            download,
            connection,
            plans,
            setting,
            last,
            dirty,
            report: DownloadReport::default(),
            cascades,
            quiet: Quiet::default(),
            parked: 0,
            written: Written::default(),
            freed: false,
            place: 0,
            guarded: catalog::has_user_triggers(connection)?,
            now: state::now(),
            kept_tick: None,
        })
    }

    fn block(&mut self, block: &Block, pass: Pass) -> Result<Option<Refused>> {
        let schema = self.download.subscription.schema.table(block.table).zip(self.plans.get(&block.table));
        let Some((schema, plan)) = schema else {
            return Err(row_invalid(&block.table.to_string(), "it is not in the scope"));
        };
        self.cascades.set_removing(block.operation.removes())?;
        // Among triggers of the user's own, the order in which they run would change.
        if !self.guarded {
            self.quiet.begin(self.connection, plan, block)?;
        }
        let writer = RowWriter::new(self.connection, plan, block, self.guarded)?;
        if self.setting.fresh.contains(&block.table) && block.operation == Operation::Upsert {
            return if pass == Pass::First { self.fill(plan, &writer, block) } else { Ok(None) };
        }
        for row in 0..block.rows() {
            if pass == Pass::First {
                self.download.rows_done.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(refused) = self.row(schema, plan, &writer, block, row, pass)? {
                return Ok(Some(refused));
            }
        }
        Ok(None)
    }

    /// Fills a table that was empty by plain inserts. At the first row that can't be, all begins anew row by row.
    fn fill(
        &mut self,
        plan: &TablePlan,
        writer: &RowWriter<'_, '_>,
        block: &Block,
    ) -> Result<Option<Refused>> {
        let written = writer.insert_all(block)?;
        self.download.rows_done.fetch_add(written, Ordering::Relaxed);
        self.report.upserts += written;
        debug_assert_eq!(plan.id, block.table);
        Ok((written < block.rows() as u64).then(Refused::new))
    }

    fn row(
        &mut self,
        schema: &TableSchema,
        plan: &TablePlan,
        writer: &RowWriter<'_, '_>,
        block: &Block,
        row: usize,
        pass: Pass,
    ) -> Result<Option<Refused>> {
        let key = match plan.block_key(block, row)? {
            Ok(key) => key,
            Err(problem) => {
                if pass == Pass::First {
                    let bytes = block.key(&schema.key, row).unwrap_or_default();
                    self.fail(plan, block.operation, bytes, &RowProblem::of_type(problem))?;
                }
                return Ok(None);
            }
        };
        if pass != Pass::First {
            let (fate, place) = incoming::get(self.connection, plan.id, &key.bytes)?.unzip();
            // A row that the download names again is written as it is named last.
            if !pass.takes(fate) || place != Some(self.place) {
                return Ok(None);
            }
        }
        let row_key = plan.row_key(key.bytes.clone());
        let incoming_row = Incoming { block, row, key: &key };
        let written = match self.refused(&row_key) {
            Some(problem) => Err(problem),
            None => self.judge_and_write(schema, plan, writer, &incoming_row)?,
        };
        let fate = match written {
            Ok(fate) => fate,
            Err(problem) if problem.rolled_back => {
                return Ok(Some(Refused::from([(row_key, (problem.reason, problem.message))])));
            }
            Err(problem) => {
                let fate = self.park_or_fail(plan, block.operation, &key.bytes, &problem, pass)?;
                if fate == Fate::Parked && !block.operation.removes() {
                    self.written.note(plan.id, writer.values());
                }
                if fate == Fate::Failed {
                    self.log_what_stays(schema, plan, &incoming_row)?;
                }
                fate
            }
        };
        incoming::put(self.connection, plan.id, &key.bytes, fate, self.place)?;
        Ok(None)
    }

    /// A row that a parent or another row may still make room for waits for the next pass.
    pub(super) fn park_or_fail(
        &mut self,
        plan: &TablePlan,
        operation: Operation,
        key: &Bytes,
        problem: &RowProblem,
        pass: Pass,
    ) -> Result<Fate> {
        let refused = self.setting.refused.contains_key(&plan.row_key(key.clone()));
        if problem.may_wait(refused, pass) {
            self.parked += 1;
            return Ok(Fate::Parked);
        }
        self.fail(plan, operation, key.clone(), problem)?;
        Ok(Fate::Failed)
    }

    fn fail(
        &mut self,
        plan: &TablePlan,
        operation: Operation,
        key: Bytes,
        problem: &RowProblem,
    ) -> Result<()> {
        let schema = &self.download.subscription.schema;
        self.report.row_errors.push(problem.error(plan, &plan.name, operation, key));
        let first = Some((plan.name.clone(), problem.reason, problem.message.clone()));
        super::apply::too_many_errors(schema, self.report.row_errors.len(), first)
    }

    fn judge_and_write(
        &mut self,
        schema: &TableSchema,
        plan: &TablePlan,
        writer: &RowWriter<'_, '_>,
        incoming: &Incoming<'_>,
    ) -> Result<Result<Fate, RowProblem>> {
        let dirty =
            if self.dirty.contains(&plan.id) { self.dirty_row(plan, &incoming.key.values)? } else { None };
        if dirty.is_none() && !self.download.subscription.keeps_replaced(schema) {
            let present = self.is_present(plan, incoming.key)?;
            return self.write(writer, incoming, present);
        }
        let mut held = match self.held(plan, incoming.key)?.transpose() {
            Ok(held) => held,
            Err(problem) => return Ok(Err(problem)),
        };
        let present = held.is_some();
        let equal = held.as_ref().is_some_and(|values| same_content(plan, values, incoming));
        if let Some(values) = held.as_mut().filter(|_| self.freed) {
            unique::restore(self.connection, plan, &incoming.key.bytes, values)?;
        }
        let Some(dirty) = dirty else {
            let written = self.write(writer, incoming, present)?;
            if written.is_ok() && present && !equal {
                let remote = if incoming.removes() { Side::Delete } else { Side::Update };
                let kind = ConflictKind { local: Side::Update, remote };
                self.log_conflict(schema, plan, incoming, held.as_deref(), kind, Outcome::Remote)?;
            }
            return Ok(written);
        };
        let changed_at = dirty.changed_at.saturating_add(self.download.job.clock_offset_us);
        let dirty_row = DirtyRow { present, born: dirty.birth != 0, changed_at };
        let incoming_at = incoming.block.changed_at.get(incoming.row).copied();
        let policy = self.download.subscription.schema.policy(schema);
        match judge_download(&dirty_row, incoming.removes(), incoming_at, equal, policy) {
            LeafVerdict::Same => {
                self.clean(plan, incoming.key)?;
                Ok(Ok(Fate::Unchanged))
            }
            LeafVerdict::TakeIncoming(kind) => {
                let written = self.replace_dirty(plan, writer, incoming, present)?;
                if written.is_ok() {
                    self.log_conflict(schema, plan, incoming, held.as_deref(), kind, Outcome::Remote)?;
                }
                Ok(written)
            }
            LeafVerdict::KeepOwn { kind, born_again } => {
                self.renew(plan, incoming.key, born_again)?;
                self.log_conflict(schema, plan, incoming, held.as_deref(), kind, Outcome::Local)?;
                Ok(Ok(Fate::Lost))
            }
        }
    }

    /// A clean row that should have been replaced or removed and stays for now: a later download that does it will not
    /// keep it.
    fn log_what_stays(
        &mut self,
        schema: &TableSchema,
        plan: &TablePlan,
        incoming: &Incoming<'_>,
    ) -> Result<()> {
        let dirty = self.dirty.contains(&plan.id) && self.dirty_row(plan, &incoming.key.values)?.is_some();
        if dirty || !self.download.subscription.keeps_replaced(schema) {
            return Ok(());
        }
        let Some(Ok(held)) = self.held(plan, incoming.key)? else { return Ok(()) };
        if same_content(plan, &held, incoming) {
            return Ok(());
        }
        let remote = if incoming.removes() { Side::Delete } else { Side::Update };
        let kind = ConflictKind { local: Side::Update, remote };
        self.log_conflict(schema, plan, incoming, Some(&held), kind, Outcome::Remote)
    }

    /// Notes the rows that go in this batch and those after it, of later transactions too.
    fn note_what_goes(&mut self, first: usize) -> Result<()> {
        let mut index = first;
        while let Some(blocks) = self.download.batches.batch(index)? {
            for block in &blocks {
                if let Some(plan) = self.plans.get(&block.table) {
                    self.cascades.note_block(plan, block)?;
                }
            }
            index += 1;
        }
        self.cascades.noted = true;
        Ok(())
    }

    pub(super) fn write(
        &mut self,
        writer: &RowWriter<'_, '_>,
        incoming: &Incoming<'_>,
        present: bool,
    ) -> Result<Result<Fate, RowProblem>> {
        if incoming.removes() && !present {
            return Ok(Ok(Fate::Unchanged));
        }
        let wrote = if incoming.removes() {
            self.remove(writer, incoming.key)?
        } else {
            writer.upsert(incoming.block, incoming.row, incoming.key, present)?
        };
        Ok(wrote.map(|wrote| {
            // What a local trigger dropped is the user's own will, and no change of theirs.
            if wrote == Wrote::Swallowed {
                return Fate::Swallowed;
            }
            *(if incoming.removes() { &mut self.report.deletes } else { &mut self.report.upserts }) += 1;
            Fate::Written
        }))
    }

    /// Removes a row that is there.
    pub(super) fn remove(
        &self,
        writer: &RowWriter<'_, '_>,
        key: &BoundKey<'_>,
    ) -> Result<Result<Wrote, RowProblem>> {
        self.cascades.goes(writer.plan(), key)?;
        let wrote = writer.delete(key)?;
        if matches!(&wrote, Err(problem) if !problem.rolled_back) {
            self.cascades.stays(writer.plan(), key)?;
        }
        Ok(wrote)
    }

    fn is_present(&self, plan: &TablePlan, key: &BoundKey<'_>) -> Result<bool> {
        let mut statement = self.connection.prepare_cached(&plan.names.exists()).db()?;
        bind(&mut statement, &key.values)?;
        let found = statement.raw_query().next().db()?.is_some();
        Ok(found)
    }

    /// The row that is there. The inner error: it can't be read.
    pub(super) fn held(
        &self,
        plan: &TablePlan,
        key: &BoundKey<'_>,
    ) -> Result<Option<Result<Vec<Stored>, RowProblem>>> {
        let mut statement = self.connection.prepare_cached(&plan.select_one).db()?;
        bind(&mut statement, &key.values)?;
        let mut rows = statement.raw_query();
        rows.next().db()?.map(|row| owned_row(plan, row)).transpose()
    }

    /// Why the transaction began anew without the row, if it did.
    pub(super) fn refused(&self, row: &RowKey) -> Option<RowProblem> {
        let (reason, message) = self.setting.refused.get(row)?;
        Some(RowProblem { reason: *reason, message: message.clone(), rolled_back: false })
    }

    /// Whether rows of the table that no batch names are to be removed, now that all were seen.
    pub(super) fn compares_whole(&self, table: &TableSchema) -> bool {
        self.last
            && table.direction.downloads()
            && !self.download.was_empty.contains(&table.id)
            && self.download.job.begin.mode.is_whole(table.id)
    }
}

fn same_content(plan: &TablePlan, held: &[Stored], incoming: &Incoming<'_>) -> bool {
    !incoming.removes()
        && incoming.block.columns.iter().all(|column| {
            plan.column_index(column.id())
                .is_some_and(|place| plan.same_cell(place, (&held[place]).into(), column.cell(incoming.row)))
        })
}

impl ApplyRows for DownloadRows<'_> {
    type Counts = DownloadReport;

    fn plans(&self) -> &BTreeMap<TableId, TablePlan> {
        self.plans
    }

    fn parked(&self) -> u64 {
        self.parked
    }

    fn pass(&mut self, pass: Pass) -> Result<Option<Refused>> {
        self.parked = 0;
        self.written = Written::default();
        self.place = 0;
        for index in self.setting.batches.clone() {
            let Some(blocks) = self.download.batches.batch(index)? else { break };
            if self.cascades.must_note() && blocks.iter().any(|block| block.operation.removes()) {
                self.note_what_goes(index)?;
            }
            for block in &blocks {
                self.place += 1;
                if let Some(refused) = self.block(block, pass)? {
                    return Ok(Some(refused));
                }
            }
        }
        leaf_whole::remove_unnamed(self, pass)
    }

    fn written(&self) -> &Written {
        &self.written
    }

    fn freed(&mut self) -> Result<()> {
        self.freed = true;
        // Nothing is tracked at a leaf while it applies.
        Ok(())
    }

    fn counts(&self) -> DownloadReport {
        self.report.clone()
    }

    fn rewind(&mut self, counts: DownloadReport) -> Result<()> {
        self.report = counts;
        self.freed = false;
        self.cascades.rewind();
        Ok(())
    }
}
