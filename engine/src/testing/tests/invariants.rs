//! The invariants of a single session, wherever it stops.

use super::{finish, hub_deletes, hub_writes, oracle, x, y};
use crate::testing::oracle::{HubKind, Oracle, Policy, Progress, Rows, Rules, SessionOptions, row_key};

/// Steps after which a session of these tests has certainly ended.
const STEPS_MAX: usize = 64;

/// A leaf and its hub, each with an insert, an update and a delete that the other lacks, and one row that both changed.
fn out_of_step(hub_kind: HubKind) -> Oracle {
    let mut oracle = oracle(hub_kind, Policy::ServerWins, Rules::all());
    for name in ["x", "y", "z", "edited", "deleted"] {
        oracle.hub_fill(&row_key(name), name);
    }
    oracle.run_session(0);
    hub_writes(&mut oracle, &x(), "the hub's");
    hub_deletes(&mut oracle, &y());
    hub_writes(&mut oracle, &row_key("hub's own"), "new");
    oracle.leaf_write(0, &x(), "the leaf's").unwrap();
    oracle.leaf_write(0, &row_key("edited"), "again").unwrap();
    oracle.leaf_delete(0, &row_key("deleted")).unwrap();
    oracle.leaf_write(0, &row_key("leaf's own"), "new").unwrap();
    oracle
}

/// The rows of hub and leaf after a session that was killed after so many steps, and run again. Answers too whether it
/// had ended before.
fn stopped_after(steps: usize, mut oracle: Oracle, is_abandoned: bool) -> ((Rows, Rows), bool) {
    let mut session = oracle.begin_session(0, SessionOptions { is_download_only: false, breaks_off: true });
    let has_ended = (0..steps).any(|_| oracle.advance_session(&mut session) == Progress::Done);
    oracle.kill_session(session);
    if is_abandoned {
        oracle.abandon_session(0);
    }
    oracle.run_session(0);
    assert_eq!(oracle.verdict_of(&[0]), [], "stopped after {steps}");
    ((oracle.hub_rows(), oracle.leaf_rows(0)), has_ended)
}

#[test]
fn a_session_that_stops_anywhere_and_runs_again_comes_to_what_one_that_does_not_stop_comes_to() {
    for hub_kind in [HubKind::Transactions, HubKind::Folds] {
        for is_abandoned in [false, true] {
            let (expected, _) = stopped_after(0, out_of_step(hub_kind), is_abandoned);
            assert_eq!(expected.0, expected.1);
            let mut has_ended = false;
            for steps in 1..STEPS_MAX {
                let (rows, ended) = stopped_after(steps, out_of_step(hub_kind), is_abandoned);
                assert_eq!(rows, expected, "stopped after {steps}");
                has_ended = ended;
            }
            assert!(has_ended, "some sessions were not stopped at all");
        }
    }
}

#[test]
fn after_a_session_the_leaf_knows_all_that_the_hub_knew() {
    for hub_kind in [HubKind::Transactions, HubKind::Folds] {
        let mut oracle = out_of_step(hub_kind);
        let known = oracle.hub_knowledge();
        oracle.run_session(0);
        assert!(oracle.leaf_knowledge(0).covers(&known));
    }
}

#[test]
fn nothing_is_sent_that_is_known() {
    for hub_kind in [HubKind::Transactions, HubKind::Folds] {
        let mut oracle = out_of_step(hub_kind);
        let first = oracle.run_session(0);
        // The hub's x, its delete and its insert; of what the leaf sent, nothing comes back.
        assert_eq!((first.uploaded, first.downloaded, first.conflicts.len()), (4, 3, 1));
        let second = oracle.run_session(0);
        assert_eq!((second.uploaded, second.downloaded), (0, 0));
    }
}

#[test]
fn a_leaf_that_waits_for_a_lock_too_long_keeps_its_changes() {
    let mut oracle = out_of_step(HubKind::Transactions);
    let open = oracle.hub_begin().unwrap();
    oracle.hub_write(open, &row_key("edited"), "held").unwrap();
    assert_eq!(oracle.run_session(0).ending, Some(crate::testing::oracle::Ending::LockTimeout));
    assert_eq!(oracle.leaf_pending(0), 4);
    oracle.hub_rollback(open);
    let session = oracle.begin_session(0, SessionOptions::WHOLE);
    assert_eq!(finish(&mut oracle, session).uploaded, 4);
    assert_eq!(oracle.hub_rows(), oracle.leaf_rows(0));
}
