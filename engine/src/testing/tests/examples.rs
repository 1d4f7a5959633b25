//! The examples that explain the rules, played with both kinds of hubs where it makes no difference.

use syncline::ids::Tick;
use syncline::knowledge::Version;

use super::{
    at_hub, at_leaf, finish, goes_wrong, hub_deletes, hub_writes, killed_at, oracle, session_at, x, y,
};
use crate::testing::oracle::{
    Ending, HubKind, LeafKind, Oracle, OracleOptions, Place, Policy, Rules, Standing, UserTriggers, row_key,
};

const BOTH: [HubKind; 2] = [HubKind::Transactions, HubKind::Folds];

fn with_triggers(hub_kind: HubKind, triggers: UserTriggers) -> Oracle {
    Oracle::new(OracleOptions { triggers, ..OracleOptions::plain(hub_kind, Policy::ServerWins) })
}

#[test]
fn a_transaction_that_stays_open_delays_its_own_rows_and_nothing_else() {
    let mut oracle = oracle(HubKind::Transactions, Policy::ServerWins, Rules::all());
    let open = oracle.hub_begin().unwrap();
    oracle.hub_write(open, &x(), "late").unwrap();
    hub_writes(&mut oracle, &y(), "early");

    assert_eq!(oracle.run_session(0).downloaded, 1);
    assert_eq!(at_leaf(&oracle, 0, &y()).as_deref(), Some("early"));
    let clock = oracle.leaf_knowledge(0).clock(oracle.hub_id()).unwrap().clone();
    assert_eq!((clock.tick(), clock.contains(Tick(1))), (Tick(2), false), "{{H:2 less 1}}");

    oracle.hub_commit(open);
    assert_eq!(oracle.run_session(0).downloaded, 1, "x, and not y again");
    assert_eq!(at_leaf(&oracle, 0, &x()).as_deref(), Some("late"));
}

#[test]
fn an_acknowledged_upload_does_not_teach_what_others_wrote_meanwhile() {
    for hub_kind in BOTH {
        let mut oracle = oracle(hub_kind, Policy::ServerWins, Rules::all());
        oracle.run_session(0);
        hub_writes(&mut oracle, &y(), "theirs");
        oracle.leaf_write(0, &x(), "mine").unwrap();
        let before = oracle.leaf_knowledge(0).clone();
        killed_at(&mut oracle, 0, Standing::Download);
        assert_eq!(oracle.leaf_knowledge(0), &before);
        assert_eq!(oracle.leaf_pending(0), 0);
        assert_eq!(oracle.run_session(0).downloaded, 1, "y, and not the leaf's own x");
    }
}

#[test]
fn a_change_of_a_restored_hub_reaches_who_knows_its_old_ticks() {
    for hub_kind in BOTH {
        let mut oracle = oracle(hub_kind, Policy::ServerWins, Rules::all());
        let backup = oracle.back_up_hub().unwrap();
        hub_writes(&mut oracle, &y(), "lost by the restore");
        oracle.run_session(0);
        let old = oracle.hub_id();
        oracle.restore_hub(&backup);
        hub_writes(&mut oracle, &x(), "written before it is noticed");
        assert!(oracle.notice_restore(&backup));
        assert_ne!(oracle.hub_id(), old);
        // Under the old id, the leaf would take x for known.
        assert!(oracle.leaf_knowledge(0).contains(&x(), Version { replica: old, tick: Tick(1) }));
        assert!(!goes_wrong(&mut oracle));
        assert_eq!(at_leaf(&oracle, 0, &x()).as_deref(), Some("written before it is noticed"));
        assert_eq!(at_leaf(&oracle, 0, &y()), None);
    }
}

#[test]
fn a_restored_leaf_takes_a_new_id_and_its_edits_arrive() {
    for hub_kind in BOTH {
        let mut oracle = oracle(hub_kind, Policy::ServerWins, Rules::all());
        oracle.run_session(0);
        let (backup, old) = (oracle.back_up_leaf(0), oracle.leaf_id(0));
        oracle.leaf_write(0, &x(), "before the restore").unwrap();
        oracle.run_session(0);
        oracle.restore_leaf(0, &backup);
        oracle.leaf_write(0, &y(), "after the restore").unwrap();
        assert_eq!(oracle.run_session(0).ending, Some(Ending::Diverged));
        assert_ne!(oracle.leaf_id(0), old);
        assert!(!goes_wrong(&mut oracle));
        assert_eq!(at_hub(&oracle, &y()).as_deref(), Some("after the restore"));
        assert_eq!(at_leaf(&oracle, 0, &x()).as_deref(), Some("before the restore"));
    }
}

