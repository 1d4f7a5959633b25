//! What an uploaded delete takes along by the hub's own ON DELETE CASCADE.
//!
//! **Invariant:** a row goes along only as if the leaf had deleted it too. One that the leaf did not know wins or loses
//! by the policy: if it wins, the delete loses with it, and the sender gets its row back; if it loses, it is in the
//! conflict log. So no row that nobody knew of is lost, and none that the log says has won.
//!
//! The rows are found before anything is deleted, level by level, in a temporary table: memory does not grow with them.
//! Nobody else writes meanwhile. Tables outside the scope, and those whose rows don't come down, go along unseen.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::types::{Value as Stored, ValueRef};
use rusqlite::{Connection, OptionalExtension as _};
use syncline::conflict::{ConflictKind, Outcome, Side};
use syncline::error::Result;
use syncline::ids::TableId;

use super::apply_rows::{Table, UploadRows, bind};
use super::catalog::{self, Found, OnDelete};
use super::errors::DatabaseResult as _;
use super::incoming::{self, Fate};
use super::plan::{BoundKey, TablePlan};
use super::rows::owned_row;
use super::statements::quote;
use super::writer::RowProblem;
use crate::conflict::{IncomingRow, Verdict, judge_upload};
use crate::limits::KEYS_PAGE;

/// Made once, when the writer is opened. `place` 0 is the deleted row itself; `loses`: whether the row is to be logged.
pub(super) const CREATE: &str = "\
    CREATE TEMP TABLE syncline_along (place INTEGER PRIMARY KEY, table_id INTEGER, row_key BLOB, loses INTEGER, \
      UNIQUE (table_id, row_key))";

/// What becomes of a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Along {
    /// It takes nothing along that the leaf did not know.
    Plain,
    /// It takes rows along that lose.
    Losers,
    /// A row stays, and so must this one.
    Stays,
}

/// The statements that find the rows referring to a row, by its table: parameters are its key, columns their keys.
pub(super) struct Children(BTreeMap<TableId, Vec<(TableId, String)>>);

impl Children {
    /// Reads the references of these tables. Blocks.
    pub(super) fn read(
        connection: &Connection,
        plans: &BTreeMap<TableId, TablePlan>,
        downloads: impl Fn(TableId) -> bool,
    ) -> Result<Self> {
        let mut children = BTreeMap::<_, Vec<_>>::new();
        for child in plans.values().filter(|plan| downloads(plan.id)) {
            for reference in &child.catalog.references {
                if reference.on_delete != OnDelete::Cascades {
                    continue;
                }
                let Found::Table(table) = catalog::find(connection, &reference.parent)? else { continue };
                let Some(parent) = plans.values().find(|plan| plan.name == table.name) else { continue };
                let pairs = table.referenced(reference).into_iter().zip(&reference.columns);
                let refers = pairs.map(|(to, from)| format!("p.{} = c.{}", quote(to), quote(from)));
                let sql = parent.names.children(&child.names, &refers.collect::<Vec<_>>().join(" AND "));
                children.entry(parent.id).or_default().push((child.id, sql));
            }
        }
        Ok(Self(children))
    }

    /// Whether deletes in the table may take rows along.
    pub(super) fn any(&self, table: TableId) -> bool {
        self.0.contains_key(&table)
    }
}

