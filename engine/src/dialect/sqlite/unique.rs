//! Rows that swap unique values: each would be free once the other had its new one. All of them are given values that
//! nobody has first, and their own in the next pass.

use std::ops::ControlFlow;

use bytes::Bytes;
use rusqlite::Connection;
use syncline::error::Result;

use super::apply_rows::bind;
use super::errors::{DatabaseResult as _, classify, row_error};
use super::incoming::{self, Fate};
use super::plan::TablePlan;
use super::statements::quote;
use super::types::Affinity;

/// Gives parked rows of these tables unique values that nobody has. Answers whether there were any. Blocks.
pub(super) fn free_values<'p>(
    connection: &Connection,
    plans: impl IntoIterator<Item = &'p TablePlan>,
) -> Result<bool> {
    let mut freed = false;
    for plan in plans {
        let columns = columns_to_free(plan);
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

/// For each unique index one column that is not of the key, with the expression that frees it.
fn columns_to_free(plan: &TablePlan) -> Vec<(String, &'static str)> {
    let is_key = |column: usize| plan.catalog.key.iter().any(|part| part.column == column);
    let indexes = plan.catalog.unique.iter().filter_map(|index| index.columns.as_ref());
    let mut columns: Vec<_> = indexes
        .filter_map(|columns| columns.iter().map(|(column, _)| *column).find(|column| !is_key(*column)))
        .map(|column| {
            let free = match (plan.catalog.columns[column].not_null, plan.catalog.affinity(column)) {
                (false, _) => "NULL",
                (true, Affinity::Integer | Affinity::Numeric) => "random()",
                (true, Affinity::Real) => "random() / 3.0",
                (true, Affinity::Text | Affinity::Blob) => "lower(hex(randomblob(16)))",
            };
            (quote(&plan.catalog.columns[column].name), free)
        })
        .collect();
    columns.sort();
    columns.dedup();
    columns
}

fn free_row(
    connection: &Connection,
    plan: &TablePlan,
    columns: &[(String, &'static str)],
    key: &Bytes,
) -> Result<bool> {
    let values = plan.parse_key(key)?;
    let bound = plan.bind_key(&values)?;
    let mut freed = false;
    for (column, free) in columns {
        let sql = plan.names.set_expression(column, free);
        let mut statement = connection.prepare_cached(&sql).db()?;
        bind(&mut statement, &bound)?;
        match statement.raw_execute() {
            Ok(changed) => freed |= changed > 0,
            // A CHECK that refuses the value, for example: then the row stays as it is.
            Err(error) if row_error(&error).is_some() => {}
            Err(error) => return Err(classify(&error)),
        }
    }
    Ok(freed)
}
