//! Applying an upload at the hub: one transaction, row by row, at any interleaving with others.

mod cascade;
mod ghost;
mod harvest;
mod held;
mod rows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syncline::ids::{Mark, ReplicaId};
use syncline::knowledge::{Clock, Knowledge, RowKey};

use super::fold::{LOCK_WAITS_MAX, is_record_locked};
use super::hub::Hub;
use super::judge::{Held, UploadedRow};
use super::policy::Conflict;
use super::row::replica_name;
use super::tracking::Record;
use super::transaction::{Receipt, TransactionId, Writer};
use super::world::World;
use harvest::harvest;
use held::held;

/// The dirty rows of a leaf, enumerated in one snapshot.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) sender: ReplicaId,
    pub(super) rows: Vec<UploadedRow>,
    pub(super) made_with: Knowledge,
    pub(super) mark: Mark,
    /// Ghost: the leaf or the hub went back in time, so that it may take its own rows for another's.
    pub(super) is_confused: bool,
}

/// How far an apply got.
pub(super) enum ApplyProgress {
    Running,
    Waiting,
    /// It is committed; these rows were refused.
    Committed {
        refused: BTreeSet<RowKey>,
        conflicts: Vec<Conflict>,
    },
    /// It waited too long, and rolled back.
    GaveUp,
    /// A copy of the leaf has uploaded since the session began; it rolled back.
    Diverged,
}

/// An apply that goes on.
#[derive(Debug)]
pub(super) struct Apply {
    upload: Upload,
    /// The upload mark that the session's begin found.
    mark_begun: Option<Mark>,
    transaction: Option<TransactionId>,
    made_with: Knowledge,
    /// What the hub has of this leaf already: uploads that are repeated are recognised by it.
    applied_before: Knowledge,
    queue: VecDeque<Queued>,
    refused: BTreeSet<RowKey>,
    conflicts: Vec<Conflict>,
    waits: u32,
    stage: Stage,
    /// Without the rule, rows are judged by what they were when the transaction began.
    read_before_locking: BTreeMap<RowKey, Held>,
}

#[derive(Debug)]
struct Queued {
    row: UploadedRow,
    /// Whether others may make way for it yet: it comes again when all others are done.
    is_last_attempt: bool,
    /// Without the rule, records are read in a statement before the log: what that one found.
    record_read: Option<Option<Record>>,
}

#[derive(Debug)]
enum Stage {
    Beginning,
    Rows,
    Harvesting(Vec<(RowKey, Record)>),
    Committing,
}

impl Apply {
    pub(super) fn new(upload: Upload, mark_begun: Option<Mark>) -> Self {
        let queue = upload.rows.iter().map(|row| Queued {
            row: row.clone(),
            is_last_attempt: false,
            record_read: None,
        });
        Self {
            queue: queue.collect(),
            made_with: upload.made_with.clone(),
            upload,
            mark_begun,
            transaction: None,
            applied_before: Knowledge::new(),
            refused: BTreeSet::new(),
            conflicts: Vec::new(),
            waits: 0,
            stage: Stage::Beginning,
            read_before_locking: BTreeMap::new(),
        }
    }

    /// One step.
    pub(super) fn advance(&mut self, world: &mut World, hub: &mut Hub) -> ApplyProgress {
        let Some(transaction) = self.transaction else { return self.begin(world, hub) };
        match &mut self.stage {
            Stage::Beginning | Stage::Rows => match self.queue.pop_front() {
                Some(queued) => self.row(world, hub, transaction, queued),
                None => {
                    self.stage = Stage::Harvesting(harvest(hub, transaction, self.upload.sender));
                    ApplyProgress::Running
                }
            },
            Stage::Harvesting(left) => {
                let Some((key, record)) = left.pop() else {
                    self.stage = Stage::Committing;
                    return ApplyProgress::Running;
                };
                if is_record_locked(hub, transaction, &key) {
                    left.push((key, record));
                    return self.wait(hub, LOCK_WAITS_MAX);
                }
                self.waits = 0;
                hub.transaction(transaction).records.insert(key, record);
                ApplyProgress::Running
            }
            Stage::Committing => self.commit(world, hub, transaction),
        }
    }

    /// Stops it, wherever it is.
    pub(super) fn kill(self, hub: &mut Hub) {
        if let Some(transaction) = self.transaction {
            hub.roll_back(transaction);
        }
    }

    fn begin(&mut self, world: &mut World, hub: &mut Hub) -> ApplyProgress {
        let Ok(transaction) = hub.begin(Writer::Engine) else { return self.wait(hub, LOCK_WAITS_MAX) };
        self.transaction = Some(transaction);
        hub.tick(transaction);
        if world.rules.trunc_made && hub.state.is_truncated_since(&self.made_with) {
            self.made_with = Knowledge::new();
        }
        if let Some(clock) = hub.state.leaf_clocks.get(&self.upload.sender) {
            self.applied_before = clock.clone();
        }
        if !world.rules.lock_first {
            let rows = self.upload.rows.iter();
            let held = rows.map(|row| (row.key.clone(), held(world, hub, transaction, &row.key, None)));
            self.read_before_locking = held.collect();
        }
        self.stage = Stage::Rows;
        self.waits = 0;
        ApplyProgress::Running
    }

    fn commit(&mut self, world: &mut World, hub: &mut Hub, transaction: TransactionId) -> ApplyProgress {
        let held = hub.state.upload_marks.get(&self.upload.sender).copied();
        // As if it held the leaf since it began: then no other upload of the leaf would have come between.
        if world.rules.chain_apply && held != self.mark_begun && held != Some(self.upload.mark) {
            self.transaction = None;
            hub.roll_back(transaction);
            return ApplyProgress::Diverged;
        }
        let receipt =
            Receipt { sender: self.upload.sender, clock: self.clock_afterwards(), mark: self.upload.mark };
        hub.transaction(transaction).receipt = Some(receipt);
        hub.commit(world, transaction);
        world.tell(|| format!("{} has applied {}", hub.told(), replica_name(self.upload.sender)));
        self.transaction = None;
        ApplyProgress::Committed {
            refused: std::mem::take(&mut self.refused),
            conflicts: std::mem::take(&mut self.conflicts),
        }
    }

    /// What the hub has of the leaf from now on: all of its snapshot, but a refused key keeps the clock that it had.
    fn clock_afterwards(&self) -> Knowledge {
        let sender = self.upload.sender;
        let before = self.applied_before.clock(sender).map(Clock::tick);
        let last = self.upload.rows.iter().map(|row| row.tick).chain(before).max();
        let mut clock = self.applied_before.clone();
        clock.set_clock(sender, Clock::up_to(last.unwrap_or_default()));
        for row in &self.upload.rows {
            if self.refused.contains(&row.key) {
                clock.except(row.key.clone(), self.applied_before.clocks_for(&row.key).clone());
            } else {
                clock.unexcept(&row.key);
            }
        }
        clock
    }

    fn wait(&mut self, hub: &mut Hub, waits_max: u32) -> ApplyProgress {
        self.waits += 1;
        if self.waits <= waits_max {
            return ApplyProgress::Waiting;
        }
        if let Some(transaction) = self.transaction.take() {
            hub.roll_back(transaction);
        }
        ApplyProgress::GaveUp
    }
}
