//! A commit failed because a reference leads nowhere: which of the rows that were written are to blame. Only they are
//! looked at, each by its key; never a whole table.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::Value as Stored;
use rusqlite::{Connection, OptionalExtension as _};
use syncline::conflict::RowErrorReason;
use syncline::error::Result;
use syncline::ids::TableId;
use syncline::limits::ROW_ERRORS_MAX;

use super::apply_rows::bind;
use super::catalog::{self, CatalogTable, Found, Reference};
use super::connection::Connections;
use super::errors::DatabaseResult as _;
use super::incoming::{self, Fate};
use super::passes::Refused;
use super::plan::TablePlan;
use super::statements::{self, quote};

/// Whether references are looked at by the commit alone; without that each statement answers for its own. Within a
/// transaction that has just begun, and to its end: SQLite switches it off with each. Blocks.
pub(super) fn defer_references(connection: &Connection, deferred: bool) -> Result<()> {
    // Only where there are any: to switch it makes all statements that are kept prepared be prepared again, which takes
    // longer than to apply a few rows.
    if deferred && catalog::may_have_references(connection)? {
        connection.pragma_update(None, "defer_foreign_keys", true).db()?;
    }
    Ok(())
}

/// The version under which an apply at a hub has written its records, and the number of the leaf whose rows they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recorded {
    pub(super) peer: i64,
    pub(super) tick: i64,
    pub(super) leaf: i64,
}

/// Within the transaction whose commit failed: the rows to begin anew without. Blocks.
///
/// They are among those that are noted as written, and at a hub among those whose records are: of rows that were
/// written with their records nothing else is noted.
pub(super) fn to_blame(
    connections: &Arc<Connections>,
    connection: &Connection,
    plans: &BTreeMap<TableId, TablePlan>,
    recorded: Option<Recorded>,
) -> Result<Refused> {
    // What rows were before this transaction: the children of a deleted row are found by the values that it had.
    let before = connections.begin_read()?;
    let mut all = Vec::new();
    for name in catalog::user_tables(connection)? {
        if let Found::Table(table) = catalog::find(connection, &name)? {
            all.push(table);
        }
    }
    let mut refused = Refused::new();
    for plan in plans.values() {
        let search = Search { connection, before: before.connection(), plan, all: &all };
        let mut look = |key: &Bytes| {
            if let Some(message) = search.blame(key)? {
                refused.insert(plan.row_key(key.clone()), (RowErrorReason::ForeignKey, message));
            }
            // One more than may be: the apply fails, whatever else is to blame.
            let enough = refused.len() > ROW_ERRORS_MAX;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let mut enough = None;
        for fate in [Fate::Written, Fate::WrittenOtherwise] {
            if enough.is_none() {
                enough = incoming::each_key(connection, plan.id, fate, &mut look)?;
            }
        }
        if let (Some(recorded), None) = (recorded, enough) {
            enough = each_recorded(connection, plan, recorded, &mut look)?;
        }
        if enough.is_some() {
            break;
        }
    }
    Ok(refused)
}

/// Calls `with` for the keys of rows that an apply has written records of, until it answers `Break`.
fn each_recorded(
    connection: &Connection,
    plan: &TablePlan,
    recorded: Recorded,
    mut with: impl FnMut(&Bytes) -> Result<ControlFlow<()>>,
) -> Result<Option<()>> {
    let columns = plan.key_columns();
    let mut statement = connection.prepare_cached(&statements::recorded(plan.id, columns)).db()?;
    let mut rows = statement.query([recorded.peer, recorded.tick, recorded.leaf]).db()?;
    while let Some(row) = rows.next().db()? {
        let values: Vec<_> =
            (0..columns).map(|place| row.get_ref(place)).collect::<rusqlite::Result<_>>().db()?;
        let key = plan.key_bytes(values.into_iter())?;
        if with(&key)?.is_break() {
            return Ok(Some(()));
        }
    }
    Ok(None)
}

struct Search<'a> {
    connection: &'a Connection,
    before: &'a Connection,
    plan: &'a TablePlan,
    all: &'a [CatalogTable],
}

impl Search<'_> {
    fn blame(&self, key: &Bytes) -> Result<Option<String>> {
        for reference in &self.plan.catalog.references {
            if self.dangles(key, reference)? {
                return Ok(Some(format!("its row in table \"{}\" is not there", reference.parent)));
            }
        }
        for child in self.all {
            for reference in &child.references {
                if reference.parent.eq_ignore_ascii_case(&self.plan.name)
                    && self.is_missed(key, child, reference)?
                {
                    return Ok(Some(format!("rows of table \"{}\" refer to it", child.name)));
                }
            }
        }
        Ok(None)
    }

    /// Whether the row refers to one that isn't there.
    fn dangles(&self, key: &Bytes, reference: &Reference) -> Result<bool> {
        let Some(parent) = self.all.iter().find(|table| table.name.eq_ignore_ascii_case(&reference.parent))
        else {
            return Ok(true);
        };
        let quoted = |names: &mut dyn Iterator<Item = &str>| names.map(quote).collect::<Vec<_>>();
        let sql = statements::dangling(
            &self.plan.names,
            &quoted(&mut reference.columns.iter().map(String::as_str)),
            &quote(&parent.name),
            &quoted(&mut parent.referenced(reference).into_iter()),
        );
        let values = self.plan.parse_key(key)?;
        let mut statement = self.connection.prepare_cached(&sql).db()?;
        bind(&mut statement, &self.plan.bind_key(&values)?)?;
        let found = statement.raw_query().next().db()?.is_some();
        Ok(found)
    }

    /// Whether rows still refer to values that the row had, and that no row has now.
    fn is_missed(&self, key: &Bytes, child: &CatalogTable, reference: &Reference) -> Result<bool> {
        let referenced = self.plan.catalog.referenced(reference);
        let collations = self.plan.catalog.collations(&referenced);
        let columns: Vec<_> = referenced.into_iter().map(quote).collect();
        let Some(old) = self.values_before(key, &columns)? else { return Ok(false) };
        let own_columns: Vec<_> = reference.columns.iter().map(|column| quote(column)).collect();
        let refers = |table: &str, columns: &[String]| -> Result<bool> {
            let sql = statements::referred_to(table, columns, &collations);
            let mut statement = self.connection.prepare_cached(&sql).db()?;
            let found = statement.query_row(rusqlite::params_from_iter(&old), |_| Ok(())).optional().db()?;
            Ok(found.is_some())
        };
        Ok(!refers(&self.plan.names.table, &columns)? && refers(&quote(&child.name), &own_columns)?)
    }

    fn values_before(&self, key: &Bytes, columns: &[String]) -> Result<Option<Vec<Stored>>> {
        let values = self.plan.parse_key(key)?;
        let mut statement = self.before.prepare_cached(&self.plan.names.select_columns(columns)).db()?;
        bind(&mut statement, &self.plan.bind_key(&values)?)?;
        let mut rows = statement.raw_query();
        let Some(row) = rows.next().db()? else { return Ok(None) };
        let values =
            (0..columns.len()).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Stored>>>();
        Ok(Some(values.db()?))
    }
}
