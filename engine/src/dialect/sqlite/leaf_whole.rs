//! Tables that are compared as a whole: clean rows that no batch named are removed, children first.

use std::ops::ControlFlow;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, Value as Stored};
use syncline::batch::{Block, Operation};
use syncline::conflict::{ConflictKind, Outcome, Side};
use syncline::error::Result;
use syncline::knowledge::ViewKnowledge;
use syncline::schema::TableSchema;

use super::apply_rows::bind;
use super::errors::DatabaseResult as _;
use super::incoming::{self, Fate, Pass};
use super::leaf_rows::DownloadRows;
use super::passes::Refused;
use super::plan::{BoundKey, TablePlan};
use super::statements;
use super::writer::{RowProblem, RowWriter};

/// Whether a table that uploads has dirty rows. Blocks.
pub(super) fn has_dirty(connection: &Connection, plan: &TablePlan) -> Result<bool> {
    connection.prepare_cached(&statements::has_dirty(plan.local)).db()?.query_row([], |row| row.get(0)).db()
}

/// Made-with knowledge for people; opaque to a leaf, so it is told as it stands if it does not decode.
pub(super) fn made_with_text(knowledge: &Bytes) -> String {
    let decoded = ViewKnowledge::decode(knowledge).ok();
    decoded.and_then(|view| serde_json::to_string(&view.knowledge).ok()).unwrap_or_default()
}

/// Removes what no batch named, once all batches were seen. Later passes take those that could not be removed.
pub(super) fn remove_unnamed(rows: &mut DownloadRows<'_>, pass: Pass) -> Result<Option<Refused>> {
    let schema = &rows.download.subscription.schema;
    let tables: Vec<_> = schema.tables.iter().rev().filter(|table| rows.compares_whole(table)).collect();
    if pass == Pass::First {
        for table in &tables {
            if let Some(plan) = rows.plans.get(&table.id) {
                find_unnamed(rows, plan)?;
            }
        }
    }
    rows.cascades.set_removing(true)?;
    for table in tables {
        let Some(plan) = rows.plans.get(&table.id) else { continue };
        let refused = incoming::each_key(rows.connection, plan.id, Fate::Unnamed, |key| {
            Ok(remove(rows, table, plan, key, pass)?.map_or(ControlFlow::Continue(()), ControlFlow::Break))
        })?;
        if refused.is_some() {
            return Ok(refused);
        }
    }
    Ok(None)
}

/// Notes the clean rows that no batch named.
fn find_unnamed(rows: &DownloadRows<'_>, plan: &TablePlan) -> Result<()> {
    let connection = rows.connection;
    let mut statement = connection.prepare_cached(&plan.names.keys()).db()?;
    let mut found = statement.raw_query();
    let mut dirty = connection.prepare_cached(&statements::select_dirty(plan.local, plan.key_columns())).ok();
    while let Some(row) = found.next().db()? {
        let values: Vec<_> = (0..plan.key_columns())
            .map(|column| row.get_ref(column))
            .collect::<rusqlite::Result<_>>()
            .db()?;
        let key = plan.key_bytes(values.iter().copied())?;
        if incoming::get(connection, plan.id, &key)?.is_some() {
            continue;
        }
        if let Some(dirty) = dirty.as_mut().filter(|_| rows.dirty.contains(&plan.id)) {
            let bound: Vec<_> = values.iter().map(|value| ToSqlOutput::Borrowed(*value)).collect();
            bind(dirty, &bound)?;
            if dirty.raw_query().next().db()?.is_some() {
                continue;
            }
        }
        let bound = values.into_iter().map(ToSqlOutput::Borrowed).collect();
        let key = BoundKey { values: bound, bytes: key };
        rows.cascades.note(plan, &key)?;
        incoming::add(connection, plan.id, &key.bytes, Fate::Unnamed, 0)?;
    }
    Ok(())
}

fn remove(
    rows: &mut DownloadRows<'_>,
    table: &TableSchema,
    plan: &TablePlan,
    key: &Bytes,
    pass: Pass,
) -> Result<Option<Refused>> {
    let values = plan.parse_key(key)?;
    let bound = BoundKey { values: plan.bind_key(&values)?, bytes: key.clone() };
    let Some(held) = rows.held(plan, &bound)? else { return Ok(None) };
    // A delete needs no columns but the key's.
    let columns = plan.key.iter().map(|place| {
        let column = &plan.columns[*place];
        syncline::column::Column::new(column.id, column.form.ty)
    });
    let block = Block::new(plan.id, Operation::Delete, columns.collect());
    let writer = RowWriter::new(rows.connection, plan, &block, true)?;
    let row_key = plan.row_key(key.clone());
    let removed = match (rows.refused(&row_key), &held) {
        (Some(problem), _) => Err(problem),
        (None, Err(problem)) => Err(problem.clone()),
        (None, Ok(_)) => rows.remove(&writer, &bound)?,
    };
    match removed {
        Ok(_) => {
            rows.report.deletes += 1;
            incoming::set(rows.connection, plan.id, key, Fate::Written)?;
            keep(rows, table, plan, key, &held)?;
        }
        Err(problem) if problem.rolled_back => {
            return Ok(Some(Refused::from([(row_key, (problem.reason, problem.message))])));
        }
        Err(problem) => {
            // It stays `Unnamed`, so that the next pass meets it again.
            let fate = rows.park_or_fail(plan, Operation::Delete, key, &problem, pass)?;
            if fate == Fate::Failed {
                incoming::set(rows.connection, plan.id, key, fate)?;
                // A later download that removes it will not keep it.
                keep(rows, table, plan, key, &held)?;
            }
        }
    }
    Ok(None)
}

/// Keeps a row in the conflict log that may be written nowhere else.
fn keep(
    rows: &mut DownloadRows<'_>,
    table: &TableSchema,
    plan: &TablePlan,
    key: &Bytes,
    held: &Result<Vec<Stored>, RowProblem>,
) -> Result<()> {
    if !rows.download.subscription.keeps_replaced(table) {
        return Ok(());
    }
    let kind = ConflictKind { local: Side::Update, remote: Side::Delete };
    let held = held.as_ref().ok().map(Vec::as_slice);
    rows.log(table, plan, key, held, None, kind, Outcome::Remote)
}
