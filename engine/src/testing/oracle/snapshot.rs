//! What a reader sees: one state of the hub, and exactly the ticks that are in it.

use std::collections::{BTreeMap, BTreeSet};

use syncline::ids::ReplicaId;
use syncline::knowledge::{Clock, Knowledge, RowKey};

use super::hub::Hub;
use super::row::{RowState, WriteId};
use super::rules::Rules;
use super::tracking::{HubKind, HubState};
use super::transaction::{TransactionId, Writer};
use super::world::World;

/// A snapshot and its clock.
#[derive(Debug)]
pub(super) struct Snapshot {
    state: HubState,
    clock: Clock,
}

/// A snapshot that is being opened. Where ticks are folds, that takes the write lock for a moment: the reader opens its
/// transaction while a folder holds it, sees the same state, and reads the entries as that fold's tick.
#[derive(Debug)]
pub(super) enum Opening {
    /// Nothing is done yet.
    Begun,
    /// The folder holds the write lock, and the reader has its snapshot.
    Folding(TransactionId, Box<Snapshot>),
}

/// How far the opening of a snapshot got.
pub(super) enum Opened {
    Waiting,
    Running(Opening),
    Done(Box<Snapshot>),
}

impl Opening {
    /// One step.
    pub(super) fn advance(self, world: &mut World, hub: &mut Hub) -> Opened {
        match (self, hub.state.kind) {
            (Self::Begun, HubKind::Transactions) => {
                Opened::Done(Box::new(Snapshot { state: hub.state.clone(), clock: hub.clock(world) }))
            }
            (Self::Begun, HubKind::Folds) => match hub.begin(Writer::Engine) {
                Ok(folder) => {
                    let state = hub.state.clone();
                    let tick = if state.log.is_empty() { state.folds } else { state.folds.next() };
                    Opened::Running(Self::Folding(
                        folder,
                        Box::new(Snapshot { state, clock: Clock::up_to(tick) }),
                    ))
                }
                Err(_) => Opened::Waiting,
            },
            (Self::Folding(folder, snapshot), _) => {
                hub.roll_back(folder);
                // Without the rule, a reader goes on with the tick of a fold that never was.
                let fails = !world.rules.fold_commit && world.chance(40);
                if fails {
                    world.tell(|| format!("{} rolls a fold back, its reader goes on", hub.told()));
                } else {
                    hub.state.fold_now(&world.rules);
                }
                Opened::Done(snapshot)
            }
        }
    }

    /// Gives the write lock back.
    pub(super) fn kill(self, hub: &mut Hub) {
        if let Self::Folding(folder, _) = self {
            hub.roll_back(folder);
        }
    }
}

/// What is asked of a snapshot.
pub(super) struct Question<'a> {
    /// What the leaf knows.
    pub(super) known: &'a Knowledge,
    pub(super) leaf: ReplicaId,
    /// Whether rows that are exactly what the leaf sent are left out.
    pub(super) is_echo_left_out: bool,
}

impl Snapshot {
    /// What the hub knows in this snapshot.
    pub(super) fn knowledge(&self) -> Knowledge {
        let mut knowledge = self.state.peers.clone();
        knowledge.set_own_clock(self.state.id, self.clock.clone());
        knowledge
    }

    /// All keys that anything is known of.
    pub(super) fn keys(&self) -> BTreeSet<RowKey> {
        self.state.keys()
    }

    /// Whether a leaf that knows this must be given the table as a whole.
    pub(super) fn must_compare(&self, known: &Knowledge, rules: &Rules) -> bool {
        rules.trunc_full && !known.is_empty() && self.state.is_truncated_since(known)
    }

    /// The rows that the leaf lacks, in their present state.
    pub(super) fn enumerate(&self, question: &Question<'_>, rules: &Rules) -> BTreeMap<RowKey, RowState> {
        let mut lacking = BTreeMap::new();
        for key in self.state.keys() {
            if self.is_lacking(&key, question, rules) {
                lacking.insert(key.clone(), self.present(&key));
            }
        }
        // An excepted row is answered whatever its version: so exceptions need no tombstones.
        for key in question.known.exceptions().keys().filter(|_| rules.exc_state) {
            lacking.insert(key.clone(), self.present(key));
        }
        lacking
    }

    fn is_lacking(&self, key: &RowKey, question: &Question<'_>, rules: &Rules) -> bool {
        let Some(version) = self.state.version_of(key, rules) else { return false };
        let origin = self.state.record_of(key, rules).and_then(|record| record.origin);
        let is_excepted = question.known.exceptions().contains_key(key);
        let is_echo = question.is_echo_left_out && !is_excepted && origin == Some(question.leaf);
        !question.known.contains(key, version) && !is_echo
    }

    /// The row's present state: one that nothing is known of is gone.
    fn present(&self, key: &RowKey) -> RowState {
        self.state.rows.get(key).cloned().unwrap_or_else(|| RowState {
            content: None,
            changed_at: 0,
            write: WriteId(0),
            seen: BTreeSet::new(),
            life: WriteId(0),
        })
    }
}
