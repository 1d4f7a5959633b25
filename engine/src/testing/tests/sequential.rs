//! Lists of plain operations: what the oracle makes of them is what real databases are compared with.

use crate::testing::histories::sequential::operations;
use crate::testing::oracle::plain::Operation;
use crate::testing::oracle::{Ending, HubKind, Oracle, OracleOptions, Policy, Refused};

#[test]
fn all_replicas_hold_the_same_at_the_end_of_a_list() {
    for seed in 0..200 {
        for hub_kind in [HubKind::Transactions, HubKind::Folds] {
            for policy in Policy::ALL {
                let mut oracle = Oracle::new(OracleOptions::plain(hub_kind, policy));
                let mut open = Vec::new();
                for operation in operations(hub_kind, 2, 30, seed) {
                    play(&mut oracle, &mut open, &operation);
                }
                assert_eq!(oracle.verdict(), [], "seed {seed}");
            }
        }
    }
}

/// Nothing of a list has to wait; only deletes of rows that are not there are refused.
fn play(oracle: &mut Oracle, open: &mut Vec<crate::testing::oracle::TransactionId>, operation: &Operation) {
    match oracle.play(open, operation) {
        Ok(report) => assert!(report.is_none_or(|report| report.ending == Some(Ending::Complete))),
        Err(refused) => assert_eq!(refused, Refused::Absent),
    }
}

#[test]
fn a_list_is_the_same_for_the_same_seed() {
    let list = || operations(HubKind::Transactions, 3, 50, 7);
    assert_eq!(list(), list());
    assert!(list().iter().any(|operation| matches!(operation, Operation::HubBegin)));
}

#[test]
fn sessions_pass_while_transactions_of_a_hub_are_open() {
    let mut open = 0_usize;
    let mut sessions_meanwhile = 0;
    for operation in operations(HubKind::Transactions, 2, 500, 1) {
        match operation {
            Operation::HubBegin => open += 1,
            Operation::HubCommit(_) | Operation::HubRollback(_) => open -= 1,
            Operation::Session(_) if open > 0 => sessions_meanwhile += 1,
            _ => {}
        }
    }
    assert!(sessions_meanwhile > 10, "only {sessions_meanwhile}");
}
