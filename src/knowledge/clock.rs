//! What is known of one replica.

use serde::{Deserialize, Serialize};

use super::TickRanges;
use crate::ids::Tick;

/// All ticks up to `tick`, less the missing ones.
///
/// A PostgreSQL snapshot *is* a clock: `tick = xmax - 1`, `missing` the transactions in progress below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clock {
    tick: Tick,
    missing: TickRanges,
}

impl Clock {
    /// All ticks up to `tick`, less those of `missing` (what lies above `tick` there is dropped).
    #[must_use]
    pub fn new(tick: Tick, missing: &TickRanges) -> Self {
        Self { tick, missing: missing.up_to(tick) }
    }

    /// All ticks up to `tick`.
    #[must_use]
    pub const fn up_to(tick: Tick) -> Self {
        Self { tick, missing: TickRanges::new() }
    }

    /// The greatest tick that was looked at.
    #[must_use]
    pub const fn tick(&self) -> Tick {
        self.tick
    }

    /// The ticks up to [`tick`](Self::tick) that are not known.
    #[must_use]
    pub const fn missing(&self) -> &TickRanges {
        &self.missing
    }

    /// Whether the tick is known.
    #[must_use]
    pub fn contains(&self, tick: Tick) -> bool {
        tick <= self.tick && !self.missing.contains(tick)
    }

    /// Whether no tick is known at all (each that was looked at is missing).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let looked_at = TickRanges::from_sorted([(Tick(0), self.tick)]);
        looked_at.is_some_and(|looked_at| self.missing.covers(&looked_at))
    }

    /// What either side knows: the larger tick, and missing only what neither knows.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let both = self.missing.intersection(&other.missing);
        // Above one side's tick, only the other side's missing ticks count.
        let missing = both.union(&self.missing.above(other.tick)).union(&other.missing.above(self.tick));
        Self { tick: self.tick.max(other.tick), missing }
    }

    /// Whether every tick that `other` contains is contained here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let within = if other.tick <= self.tick {
            true
        } else {
            // What `other` looked at beyond our tick must all be missing there.
            let beyond = TickRanges::from_sorted([(self.tick.next(), other.tick)]);
            beyond.is_some_and(|beyond| other.missing.covers(&beyond))
        };
        within && other.missing.covers(&self.missing.up_to(other.tick))
    }
}
