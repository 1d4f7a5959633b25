//! Looking for histories that go wrong.

use std::fmt;
use std::ops::Range;

use super::concurrent::{Outcome, play};
use super::{Case, Configuration};
use crate::testing::oracle::{HubKind, Policy, Rules};

/// Which histories are played: each configuration, with each kind of hub and each policy, with each seed.
#[derive(Debug, Clone)]
pub struct Search<'a> {
    /// What happens in the histories.
    pub configurations: &'a [Configuration],
    /// Where hubs' ticks come from.
    pub hub_kinds: &'a [HubKind],
    /// How conflicts are resolved.
    pub policies: &'a [Policy],
    /// The rules that are followed.
    pub rules: Rules,
    /// What chance decides.
    pub seeds: Range<u64>,
}

/// A history that went wrong.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Plays it again.
    pub case: Case,
    /// What went wrong, and everything that happened.
    pub outcome: Outcome,
}

impl Search<'_> {
    /// All cases, seeds first: so that what any configuration finds is found early.
    pub fn cases(&self) -> impl Iterator<Item = Case> + '_ {
        self.seeds.clone().flat_map(move |seed| {
            self.configurations.iter().flat_map(move |configuration| {
                self.hub_kinds.iter().flat_map(move |hub_kind| {
                    self.policies.iter().map(move |policy| Case {
                        configuration: *configuration,
                        hub_kind: *hub_kind,
                        policy: *policy,
                        rules: self.rules,
                        seed,
                    })
                })
            })
        })
    }

    /// The first history that goes wrong.
    #[must_use]
    pub fn first(&self) -> Option<Finding> {
        self.cases().find(|case| is_wrong(*case)).map(Finding::of)
    }

    /// Plays all histories. Answers their number, and of those that went wrong the one with the shortest trace.
    #[must_use]
    pub fn shortest(&self) -> (usize, Option<Finding>) {
        let mut played = 0;
        let wrong = self.cases().inspect(|_| played += 1).filter(|case| is_wrong(*case));
        let shortest = wrong.map(Finding::of).min_by_key(|finding| finding.outcome.trace.len());
        (played, shortest)
    }
}

fn is_wrong(case: Case) -> bool {
    !play(case, false).violations.is_empty()
}

impl Finding {
    /// Plays the case again, and has everything told.
    fn of(case: Case) -> Self {
        Self { case, outcome: play(case, true) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { configuration, hub_kind, policy, seed, .. } = self.case;
        writeln!(f, "{}, {hub_kind:?}, {policy:?}, seed {seed}:", configuration.name)?;
        for violation in &self.outcome.violations {
            writeln!(f, "  {:?}: {}", violation.fault, violation.what)?;
        }
        for event in &self.outcome.trace {
            writeln!(f, "    {event}")?;
        }
        Ok(())
    }
}
