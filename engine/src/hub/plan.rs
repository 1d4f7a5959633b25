//! What to enumerate: pure decisions over what the leaf knows and what the snapshot says.

use syncline::batch::Operation;
use syncline::ids::{ReplicaId, TableId};
use syncline::knowledge::{Knowledge, RowKey};
use syncline::schema::ConflictPolicy;

use super::session::EnumerationState;
use crate::limits::{BATCH_BLOCKS_PLANNED, BLOCK_ROWS_MAX};
use crate::replica::ChangesMode;
use crate::store::{EnumerationPlan, Part, Position, StoredScope, TableState};

/// Decides how the leaf compares: everything if it knows nothing of this view; else changes, and as a whole those tables
/// whose present form, baseline or last truncation it lacks.
pub(super) fn mode(
    scope: &StoredScope,
    known: &Knowledge,
    state: impl Fn(TableId) -> Option<TableState>,
) -> ChangesMode {
    if known.is_empty() {
        return ChangesMode::WholeView;
    }
    let lacks = |id: TableId| {
        let Some((_, stored)) = scope.table(id) else { return false };
        let truncated = state(id).and_then(|state| state.truncated);
        !known.contains_version(stored.since)
            || !known.contains_version(stored.baseline)
            || truncated.is_some_and(|version| !known.contains_version(version))
    };
    let whole_tables = downloaded_tables(scope).filter(|id| lacks(*id)).collect();
    ChangesMode::Delta { whole_tables }
}

/// What is left of the pass that the enumeration is in.
pub(super) fn pass(scope: &StoredScope, state: &EnumerationState) -> Vec<Part> {
    let parts = if state.since.is_none() { first_pass(scope, state) } else { later_pass(scope) };
    match &state.position {
        Some(position) => go_on(parts, position),
        None => parts,
    }
}

/// The first pass: everything that the leaf lacks, in an order in which it can be applied: upserts parents first, then
/// deletes children first; last the rows that it could not apply before.
fn first_pass(scope: &StoredScope, state: &EnumerationState) -> Vec<Part> {
    let upserts = downloaded_tables(scope).map(|table| {
        if state.is_whole(table) {
            Part::Whole { table, after: None }
        } else {
            Part::Upserts { table, after: None }
        }
    });
    let tables: Vec<_> = downloaded_tables(scope).collect();
    // Of a table that is compared as a whole, what is not named is gone.
    let deletes = tables.iter().rev().filter(|table| !state.is_whole(**table));
    let deletes = deletes.map(|table| Part::Deletes { table: *table, after: None });
    let mut parts: Vec<_> = upserts.chain(deletes).collect();
    parts.extend(excepted(scope, state));
    parts
}

/// A pass after one that went on under a later snapshot: what was read under its first may be older than what is read
/// now, so the changes since then are enumerated again.
fn later_pass(scope: &StoredScope) -> Vec<Part> {
    let tables: Vec<_> = downloaded_tables(scope).collect();
    let upserts = tables.iter().map(|table| Part::Upserts { table: *table, after: None });
    let deletes = tables.iter().rev().map(|table| Part::Deletes { table: *table, after: None });
    upserts.chain(deletes).collect()
}

/// A plan of these parts.
pub(super) fn plan(
    scope: &StoredScope,
    parts: Vec<Part>,
    known: &Knowledge,
    echo: Option<ReplicaId>,
    batch_bytes_max: u64,
    row_bytes_max: u64,
) -> EnumerationPlan {
    let needs_times = |id: &TableId| {
        scope
            .table(*id)
            .is_some_and(|(table, _)| scope.schema.policy(table) == ConflictPolicy::LastWriterWins)
    };
    debug_assert!(BLOCK_ROWS_MAX <= syncline::limits::BATCH_ROWS_MAX as usize);
    EnumerationPlan {
        parts,
        known: Knowledge::from_clocks(known.clocks().clone()),
        echo,
        changed_at_tables: downloaded_tables(scope).filter(needs_times).collect(),
        block_bytes_max: usize::try_from(batch_bytes_max).unwrap_or(usize::MAX) / BATCH_BLOCKS_PLANNED,
        row_bytes_max: usize::try_from(row_bytes_max).unwrap_or(usize::MAX),
    }
}

fn downloaded_tables(scope: &StoredScope) -> impl Iterator<Item = TableId> {
    scope.schema.tables.iter().filter(|table| table.direction.downloads()).map(|table| table.id)
}

fn excepted(scope: &StoredScope, state: &EnumerationState) -> Vec<Part> {
    let keys_of = |table: TableId| {
        let rows = state.excepted.iter().filter(move |row: &&RowKey| row.table == table);
        rows.map(|row| row.key.clone()).collect::<Vec<_>>()
    };
    let tables = downloaded_tables(scope).filter(|table| !state.is_whole(*table));
    let parts = tables.map(|table| Part::Keys { table, keys: keys_of(table) });
    parts.filter(|part| !matches!(part, Part::Keys { keys, .. } if keys.is_empty())).collect()
}

/// What is left of the parts after this position.
fn go_on(parts: Vec<Part>, position: &Position) -> Vec<Part> {
    let is_at = |part: &Part| match part {
        Part::Whole { table, .. } | Part::Upserts { table, .. } => {
            position.operation == Operation::Upsert && *table == position.table
        }
        Part::Deletes { table, .. } => position.operation == Operation::Delete && *table == position.table,
        Part::Keys { .. } => false,
    };
    let Some(at) = parts.iter().position(is_at) else { return parts };
    let mut rest: Vec<_> = parts.into_iter().skip(at).collect();
    if let Some(Part::Whole { after, .. } | Part::Upserts { after, .. } | Part::Deletes { after, .. }) =
        rest.first_mut()
    {
        *after = Some(position.after.clone());
    }
    rest
}
