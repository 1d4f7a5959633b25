//! What uploaded deletes take along by the hub's own ON DELETE CASCADE.
//!
//! **Invariant:** a row goes along only as if the leaf had deleted it too. One that the leaf did not know wins or loses
//! by the policy: if it wins, the delete loses with it, and the sender gets its row back; if it loses, it is in the
//! conflict log. So no row that nobody knew of is lost, and none that the log says has won.
//!
//! The rows are found before anything is deleted, level by level, and locked before their versions are read; what is
//! removed is locked already, so that nothing can come to refer to it. Tables outside the scope, and those whose rows
//! don't come down, go along unseen.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use syncline::conflict::{ConflictKind, ConflictSummary, Outcome, Side};
use syncline::error::{Result, SyncError};
use syncline::ids::ConflictId;
use syncline::knowledge::RowKey;
use syncline::schema::{ConflictPolicy, TableSchema};
use syncline::value::{Cell, key_bytes, row_json};

use super::apply::Applier;
use super::catalog::{self, CatalogAction};
use super::copy::{CopyRow, CopyRows};
use super::statements::applying::along::Parents;
use super::tracked::Tracked;
use super::{apply_judge, errors, meta, statements, types};
use crate::dialect::meta::conflicts::{self, ConflictEntry};
use crate::limits;

/// The scope's foreign keys that may take rows along: from a table, among the applier's, to those that refer to it.
#[derive(Debug, Default)]
pub(super) struct Cascades(BTreeMap<usize, Vec<(usize, CatalogAction)>>);

impl Cascades {
    /// Whether deletes in the table may take rows along.
    pub(super) fn any(&self, table: usize) -> bool {
        self.0.contains_key(&table)
    }

    /// Parent, child, and how it refers.
    fn all(&self) -> impl Iterator<Item = (usize, usize, &CatalogAction)> {
        let each = self.0.iter();
        each.flat_map(|(parent, children)| children.iter().map(|(child, cascade)| (*parent, *child, cascade)))
    }

    fn parents(&self) -> Vec<usize> {
        self.0.keys().copied().collect()
    }

    /// The tables that may lose rows.
    fn children(&self) -> Vec<usize> {
        let mut children: Vec<_> = self.all().map(|(_, child, _)| child).collect();
        children.sort_unstable();
        children.dedup();
        children
    }
}

/// Reads them, once it is known what came: none if nothing is to be removed that they could follow from.
pub(super) async fn load(connection: &mut PgConnection, applier: &Applier<'_>) -> Result<Cascades> {
    let acts = |at: &usize| {
        let table = &applier.tables[*at];
        table.staged.removals > 0 && table.tracked.catalog.referenced_with_action
    };
    if !applier.staged().iter().any(acts) {
        return Ok(Cascades::default());
    }
    let oids: Vec<i64> = applier.tables.iter().map(|table| table.tracked.catalog.oid).collect();
    let place = |oid: i64| oids.iter().position(|known| *known == oid);
    let mut cascades = BTreeMap::<usize, Vec<(usize, CatalogAction)>>::new();
    for found in catalog::actions(connection, &oids).await? {
        let (Some(parent), Some(child)) = (place(found.parent), place(found.child)) else { continue };
        if found.cascades && schema(applier, child)?.direction.downloads() {
            cascades.entry(parent).or_default().push((child, found));
        }
    }
    Ok(Cascades(cascades))
}

/// Before removals of this status are written: those that would take along what stays are kept, and what the others
/// take along and the leaf did not know is noted.
pub(super) async fn judge(connection: &mut PgConnection, applier: &Applier<'_>, status: &str) -> Result<()> {
    let children = applier.cascades.children();
    if children.is_empty() {
        return Ok(());
    }
    for child in &children {
        for statement in applier.applying(*child).create_along() {
            run(connection, &statement).await?;
        }
    }
    loop {
        find(connection, applier, status).await?;
        for child in &children {
            judge_table(connection, applier, *child).await?;
        }
        // Without what is kept less goes along.
        if keep(connection, applier, status).await? == 0 {
            break;
        }
    }
    for child in &children {
        run(connection, &applier.applying(*child).keep_losers()).await?;
    }
    Ok(())
}

