//! Holds the algebra to its laws: against a naive model, and by the examples that explain it.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod model;
mod properties;
mod vectors;
mod wire;

use bytes::Bytes;
use uuid::Uuid;

use super::{Clock, Clocks, Knowledge, RowKey, TickRanges, Version};
use crate::ids::{ReplicaId, TableId, Tick};

/// The replicas that appear in these tests. Their ids order as their names do.
const A: ReplicaId = replica(0xA);
const B: ReplicaId = replica(0xB);
const C: ReplicaId = replica(0xC);

const fn replica(number: u128) -> ReplicaId {
    ReplicaId::from_uuid(Uuid::from_u128(number))
}

/// The row of this name.
fn row(name: &'static str) -> RowKey {
    RowKey { table: TableId(1), key: Bytes::from_static(name.as_bytes()) }
}

/// The version `replica@tick`.
const fn version(replica: ReplicaId, tick: u64) -> Version {
    Version { replica, tick: Tick(tick) }
}

/// `tick less missing`.
fn less(tick: u64, missing: &[u64]) -> Clock {
    let missing: TickRanges = missing.iter().copied().map(Tick).collect();
    Clock::new(Tick(tick), &missing)
}

/// All ticks up to the given one, for each replica.
fn clocks(known: &[(ReplicaId, u64)]) -> Clocks {
    known.iter().map(|&(replica, tick)| (replica, Clock::up_to(Tick(tick)))).collect()
}

/// Knowledge without exceptions and without missing ticks.
fn knows(known: &[(ReplicaId, u64)]) -> Knowledge {
    Knowledge::from_clocks(clocks(known))
}
