//! The laws of the algebra, each against the naive model.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;

use super::model::{REPLICAS, TICKS, clock, everything, knowledge, known, some_row};
use super::{A, B, C, Clock, Knowledge, Tick, TickRanges, row, version};
use crate::knowledge::clocks_cover;

proptest! {
    #[test]
    fn a_clock_contains_the_ticks_of_its_set((clock, ticks) in clock()) {
        for tick in 0..TICKS + 2 {
            prop_assert_eq!(clock.contains(Tick(tick)), ticks.contains(&tick));
        }
        prop_assert_eq!(clock.is_empty(), ticks.is_empty());
    }

    #[test]
    fn merged_clocks_contain_what_either_contains((left, a) in clock(), (right, b) in clock()) {
        let merged = left.merge(&right);
        for tick in 0..TICKS + 2 {
            prop_assert_eq!(merged.contains(Tick(tick)), a.contains(&tick) || b.contains(&tick));
        }
        prop_assert_eq!(&merged, &right.merge(&left));
        prop_assert_eq!(&left.merge(&left), &left);
    }

    #[test]
    fn a_clock_covers_another_if_it_contains_all_of_its_ticks((left, a) in clock(), (right, b) in clock()) {
        prop_assert_eq!(left.covers(&right), a.is_superset(&b));
    }

    #[test]
    fn ranges_are_sets_of_ticks(a in some_ticks(), b in some_ticks(), bound in 0..24_u64) {
        let (left, right) = (ranges(&a), ranges(&b));
        prop_assert_eq!(left.intersection(&right), ranges(&(&a & &b)));
        prop_assert_eq!(left.union(&right), ranges(&(&a | &b)));
        prop_assert_eq!(left.covers(&right), a.is_superset(&b));
        prop_assert_eq!(left.intersects(&right), !a.is_disjoint(&b));
        prop_assert_eq!(left.up_to(Tick(bound)), ranges(&a.range(..=bound).copied().collect()));
        prop_assert_eq!(left.above(Tick(bound)), ranges(&a.range(bound + 1..).copied().collect()));
        prop_assert_eq!(TickRanges::from_sorted(left.iter()), Some(left));
    }

    #[test]
    fn knowledge_contains_what_its_model_contains((knowledge, naive) in knowledge()) {
        for (name, replica, tick) in everything() {
            let found = knowledge.contains(&row(name), version(replica, tick));
            prop_assert_eq!(found, naive.contains(name, replica, tick), "{} {}@{}", name, replica, tick);
        }
        prop_assert_eq!(knowledge.is_empty(), knowledge == Knowledge::new());
    }

    #[test]
    fn a_merge_contains_what_either_side_contains((left, _) in knowledge(), (right, _) in knowledge()) {
        let either = &known(&left) | &known(&right);
        prop_assert_eq!(known(&left.merge(&right)), either);
    }

    #[test]
    fn a_merge_does_not_depend_on_order_or_repetition(
        (a, _) in knowledge(), (b, _) in knowledge(), (c, _) in knowledge()
    ) {
        prop_assert_eq!(a.merge(&b), b.merge(&a));
        prop_assert_eq!(a.merge(&a), a.clone());
        prop_assert!(same(&a.merge(&b).merge(&c), &a.merge(&b.merge(&c))));
        prop_assert!(same(&a.merge(&b).merge(&b), &a.merge(&b)));
    }

    #[test]
    fn a_merge_is_the_least_that_covers_both(
        (a, _) in knowledge(), (b, _) in knowledge(), (c, _) in knowledge()
    ) {
        let merged = a.merge(&b);
        prop_assert!(merged.covers(&a) && merged.covers(&b));
        prop_assert_eq!(c.covers(&merged), c.covers(&a) && c.covers(&b));
        prop_assert!(a.merge(&c).merge(&b).covers(&merged), "monotonic");
    }

    #[test]
    fn covers_is_implication_version_by_version((left, _) in knowledge(), (right, _) in knowledge()) {
        prop_assert_eq!(left.covers(&right), known(&left).is_superset(&known(&right)));
    }

    #[test]
    fn covers_is_a_partial_order((a, _) in knowledge(), (b, _) in knowledge(), (c, _) in knowledge()) {
        prop_assert!(a.covers(&a));
        prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
        prop_assert!(!same(&a, &b) || known(&a) == known(&b));
        let (above, highest) = (a.merge(&b), a.merge(&b).merge(&c));
        prop_assert!(highest.covers(&above) && above.covers(&a) && highest.covers(&a));
    }

    #[test]
    fn no_exception_is_kept_that_says_nothing((left, _) in knowledge(), (right, _) in knowledge()) {
        for knowledge in [left.merge(&right), left.project(|id| id == A, B), left] {
            for row_clocks in knowledge.exceptions().values() {
                prop_assert!(!clocks_cover(row_clocks, knowledge.clocks()));
                prop_assert!(clocks_cover(knowledge.clocks(), row_clocks), "never known better than the rest");
            }
        }
    }

    #[test]
    fn an_exception_concerns_its_row_alone(
        (before, _) in knowledge(), (learned, _) in knowledge(), failed in some_row()
    ) {
        // How an apply learns: everything, but the row that failed keeps the clocks that it had.
        let mut after = before.merge(&learned);
        after.except(failed.clone(), before.clocks_for(&failed).clone());
        for (name, replica, tick) in everything() {
            let (key, version) = (row(name), version(replica, tick));
            let newly = key != failed && learned.contains(&key, version);
            prop_assert_eq!(after.contains(&key, version), before.contains(&key, version) || newly);
        }
        // Applied at last: nothing sets the row apart any more.
        after.unexcept(&failed);
        prop_assert!(!after.exceptions().contains_key(&failed));
        prop_assert_eq!(after.clocks_for(&failed), after.clocks());
    }

    #[test]
    fn own_ticks_are_never_excepted((mut knowledge, _) in knowledge(), (own, _) in clock()) {
        let before = knowledge.clone();
        knowledge.set_own_clock(A, own.clone());
        for (name, replica, tick) in everything() {
            let (key, version) = (row(name), version(replica, tick));
            let expected = if replica == A { own.contains(Tick(tick)) } else { before.contains(&key, version) };
            prop_assert_eq!(knowledge.contains(&key, version), expected);
        }
    }

    #[test]
    fn a_projection_keeps_peers_and_one_leaf((knowledge, _) in knowledge(), peer in select(&REPLICAS[..])) {
        let projected = knowledge.project(|id| id == peer, C);
        for (name, replica, tick) in everything() {
            let (key, version) = (row(name), version(replica, tick));
            let expected = (replica == peer || replica == C) && knowledge.contains(&key, version);
            prop_assert_eq!(projected.contains(&key, version), expected);
        }
        prop_assert!(projected.clocks().keys().all(|id| *id == peer || *id == C));
    }
}

#[test]
fn the_greatest_tick_does_not_overflow() {
    let all = Clock::up_to(Tick(u64::MAX));
    let last = TickRanges::from_sorted([(Tick(u64::MAX), Tick(u64::MAX))]).unwrap();
    let all_but_one = Clock::new(Tick(u64::MAX), &last);
    assert!(all.covers(&all_but_one) && !all_but_one.covers(&all));
    assert_eq!(all.merge(&all_but_one), all);
    assert!(last.above(Tick(u64::MAX)).is_empty());
    assert_eq!(last.union(&last), last);
}

/// Whether two knowledges contain the same versions. They may be written differently: `{A:5}` and `{A:6 less 6}`.
fn same(left: &Knowledge, right: &Knowledge) -> bool {
    left.covers(right) && right.covers(left)
}

fn some_ticks() -> impl Strategy<Value = BTreeSet<u64>> {
    proptest::collection::btree_set(0..20_u64, 0..12)
}

fn ranges(ticks: &BTreeSet<u64>) -> TickRanges {
    ticks.iter().copied().map(Tick).collect()
}
