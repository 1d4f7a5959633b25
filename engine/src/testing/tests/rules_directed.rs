//! Rules whose absence random histories hardly notice: for each a history that goes wrong without it, and only then.

use syncline::ids::{ReplicaId, Tick};
use syncline::knowledge::Version;
use uuid::Uuid;

use super::rules_searched::SEARCHED;
use super::{
    at_hub, at_leaf, download_only, finish, goes_wrong, hub_deletes, hub_truncates, hub_writes, killed_at,
    oracle, session_at, x, y,
};
use crate::testing::oracle::{
    HubKind, Oracle, OracleOptions, Policy, Progress, Rules, SessionOptions, Standing, row_key,
};

macro_rules! rules {
    ($($rule:ident: $history:ident;)*) => {
        mod a_history_goes_wrong_without {
            $(
                #[test]
                fn $rule() {
                    super::goes_wrong_only_without(stringify!($rule), super::$history);
                }
            )*
        }

        /// The rules whose absence is shown by a history of their own.
        const DIRECTED: &[&str] = &[$(stringify!($rule)),*];
    };
}

rules! {
    first_full: truncated_before_the_first_download;
    born_tick: edited_after_a_lost_answer_and_a_truncate;
    born_on_delete: kept_against_a_delete_that_a_truncate_hides;
    born_ack: deleted_and_inserted_during_the_upload;
    keep_new_tick: kept_after_a_lost_answer;
    mark_new: kept_after_a_lost_answer;
    exc_made: edited_though_the_hubs_row_could_not_be_applied;
    exc_merge: learned_from_a_hub_that_could_not_apply;
    chain_apply: copies_that_upload_at_the_same_time;
    mark_after_snapshot: restored_to_between_mark_and_snapshot;
    gate_reinit: another_hub_that_is_behind;
    one_stmt: folded_between_two_statements;
    trunc_drop: inserted_where_a_truncate_left_nothing;
}

/// Rules that are followed, but of which nothing shows as long as there are no filters: with them, a tombstone outside
/// the sender's filter may be older than the TRUNCATE.
const UNSHOWN: &[&str] = &["trunc_made"];

fn goes_wrong_only_without(rule: &str, history: fn(Rules) -> bool) {
    assert!(!history(Rules::all()), "goes wrong though all rules are followed");
    assert!(history(Rules::all_but(rule).unwrap()), "goes right without {rule}");
}

#[test]
fn every_rule_is_shown_to_matter() {
    let mut shown = [SEARCHED, DIRECTED, UNSHOWN].concat();
    let mut all = Rules::NAMES.to_vec();
    shown.sort_unstable();
    all.sort_unstable();
    assert_eq!(shown, all);
}

/// x is uploaded, the session breaks off, the table is truncated: no tombstone tells the leaf, which knows nothing yet.
fn truncated_before_the_first_download(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ServerWins, rules);
    oracle.leaf_write(0, &x(), "mine").unwrap();
    killed_at(&mut oracle, 0, Standing::Download);
    hub_truncates(&mut oracle);
    goes_wrong(&mut oracle)
}

/// The hub has the leaf's insert, but its answer is lost; a TRUNCATE removes the row, and the leaf edits it. That is an
/// update of a deleted row, though the leaf still takes the row for one that no hub has seen.
fn edited_after_a_lost_answer_and_a_truncate(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ServerWins, rules);
    hub_writes(&mut oracle, &y(), "other");
    oracle.run_session(0);
    oracle.leaf_write(0, &x(), "inserted").unwrap();
    killed_at(&mut oracle, 0, Standing::Answer);
    hub_truncates(&mut oracle);
    oracle.leaf_write(0, &x(), "edited").unwrap();
    goes_wrong(&mut oracle) || at_hub(&oracle, &x()).is_some()
}

