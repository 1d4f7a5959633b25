//! What goes to the conflict log, read from base row and staged row.

use bytes::Bytes;
use syncline::conflict::{ConflictKind, ConflictSummary, Outcome};
use syncline::error::{Result, SyncError};
use syncline::ids::ConflictId;
use syncline::knowledge::ViewKnowledge;
use syncline::value::{Cell, key_bytes, row_json};

use super::apply::{Apply, Context, Set};
use super::tables::LeafTable;
use crate::dialect::meta::conflicts::{self, ConflictEntry};
use crate::dialect::postgres::copy::CopyRow;
use crate::dialect::postgres::meta;
use crate::dialect::postgres::types;

/// What is known of a row that loses or wins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finding {
    pub(super) kind: ConflictKind,
    pub(super) outcome: Outcome,
    /// Whether the base row is there.
    pub(super) present: bool,
}

impl Context<'_> {
    /// An entry of the conflict log. From `first` on the row holds the base row's columns, then the staged ones.
    pub(super) fn conflict(
        self,
        set: &Set,
        row: &CopyRow,
        first: usize,
        finding: Finding,
    ) -> Result<ConflictEntry> {
        let table = &self.tables[set.table];
        let staged_at = first + table.tracked.columns.len();
        let mut key = Vec::with_capacity(table.tracked.key.len());
        for place in &table.tracked.key {
            key.push((
                table.tracked.columns[*place].name.as_str(),
                staged_cell(table, *place, row, staged_at)?,
            ));
        }
        let row_key = key_bytes(key.iter().map(|(_, cell)| *cell)).map_err(SyncError::internal)?;
        let local_row = finding.present.then(|| {
            let cells = table.tracked.columns.iter().enumerate().map(|(place, column)| {
                let bytes = row.cell(first + place);
                let cell =
                    bytes.and_then(|bytes| types::cell(column.ty.canonical, column.ty.wire, bytes).ok());
                (column.name.as_str(), cell.unwrap_or(Cell::Null))
            });
            row_json(cells)
        });
        let remote_row = if set.removes {
            None
        } else {
            let mut cells = Vec::with_capacity(set.places.len());
            for place in &set.places {
                cells.push((
                    table.tracked.columns[*place].name.as_str(),
                    staged_cell(table, *place, row, staged_at)?,
                ));
            }
            Some(row_json(cells))
        };
        Ok(ConflictEntry {
            summary: ConflictSummary {
                id: ConflictId::fresh(),
                table: table.schema.id,
                table_name: table.schema.name.clone(),
                key_json: row_json(key).to_string(),
                kind: finding.kind,
                policy: table.policy,
                outcome: finding.outcome,
            },
            session: self.job.session,
            scope: self.subscription.schema.name.clone(),
            row_key,
            detected_at: self.now_us,
            local_row,
            remote_row,
            made_with: for_people(&self.job.begin.made_with),
        })
    }
}

impl Apply<'_> {
    /// Adds entries to the conflict log, in this transaction.
    pub(super) async fn log_conflicts(&mut self, entries: &[ConflictEntry]) -> Result<()> {
        self.progress.report.conflicts += entries.len() as u64;
        meta::run_many(self.connection, entries.iter().map(conflicts::insert).collect()).await
    }
}

/// A staged cell, where the staged columns begin at `first`.
fn staged_cell<'r>(table: &LeafTable, place: usize, row: &'r CopyRow, first: usize) -> Result<Cell<'r>> {
    staged(table, place, row.cell(first + place))
}

/// A staged cell from its bytes.
pub(super) fn staged<'r>(table: &LeafTable, place: usize, bytes: Option<&'r [u8]>) -> Result<Cell<'r>> {
    let Some(bytes) = bytes else { return Ok(Cell::Null) };
    let ty = table.tracked.columns[place].ty.canonical;
    types::cell(ty, types::staged_wire(ty), bytes)
        .map_err(|_| SyncError::internal("a staged cell is not as it should be"))
}

/// Knowledge as an administrator may read it.
fn for_people(made_with: &Bytes) -> String {
    match ViewKnowledge::decode(made_with) {
        Ok(view) => serde_json::to_string(&view.knowledge).unwrap_or_default(),
        Err(_) => String::new(),
    }
}
