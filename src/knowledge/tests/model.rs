//! The naive model: a clock is a set of small ticks, knowledge a function from (row, replica, tick) to whether it is
//! known. Far too large for a product, and too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use proptest::sample::select;

use super::{A, B, C, Clock, Clocks, Knowledge, ReplicaId, RowKey, Tick, row, version};

/// Ticks of the model are below this.
pub(super) const TICKS: u64 = 10;
/// The replicas of the model.
pub(super) const REPLICAS: [ReplicaId; 3] = [A, B, C];
/// The rows of the model; the last is never excepted, so it stands for all others.
pub(super) const ROWS: [&str; 3] = ["x", "y", "z"];

type Ticks = BTreeSet<u64>;
type NaiveClocks = BTreeMap<ReplicaId, Ticks>;

/// What is known, written out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Naive {
    clocks: NaiveClocks,
    exceptions: BTreeMap<&'static str, NaiveClocks>,
}

impl Naive {
    /// Whether the row's version is known.
    pub(super) fn contains(&self, name: &str, replica: ReplicaId, tick: u64) -> bool {
        let clocks = self.exceptions.get(name).unwrap_or(&self.clocks);
        clocks.get(&replica).is_some_and(|ticks| ticks.contains(&tick))
    }
}

/// Every (row, replica, tick) that the model can speak of; ticks a little beyond those that any clock reaches.
pub(super) fn everything() -> impl Iterator<Item = (&'static str, ReplicaId, u64)> {
    let ticks = || 0..TICKS + 2;
    ROWS.into_iter().flat_map(move |name| {
        REPLICAS.into_iter().flat_map(move |replica| ticks().map(move |tick| (name, replica, tick)))
    })
}

/// The versions that the knowledge contains, of all rows of the model.
pub(super) fn known(knowledge: &Knowledge) -> BTreeSet<(&'static str, ReplicaId, u64)> {
    everything()
        .filter(|&(name, replica, tick)| knowledge.contains(&row(name), version(replica, tick)))
        .collect()
}

/// A clock, and the set that it stands for.
pub(super) fn clock() -> impl Strategy<Value = (Clock, Ticks)> {
    (0..TICKS, btree_set(0..TICKS, 0..6)).prop_map(|(tick, missing)| {
        let ticks = (0..=tick).filter(|tick| !missing.contains(tick)).collect();
        let missing = missing.into_iter().map(Tick).collect();
        (Clock::new(Tick(tick), &missing), ticks)
    })
}

/// Knowledge as sessions make it (an excepted row is known no better than the others), and its model.
pub(super) fn knowledge() -> impl Strategy<Value = (Knowledge, Naive)> {
    let some_clocks = || btree_map(select(&REPLICAS), clock(), 0..=REPLICAS.len());
    let exceptions = btree_map(select(&ROWS[..2]), some_clocks(), 0..=2);
    (some_clocks(), exceptions).prop_map(|(scope, exceptions)| build(&scope, &exceptions))
}

type Drawn = BTreeMap<ReplicaId, (Clock, Ticks)>;

fn build(scope: &Drawn, exceptions: &BTreeMap<&'static str, Drawn>) -> (Knowledge, Naive) {
    let clocks: Clocks = scope.iter().map(|(id, (clock, _))| (*id, clock.clone())).collect();
    let mut knowledge = Knowledge::from_clocks(clocks);
    let mut naive = Naive {
        clocks: scope.iter().map(|(id, (_, ticks))| (*id, ticks.clone())).collect(),
        ..Naive::default()
    };
    for (name, drawn) in exceptions {
        let within = within(drawn, &naive.clocks);
        knowledge.except(row(name), within.iter().map(|(id, ticks)| (*id, clock_of(ticks))).collect());
        naive.exceptions.insert(name, within);
    }
    (knowledge, naive)
}

/// What of the drawn clocks the scope's clocks know too; replicas of which that is nothing are left out.
fn within(drawn: &Drawn, scope: &NaiveClocks) -> NaiveClocks {
    let common = |id: &ReplicaId, ticks: &Ticks| -> Ticks {
        scope.get(id).map(|known| known & ticks).unwrap_or_default()
    };
    let clocks = drawn.iter().map(|(id, (_, ticks))| (*id, common(id, ticks)));
    clocks.filter(|(_, ticks)| !ticks.is_empty()).collect()
}

/// The clock that stands for a set with at least one tick.
fn clock_of(ticks: &Ticks) -> Clock {
    let last = *ticks.last().unwrap();
    let missing = (0..last).filter(|tick| !ticks.contains(tick)).map(Tick).collect();
    Clock::new(Tick(last), &missing)
}

/// A row of the model, with its key.
pub(super) fn some_row() -> impl Strategy<Value = RowKey> {
    select(&ROWS[..]).prop_map(row)
}