/// The leaf keeps its edit against the hub's delete. When the edit comes, a TRUNCATE has swept the tombstone away.
fn kept_against_a_delete_that_a_truncate_hides(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ClientWins, rules);
    oracle.hub_fill(&x(), "old");
    oracle.run_session(0);
    oracle.leaf_write(0, &x(), "mine").unwrap();
    hub_deletes(&mut oracle, &x());
    assert_eq!(download_only(&mut oracle, 0).conflicts.len(), 1);
    hub_truncates(&mut oracle);
    goes_wrong(&mut oracle) || at_hub(&oracle, &x()).as_deref() != Some("mine")
}

/// The leaf's delete is acknowledged when the row has a new life already: from then on it counts as born, also when no
/// tombstone says any more that it was deleted.
fn deleted_and_inserted_during_the_upload(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ServerWins, rules);
    oracle.hub_fill(&x(), "old");
    oracle.run_session(0);
    oracle.leaf_delete(0, &x()).unwrap();
    let session = session_at(&mut oracle, 0, Standing::Apply);
    oracle.leaf_write(0, &x(), "new").unwrap();
    oracle.fold_leaf(0);
    finish(&mut oracle, session);
    hub_truncates(&mut oracle);
    goes_wrong(&mut oracle) || at_hub(&oracle, &x()).as_deref() != Some("new")
}

/// The hub has the leaf's edit, but its answer is lost; somebody else's edit on top of it meets the leaf's in a session
/// that only downloads. What the leaf keeps must not pass for what it uploaded before.
fn kept_after_a_lost_answer(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ClientWins, rules);
    oracle.hub_fill(&x(), "old");
    oracle.run_session(0);
    oracle.leaf_write(0, &x(), "mine").unwrap();
    killed_at(&mut oracle, 0, Standing::Answer);
    hub_writes(&mut oracle, &x(), "theirs");
    download_only(&mut oracle, 0);
    goes_wrong(&mut oracle)
}

/// The hub's y can't be applied at the leaf, where z has its value. The leaf, which never saw it, edits y.
fn edited_though_the_hubs_row_could_not_be_applied(rules: Rules) -> bool {
    let plain = OracleOptions::plain(HubKind::Transactions, Policy::ServerWins);
    let mut oracle = Oracle::new(OracleOptions { rules, is_unique: true, ..plain });
    oracle.hub_fill(&y(), "old");
    oracle.run_session(0);
    oracle.leaf_write(0, &row_key("z"), "wanted").unwrap();
    hub_writes(&mut oracle, &y(), "wanted");
    oracle.run_session(0);
    oracle.leaf_write(0, &y(), "mine").unwrap();
    goes_wrong(&mut oracle)
}

/// The hub could not apply a peer's x, and says so to the leaf. When it can, the leaf must get it.
fn learned_from_a_hub_that_could_not_apply(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ServerWins, rules);
    let peer = ReplicaId::from_uuid(Uuid::from_u128(7));
    hub_writes(&mut oracle, &y(), "other");
    oracle.run_session(0);
    oracle.hub_learns_all_but(peer, Tick(9), &x());
    oracle.run_session(0);
    oracle.hub_applies(Version { replica: peer, tick: Tick(5) }, &x(), "theirs");
    goes_wrong(&mut oracle)
}

/// A leaf's mark outlives what it was drawn for: a backup holds the mark of an upload, but not all of its rows. The hub
/// takes the restored leaf for the one that it knows, and its ticks for those that it has.
fn restored_to_between_mark_and_snapshot(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ServerWins, rules);
    oracle.run_session(0);
    oracle.leaf_write(0, &x(), "in the backup").unwrap();
    let mut session = session_at(&mut oracle, 0, Standing::Upload);
    assert_eq!(oracle.advance_session(&mut session), Progress::Running);
    let backup = oracle.back_up_leaf(0);
    finish(&mut oracle, session);
    oracle.restore_leaf(0, &backup);
    oracle.leaf_write(0, &y(), "after the restore").unwrap();
    goes_wrong(&mut oracle) || at_hub(&oracle, &y()).is_none()
}