/// Whether rows of the table came.
fn came(applier: &Applier<'_>, at: usize) -> bool {
    applier.tables[at].rows > 0
}

/// Finds what goes along, level by level.
async fn find(connection: &mut PgConnection, applier: &Applier<'_>, status: &str) -> Result<()> {
    for child in applier.cascades.children() {
        run(connection, &applier.applying(child).clear_along()).await?;
    }
    let mut parents = Parents::Removed(status);
    loop {
        applier.job.check_wanted()?;
        let mut found = 0;
        for (parent, child, cascade) in applier.cascades.all() {
            let is_child = applier.cascades.0.values().flatten().any(|(child, _)| *child == parent);
            let may_be = match parents {
                Parents::Removed(_) => came(applier, parent),
                Parents::Level(_) => is_child,
            };
            if may_be {
                let (applying, child_came) = (applier.applying(parent), came(applier, child));
                let [lock, add] = applying.add_along(parents, &applier.applying(child), cascade, child_came);
                run(connection, &lock).await?;
                found += run(connection, &add).await?;
            }
        }
        if found == 0 {
            return Ok(());
        }
        parents = match parents {
            Parents::Removed(_) => Parents::Level(0),
            Parents::Level(level) => Parents::Level(level + 1),
        };
    }
}

async fn judge_table(connection: &mut PgConnection, applier: &Applier<'_>, at: usize) -> Result<()> {
    let (applying, policy) = (applier.applying(at), policy(applier, at)?);
    run(connection, &applying.judge_along(policy, came(applier, at))).await?;
    let table = applier.tables[at].tracked.id;
    let made_with = applier.made_with(table);
    if made_with.exceptions().keys().all(|row| row.table != table) {
        return Ok(());
    }
    // Of these rows the leaf knows less than of all others. Whatever it knows, it has not applied what the hub has.
    let mut unknown = Vec::new();
    {
        let sql = applying.along_known();
        let mut rows = CopyRows::new(statements::copy_out(connection, &sql).await.map_err(errors::database)?);
        let mut row = CopyRow::new();
        while rows.next(&mut row).await? {
            let tracked = &applier.tables[at].tracked;
            let cells =
                tracked.key.iter().enumerate().map(|(place, at)| cell(tracked, *at, row.cell(place + 1)));
            let key = key_bytes(cells).map_err(SyncError::internal)?;
            if made_with.exceptions().contains_key(&RowKey { table, key }) {
                unknown.push(row.int8(0)?.unwrap_or(0));
            }
        }
    }
    let sql = applying.unknown_after_all(policy);
    let done = statements::query_once(&sql).bind(unknown).execute(connection).await;
    done.map(drop).map_err(errors::database)
}

/// What is referred to by a row that stays, stays too. Answers how many deletes lose so.
async fn keep(connection: &mut PgConnection, applier: &Applier<'_>, status: &str) -> Result<u64> {
    let children = applier.cascades.children();
    let mut kept = 0;
    loop {
        applier.job.check_wanted()?;
        let mut changed = 0;
        for (parent, child, cascade) in applier.cascades.all() {
            let (applying, other) = (applier.applying(parent), applier.applying(child));
            let child_came = came(applier, child);
            if children.contains(&parent) {
                changed += run(connection, &applying.stay_along(&other, cascade, child_came)).await?;
            }
            if came(applier, parent) {
                let sql = applying.stay_removed(status, &other, cascade, child_came);
                let removed = run(connection, &sql).await?;
                changed += removed;
                kept += removed;
            }
        }
        if changed == 0 {
            return Ok(kept);
        }
    }
}