impl UploadRows<'_> {
    /// Lets a delete be written, unless a row stays that it would take along.
    pub(super) fn delete_along(
        &mut self,
        table: &Table<'_>,
        key: &BoundKey<'_>,
        incoming: &IncomingRow,
        write: impl FnOnce(&mut Self) -> Result<std::result::Result<Fate, RowProblem>>,
    ) -> Result<std::result::Result<Fate, RowProblem>> {
        match self.find_along(table, key, incoming)? {
            Along::Plain => return write(self),
            Along::Stays => return Ok(Ok(Fate::Kept)),
            Along::Losers => {}
        }
        let counts = self.counts;
        self.connection.execute_batch("SAVEPOINT syncline_losers").db()?;
        let written = match self.log_along()? {
            Ok(()) => write(self)?,
            Err(problem) => Err(problem),
        };
        let settle = match &written {
            // A trigger rolled the transaction back, and the savepoint with it.
            Err(problem) if problem.rolled_back => return Ok(written),
            Err(_) => "ROLLBACK TO syncline_losers; RELEASE syncline_losers",
            Ok(_) => "RELEASE syncline_losers",
        };
        self.connection.execute_batch(settle).db()?;
        if written.is_err() {
            self.counts = counts;
        }
        Ok(written)
    }

    /// Says in the conflict log that a delete lost to a row that refers to its own.
    pub(super) fn log_kept(&mut self, table: &Table<'_>, key: &BoundKey<'_>) -> Result<()> {
        let held = self.read_along(table, &key.bytes)?.and_then(std::result::Result::ok);
        self.log_delete(table, &key.bytes, held.as_deref(), Outcome::Local)
    }

    /// Finds what a delete would take along, and judges it.
    pub(super) fn find_along(
        &self,
        table: &Table<'_>,
        key: &BoundKey<'_>,
        incoming: &IncomingRow,
    ) -> Result<Along> {
        let connection = self.connection;
        connection.execute_batch("DELETE FROM temp.syncline_along").db()?;
        self.add_along(0, table.plan, &key.bytes, false)?;
        let (mut next, mut place, mut any) = (1, 0, false);
        while let Some((parent, parent_key)) = self.along(place)? {
            for (id, sql) in self.children.0.get(&parent).into_iter().flatten() {
                let (Some(child), Some(plan)) = (self.table(*id), self.plans.get(&parent)) else { continue };
                let values = plan.parse_key(&parent_key)?;
                let mut statement = connection.prepare_cached(sql).db()?;
                bind(&mut statement, &plan.bind_key(&values)?)?;
                let mut found = statement.raw_query();
                while let Some(row) = found.next().db()? {
                    let cells = (0..child.plan.key_columns()).map(|at| row.get_ref(at));
                    let cells = cells.collect::<rusqlite::Result<Vec<ValueRef<'_>>>>().db()?;
                    let key = child.plan.key_bytes(cells.into_iter())?;
                    let loses = match self.judge_along(&child, &key, incoming)? {
                        Along::Stays => return Ok(Along::Stays),
                        Along::Losers => true,
                        Along::Plain => false,
                    };
                    if self.add_along(next, child.plan, &key, loses)? {
                        next += 1;
                        any |= loses;
                    }
                }
            }
            place += 1;
        }
        Ok(if any { Along::Losers } else { Along::Plain })
    }

    /// Judges a row that would go along, as if the leaf had deleted it at the same time.
    fn judge_along(&self, child: &Table<'_>, key: &Bytes, incoming: &IncomingRow) -> Result<Along> {
        match incoming::get(self.connection, child.plan.id, key)? {
            // It came in this upload: the leaf knows it.
            Some((Fate::Written | Fate::WrittenOtherwise | Fate::Swallowed, _)) => return Ok(Along::Plain),
            Some((Fate::Lost | Fate::Kept, _)) => return Ok(Along::Stays),
            _ => {}
        }
        let row_key = child.plan.row_key(key.clone());
        let values = child.plan.parse_key(key)?;
        let bound = BoundKey { values: child.plan.bind_key(&values)?, bytes: key.clone() };
        let held = self.version_of(child, &bound, &row_key, true)?;
        let incoming = IncomingRow { born: false, ..*incoming };
        let verdict = judge_upload(&row_key, &held, &incoming, child.made_with, false, child.policy);
        Ok(match verdict {
            Verdict::Apply | Verdict::Unchanged => Along::Plain,
            Verdict::Conflict(_, Outcome::Remote) => Along::Losers,
            Verdict::Conflict(..) | Verdict::ConflictTombstone(_) => Along::Stays,
        })
    }

    /// Keeps the rows that lose in the conflict log, before they are deleted. The inner error: one can't be read.
    pub(super) fn log_along(&mut self) -> Result<std::result::Result<(), RowProblem>> {
        let mut after = 0;
        loop {
            let page = self.losers(after)?;
            let Some((last, ..)) = page.last() else { return Ok(Ok(())) };
            after = *last;
            for (_, table, key) in &page {
                if let Some(table) = self.table(*table)
                    && let Err(problem) = self.log_loser(&table, key)?
                {
                    return Ok(Err(problem));
                }
            }
        }
    }

    fn log_loser(&mut self, table: &Table<'_>, key: &Bytes) -> Result<std::result::Result<(), RowProblem>> {
        match self.read_along(table, key)? {
            None => Ok(Ok(())),
            Some(Err(problem)) => Ok(Err(problem)),
            Some(Ok(held)) => self.log_delete(table, key, Some(&held), Outcome::Remote).map(Ok),
        }
    }

    /// The row as it stands. The inner error: it can't be read.
    fn read_along(
        &self,
        table: &Table<'_>,
        key: &Bytes,
    ) -> Result<Option<std::result::Result<Vec<Stored>, RowProblem>>> {
        let values = table.plan.parse_key(key)?;
        let mut statement = self.connection.prepare_cached(&table.plan.select_one).db()?;
        bind(&mut statement, &table.plan.bind_key(&values)?)?;
        let mut rows = statement.raw_query();
        rows.next().db()?.map(|row| owned_row(table.plan, row)).transpose()
    }

    fn log_delete(
        &mut self,
        table: &Table<'_>,
        key: &Bytes,
        held: Option<&[Stored]>,
        outcome: Outcome,
    ) -> Result<()> {
        let kind = ConflictKind { local: Side::Update, remote: Side::Delete };
        self.log(table, key, held, None, kind, outcome)
    }

    /// Answers false if the row is noted already.
    fn add_along(&self, place: i64, plan: &TablePlan, key: &Bytes, loses: bool) -> Result<bool> {
        let sql = "INSERT INTO temp.syncline_along VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        let mut statement = self.connection.prepare_cached(sql).db()?;
        Ok(statement.execute(rusqlite::params![place, plan.id.0, &key[..], loses]).db()? == 1)
    }

    fn along(&self, place: i64) -> Result<Option<(TableId, Bytes)>> {
        let sql = "SELECT table_id, row_key FROM temp.syncline_along WHERE place = ?1";
        let mut statement = self.connection.prepare_cached(sql).db()?;
        let row = |row: &rusqlite::Row<'_>| Ok((TableId(row.get(0)?), row.get::<_, Vec<u8>>(1)?.into()));
        statement.query_row([place], row).optional().db()
    }

    fn losers(&self, after: i64) -> Result<Vec<(i64, TableId, Bytes)>> {
        let sql = "SELECT place, table_id, row_key FROM temp.syncline_along WHERE place > ?1 AND loses \
                   ORDER BY place LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql).db()?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get(0)?, TableId(row.get(1)?), row.get::<_, Vec<u8>>(2)?.into()))
        };
        let rows = statement.query_map([after, KEYS_PAGE], row).db()?;
        rows.collect::<rusqlite::Result<_>>().db()
    }
}