/// A leaf is copied, and both have a session before either has uploaded. They count the same ticks for different edits.
fn copies_that_upload_at_the_same_time(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ServerWins, rules);
    oracle.run_session(0);
    let backup = oracle.back_up_leaf(0);
    oracle.leaf_write(0, &x(), "of the original").unwrap();
    let mut original = session_at(&mut oracle, 0, Standing::Apply);
    // From now on the leaf is its copy; of the original there is only what it has sent.
    oracle.restore_leaf(0, &backup);
    oracle.leaf_write(0, &y(), "of the copy").unwrap();
    let copy = session_at(&mut oracle, 0, Standing::Apply);
    super::advance_to(&mut oracle, &mut original, Standing::Answer);
    oracle.kill_session(original);
    finish(&mut oracle, copy);
    goes_wrong(&mut oracle) || at_hub(&oracle, &x()).is_none() || at_hub(&oracle, &y()).is_none()
}

/// The hub fails over to a copy that lacks what the leaf has seen.
fn another_hub_that_is_behind(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ServerWins, rules);
    hub_writes(&mut oracle, &x(), "kept");
    let backup = oracle.back_up_hub().unwrap();
    hub_writes(&mut oracle, &x(), "lost by the copy");
    oracle.run_session(0);
    oracle.fail_over(&backup);
    goes_wrong(&mut oracle) || at_leaf(&oracle, 0, &x()).as_deref() != Some("kept")
}

/// While the hub judges x, a fold moves its entry into a record: read in two statements, it is in neither.
fn folded_between_two_statements(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ServerWins, rules);
    oracle.hub_fill(&x(), "old");
    oracle.run_session(0);
    hub_writes(&mut oracle, &x(), "theirs");
    oracle.leaf_write(0, &x(), "mine").unwrap();
    let mut session = session_at(&mut oracle, 0, Standing::Apply);
    for _begin_then_judge in 0..2 {
        oracle.advance_session(&mut session);
    }
    let mut fold = oracle.begin_fold().unwrap().unwrap();
    while oracle.advance_fold(&mut fold) == Progress::Running {}
    oracle.kill_fold(fold);
    finish(&mut oracle, session);
    goes_wrong(&mut oracle)
}

/// The leaf inserts a key that the hub had, before a TRUNCATE: there is nothing that it could be in conflict with.
fn inserted_where_a_truncate_left_nothing(rules: Rules) -> bool {
    let mut oracle = oracle(HubKind::Transactions, Policy::ServerWins, rules);
    hub_writes(&mut oracle, &y(), "other");
    oracle.run_session(0);
    hub_writes(&mut oracle, &x(), "theirs");
    hub_truncates(&mut oracle);
    oracle.leaf_write(0, &x(), "mine").unwrap();
    let conflicts = oracle.run_session(0).conflicts.len();
    goes_wrong(&mut oracle) || conflicts > 0 || at_hub(&oracle, &x()).is_none()
}

#[test]
fn a_download_that_breaks_off_loses_nothing_when_the_session_is_taken_up_again() {
    for hub_kind in [HubKind::Transactions, HubKind::Folds] {
        let mut oracle = oracle(hub_kind, Policy::ServerWins, Rules::all());
        hub_writes(&mut oracle, &x(), "first");
        hub_writes(&mut oracle, &y(), "first");
        let options = SessionOptions { is_download_only: false, breaks_off: true };
        let mut session = oracle.begin_session(0, options);
        super::advance_to(&mut oracle, &mut session, Standing::Enumerate);
        while session.standing() == Standing::Enumerate && !oracle.is_spooling(0) {
            oracle.advance_session(&mut session);
        }
        oracle.kill_session(session);
        // What was read before may be older than what is read now.
        hub_writes(&mut oracle, &x(), "second");
        hub_deletes(&mut oracle, &y());
        oracle.run_session(0);
        assert_eq!(at_leaf(&oracle, 0, &x()).as_deref(), Some("second"));
        assert_eq!(at_leaf(&oracle, 0, &y()), None);
        assert_eq!(oracle.run_session(0).downloaded, 0);
    }
}