/// Once all is written: the conflict log says what went along and was lost, and which deletes lost to what refers to
/// their rows.
pub(super) async fn log(connection: &mut PgConnection, applier: &mut Applier<'_>) -> Result<()> {
    for parent in applier.cascades.parents().into_iter().filter(|at| came(applier, *at)).collect::<Vec<_>>() {
        let table = i64::from(applier.tables[parent].tracked.id.0);
        // What was said of a delete that won against its own row.
        let taken_back = statements::query_once(&applier.applying(parent).take_back_kept())
            .bind(applier.job.session.as_bytes())
            .bind(table)
            .execute(&mut *connection)
            .await
            .map_err(errors::database)?;
        let kept = log_table(connection, applier, parent, Outcome::Local).await?;
        applier.conflicts = applier.conflicts.saturating_sub(taken_back.rows_affected()) + kept;
    }
    for child in applier.cascades.children() {
        applier.conflicts += log_table(connection, applier, child, Outcome::Remote).await?;
    }
    Ok(())
}

async fn log_table(
    connection: &mut PgConnection,
    applier: &Applier<'_>,
    at: usize,
    outcome: Outcome,
) -> Result<u64> {
    let (mut after, mut logged) = (0, 0);
    loop {
        let applying = applier.applying(at);
        let sql = match outcome {
            Outcome::Remote => applying.lost_along(after, limits::JUDGED_ROWS_MAX),
            _ => applying.kept(after, limits::JUDGED_ROWS_MAX),
        };
        let mut entries = Vec::new();
        {
            let mut rows =
                CopyRows::new(statements::copy_out(connection, &sql).await.map_err(errors::database)?);
            let mut row = CopyRow::new();
            while rows.next(&mut row).await? {
                after = row.int8(0)?.unwrap_or(0);
                entries.push(conflicts::insert(&entry(applier, at, &row, outcome)?));
            }
        }
        if entries.is_empty() {
            return Ok(logged);
        }
        logged += entries.len() as u64;
        meta::run_many(connection, entries).await?;
    }
}

fn entry(applier: &Applier<'_>, at: usize, row: &CopyRow, outcome: Outcome) -> Result<ConflictEntry> {
    let table = &applier.tables[at].tracked;
    let cells: Vec<_> =
        (0..table.columns.len()).map(|place| cell(table, place, row.cell(place + 1))).collect();
    let names = || table.columns.iter().map(|column| column.name.as_str());
    let key = table.key.iter().map(|place| cells[*place]);
    let named_key = table.key.iter().map(|place| (table.columns[*place].name.as_str(), cells[*place]));
    let scope = &applier.job.scope;
    Ok(ConflictEntry {
        summary: ConflictSummary {
            id: ConflictId::fresh(),
            table: table.id,
            table_name: schema(applier, at)?.name.clone(),
            key_json: row_json(named_key).to_string(),
            kind: ConflictKind { local: Side::Update, remote: Side::Delete },
            policy: policy(applier, at)?,
            outcome,
        },
        session: applier.job.session,
        scope: scope.schema.name.clone(),
        row_key: key_bytes(key).map_err(SyncError::internal)?,
        detected_at: applier.now,
        local_row: Some(row_json(names().zip(cells.iter().copied()))),
        remote_row: None,
        made_with: apply_judge::describe(&applier.made_with(table.id)),
    })
}

/// A cell as it was fetched. A value beyond our range is shown as NULL.
fn cell<'r>(table: &Tracked, place: usize, bytes: Option<&'r [u8]>) -> Cell<'r> {
    let ty = &table.columns[place].ty;
    bytes.and_then(|bytes| types::cell(ty.canonical, ty.wire, bytes).ok()).unwrap_or(Cell::Null)
}

fn schema<'a>(applier: &'a Applier<'_>, at: usize) -> Result<&'a TableSchema> {
    let table = applier.tables[at].tracked.id;
    applier.job.scope.schema.table(table).ok_or_else(|| SyncError::internal("a table without a schema"))
}

fn policy(applier: &Applier<'_>, at: usize) -> Result<ConflictPolicy> {
    Ok(applier.job.scope.schema.policy(schema(applier, at)?))
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<u64> {
    statements::run(connection, sql).await.map_err(errors::database)
}
