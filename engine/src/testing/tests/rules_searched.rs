//! Random histories notice the absence of these rules: the search stops at the first that goes wrong.

use crate::testing::histories::Configuration;
use crate::testing::histories::search::Search;
use crate::testing::oracle::HubKind::{self, Folds, Transactions};
use crate::testing::oracle::{Policy, Rules};

/// Seeds that are searched at most. Some rules take a few hundred, most a few.
const SEEDS_MAX: u64 = 2_000;

macro_rules! rules {
    ($($rule:ident: $configuration:literal, $hub_kind:ident;)*) => {
        mod histories_go_wrong_without {
            $(
                #[test]
                fn $rule() {
                    super::is_found(stringify!($rule), $configuration, super::$hub_kind);
                }
            )*
        }

        /// The rules whose absence is found by searching.
        pub(super) const SEARCHED: &[&str] = &[$(stringify!($rule)),*];
    };
}

rules! {
    no_late_upload: "four leaves", Transactions;
    echo_off: "four leaves", Folds;
    resume_between: "four leaves", Folds;
    snapshot_missing: "four leaves", Transactions;
    via: "triggers", Transactions;
    born: "truncates", Transactions;
    lock_first: "plain", Transactions;
    exc_state: "unique", Transactions;
    dead_except: "unique", Transactions;
    chain_upload: "leaf restores", Transactions;
    ack_link: "hub restores", Folds;
    chain_down: "hub restores", Transactions;
    diverged_reinit: "hub restores", Folds;
    diverged_made: "hub restores", Folds;
    rec_seq: "plain", Transactions;
    fold_commit: "triggers", Folds;
    apply_fold: "four leaves", Transactions;
    take_log: "postgresql leaves", Transactions;
    trunc_full: "truncates", Transactions;
}

fn is_found(rule: &str, configuration: &str, hub_kind: HubKind) {
    let search = Search {
        configurations: &[Configuration::named(configuration).unwrap()],
        hub_kinds: &[hub_kind],
        policies: &Policy::ALL,
        rules: Rules::all_but(rule).unwrap(),
        seeds: 0..SEEDS_MAX,
    };
    let finding = search.first().unwrap_or_else(|| panic!("nothing goes wrong without {rule}"));
    // It is that rule that is missing: with it, the same history is sound.
    let seed = finding.case.seed;
    let with_it = Search { rules: Rules::all(), seeds: seed..seed + 1, ..search };
    assert!(with_it.first().is_none());
}
