//! The examples that explain the algebra. `{A:5,B:3}` is knowledge; `x@A6` is row x, last written by A at tick 6.

use super::{A, B, C, Clock, Clocks, Knowledge, Tick, clocks, knows, less, replica, row, version};

#[test]
fn a_clock_knows_all_ticks_up_to_its_own_but_the_missing_ones() {
    let knowledge = knows(&[(A, 5)]);
    assert!(knowledge.contains(&row("x"), version(A, 5)));
    assert!(!knowledge.contains(&row("x"), version(A, 6)));
    assert!(!knowledge.contains(&row("x"), version(B, 1)));

    let knowledge = Knowledge::from_clocks(Clocks::from([(A, less(9, &[7]))]));
    assert!(knowledge.contains(&row("x"), version(A, 8)));
    assert!(!knowledge.contains(&row("x"), version(A, 7)));
}

#[test]
fn a_merge_takes_the_larger_tick_and_what_neither_side_misses() {
    assert_eq!(knows(&[(A, 5), (B, 1)]).merge(&knows(&[(A, 2), (B, 4)])), knows(&[(A, 5), (B, 4)]));
    // The second knows 7.
    assert_eq!(less(9, &[7]).merge(&Clock::up_to(Tick(8))), Clock::up_to(Tick(9)));
}

#[test]
fn a_row_that_could_not_be_applied_is_sent_again_and_the_others_are_not() {
    let mut second = knows(&[(A, 9)]);
    second.except(row("x"), clocks(&[(A, 5)]));
    let is_sent = |name, tick| !second.contains(&row(name), version(A, tick));
    assert!(is_sent("x", 7));
    assert!(!is_sent("y", 7));

    // A third replica that learns from the second takes the exception over.
    let third = knows(&[(A, 2)]).merge(&second);
    assert!(!third.contains(&row("x"), version(A, 7)));
    assert!(third.contains(&row("y"), version(A, 7)));

    // Once the row is applied, nothing sets it apart.
    let mut applied = second.clone();
    applied.unexcept(&row("x"));
    assert_eq!(applied, knows(&[(A, 9)]));
    assert_eq!(
        second.merge(&knows(&[(A, 9)])),
        knows(&[(A, 9)]),
        "who knows the row's versions passes that on"
    );
}

#[test]
fn a_row_that_the_source_did_not_know_of_is_a_conflict() {
    // B holds x@B4; A sends x@A6.
    let is_conflict = |made_with: Knowledge| !made_with.contains(&row("x"), version(B, 4));
    assert!(is_conflict(knows(&[(A, 6), (B, 3)])));
    assert!(!is_conflict(knows(&[(A, 6), (B, 4)])));
}

#[test]
fn an_exception_in_made_with_knowledge_makes_a_conflict_of_its_row_alone() {
    let mut made_with = knows(&[(A, 6), (B, 4)]);
    made_with.except(row("x"), clocks(&[(A, 6), (B, 3)]));
    assert!(!made_with.contains(&row("x"), version(B, 4)));
    assert!(made_with.contains(&row("y"), version(B, 4)));
}

#[test]
fn a_change_that_is_known_already_is_skipped() {
    assert!(knows(&[(A, 6)]).contains(&row("x"), version(A, 6)));
}

#[test]
fn an_acknowledged_upload_teaches_the_leafs_own_clock_and_not_the_hubs_present_state() {
    let (hub, leaf) = (A, B);
    let mut knowledge = knows(&[(hub, 40)]);
    knowledge.set_own_clock(leaf, Clock::up_to(Tick(3)));
    assert_eq!(knowledge, knows(&[(hub, 40), (leaf, 3)]));
    // What others wrote while the hub went from 40 to 55 is still to come.
    assert!((41..=55).all(|tick| !knowledge.contains(&row("x"), version(hub, tick))));
}

#[test]
fn who_knows_less_than_what_was_forgotten_can_not_be_told_of_it() {
    let forgotten = knows(&[(A, 10)]);
    assert!(!knows(&[(A, 8)]).covers(&forgotten), "must reinitialise");
    assert!(knows(&[(A, 10)]).covers(&forgotten));
    assert!(Knowledge::new().is_empty(), "never synchronised: downloads everything anyway");
}

#[test]
fn an_open_transaction_below_a_forgotten_tick_makes_nobody_reinitialise() {
    let acknowledged_by_all = Knowledge::from_clocks(Clocks::from([(A, less(2, &[1]))]));
    let forgotten = Knowledge::from_clocks(Clocks::from([(A, less(2, &[1]))]));
    assert!(acknowledged_by_all.covers(&forgotten));
    assert!(!acknowledged_by_all.covers(&knows(&[(A, 2)])), "forgetting {{A:2}} would");
}

#[test]
fn a_restored_replica_is_heard_only_under_its_new_id() {
    // A stood at 20, is restored at 12 and writes x.
    let (everyone, a_restored) = (knows(&[(A, 20), (C, 1)]), replica(0xAA));
    assert!(everyone.contains(&row("x"), version(A, 13)), "taken for known, so it would never be sent");
    assert!(!everyone.contains(&row("x"), version(a_restored, 1)));
}