#[test]
fn an_upload_whose_answer_was_lost_is_not_applied_twice() {
    for hub_kind in BOTH {
        let mut oracle = oracle(hub_kind, Policy::ServerWins, Rules::all());
        oracle.run_session(1);
        oracle.leaf_write(0, &x(), "mine").unwrap();
        killed_at(&mut oracle, 0, Standing::Answer);
        assert_eq!(oracle.run_session(1).downloaded, 1);
        let report = oracle.run_session(0);
        assert_eq!((report.uploaded, report.conflicts.len(), oracle.leaf_pending(0)), (1, 0, 0));
        assert_eq!(oracle.run_session(1).downloaded, 0, "there is no second version");
    }
}

#[test]
fn what_the_hubs_trigger_made_of_a_row_comes_back_in_the_same_session() {
    for hub_kind in BOTH {
        let triggers = UserTriggers { computes_total: true, ..UserTriggers::default() };
        let mut oracle = with_triggers(hub_kind, triggers);
        oracle.run_session(0);
        oracle.leaf_write(0, &x(), "10").unwrap();
        assert_eq!(oracle.run_session(0).downloaded, 1);
        assert_eq!(oracle.leaf_rows(0)[&x()].total.as_deref(), Some("10"));
        assert_eq!(oracle.run_session(0).downloaded, 0);
    }
}

#[test]
fn an_edit_of_what_the_hubs_trigger_changed_unseen_is_no_conflict_for_its_sender() {
    for hub_kind in BOTH {
        let triggers = UserTriggers { computes_total: true, ..UserTriggers::default() };
        let mut oracle = with_triggers(hub_kind, triggers);
        oracle.run_session(0);
        oracle.leaf_write(0, &x(), "10").unwrap();
        killed_at(&mut oracle, 0, Standing::Download);
        oracle.leaf_write(0, &x(), "11").unwrap();
        assert!(oracle.run_session(0).conflicts.is_empty());
        assert!(!goes_wrong(&mut oracle));
        assert_eq!(oracle.hub_rows()[&x()].total.as_deref(), Some("11"));
    }
}

#[test]
fn rows_from_before_the_tracking_have_the_baseline_version() {
    for hub_kind in BOTH {
        let mut oracle = oracle(hub_kind, Policy::ServerWins, Rules::all());
        oracle.hub_fill(&x(), "old");
        oracle.hub_fill(&y(), "old");
        assert_eq!(oracle.run_session(0).downloaded, 2);
        assert_eq!(oracle.run_session(0).downloaded, 0);
        // Known, so that an edit of one is plain.
        oracle.leaf_write(0, &x(), "new").unwrap();
        assert!(oracle.run_session(0).conflicts.is_empty());
        assert_eq!(at_hub(&oracle, &x()).as_deref(), Some("new"));
    }
}

#[test]
fn a_row_that_is_edited_while_newer_ones_come_is_a_conflict_at_the_leaf() {
    for leaf_kind in [LeafKind::FoldsFirst, LeafKind::ReadsLog] {
        let plain = OracleOptions::plain(HubKind::Transactions, Policy::ClientWins);
        let mut oracle = Oracle::new(OracleOptions { leaf_kind, ..plain });
        oracle.hub_fill(&x(), "old");
        oracle.run_session(0);
        oracle.leaf_write(0, &x(), "first edit").unwrap();
        let session = session_at(&mut oracle, 0, Standing::Download);
        hub_writes(&mut oracle, &x(), "theirs");
        oracle.leaf_write(0, &x(), "second edit").unwrap();
        let conflicts = finish(&mut oracle, session).conflicts;
        assert_eq!(conflicts.len(), 1);
        assert_eq!((conflicts[0].place, conflicts[0].leaf_won), (Place::Leaf, true));
        // The edit was kept: the next upload is plain.
        assert!(oracle.run_session(0).conflicts.is_empty());
        assert_eq!(at_hub(&oracle, &x()).as_deref(), Some("second edit"));
        assert!(!goes_wrong(&mut oracle));
    }
}

#[test]
fn rows_that_a_cascade_deletes_at_the_hub_are_deleted_at_the_sender() {
    for hub_kind in BOTH {
        let children = vec![row_key("child 1"), row_key("child 2")];
        let cascades = [(row_key("parent"), children.clone())].into();
        let mut oracle = with_triggers(hub_kind, UserTriggers { cascades, ..UserTriggers::default() });
        for key in children.iter().chain([&row_key("parent")]) {
            oracle.hub_fill(key, &format!("{key:?}"));
        }
        oracle.run_session(0);
        oracle.leaf_delete(0, &row_key("parent")).unwrap();
        assert_eq!(oracle.run_session(0).downloaded, 2);
        assert!(oracle.leaf_rows(0).is_empty());
        assert!(!goes_wrong(&mut oracle));
    }
}

