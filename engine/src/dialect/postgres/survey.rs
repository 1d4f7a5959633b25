//! A look at what an enumeration will find, before it: each part of it is a statement that takes longer to plan than to
//! run, and of most tables nothing has changed.
//!
//! **Invariant:** a part is passed over only if it would find nothing. What is looked at is all that parts can find, and
//! maybe more: every record and entry whose version is not known, also those that a newer one of the same key, a truncation
//! or the echo rule makes irrelevant. Of tables with many of them nothing is said but that there may be both.

use sqlx::Row as _;
use syncline::error::{Result, SyncError};
use syncline::ids::TableId;

use super::snapshot::{PostgresSnapshot, connection};
use super::statements::glance::Beyond;
use super::statements::survey;
use super::tracked::Tracked;
use super::{errors, statements};
use crate::store::{EnumerationPlan, Part};

/// Where more ranges of ticks are lacked, nothing is looked up: each is a probe of an index for each table.
const RANGES_MAX: usize = 256;

/// What an enumeration may find.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The number by which records name the leaf whose own rows are left out; 0, which none has, if they don't or none
    /// are left out.
    pub(super) echo: i64,
    /// Tables of which changes are asked, and whether there may be rows to send, and keys that are gone.
    tables: Vec<(TableId, bool, bool)>,
}

impl Survey {
    /// Whether the part may find something.
    pub(super) fn may_find(&self, part: &Part) -> bool {
        let of = |id: &TableId| self.tables.iter().find(|(table, ..)| table == id);
        match part {
            Part::Upserts { table, .. } => of(table).is_none_or(|(_, upserts, _)| *upserts),
            Part::Deletes { table, .. } => of(table).is_none_or(|(.., deletes)| *deletes),
            Part::Whole { .. } | Part::Keys { .. } => true,
        }
    }
}

/// Looks what the plan may find, in the snapshot's transaction.
pub(super) async fn survey(snapshot: &mut PostgresSnapshot, plan: &EnumerationPlan) -> Result<Survey> {
    let beyond = Beyond::of(&plan.known, &snapshot.replicas);
    let tables = if beyond.peers.len() <= RANGES_MAX { changed_tables(snapshot, plan) } else { Vec::new() };
    let ids: Vec<TableId> = tables.iter().map(|table| table.id).collect();
    let sql = survey::survey(&tables);
    let row = statements::query(&sql)
        .bind(plan.echo.map(|leaf| leaf.as_bytes().to_vec()))
        .bind(beyond.peers)
        .bind(beyond.first)
        .bind(beyond.last)
        .fetch_one(connection(&mut snapshot.connection)?)
        .await
        .map_err(errors::database)?;
    let echo: Option<i64> = row.try_get(0).map_err(errors::database)?;
    let found: Vec<i16> = row.try_get(1).map_err(errors::database)?;
    if found.len() != ids.len() {
        return Err(SyncError::internal("not all tables were looked at"));
    }
    let has = |found: i16, what: i16| found & what != 0;
    let tables = ids.into_iter().zip(found);
    let tables =
        tables.map(|(id, found)| (id, has(found, survey::UPSERTS), has(found, survey::DELETES))).collect();
    Ok(Survey { echo: echo.unwrap_or(0), tables })
}

/// The tables of which changes are asked.
fn changed_tables<'a>(snapshot: &'a PostgresSnapshot, plan: &EnumerationPlan) -> Vec<&'a Tracked> {
    let changes = |id: &TableId| {
        let of = |part: &Part| matches!(part, Part::Upserts { table, .. } | Part::Deletes { table, .. } if table == id);
        plan.parts.iter().any(of)
    };
    snapshot.tables.iter().filter(|(id, _)| changes(id)).map(|(_, table)| &table.tracked).collect()
}
