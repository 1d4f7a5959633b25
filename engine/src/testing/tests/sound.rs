//! With all rules followed, no history goes wrong: each configuration, with both kinds of hubs and all policies.

use crate::testing::histories::Configuration;
use crate::testing::histories::concurrent::play;
use crate::testing::histories::search::Search;
use crate::testing::oracle::{HubKind, Policy, Rules};

/// Seeds per configuration, kind of hub and policy: 9 * 2 * 3 * 200 histories in all.
const SEEDS: u64 = 200;

macro_rules! sound {
    ($($test:ident: $name:literal;)*) => {
        $(
            #[test]
            fn $test() {
                is_sound($name);
            }
        )*

        #[test]
        fn every_configuration_is_played() {
            let names = Configuration::ALL.map(|configuration| configuration.name);
            assert_eq!(names.as_slice(), [$($name),*]);
        }
    };
}

sound! {
    plain_histories_are_sound: "plain";
    histories_with_triggers_are_sound: "triggers";
    histories_with_unique_values_are_sound: "unique";
    histories_with_four_leaves_are_sound: "four leaves";
    histories_with_truncates_are_sound: "truncates";
    histories_with_leaves_like_postgresql_are_sound: "postgresql leaves";
    histories_with_restored_leaves_are_sound: "leaf restores";
    histories_with_hubs_that_do_not_notice_a_restore_are_sound: "hub restores";
    histories_with_hubs_that_notice_a_restore_are_sound: "hub restores that are noticed";
}

fn is_sound(name: &str) {
    let configuration = Configuration::named(name).unwrap();
    let search = Search {
        configurations: &[configuration],
        hub_kinds: &[HubKind::Transactions, HubKind::Folds],
        policies: &Policy::ALL,
        rules: Rules::all(),
        seeds: 0..SEEDS,
    };
    let (played, wrong) = search.shortest();
    assert_eq!(played as u64, 2 * 3 * SEEDS);
    if let Some(finding) = wrong {
        panic!("the shortest history that goes wrong: {finding}");
    }
}

#[test]
fn a_seed_reproduces_its_history() {
    for configuration in Configuration::ALL {
        let search = Search {
            configurations: &[configuration],
            hub_kinds: &[HubKind::Transactions, HubKind::Folds],
            policies: &[Policy::LastWriterWins],
            rules: Rules::all(),
            seeds: 0..5,
        };
        for case in search.cases() {
            let told = play(case, true);
            assert_eq!(told, play(case, true));
            assert!(!told.trace.is_empty());
        }
    }
}
