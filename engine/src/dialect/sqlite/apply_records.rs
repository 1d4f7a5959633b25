//! The records of an upload's rows: what the hub holds of a row, what is written down of it, and which rows came.

use rusqlite::types::{ToSqlOutput, ValueRef};
use syncline::batch::Block;
use syncline::error::Result;
use syncline::knowledge::{RowKey, Version};

use super::apply_rows::{Table, UploadRows, bind, stands_twice};
use super::dangling::Recorded;
use super::errors::DatabaseResult as _;
use super::incoming::{self, Fate};
use super::plan::{BoundKey, TablePlan};
use super::state;
use crate::conflict::HubRow;

impl UploadRows<'_> {
    /// Where the records of what is written for the leaf are found.
    pub(super) fn recorded(&self) -> Recorded {
        Recorded { peer: self.state.number, tick: state::to_sql(self.tick), leaf: self.leaf_number }
    }

    /// Notes what became of a row that is met for the first time. Of one whose record is written, the record says that it
    /// came.
    pub(super) fn note(
        &mut self,
        plan: &TablePlan,
        key: &BoundKey<'_>,
        fate: Fate,
        changed_at: i64,
    ) -> Result<()> {
        let first = if fate == Fate::Recorded {
            !self.noted || incoming::get(self.connection, plan.id, &key.bytes)?.is_none()
        } else {
            self.noted = true;
            let recorded = self.quiet.has(plan.id) && self.is_recorded(plan, key)?;
            !recorded && incoming::add(self.connection, plan.id, &key.bytes, fate, changed_at)?
        };
        if first { Ok(()) } else { Err(stands_twice(plan)) }
    }

    /// Whether the row's record was written in this apply: nothing else has written one at its tick.
    pub(super) fn is_recorded(&self, plan: &TablePlan, key: &BoundKey<'_>) -> Result<bool> {
        let mut record = self.connection.prepare_cached(&plan.select_record).db()?;
        bind(&mut record, &key.values)?;
        let mut rows = record.raw_query();
        let Some(record) = rows.next().db()? else { return Ok(false) };
        Ok(self.is_own(record.get(0).db()?, record.get(1).db()?))
    }

    /// Whether a version, by replica number and tick, is of this apply.
    pub(super) fn is_own(&self, peer: i64, tick: i64) -> bool {
        peer == self.state.number && tick == state::to_sql(self.tick)
    }

    pub(super) fn version_of(
        &self,
        table: &Table<'_>,
        key: &BoundKey<'_>,
        row_key: &RowKey,
        present: bool,
    ) -> Result<HubRow> {
        if self.side_effects.touched(self.connection, row_key.table, &row_key.key)? {
            let version = Version { replica: self.state.replica, tick: self.tick };
            return Ok(HubRow { present, version: Some(version), via_sender: false, changed_at: self.now });
        }
        let mut record = self.connection.prepare_cached(&table.plan.select_record).db()?;
        bind(&mut record, &key.values)?;
        let mut rows = record.raw_query();
        let Some(record) = rows.next().db()? else {
            return Ok(HubRow {
                present,
                version: present.then_some(table.stored.baseline),
                via_sender: false,
                changed_at: table.stored.baseline_changed_at,
            });
        };
        let (peer, tick, via): (i64, i64, i64) =
            (record.get(0).db()?, record.get(1).db()?, record.get(2).db()?);
        if self.quiet.has(table.plan.id) && self.is_own(peer, tick) {
            return Err(stands_twice(table.plan));
        }
        Ok(HubRow {
            present,
            version: Some(self.ids.version(peer, tick)?),
            via_sender: via == self.leaf_number,
            changed_at: record.get(3).db()?,
        })
    }

    /// Writes a row's record, at the tick of this apply. `via`: the number of the leaf whose row it is, 0 if it is none's;
    /// `exactly`: it is just what the leaf sent.
    pub(super) fn record<'v>(
        &self,
        plan: &TablePlan,
        key: impl Iterator<Item = ValueRef<'v>>,
        via: i64,
        exactly: bool,
        changed_at: i64,
    ) -> Result<()> {
        let mut statement = self.connection.prepare_cached(&plan.upsert_record).db()?;
        for (place, value) in key.enumerate() {
            statement.raw_bind_parameter(place + 1, ToSqlOutput::Borrowed(value)).db()?;
        }
        let origin = if exactly { via } else { 0 };
        let beside = [self.state.number, state::to_sql(self.tick), via, origin, changed_at];
        for (place, value) in beside.iter().enumerate() {
            statement.raw_bind_parameter(plan.key_columns() + place + 1, value).db()?;
        }
        statement.raw_execute().db()?;
        Ok(())
    }

    /// Whether the row is now just what came in: affinities and triggers may have made another of it.
    pub(super) fn is_stored(
        &self,
        plan: &TablePlan,
        block: &Block,
        row: usize,
        key: &BoundKey<'_>,
    ) -> Result<bool> {
        let mut base = self.connection.prepare_cached(&plan.select_one).db()?;
        bind(&mut base, &key.values)?;
        let mut rows = base.raw_query();
        let Some(stored) = rows.next().db()? else { return Ok(false) };
        for column in &block.columns {
            let Some(place) = plan.column_index(column.id()) else { return Ok(false) };
            if !plan.same_cell(place, stored.get_ref(place).db()?, column.cell(row)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
