//! How replicas know what each other has: a pure value type with a small algebra.
//!
//! [`Knowledge`] is one [`Clock`] per peer, plus row exceptions. No I/O, no time, no database. `merge` is commutative,
//! associative, idempotent and monotonic, and `covers` a partial order (property tests hold them to it).

mod clock;
mod ranges;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use clock::Clock;
pub use ranges::TickRanges;
pub use wire::{KnowledgeError, ViewId, ViewKnowledge, clock_from_wire, clock_to_wire};

use crate::ids::{ReplicaId, TableId, Tick};

/// Who wrote this state of a row, and when by that replica's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The replica that wrote it.
    pub replica: ReplicaId,
    /// Its tick.
    pub tick: Tick,
}

/// Names a row of a scope: its table, and the canonical bytes of its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowKey {
    /// The table.
    pub table: TableId,
    /// The canonical bytes of the key ([`crate::value::key_bytes`]).
    pub key: bytes::Bytes,
}

/// One clock per replica.
pub type Clocks = BTreeMap<ReplicaId, Clock>;

/// What a replica knows: one clock per peer, plus the rows for which other clocks hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Knowledge {
    clocks: Clocks,
    // Serialised as a list: a JSON object can't have structured keys.
    #[serde(with = "wire::exceptions")]
    exceptions: BTreeMap<RowKey, Clocks>,
}

impl Knowledge {
    /// Knows nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { clocks: BTreeMap::new(), exceptions: BTreeMap::new() }
    }

    /// Knows what the clocks say, of all rows.
    #[must_use]
    pub const fn from_clocks(clocks: Clocks) -> Self {
        Self { clocks, exceptions: BTreeMap::new() }
    }

    /// The clocks that hold for all rows but the excepted ones.
    #[must_use]
    pub const fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// The clock of one replica.
    #[must_use]
    pub fn clock(&self, replica: ReplicaId) -> Option<&Clock> {
        self.clocks.get(&replica)
    }

    /// The excepted rows, with the clocks that hold for them.
    #[must_use]
    pub const fn exceptions(&self) -> &BTreeMap<RowKey, Clocks> {
        &self.exceptions
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clocks.is_empty() && self.exceptions.values().all(BTreeMap::is_empty)
    }

    /// The clocks that hold for this row.
    #[must_use]
    pub fn clocks_for(&self, row: &RowKey) -> &Clocks {
        self.exceptions.get(row).unwrap_or(&self.clocks)
    }

    /// Whether this version of this row is known.
    #[must_use]
    pub fn contains(&self, row: &RowKey, version: Version) -> bool {
        clocks_contain(self.clocks_for(row), version)
    }

    /// Whether this version is known of every row that is not excepted.
    #[must_use]
    pub fn contains_version(&self, version: Version) -> bool {
        clocks_contain(&self.clocks, version)
    }

    /// Replaces the clock of one replica, for all rows but the excepted ones.
    pub fn set_clock(&mut self, replica: ReplicaId, clock: Clock) {
        self.clocks.insert(replica, clock);
        self.drop_needless_exceptions();
    }

    /// A replica's own ticks are never excepted: sets its clock for all rows.
    pub fn set_own_clock(&mut self, replica: ReplicaId, clock: Clock) {
        for clocks in self.exceptions.values_mut() {
            clocks.insert(replica, clock.clone());
        }
        self.set_clock(replica, clock);
    }

    /// Says that other clocks hold for this row (it could not be applied).
    pub fn except(&mut self, row: RowKey, clocks: Clocks) {
        if clocks_cover(&clocks, &self.clocks) {
            self.exceptions.remove(&row);
        } else {
            self.exceptions.insert(row, clocks);
        }
    }

    /// The row was applied: the scope's clocks hold for it again.
    pub fn unexcept(&mut self, row: &RowKey) {
        self.exceptions.remove(row);
    }

    /// What either side knows, row by row: the clocks of an excepted row are the merge of both sides' clocks *for that
    /// row*, kept as long as they don't cover the scope's.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let clocks = merge_clocks(&self.clocks, &other.clocks);
        let rows = self.exceptions.keys().chain(other.exceptions.keys());
        let exceptions = rows
            .map(|row| (row.clone(), merge_clocks(self.clocks_for(row), other.clocks_for(row))))
            .filter(|(_, row_clocks)| !clocks_cover(row_clocks, &clocks))
            .collect();
        Self { clocks, exceptions }
    }

    /// Whether every version that `other` contains, of any row, is contained here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut rows = self.exceptions.keys().chain(other.exceptions.keys());
        clocks_cover(&self.clocks, &other.clocks)
            && rows.all(|row| clocks_cover(self.clocks_for(row), other.clocks_for(row)))
    }

    /// What a leaf stores of a hub's knowledge: the clocks of the hub and its peers, and of leaves only that leaf's.
    /// So it stays the same size whether the hub serves ten leaves or ten million.
    #[must_use]
    pub fn project(&self, is_peer: impl Fn(ReplicaId) -> bool, leaf: ReplicaId) -> Self {
        let keep = |clocks: &Clocks| -> Clocks {
            let kept = clocks.iter().filter(|(id, _)| **id == leaf || is_peer(**id));
            kept.map(|(id, clock)| (*id, clock.clone())).collect()
        };
        let mut projected = Self {
            clocks: keep(&self.clocks),
            exceptions: self.exceptions.iter().map(|(row, clocks)| (row.clone(), keep(clocks))).collect(),
        };
        projected.drop_needless_exceptions();
        projected
    }

    fn drop_needless_exceptions(&mut self) {
        let clocks = &self.clocks;
        self.exceptions.retain(|_, row_clocks| !clocks_cover(row_clocks, clocks));
    }
}

fn clocks_contain(clocks: &Clocks, version: Version) -> bool {
    clocks.get(&version.replica).is_some_and(|clock| clock.contains(version.tick))
}

/// Whether `left` covers `right`, replica by replica.
#[must_use]
pub fn clocks_cover(left: &Clocks, right: &Clocks) -> bool {
    right.iter().all(|(replica, clock)| match left.get(replica) {
        Some(known) => known.covers(clock),
        None => clock.is_empty(),
    })
}

/// What either side knows, replica by replica.
#[must_use]
pub fn merge_clocks(left: &Clocks, right: &Clocks) -> Clocks {
    let mut merged = left.clone();
    for (replica, clock) in right {
        merged
            .entry(*replica)
            .and_modify(|known| *known = known.merge(clock))
            .or_insert_with(|| clock.clone());
    }
    merged
}
