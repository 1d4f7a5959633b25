//! A set of ticks as sorted, disjoint, inclusive ranges that do not touch.

use serde::{Deserialize, Serialize};

use crate::ids::Tick;

/// A set of ticks; the size is that of its ranges, not of its ticks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TickRanges(Vec<(u64, u64)>);

impl TickRanges {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// From ranges that must be sorted, disjoint and not empty. Ranges that touch are joined.
    ///
    /// Answers `None` if they are not.
    #[must_use]
    pub fn from_sorted(ranges: impl IntoIterator<Item = (Tick, Tick)>) -> Option<Self> {
        let mut set = Self::new();
        for (first, last) in ranges {
            let after_previous = set.0.last().is_none_or(|&(_, previous)| previous < first.0);
            if first > last || !after_previous {
                return None;
            }
            set.push(first.0, last.0);
        }
        Some(set)
    }

    /// Whether the tick is in the set. Logarithmic in the number of ranges.
    #[must_use]
    pub fn contains(&self, tick: Tick) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= tick.0);
        after > 0 && self.0[after - 1].1 >= tick.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Tick, Tick)> + '_ {
        self.0.iter().map(|&(first, last)| (Tick(first), Tick(last)))
    }

    /// The ticks of this set that are at most `tick`.
    #[must_use]
    pub fn up_to(&self, tick: Tick) -> Self {
        let ranges = self.0.iter().take_while(|range| range.0 <= tick.0);
        Self(ranges.map(|&(first, last)| (first, last.min(tick.0))).collect())
    }

    /// The ticks of this set that are greater than `tick`.
    #[must_use]
    pub fn above(&self, tick: Tick) -> Self {
        let ranges = self.0.iter().filter(|range| range.1 > tick.0);
        // `tick.0 + 1` can't overflow: some range ends above it.
        Self(ranges.map(|&(first, last)| (first.max(tick.0 + 1), last)).collect())
    }

    /// The ticks that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut common = Self::new();
        let (mut left, mut right) = (0, 0);
        while left < self.0.len() && right < other.0.len() {
            let (a, b) = (self.0[left], other.0[right]);
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                common.push(first, last);
            }
            if a.1 < b.1 { left += 1 } else { right += 1 }
        }
        common
    }

    /// The ticks that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut joined = Self::new();
        for (first, last) in all {
            joined.push(first, last);
        }
        joined
    }

    /// Whether the sets have a tick in common.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// Whether every tick of `other` is in this set.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.intersection(other) == *other
    }

    /// Adds a range that begins at or after the last one's beginning.
    fn push(&mut self, first: u64, last: u64) {
        match self.0.last_mut() {
            Some(previous) if previous.1 >= first || previous.1 + 1 == first => {
                previous.1 = previous.1.max(last);
            }
            _ => self.0.push((first, last)),
        }
    }
}

impl FromIterator<Tick> for TickRanges {
    fn from_iter<T: IntoIterator<Item = Tick>>(ticks: T) -> Self {
        let mut sorted: Vec<u64> = ticks.into_iter().map(|tick| tick.0).collect();
        sorted.sort_unstable();
        let mut set = Self::new();
        for tick in sorted {
            set.push(tick, tick);
        }
        set
    }
}
