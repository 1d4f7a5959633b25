//! Seeded random histories: the same seed gives the same history, everywhere and for ever.
//!
//! - [`concurrent`] drives the oracle at any interleaving: open transactions, sessions that are killed after any step,
//!   lost answers, folds, restores. Afterwards everything comes to rest, and is judged.
//! - [`sequential`] makes lists of plain operations, to be played on the oracle and on real databases alike.
//! - [`search`] looks for histories that go wrong, and tells the shortest.

pub mod concurrent;
pub mod search;
pub mod sequential;

use super::oracle::{LeafKind, Rules};

/// What happens in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configuration {
    /// What it is called.
    pub name: &'static str,
    /// How many leaves there are.
    pub leaves: usize,
    /// How many rows are written to.
    pub rows: usize,
    /// The fewest steps of a history, and the most.
    pub steps: (usize, usize),
    /// How the leaves read their logs.
    pub leaf_kind: LeafKind,
    /// Whether users have triggers at the hub: a computed column, and one row that counts another's writes.
    pub has_triggers: bool,
    /// Whether values are unique.
    pub is_unique: bool,
    /// Whether there are only a few values, so that two replicas write the same one.
    pub has_few_values: bool,
    /// Whether some sessions only download.
    pub has_download_only: bool,
    /// Whether the table is truncated (only where ticks are transactions).
    pub has_truncates: bool,
    /// Whether leaves are restored from backups.
    pub has_leaf_restores: bool,
    /// Whether the hub is restored from backups.
    pub hub_restores: HubRestores,
}

/// Whether a hub goes back in time, and knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubRestores {
    /// It does not.
    Never,
    /// It does, and never notices.
    Unnoticed,
    /// It does, and notices at once or later.
    Noticed,
}

impl Configuration {
    /// One hub, two leaves, three rows.
    pub const PLAIN: Self = Self {
        name: "plain",
        leaves: 2,
        rows: 3,
        steps: (5, 20),
        leaf_kind: LeafKind::FoldsFirst,
        has_triggers: false,
        is_unique: false,
        has_few_values: false,
        has_download_only: false,
        has_truncates: false,
        has_leaf_restores: false,
        hub_restores: HubRestores::Never,
    };

    /// All configurations that histories are run with.
    pub const ALL: [Self; 9] = [
        Self::PLAIN,
        Self { name: "triggers", has_triggers: true, ..Self::PLAIN },
        Self { name: "unique", is_unique: true, has_few_values: true, ..Self::PLAIN },
        Self { name: "four leaves", leaves: 4, rows: 4, steps: (12, 30), ..Self::PLAIN },
        Self { name: "truncates", has_truncates: true, has_download_only: true, ..Self::PLAIN },
        Self {
            name: "postgresql leaves",
            leaf_kind: LeafKind::ReadsLog,
            has_download_only: true,
            has_few_values: true,
            ..Self::PLAIN
        },
        Self { name: "leaf restores", has_leaf_restores: true, has_download_only: true, ..Self::PLAIN },
        Self {
            name: "hub restores",
            hub_restores: HubRestores::Unnoticed,
            has_leaf_restores: true,
            ..Self::PLAIN
        },
        Self {
            name: "hub restores that are noticed",
            hub_restores: HubRestores::Noticed,
            has_triggers: true,
            ..Self::PLAIN
        },
    ];
}

impl Configuration {
    /// The configuration of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|configuration| configuration.name == name)
    }
}

/// One history, by all that decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What happens in it.
    pub configuration: Configuration,
    /// Where the hub's ticks come from.
    pub hub_kind: super::oracle::HubKind,
    /// How conflicts are resolved.
    pub policy: super::oracle::Policy,
    /// The rules that are followed.
    pub rules: Rules,
    /// What chance decides.
    pub seed: u64,
}
