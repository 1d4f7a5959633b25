//! Rows that swap unique values: each would be free once the other had its new one. All of them are given values that
//! nobody has first, and their own in the next pass.
//!
//! Invariant: what a row is freed of is written by the row that came for it, or the savepoint is rolled back. So only
//! columns are freed that every parked row of the table writes ([`Written`]) and no other row follows, what they held is kept for the conflict
//! log ([`restore`]), and a row that was not written after all takes the whole attempt back ([`left_free`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::Value as Stored;
use syncline::conflict::RowErrorReason;
use syncline::error::{Result, SyncError};
use syncline::ids::TableId;

use super::apply_rows::bind;
use super::catalog::{self, Found};
use super::errors::{DatabaseResult as _, classify, row_error};
use super::incoming::{self, Fate};
use super::passes::Refused;
use super::plan::TablePlan;
use super::types::Affinity;

/// Which columns the rows write that could not be written so far: by table, as places among the carried ones. A table
/// that is not there has only rows to remove.
#[derive(Debug, Clone, Default)]
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

/// Gives parked rows of these tables unique values that nobody has. Answers whether there were any, or the row whose
/// trigger rolled the transaction back. Blocks.
pub(super) fn free_values<'p>(
    connection: &Connection,
    plans: impl IntoIterator<Item = &'p TablePlan>,
    written: &Written,
) -> Result<Result<bool, Refused>> {
    let followed = followed_columns(connection)?;
    let mut freed = false;
    for plan in plans {
        let columns = columns_to_free(plan, written, &followed);
        if columns.is_empty() {
            continue;
        }
        let refused = incoming::each_key(connection, plan.id, Fate::Parked, |key| {
            Ok(match free_row(connection, plan, &columns, key)? {
                Ok(any) => {
                    freed |= any;
                    ControlFlow::Continue(())
                }
                Err(problem) => ControlFlow::Break(Refused::from([(plan.row_key(key.clone()), problem)])),
            })
        })?;
        if let Some(refused) = refused {
            return Ok(Err(refused));
        }
    }
    Ok(Ok(freed))
}

/// The columns, with their tables and in lower case, whose values other rows follow (ON UPDATE CASCADE, SET NULL): to
/// free them would change rows that nobody writes again.
fn followed_columns(connection: &Connection) -> Result<BTreeSet<(String, String)>> {
    let mut all = Vec::new();
    for name in catalog::user_tables(connection)? {
        if let Found::Table(table) = catalog::find(connection, &name)? {
            all.push(table);
        }
    }
    let mut followed = BTreeSet::new();
    for reference in
        all.iter().flat_map(|table| &table.references).filter(|reference| reference.acts_on_update)
    {
        let parent = all.iter().find(|table| table.name.eq_ignore_ascii_case(&reference.parent));
        for column in parent.into_iter().flat_map(|parent| parent.referenced(reference)) {
            followed.insert((reference.parent.to_lowercase(), column.to_lowercase()));
        }
    }
    Ok(followed)
}

/// For each unique index one column that is not of the key; one that may be NULL, if there is.
fn columns_to_free(plan: &TablePlan, written: &Written, followed: &BTreeSet<(String, String)>) -> Vec<Free> {
    let not_null = |place: usize| plan.columns[place].not_null;
    let is_followed = |place: usize| {
        followed.contains(&(plan.name.to_lowercase(), plan.columns[place].name.to_lowercase()))
    };
    let indexes = plan.catalog.unique.iter().filter_map(|index| index.columns.as_ref());
    let places: BTreeSet<usize> = indexes
        .filter_map(|columns| {
            let carried = columns
                .iter()
                .filter_map(|(column, _)| plan.column_named(&plan.catalog.columns[*column].name));
            let may = carried.filter(|place| {
                !plan.key.contains(place) && written.has(plan.id, *place) && !is_followed(*place)
            });
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

/// The inner error: a trigger rolled the transaction back.
fn free_row(
    connection: &Connection,
    plan: &TablePlan,
    columns: &[Free],
    key: &Bytes,
) -> Result<Result<bool, (RowErrorReason, String)>> {
    let values = plan.parse_key(key)?;
    let bound = plan.bind_key(&values)?;
    let mut freed = false;
    for Free { place, expression } in columns {
        let column = &plan.names.columns[*place];
        let mut held =
            connection.prepare_cached(&plan.names.select_columns(std::slice::from_ref(column))).db()?;
        bind(&mut held, &bound)?;
        let found = held.raw_query().next().db()?.map(|row| row.get::<_, Stored>(0)).transpose().db()?;
        let Some(value) = found else { return Ok(Ok(freed)) };
        let mut statement = connection.prepare_cached(&plan.names.set_expression(column, expression)).db()?;
        bind(&mut statement, &bound)?;
        // A trigger of the user's own may leave a failed statement half done.
        connection.execute_batch("SAVEPOINT syncline_free").db()?;
        match statement.raw_execute() {
            Ok(changed) => {
                connection.execute_batch("RELEASE syncline_free").db()?;
                if changed > 0 {
                    incoming::keep_freed(connection, plan.id, key, *place, &value)?;
                    freed = true;
                }
            }
            // A CHECK that refuses the value, for example: then the row stays as it is.
            Err(error) => {
                let Some(problem) = row_error(&error) else { return Err(classify(&error)) };
                if connection.is_autocommit() {
                    return Ok(Err(problem));
                }
                connection.execute_batch("ROLLBACK TO syncline_free; RELEASE syncline_free").db()?;
            }
        }
    }
    Ok(Ok(freed))
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
