//! Judging rows that are not plain: fetched some at a time, decided by the pure function, logged with both sides.

use bytes::Bytes;
use sqlx::PgConnection;
use syncline::conflict::{ConflictKind, ConflictSummary, Outcome};
use syncline::error::{Result, SyncError};
use syncline::ids::ConflictId;
use syncline::knowledge::RowKey;
use syncline::value::{Cell, row_json};

use super::apply::Applier;
use super::copy::{CopyRow, CopyRows};
use super::statements::applying::status;
use super::tracked::Tracked;
use super::{errors, meta, statements, types};
use crate::conflict::{HubRow, IncomingRow, Verdict, judge_upload};
use crate::dialect::meta::conflicts::{self, ConflictEntry};
use crate::limits;

/// Cells before those of the rows in what is fetched.
const BESIDE: usize = 11;

/// An open row as it was fetched.
struct OpenRow {
    n: i64,
    key: Bytes,
    key_json: String,
    held: HubRow,
    incoming: IncomingRow,
    equal: bool,
    local: Option<serde_json::Value>,
    remote: Option<serde_json::Value>,
}

/// Judges the open rows of a table.
pub(super) async fn judge(connection: &mut PgConnection, applier: &mut Applier<'_>, at: usize) -> Result<()> {
    let table = applier.tables[at].tracked.id;
    let made_with = applier.made_with(table);
    let made_with_text = describe(&made_with);
    let scope = &applier.job.scope;
    let schema = scope.schema.table(table).ok_or_else(|| SyncError::internal("a table without a schema"))?;
    let policy = scope.schema.policy(schema);
    let mut after = 0;
    loop {
        let rows = fetch(connection, applier, at, after).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.n;
        let (mut numbers, mut states, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let key = RowKey { table, key: row.key.clone() };
            let verdict = judge_upload(&key, &row.held, &row.incoming, &made_with, row.equal, policy);
            numbers.push(row.n);
            states.push(state_of(verdict));
            if let Some((kind, outcome)) = conflict_of(verdict) {
                let summary = ConflictSummary {
                    id: ConflictId::fresh(),
                    table,
                    table_name: schema.name.clone(),
                    key_json: row.key_json,
                    kind,
                    policy,
                    outcome,
                };
                entries.push(conflicts::insert(&ConflictEntry {
                    summary,
                    session: applier.job.session,
                    scope: scope.schema.name.clone(),
                    row_key: row.key,
                    detected_at: applier.now,
                    local_row: row.local,
                    remote_row: row.remote,
                    made_with: made_with_text.clone(),
                }));
            }
        }
        applier.conflicts += entries.len() as u64;
        statements::query_once(&applier.applying(at).set_status())
            .bind(numbers)
            .bind(states)
            .execute(&mut *connection)
            .await
            .map_err(errors::database)?;
        meta::run_many(connection, entries).await?;
    }
}

const fn state_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Apply | Verdict::Conflict(_, Outcome::Remote | Outcome::Merged) => status::WRITE,
        Verdict::Unchanged => status::UNCHANGED,
        Verdict::Conflict(_, Outcome::Local) => status::LOST,
        Verdict::ConflictTombstone(_) => status::TOMBSTONE,
    }
}

const fn conflict_of(verdict: Verdict) -> Option<(ConflictKind, Outcome)> {
    match verdict {
        Verdict::Apply | Verdict::Unchanged => None,
        Verdict::Conflict(kind, outcome) => Some((kind, outcome)),
        Verdict::ConflictTombstone(kind) => Some((kind, Outcome::Local)),
    }
}

async fn fetch(
    connection: &mut PgConnection,
    applier: &Applier<'_>,
    at: usize,
    after: i64,
) -> Result<Vec<OpenRow>> {
    let sql = applier.applying(at).open_rows(after, limits::JUDGED_ROWS_MAX, limits::JUDGED_BYTES_MAX);
    let mut rows = CopyRows::new(statements::copy_out(connection, &sql).await.map_err(errors::database)?);
    let mut row = CopyRow::new();
    let mut open = Vec::new();
    while rows.next(&mut row).await? {
        open.push(open_row(applier, &applier.tables[at].tracked, &row)?);
    }
    Ok(open)
}

fn open_row(applier: &Applier<'_>, table: &Tracked, row: &CopyRow) -> Result<OpenRow> {
    let version = match (row.int8(2)?, row.int8(3)?) {
        (Some(peer), Some(tick)) => Some(applier.replicas.version(peer, tick)?),
        _ => None,
    };
    let held = HubRow {
        present: row.bool(1),
        version,
        via_sender: row.int8(4)? == Some(applier.leaf),
        changed_at: row.int8(5)?.unwrap_or(0),
    };
    let incoming =
        IncomingRow { removes: row.bool(6), born: row.bool(7), changed_at: row.int8(8)?.unwrap_or(0) };
    let cells = |first: usize| -> Vec<Cell<'_>> {
        let all = table.columns.iter().enumerate();
        all.map(|(place, column)| {
            // A value beyond our range is shown as NULL in the log; the row itself is not touched by that.
            row.cell(first + place)
                .and_then(|bytes| types::cell(column.ty.canonical, column.ty.wire, bytes).ok())
                .unwrap_or(Cell::Null)
        })
        .collect()
    };
    let (remote, local) = (cells(BESIDE), cells(BESIDE + table.columns.len()));
    let key = Bytes::copy_from_slice(row.cell(10).unwrap_or_default());
    let named = |cells: &[Cell<'_>]| {
        row_json(table.columns.iter().map(|column| column.name.as_str()).zip(cells.iter().copied()))
    };
    let key_cells = table.key.iter().map(|place| (table.columns[*place].name.as_str(), remote[*place]));
    Ok(OpenRow {
        n: row.int8(0)?.unwrap_or(0),
        key,
        key_json: row_json(key_cells).to_string(),
        held,
        incoming,
        equal: row.bool(9),
        local: held.present.then(|| named(&local)),
        remote: (!incoming.removes).then(|| named(&remote)),
    })
}

/// Knowledge for people: `{replica: tick, ...}`.
pub(super) fn describe(knowledge: &syncline::knowledge::Knowledge) -> String {
    let clocks = knowledge.clocks().iter().map(|(replica, clock)| {
        let missing = clock.missing().len();
        let less = if missing == 0 { String::new() } else { format!(" less {missing} ranges") };
        format!("{replica}: {}{less}", clock.tick())
    });
    format!("{{{}}}", statements::list(clocks))
}
