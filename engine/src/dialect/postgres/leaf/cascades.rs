//! Keeps rows from going along with what a download removes, however the leaf's own foreign keys act.
//!
//! **Invariant:** a download removes a row only where the row itself came in (or, in a comparison, did not) and was
//! judged: then the loser is in the conflict log. A row that another one refers to by a foreign key with an action on
//! delete waits as long as that one stays: until the download has removed it too. What still waits at the end is a row
//! error, which comes again once what stands in its way has gone up, or has changed at the hub.
//!
//! Rows that wait may refer to each other, in long chains or in circles. So of those that wait the ones are found that
//! nothing refers to but such as wait too ([`Apply::find_what_goes`]): they go together.
//!
//! The rows are locked before that is looked at: nobody can refer to them any more until we commit. Tables that are not
//! synchronised here go along as their foreign keys say. A cascade through one of them could reach a synchronised table
//! again: rows with local changes are guarded against that too. Nothing tells beforehand how far a cascade reaches, so
//! they are noted before a removal, and looked for after it. What another transaction deletes in between counts as lost
//! too: the removal then waits for its next turn.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use syncline::error::{ErrorReason, Result};

use super::apply::Apply;
use super::fold::flag;
use super::statements::cascades::Action;
use super::tables::{self, LeafTable};
use crate::dialect::meta::subscriptions;
use crate::dialect::postgres::statements::query;
use crate::dialect::postgres::{catalog, errors, meta};
use crate::limits;
use crate::store::Subscription;

/// What deletes set off at this leaf.
#[derive(Debug, Default)]
pub(super) struct Cascades {
    /// The tables of all scopes of this database that local changes are tracked in; none if nothing is set off.
    tracked: Vec<LeafTable>,
    /// Foreign keys with actions of synchronised tables, by the table referred to, among the scope's.
    actions: BTreeMap<usize, Vec<Action>>,
}

/// Reads them. `own`: the scope's tables.
pub(super) async fn load(
    connection: &mut PgConnection,
    subscription: &Subscription,
    own: &[LeafTable],
) -> Result<Cascades> {
    if !own.iter().any(|table| table.tracked.catalog.referenced_with_action) {
        return Ok(Cascades::default());
    }
    let others = tables_of_other_scopes(connection, subscription).await?;
    let parents: Vec<i64> = own.iter().map(|table| table.tracked.catalog.oid).collect();
    let mut actions = BTreeMap::<usize, Vec<Action>>::new();
    for found in catalog::actions(connection, &parents).await? {
        let is_it = |table: &&LeafTable| table.tracked.catalog.oid == found.child;
        let stays = match (own.iter().find(is_it), others.iter().filter(is_it).collect::<Vec<_>>()) {
            (Some(table), others) => table.stays(true, others.iter().any(|other| other.downloads())),
            (None, others) => match others.iter().max_by_key(|other| other.downloads()) {
                Some(other) => other.stays(false, other.downloads()),
                None => continue,
            },
        };
        if let Some(at) = parents.iter().position(|oid| *oid == found.parent) {
            actions.entry(at).or_default().push(Action { key: found, stays });
        }
    }
    let tracked = own.iter().cloned().chain(others).filter(LeafTable::tracks).collect();
    Ok(Cascades { tracked, actions })
}

async fn tables_of_other_scopes(
    connection: &mut PgConnection,
    subscription: &Subscription,
) -> Result<Vec<LeafTable>> {
    let mut all = Vec::new();
    for row in meta::run(connection, subscriptions::list()).await? {
        let other = subscriptions::from_row(&row)?;
        if other.schema.name == subscription.schema.name {
            continue;
        }
        match tables::load(connection, &other.schema).await {
            Ok(tables) => all.extend(tables),
            // That scope's own session says so; its local changes can't be told any more.
            Err(error) if error.reason() == ErrorReason::TrackingBroken => {
                tracing::warn!(scope = %other.schema.name, %error, "rows of another scope are not guarded");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

impl Cascades {
    /// Whether removals of this table set something off that is synchronised.
    pub(super) fn any(&self, table: usize) -> bool {
        self.actions.contains_key(&table)
    }

    /// Whether any removal does.
    pub(super) fn any_at_all(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Whether a row of `s` is referred to by one that stays; `parent`: its table.
    pub(super) fn is_held(&self, at: usize, parent: &LeafTable) -> String {
        parent.is_held(self.actions.get(&at).map_or(&[], Vec::as_slice))
    }

    /// The tables that refer to this one, for people.
    pub(super) fn names(&self, table: usize) -> String {
        let mut names: Vec<_> =
            self.actions.get(&table).into_iter().flatten().map(|action| action.key.name.as_str()).collect();
        names.dedup();
        names.join(", ")
    }
}

impl Apply<'_> {
    /// Of the rows to be removed that wait, finds those that nothing stays for: nothing but rows among them refers to
    /// them by a foreign key with an action.
    ///
    /// Begins with all that have no local change, and takes away what is held until nothing is: the greatest set that
    /// is closed. A longer chain than [`limits::POSTGRES_CASCADE_ROUNDS_MAX`] of rows that stay holds all of them, for
    /// this turn.
    pub(super) async fn find_what_goes(&mut self) -> Result<()> {
        let context = self.context;
        let late: Vec<usize> = self.progress.late.iter().filter(|late| late.1).map(|late| late.0).collect();
        if !late.iter().any(|index| context.cascades.any(*index)) {
            return Ok(());
        }
        for index in &late {
            for statement in context.tables[*index].may_all_go() {
                self.run(&statement).await?;
            }
        }
        for _ in 0..limits::POSTGRES_CASCADE_ROUNDS_MAX {
            let mut taken = 0;
            for index in late.iter().filter(|index| context.cascades.any(**index)) {
                let table = &context.tables[*index];
                let sql = table.take_held(&context.cascades.is_held(*index, table));
                let done = query(&sql).execute(&mut *self.connection).await.map_err(errors::database)?;
                taken += done.rows_affected();
            }
            if taken == 0 {
                return Ok(());
            }
        }
        self.nothing_goes().await
    }

    /// Forgets what was found: rows may come back.
    pub(super) async fn nothing_goes(&mut self) -> Result<()> {
        if self.context.cascades.any_at_all() {
            for table in self.context.tables {
                self.run(&table.none_goes()).await?;
            }
        }
        Ok(())
    }

    /// Notes the rows with local changes that are there.
    pub(super) async fn hold_local_changes(&mut self) -> Result<()> {
        for table in &self.context.cascades.tracked {
            for statement in table.hold() {
                self.run(&statement).await?;
            }
        }
        Ok(())
    }

    /// Whether a row that was noted is gone.
    pub(super) async fn lost_local_changes(&mut self) -> Result<bool> {
        for table in &self.context.cascades.tracked {
            if flag(self.connection, &table.lost_held()).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
