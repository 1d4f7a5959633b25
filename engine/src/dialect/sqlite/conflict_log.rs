//! What the conflict log is told of rows that are applied, at a hub and at a leaf.

use bytes::Bytes;
use rusqlite::types::Value as Stored;
use syncline::batch::Block;
use syncline::conflict::{ConflictKind, ConflictSummary, Outcome};
use syncline::error::Result;
use syncline::ids::ConflictId;
use syncline::schema::TableSchema;

use super::apply_rows::{Held, Table, UploadRows};
use super::leaf_rows::{DownloadRows, Incoming};
use super::plan::{BoundKey, TablePlan};
use super::{leaf_whole, meta, state};
use crate::dialect::meta::conflicts::{self, ConflictEntry};

impl UploadRows<'_> {
    #[allow(clippy::too_many_arguments)] // a conflict is told from all sides
    pub(super) fn log_conflict(
        &mut self,
        table: &Table<'_>,
        block: &Block,
        row: usize,
        key: &BoundKey<'_>,
        held: &Held,
        kind: ConflictKind,
        outcome: Outcome,
    ) -> Result<()> {
        let remote = (!block.operation.removes()).then(|| table.plan.block_row_json(block, row));
        self.log(table, &key.bytes, held.values.as_deref(), remote, kind, outcome)
    }

    /// Adds an entry to the conflict log of this hub.
    pub(super) fn log(
        &mut self,
        table: &Table<'_>,
        key: &Bytes,
        held: Option<&[Stored]>,
        remote_row: Option<serde_json::Value>,
        kind: ConflictKind,
        outcome: Outcome,
    ) -> Result<()> {
        self.counts.conflicts += 1;
        let job = self.upload.job;
        let entry = ConflictEntry {
            summary: ConflictSummary {
                id: ConflictId::fresh(),
                table: table.plan.id,
                table_name: table.schema.name.clone(),
                key_json: table.plan.key_json(key),
                kind,
                policy: table.policy,
                outcome,
            },
            session: job.session,
            scope: job.scope.schema.name.clone(),
            row_key: key.clone(),
            detected_at: self.now,
            local_row: held.map(|values| table.plan.row_json(values)),
            remote_row,
            made_with: state::to_json(table.made_with)?,
        };
        meta::run(self.connection, &conflicts::insert(&entry))?;
        Ok(())
    }
}

impl DownloadRows<'_> {
    pub(super) fn log_conflict(
        &mut self,
        schema: &TableSchema,
        plan: &TablePlan,
        incoming: &Incoming<'_>,
        held: Option<&[Stored]>,
        kind: ConflictKind,
        outcome: Outcome,
    ) -> Result<()> {
        let remote = (!incoming.removes()).then(|| plan.block_row_json(incoming.block, incoming.row));
        self.log(schema, plan, &incoming.key.bytes, held, remote, kind, outcome)
    }

    /// Adds an entry to the conflict log of this leaf.
    #[allow(clippy::too_many_arguments)] // a conflict is told from all sides
    pub(super) fn log(
        &mut self,
        schema: &TableSchema,
        plan: &TablePlan,
        key: &Bytes,
        held: Option<&[Stored]>,
        remote_row: Option<serde_json::Value>,
        kind: ConflictKind,
        outcome: Outcome,
    ) -> Result<()> {
        self.report.conflicts += 1;
        let subscription = &self.download.subscription;
        let entry = ConflictEntry {
            summary: ConflictSummary {
                id: ConflictId::fresh(),
                table: plan.id,
                table_name: plan.name.clone(),
                key_json: plan.key_json(key),
                kind,
                policy: subscription.schema.policy(schema),
                outcome,
            },
            session: self.download.job.session,
            scope: subscription.schema.name.clone(),
            row_key: key.clone(),
            detected_at: self.now,
            local_row: held.map(|values| plan.row_json(values)),
            remote_row,
            made_with: leaf_whole::made_with_text(&self.download.job.begin.made_with),
        };
        meta::run(self.connection, &conflicts::insert(&entry))?;
        Ok(())
    }
}
