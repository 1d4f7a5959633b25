//! The users' own triggers at a hub: what the engine must live with.

use std::collections::{BTreeMap, BTreeSet};

use syncline::knowledge::RowKey;

use super::hub::Hub;
use super::row::{Content, is_live};
use super::transaction::TransactionId;
use super::world::World;

/// What the users' triggers at a hub do.
#[derive(Debug, Clone, Default)]
pub struct UserTriggers {
    /// The column `total` is computed from `value`.
    pub computes_total: bool,
    /// A write of the first row appends to the second.
    pub counts_into: Option<(RowKey, RowKey)>,
    /// The delete of a row deletes these too, as `ON DELETE CASCADE` does.
    pub cascades: BTreeMap<RowKey, Vec<RowKey>>,
    /// What the engine writes to these rows is dropped, as by a `BEFORE` trigger that returns null.
    pub swallows: BTreeSet<RowKey>,
}

impl Hub {
    /// What the users' triggers make of a row that was just written. They don't fire each other.
    pub(super) fn fire_user_triggers(&mut self, world: &mut World, transaction: TransactionId, key: &RowKey) {
        if is_live(self.row(transaction, key)) {
            self.compute_total(world, transaction, key);
            self.count(world, transaction, key);
        } else {
            self.cascade(world, transaction, key);
        }
    }

    fn compute_total(&mut self, world: &mut World, transaction: TransactionId, key: &RowKey) {
        let Some(state) = self.row(transaction, key).cloned() else { return };
        let Some(content) = state.content.clone() else { return };
        if !self.triggers.computes_total || content.total.as_ref() == Some(&content.value) {
            return;
        }
        let total = Some(content.value.clone());
        let mut computed = world.write(Some(&state), Some(Content { total, ..content }));
        computed.changed_at = state.changed_at;
        world.ledger.completes.insert(computed.write, state.write);
        self.put_nested(transaction, key, computed);
    }

    fn count(&mut self, world: &mut World, transaction: TransactionId, key: &RowKey) {
        let Some((counted, counter)) = self.triggers.counts_into.clone() else { return };
        // A trigger that had to wait would make its statement wait; histories do without.
        if *key != counted || self.is_locked(transaction, &counter) {
            return;
        }
        let before = self.row(transaction, &counter).cloned();
        let old = before.as_ref().and_then(|state| state.content.as_ref());
        let value = old.map_or_else(|| "0".to_owned(), |content| format!("{}+", content.value));
        let total = self.triggers.computes_total.then(|| value.clone());
        let state = world.write(before.as_ref(), Some(Content { value, total }));
        self.put_nested(transaction, &counter, state);
    }

    fn cascade(&mut self, world: &mut World, transaction: TransactionId, key: &RowKey) {
        for child in self.triggers.cascades.get(key).cloned().unwrap_or_default() {
            let before = self.row(transaction, &child).cloned();
            if is_live(before.as_ref()) {
                let gone = world.write(before.as_ref(), None);
                self.put_nested(transaction, &child, gone);
            }
        }
    }
}
