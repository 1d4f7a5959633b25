//! What all replicas of a history share: time, chance, the rules, and the ghost ledger that judges losses.

use std::collections::{BTreeMap, BTreeSet};

use syncline::ids::{Mark, ReplicaId};
use syncline::knowledge::RowKey;
use uuid::Uuid;

use super::row::{Content, RowState, WriteId, replica_named, row_name};
use super::rules::Rules;
use super::session::SessionNumber;
use crate::testing::random::Random;

/// How a history went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A write was replaced by one that had not seen it, and no record holds it.
    LostUpdate,
    /// A leaf's edit was replaced before any hub had it, and no record holds it.
    LostEdit,
    /// A write that the hub had committed is in no row and in no record.
    LostWrite,
    /// A conflict was found between two states of which one had seen the other.
    NeedlessConflict,
    /// A leaf does not hold what its hub holds.
    Diverged,
    /// Sessions go on moving rows though nobody writes.
    NotQuiet,
}

/// A fault, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its kind.
    pub fault: Fault,
    /// What was found.
    pub what: String,
}

/// Time, chance, rules and the ghost ledger.
#[derive(Debug)]
pub(super) struct World {
    pub(super) rules: Rules,
    /// What happens by chance inside a session; without it, nothing does.
    random: Option<Random>,
    writes: u64,
    now: u64,
    marks: u128,
    replicas: u64,
    sessions: u64,
    /// Whether events are told (histories are run silently, and again if they fail).
    is_told: bool,
    pub(super) trace: Vec<String>,
    pub(super) ledger: Ledger,
}

/// Ghost: what became of writes.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Writes that a conflict record or a dead letter holds.
    pub(super) recorded: BTreeSet<WriteId>,
    /// Writes that a hub has had, though a restore may have lost them since.
    pub(super) at_hub: BTreeSet<WriteId>,
    /// Writes that a hub's trigger made, with the write that they complete.
    pub(super) completes: BTreeMap<WriteId, WriteId>,
    /// States of a leaf that were replaced by others that had not seen them.
    pub(super) replaced_edits: Vec<(WriteId, String)>,
    pub(super) violations: Vec<Violation>,
}

impl Ledger {
    /// A conflict record or dead letter holds this state, and so what it was made of.
    pub(super) fn record(&mut self, state: &RowState) {
        self.recorded.extend(state.lineage());
    }

    pub(super) fn violation(&mut self, fault: Fault, what: String) {
        self.violations.push(Violation { fault, what });
    }
}

impl World {
    pub(super) fn new(rules: Rules, random: Option<Random>, is_told: bool) -> Self {
        Self {
            rules,
            random,
            writes: 0,
            now: 0,
            marks: 0,
            replicas: 0,
            sessions: 0,
            is_told,
            trace: Vec::new(),
            // Write 0 is the nothing that a row is of which nothing is known.
            ledger: Ledger { at_hub: BTreeSet::from([WriteId(0)]), ..Ledger::default() },
        }
    }

    /// A new state of a row, written in sight of the one before.
    pub(super) fn write(&mut self, before: Option<&RowState>, content: Option<Content>) -> RowState {
        self.writes += 1;
        // Time never goes back along a row's history.
        self.now = (self.now + 1).max(before.map_or(0, |before| before.changed_at + 1));
        let write = WriteId(self.writes);
        RowState {
            content,
            changed_at: self.now,
            write,
            seen: before.map(|before| before.lineage().collect()).unwrap_or_default(),
            life: before.filter(|before| before.is_live()).map_or(write, |before| before.life),
        }
    }

    /// The number of the last write: a value that no row has yet.
    pub(super) const fn writes(&self) -> u64 {
        self.writes
    }

    /// A mark that nobody has drawn before.
    pub(super) fn draw_mark(&mut self) -> Mark {
        self.marks += 1;
        Mark::from_uuid(Uuid::from_u128(self.marks))
    }

    /// A replica id that nobody had before, for the replica of this name.
    pub(super) fn draw_replica(&mut self, name: &str) -> ReplicaId {
        self.replicas += 1;
        replica_named(&format!("{name}.{}", self.replicas))
    }

    /// A session that never was.
    pub(super) const fn number_session(&mut self) -> SessionNumber {
        self.sessions += 1;
        SessionNumber(self.sessions)
    }

    /// Whether something that is left to chance happens now.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.random.as_mut().is_some_and(|random| random.chance(percent))
    }

    /// One of several, of which there must be one at least; the first if nothing is left to chance.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        match self.random.as_mut() {
            Some(random) => random.pick(items),
            None => &items[0],
        }
    }

    /// Adds an event to the trace.
    pub(super) fn tell(&mut self, event: impl FnOnce() -> String) {
        if self.is_told {
            self.trace.push(event());
        }
    }
}

/// A state of a row, for the trace.
pub(super) fn told(key: &RowKey, state: &RowState) -> String {
    match &state.content {
        Some(Content { value, total: None }) => format!("{}={value}#{}", row_name(key), state.write.0),
        Some(Content { value, total: Some(total) }) => {
            format!("{}={value}/{total}#{}", row_name(key), state.write.0)
        }
        None => format!("no {}#{}", row_name(key), state.write.0),
    }
}
