//! Folding a hub's log in the background, step by step, while others read and write.

use std::collections::BTreeMap;

use syncline::knowledge::RowKey;

use super::hub::{Hub, Refused};
use super::tracking::{LogEntry, Record, Sequence};
use super::transaction::{TransactionId, Writer};
use super::world::World;

/// How often a step waits for a lock before the engine gives way.
pub(super) const LOCK_WAITS_MAX: u32 = 8;

/// How far something got that goes on step by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Running,
    /// It waits for a lock that another transaction holds.
    Waiting,
    /// It has ended.
    Done,
}

/// A fold: one transaction whose single statement sees one snapshot, but upserts what is there when it comes to it.
#[derive(Debug)]
pub struct Fold {
    transaction: TransactionId,
    /// The entries that the statement's snapshot holds.
    snapshot: BTreeMap<Sequence, LogEntry>,
    stage: Stage,
    waits: u32,
}

#[derive(Debug)]
enum Stage {
    Deleting,
    Upserting { left: Vec<(RowKey, Record)> },
    Committing,
}

impl Fold {
    /// Begins, if no other folder is at work.
    pub(super) fn begin(hub: &mut Hub) -> Result<Self, Refused> {
        if hub.open.values().any(|open| open.writer == Writer::Folder) {
            return Err(Refused::Locked);
        }
        let transaction = hub.begin(Writer::Folder)?;
        hub.tick(transaction);
        Ok(Self { transaction, snapshot: hub.state.log.clone(), stage: Stage::Deleting, waits: 0 })
    }

    /// One step.
    pub(super) fn advance(&mut self, world: &mut World, hub: &mut Hub) -> Progress {
        match &mut self.stage {
            Stage::Deleting => {
                let left = self.delete(hub);
                self.stage = Stage::Upserting { left };
                Progress::Running
            }
            Stage::Upserting { left } => {
                let Some((key, record)) = left.pop() else {
                    self.stage = Stage::Committing;
                    return Progress::Running;
                };
                if is_record_locked(hub, self.transaction, &key) {
                    left.push((key, record));
                    return self.wait(hub);
                }
                self.upsert(world, hub, key, record);
                Progress::Running
            }
            Stage::Committing => {
                world.tell(|| format!("{} folds {} entries", hub.told(), self.snapshot.len()));
                hub.commit(world, self.transaction);
                Progress::Done
            }
        }
    }

    /// Stops it, wherever it is.
    pub(super) fn kill(self, hub: &mut Hub) {
        if hub.open.contains_key(&self.transaction) {
            hub.roll_back(self.transaction);
        }
    }

    /// Takes the entries out of the log: those of the snapshot that are still there.
    fn delete(&self, hub: &mut Hub) -> Vec<(RowKey, Record)> {
        let still_there = self.snapshot.iter().filter(|(sequence, _)| hub.state.log.contains_key(sequence));
        let folded = hub.state.folded(still_there.clone());
        let sequences = still_there.map(|(sequence, _)| *sequence).collect();
        hub.transaction(self.transaction).folded = sequences;
        folded.into_iter().rev().collect()
    }

    /// Writes the record, unless a later one is there by now.
    fn upsert(&mut self, world: &World, hub: &mut Hub, key: RowKey, record: Record) {
        self.waits = 0;
        let stored = hub.state.records.get(&key);
        let is_late = stored.is_some_and(|stored| stored.sequence > record.sequence);
        if !(is_late && world.rules.rec_seq) {
            hub.transaction(self.transaction).records.insert(key, record);
        }
    }

    fn wait(&mut self, hub: &mut Hub) -> Progress {
        self.waits += 1;
        if self.waits <= LOCK_WAITS_MAX {
            return Progress::Waiting;
        }
        hub.roll_back(self.transaction);
        Progress::Done
    }
}

/// Whether another transaction has written the row's record.
pub(super) fn is_record_locked(hub: &Hub, transaction: TransactionId, key: &RowKey) -> bool {
    hub.open.iter().any(|(id, other)| *id != transaction && other.records.contains_key(key))
}