/// A parent that a leaf deletes, and a child of it that somebody edited at the hub.
fn delete_with_an_edited_child(hub_kind: HubKind, policy: Policy, is_leaf_later: bool) -> (Oracle, usize) {
    let [parent, child] = ["parent", "child"].map(row_key);
    let cascades = [(parent.clone(), vec![child.clone(), row_key("other")])].into();
    let triggers = UserTriggers { cascades, ..UserTriggers::default() };
    let mut oracle = Oracle::new(OracleOptions { triggers, ..OracleOptions::plain(hub_kind, policy) });
    for key in [&parent, &child, &row_key("other")] {
        oracle.hub_fill(key, &format!("{key:?}"));
    }
    oracle.run_session(0);
    if is_leaf_later {
        hub_writes(&mut oracle, &child, "edited");
    }
    oracle.leaf_delete(0, &parent).unwrap();
    if !is_leaf_later {
        hub_writes(&mut oracle, &child, "edited");
    }
    let conflicts = oracle.run_session(0).conflicts;
    assert!(conflicts.iter().all(|conflict| conflict.place == Place::Hub));
    (oracle, conflicts.len())
}

#[test]
fn a_cascade_takes_no_row_along_that_the_sender_did_not_know() {
    for (policy, is_leaf_later) in [(Policy::ServerWins, true), (Policy::LastWriterWins, false)] {
        for hub_kind in BOTH {
            let (mut oracle, conflicts) = delete_with_an_edited_child(hub_kind, policy, is_leaf_later);
            assert_eq!(conflicts, 1);
            for key in ["parent", "child", "other"] {
                assert!(at_hub(&oracle, &row_key(key)).is_some(), "{key}");
                assert_eq!(at_leaf(&oracle, 0, &row_key(key)), at_hub(&oracle, &row_key(key)), "{key}");
            }
            assert_eq!(at_leaf(&oracle, 0, &row_key("child")).as_deref(), Some("edited"));
            assert!(!goes_wrong(&mut oracle));
        }
    }
}

#[test]
fn what_a_cascade_takes_along_for_a_leaf_that_wins_is_in_the_log() {
    for (policy, is_leaf_later) in [(Policy::ClientWins, false), (Policy::LastWriterWins, true)] {
        for hub_kind in BOTH {
            let (mut oracle, conflicts) = delete_with_an_edited_child(hub_kind, policy, is_leaf_later);
            assert_eq!(conflicts, 1);
            assert!(oracle.leaf_rows(0).is_empty());
            assert!(["parent", "child", "other"].iter().all(|key| at_hub(&oracle, &row_key(key)).is_none()));
            assert!(!goes_wrong(&mut oracle));
        }
    }
}

#[test]
fn a_sender_whose_update_a_trigger_swallows_gets_the_hubs_row() {
    for hub_kind in BOTH {
        let swallows = [x()].into();
        let mut oracle = with_triggers(hub_kind, UserTriggers { swallows, ..UserTriggers::default() });
        oracle.hub_fill(&x(), "the hub's");
        oracle.run_session(0);
        oracle.leaf_write(0, &x(), "the leaf's").unwrap();
        assert_eq!(oracle.run_session(0).downloaded, 1);
        assert_eq!(at_leaf(&oracle, 0, &x()).as_deref(), Some("the hub's"));
        assert_eq!(oracle.run_session(0).downloaded, 0);
    }
}

#[test]
fn an_edit_of_a_row_that_the_hub_deleted_is_in_the_log_and_the_row_stays_deleted() {
    for hub_kind in BOTH {
        let mut oracle = oracle(hub_kind, Policy::ServerWins, Rules::all());
        oracle.hub_fill(&x(), "old");
        oracle.run_session(0);
        hub_deletes(&mut oracle, &x());
        oracle.leaf_write(0, &x(), "edited").unwrap();
        let conflicts = oracle.run_session(0).conflicts;
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].client.as_ref().map(|content| content.value.as_str()), Some("edited"));
        assert_eq!((at_hub(&oracle, &x()), at_leaf(&oracle, 0, &x())), (None, None));
        assert!(!goes_wrong(&mut oracle));
    }
}

#[test]
fn each_policy_keeps_its_winner_everywhere_and_the_loser_in_the_log() {
    let winners =
        [(Policy::ServerWins, "hub"), (Policy::ClientWins, "leaf"), (Policy::LastWriterWins, "hub")];
    for (policy, winner) in winners {
        let mut oracle = oracle(HubKind::Transactions, policy, Rules::all());
        oracle.hub_fill(&x(), "old");
        oracle.run_session(0);
        oracle.leaf_write(0, &x(), "leaf").unwrap();
        hub_writes(&mut oracle, &x(), "hub");
        assert_eq!(oracle.run_session(0).conflicts.len(), 1);
        assert!(!goes_wrong(&mut oracle));
        for value in [at_hub(&oracle, &x()), at_leaf(&oracle, 0, &x()), at_leaf(&oracle, 1, &x())] {
            assert_eq!(value.as_deref(), Some(winner), "{policy:?}");
        }
    }
}
