//! Rows that swap unique values: each would be free once the other had its new one. All of them are given values that
//! nobody has first, and their own in the next pass.
//!
//! Invariant: what a row is freed of is written by the row that came for it, or the savepoint is rolled back. So only
//! columns are freed that every parked row of the table writes ([`Written`]), what they held is kept for the conflict
//! log ([`restore`]), and a row that was not written after all takes the whole attempt back ([`left_free`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::Value as Stored;
use syncline::error::{Result, SyncError};
use syncline::ids::TableId;

use super::apply_rows::bind;
use super::errors::{DatabaseResult as _, classify, row_error};
use super::incoming::{self, Fate};
use super::plan::TablePlan;
use super::types::Affinity;

/// Which columns the rows write that could not be written so far: by table, as places among the carried ones. A table
/// that is not there has only rows to remove.
#[derive(Debug, Default)]
pub(super) struct Written(BTreeMap<TableId, BTreeSet<usize>>);

impl Written {
    /// Notes what a row writes beside its key.
    pub(super) fn note(&mut self, table: TableId, places: &[usize]) {
        self.0
            .entry(table)
            .and_modify(|known| known.retain(|place| places.contains(place)))
            .or_insert_with(|| places.iter().copied().collect());
    }

    fn has(&self, table: TableId, place: usize) -> bool {
        self.0.get(&table).is_none_or(|places| places.contains(&place))
    }
}

/// A column that is freed, and the expression that does.
struct Free {
    place: usize,
    expression: &'static str,
}

/// Gives parked rows of these tables unique values that nobody has. Answers whether there were any. Blocks.
pub(super) fn free_values<'p>(
    connection: &Connection,
    plans: impl IntoIterator<Item = &'p TablePlan>,
    written: &Written,
) -> Result<bool> {
    let mut freed = false;
    for plan in plans {
        let columns = columns_to_free(plan, written);
        if columns.is_empty() {
            continue;
        }
        incoming::each_key(connection, plan.id, Fate::Parked, |key| {
            freed |= free_row(connection, plan, &columns, key)?;
            Ok(ControlFlow::<()>::Continue(()))
        })?;
    }
    Ok(freed)
}

/// For each unique index one column that is not of the key; one that may be NULL, if there is.
fn columns_to_free(plan: &TablePlan, written: &Written) -> Vec<Free> {
    let not_null = |place: usize| plan.columns[place].not_null;
    let indexes = plan.catalog.unique.iter().filter_map(|index| index.columns.as_ref());
    let places: BTreeSet<usize> = indexes
        .filter_map(|columns| {
            let carried = columns
                .iter()
                .filter_map(|(column, _)| plan.column_named(&plan.catalog.columns[*column].name));
            let may = carried.filter(|place| !plan.key.contains(place) && written.has(plan.id, *place));
            may.min_by_key(|place| not_null(*place))
        })
        .collect();
    let free = |place: usize| match (not_null(place), plan.columns[place].form.affinity) {
        (false, _) => "NULL",
        (true, Affinity::Integer | Affinity::Numeric) => "random()",
        (true, Affinity::Real) => "random() / 3.0",
        (true, Affinity::Text | Affinity::Blob) => "lower(hex(randomblob(16)))",
    };
    places.into_iter().map(|place| Free { place, expression: free(place) }).collect()
}

fn free_row(connection: &Connection, plan: &TablePlan, columns: &[Free], key: &Bytes) -> Result<bool> {
    let values = plan.parse_key(key)?;
    let bound = plan.bind_key(&values)?;
    let mut freed = false;
    for Free { place, expression } in columns {
        let column = &plan.names.columns[*place];
        let mut held =
            connection.prepare_cached(&plan.names.select_columns(std::slice::from_ref(column))).db()?;
        bind(&mut held, &bound)?;
        let Some(value) =
            held.raw_query().next().db()?.map(|row| row.get::<_, Stored>(0)).transpose().db()?
        else {
            return Ok(freed);
        };
        let mut statement = connection.prepare_cached(&plan.names.set_expression(column, expression)).db()?;
        bind(&mut statement, &bound)?;
        match statement.raw_execute() {
            Ok(0) => {}
            Ok(_) => {
                incoming::keep_freed(connection, plan.id, key, *place, &value)?;
                freed = true;
            }
            // A CHECK that refuses the value, for example: then the row stays as it is.
            Err(error) if row_error(&error).is_some() => {}
            Err(error) => return Err(classify(&error)),
        }
    }
    Ok(freed)
}

/// Puts what a row held before it was freed back into its values, for the conflict log. Blocks.
pub(super) fn restore(
    connection: &Connection,
    plan: &TablePlan,
    key: &Bytes,
    values: &mut [Stored],
) -> Result<()> {
    for (place, value) in incoming::freed(connection, plan.id, key)? {
        *values.get_mut(place).ok_or_else(|| SyncError::internal("a freed column that is none"))? = value;
    }
    Ok(())
}

/// Rows that were freed and not written after all: a trigger dropped the write, or changed the row meanwhile, and it
/// lost to that. Blocks.
pub(super) fn left_free(connection: &Connection, limit: usize) -> Result<Vec<(TableId, Bytes)>> {
    incoming::freed_without(connection, &[Fate::Written, Fate::WrittenOtherwise, Fate::Recorded], limit)
}
