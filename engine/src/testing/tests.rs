//! Holds the oracle to the invariants, and the histories to finding what breaks them.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod examples;
mod invariants;
mod rules_directed;
mod rules_searched;
mod sequential;
mod sound;

use syncline::knowledge::RowKey;

use super::oracle::{
    HubKind, Oracle, OracleOptions, Policy, Progress, Report, Rules, Session, SessionOptions, Standing,
    row_key,
};

/// An oracle in which nothing happens by chance.
fn oracle(hub_kind: HubKind, policy: Policy, rules: Rules) -> Oracle {
    Oracle::new(OracleOptions { rules, ..OracleOptions::plain(hub_kind, policy) })
}

fn x() -> RowKey {
    row_key("x")
}

fn y() -> RowKey {
    row_key("y")
}

/// A user's transaction at the hub that writes one row.
fn hub_writes(oracle: &mut Oracle, key: &RowKey, value: &str) {
    let transaction = oracle.hub_begin().unwrap();
    oracle.hub_write(transaction, key, value).unwrap();
    oracle.hub_commit(transaction);
}

fn hub_deletes(oracle: &mut Oracle, key: &RowKey) {
    let transaction = oracle.hub_begin().unwrap();
    oracle.hub_delete(transaction, key).unwrap();
    oracle.hub_commit(transaction);
}

fn hub_truncates(oracle: &mut Oracle) {
    let transaction = oracle.hub_begin().unwrap();
    oracle.hub_truncate(transaction).unwrap();
    oracle.hub_commit(transaction);
}

/// A session of the leaf that has come to this point.
fn session_at(oracle: &mut Oracle, leaf: usize, standing: Standing) -> Session {
    let mut session = oracle.begin_session(leaf, SessionOptions::WHOLE);
    advance_to(oracle, &mut session, standing);
    session
}

fn advance_to(oracle: &mut Oracle, session: &mut Session, standing: Standing) {
    while session.standing() != standing {
        assert_ne!(oracle.advance_session(session), Progress::Done, "it ends before {standing:?}");
    }
}

/// The session is killed when it has come to this point; the leaf's next one is new.
fn killed_at(oracle: &mut Oracle, leaf: usize, standing: Standing) {
    let session = session_at(oracle, leaf, standing);
    oracle.kill_session(session);
    oracle.abandon_session(leaf);
}

fn finish(oracle: &mut Oracle, mut session: Session) -> Report {
    while oracle.advance_session(&mut session) != Progress::Done {}
    oracle.kill_session(session)
}

/// A session that uploads nothing.
fn download_only(oracle: &mut Oracle, leaf: usize) -> Report {
    let options = SessionOptions { is_download_only: true, breaks_off: false };
    let session = oracle.begin_session(leaf, options);
    finish(oracle, session)
}

/// Whether anything is wrong once all leaves have synchronised a few times.
fn goes_wrong(oracle: &mut Oracle) -> bool {
    for _ in 0..3 {
        for leaf in 0..oracle.leaves() {
            oracle.run_session(leaf);
        }
    }
    !oracle.verdict().is_empty()
}

/// The value of a row of the hub.
fn at_hub(oracle: &Oracle, key: &RowKey) -> Option<String> {
    oracle.hub_rows().remove(key).map(|content| content.value)
}

/// The value of a row of a leaf.
fn at_leaf(oracle: &Oracle, leaf: usize, key: &RowKey) -> Option<String> {
    oracle.leaf_rows(leaf).remove(key).map(|content| content.value)
}
