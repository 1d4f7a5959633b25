//! What a history comes to: whether anything was lost, and whether everyone holds the same.

use std::collections::BTreeSet;

use super::world::{Fault, Violation};
use super::{Oracle, row};

impl Oracle {
    /// Judges what happened so far. Leaves are compared with the hub, so there must have been quiet sessions before.
    pub fn verdict(&mut self) -> Vec<Violation> {
        self.verdict_of(&(0..self.leaves.len()).collect::<Vec<_>>())
    }

    /// The same, but only these leaves are compared with the hub.
    pub fn verdict_of(&mut self, leaves: &[usize]) -> Vec<Violation> {
        let committed = self.hub.state.committed.clone();
        self.judge_replaced_edits();
        for &number in leaves {
            let (leaf, hub) = (self.leaf_rows(number), self.hub_rows());
            if leaf != hub {
                let what = format!("leaf {number} holds {leaf:?}, the hub {hub:?}");
                self.world.ledger.violation(Fault::Diverged, what);
            }
        }
        let held = self.hub.state.rows.values().flat_map(row::RowState::lineage);
        let held: BTreeSet<_> = held.chain(self.world.ledger.recorded.iter().copied()).collect();
        let lost: Vec<_> = committed.difference(&held).map(|write| write.0).collect();
        if !lost.is_empty() {
            self.world.ledger.violation(Fault::LostWrite, format!("writes {lost:?} are nowhere"));
        }
        self.world.ledger.violations.clone()
    }

    /// Edits that were replaced, and are in no hub and no record, were lost.
    fn judge_replaced_edits(&mut self) {
        let ledger = &mut self.world.ledger;
        for (write, what) in std::mem::take(&mut ledger.replaced_edits) {
            if !ledger.recorded.contains(&write) && !ledger.at_hub.contains(&write) {
                ledger.violation(Fault::LostEdit, what);
            }
        }
    }

    /// Sessions did not come to rest.
    pub fn not_quiet(&mut self, what: String) {
        self.world.ledger.violation(Fault::NotQuiet, what);
    }

    /// A value that no row has yet.
    #[must_use]
    pub fn fresh_value(&self) -> String {
        format!("v{}", self.world.writes() + 1)
    }
}
