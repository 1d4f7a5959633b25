//! scratch
use crate::testing::histories::{Configuration, concurrent::play, search::Search};
use crate::testing::oracle::{HubKind, Policy, Rules};
#[test]
fn scan() {
    let only = std::env::var("RULE").ok();
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(200);
    for name in Rules::NAMES {
        if only.as_ref().is_some_and(|o| !o.split(',').any(|o| o == *name)) {
            continue;
        }
        let mut found = Vec::new();
        for c in Configuration::ALL {
            for k in [HubKind::Transactions, HubKind::Folds] {
                for p in Policy::ALL {
                    let s = Search {
                        configurations: &[c],
                        hub_kinds: &[k],
                        policies: &[p],
                        rules: Rules::all_but(name).unwrap(),
                        seeds: 0..seeds,
                    };
                    let bad: Vec<_> = s
                        .cases()
                        .filter_map(|case| {
                            let o = play(case, false);
                            (!o.violations.is_empty()).then(|| (case.seed, o.violations[0].fault))
                        })
                        .collect();
                    if !bad.is_empty() {
                        found.push((bad.len(), c.name, k, p, bad[0]));
                    }
                }
            }
        }
        found.sort_by_key(|f| std::cmp::Reverse(f.0));
        eprintln!(
            "RULE {name}: {} {:?}",
            found.iter().map(|f| f.0).sum::<usize>(),
            &found[..found.len().min(5)]
        );
    }
}
