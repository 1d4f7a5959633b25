//! What triggers and cascades of the user's own do while an upload is applied: seen in the logs, as it happens, so
//! that a row is judged by its present version also if it was changed in the same transaction.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::TableId;

use super::catalog;
use super::errors::DatabaseResult as _;
use super::incoming;
use super::plan::TablePlan;
use super::rows::can_not_travel;
use super::statements;

/// Watches the logs of a scope's tables.
pub(super) struct SideEffects {
    has_triggers: bool,
    has_actions: bool,
    /// The tables at either end of a reference that acts, in lower case.
    acted_on: BTreeSet<String>,
    /// The last entry seen of each log.
    seen: BTreeMap<TableId, i64>,
    any: bool,
}

impl SideEffects {
    /// At the beginning of an apply, when the logs are empty. Blocks.
    pub(super) fn watch(connection: &Connection) -> Result<Self> {
        let mut acted_on = BTreeSet::new();
        for name in catalog::user_tables(connection)? {
            if let catalog::Found::Table(table) = catalog::find(connection, &name)? {
                for reference in table.references.iter().filter(|reference| reference.has_action) {
                    acted_on.extend([table.name.to_lowercase(), reference.parent.to_lowercase()]);
                }
            }
        }
        let has_triggers = catalog::has_user_triggers(connection)?;
        let has_actions = !acted_on.is_empty();
        Ok(Self { has_triggers, has_actions, acted_on, seen: BTreeMap::new(), any: false })
    }

    /// Whether, in this apply, nothing but the engine itself changes rows of the table, and to change them changes no
    /// others.
    pub(super) fn has_none(&self, plan: &TablePlan) -> bool {
        !self.has_triggers && !self.acted_on.contains(&plan.name.to_lowercase())
    }

    /// Whether statements may fail half done.
    pub(super) fn has_triggers(&self) -> bool {
        self.has_triggers
    }

    /// After a row was written: notes what else was.
    pub(super) fn note(
        &mut self,
        connection: &Connection,
        plans: &BTreeMap<TableId, TablePlan>,
        own: (TableId, &bytes::Bytes),
    ) -> Result<()> {
        self.note_unless(connection, plans, |table, key| Ok((table, key) == own))
    }

    /// After parked rows gave up their unique values: notes what else that changed.
    pub(super) fn note_freed(
        &mut self,
        connection: &Connection,
        plans: &BTreeMap<TableId, TablePlan>,
    ) -> Result<()> {
        self.note_unless(connection, plans, |table, key| {
            Ok(matches!(incoming::get(connection, table, key)?, Some((incoming::Fate::Parked, _))))
        })
    }

    fn note_unless(
        &mut self,
        connection: &Connection,
        plans: &BTreeMap<TableId, TablePlan>,
        is_own: impl Fn(TableId, &bytes::Bytes) -> Result<bool>,
    ) -> Result<()> {
        if !self.has_triggers && !self.has_actions {
            return Ok(());
        }
        for plan in plans.values() {
            let seen = self.seen.entry(plan.id).or_insert(0);
            let columns = plan.key_columns();
            let mut statement =
                connection.prepare_cached(&statements::entries_after(plan.id, columns)).db()?;
            let mut rows = statement.query([*seen]).db()?;
            while let Some(row) = rows.next().db()? {
                check_key(plan, row)?;
                *seen = row.get(columns).db()?;
                let values =
                    (0..columns).map(|place| row.get_ref(place)).collect::<rusqlite::Result<Vec<_>>>();
                let key = plan.key_bytes(values.db()?.into_iter())?;
                if !is_own(plan.id, &key)? {
                    incoming::touch(connection, plan.id, &key)?;
                    self.any = true;
                }
            }
        }
        Ok(())
    }

    /// Whether something else in this transaction changed the row.
    pub(super) fn touched(
        &self,
        connection: &Connection,
        table: TableId,
        key: &bytes::Bytes,
    ) -> Result<bool> {
        if self.any { incoming::is_touched(connection, table, key) } else { Ok(false) }
    }
}

impl SideEffects {
    /// After a savepoint was rolled back: the logs are shorter again.
    pub(super) fn rewind(&mut self, connection: &Connection) -> Result<()> {
        for (id, seen) in &mut self.seen {
            let sql = format!("SELECT coalesce(max(seq), 0) FROM {}", statements::log(*id));
            let last: i64 = connection.prepare_cached(&sql).db()?.query_row([], |row| row.get(0)).db()?;
            *seen = (*seen).min(last);
        }
        Ok(())
    }
}

/// Checks the key that an entry of an apply's own transaction begins with. Rows that come in have sound ones. What was
/// applied is taken back, so that advice about a row that is not there then would help nobody.
///
/// # Errors
/// ROW_ERRORS if it is none.
pub(super) fn check_key(plan: &TablePlan, entry: &Row<'_>) -> Result<()> {
    let columns = plan.key_columns();
    let mut what = can_not_travel(entry, columns)?.then_some("text that is not UTF-8");
    for place in 0..columns {
        if entry.get_ref(place).db()? == ValueRef::Null {
            what = Some("NULL");
        }
    }
    let Some(what) = what else { return Ok(()) };
    let text = format!(
        "while the upload was applied, a trigger of the hub's own wrote a row of table \"{}\" with {what} in its key, and \
         nothing was applied; mend the trigger",
        plan.name
    );
    Err(SyncError::new(ErrorReason::RowErrors, text).with("table", &plan.name))
}
