//! Applying an upload at the hub: one transaction, row by row, at any interleaving with others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syncline::ids::{Mark, ReplicaId};
use syncline::knowledge::{Clock, Knowledge, RowKey, Version};

use super::fold::{LOCK_WAITS_MAX, is_record_locked};
use super::hub::Hub;
use super::judge::{Held, Judgement, UploadedRow, judge};
use super::policy::{Conflict, Place};
use super::row::{RowState, replica_name, row_name};
use super::tracking::{HubKind, Record};
use super::transaction::{Receipt, TransactionId, Writer};
use super::world::{Fault, World};

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
}

/// An apply that goes on.
#[derive(Debug)]
pub(super) struct Apply {
    upload: Upload,
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
    pub(super) fn new(upload: Upload) -> Self {
        let queue = upload.rows.iter().map(|row| Queued {
            row: row.clone(),
            is_last_attempt: false,
            record_read: None,
        });
        Self {
            queue: queue.collect(),
            made_with: upload.made_with.clone(),
            upload,
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

    /// Applies one row.
    fn row(
        &mut self,
        world: &mut World,
        hub: &mut Hub,
        transaction: TransactionId,
        mut queued: Queued,
    ) -> ApplyProgress {
        let key = queued.row.key.clone();
        if hub.is_locked(transaction, &key) {
            self.queue.push_front(queued);
            return self.wait(hub, LOCK_WAITS_MAX);
        }
        self.waits = 0;
        hub.transaction(transaction).locks.insert(key.clone());
        let version = Version { replica: self.upload.sender, tick: queued.row.tick };
        if self.applied_before.contains(&key, version) {
            return ApplyProgress::Running;
        }
        let reads_apart = !world.rules.one_stmt && hub.state.kind == HubKind::Transactions;
        if reads_apart && queued.record_read.is_none() {
            queued.record_read = Some(hub.state.records.get(&key).copied());
            self.queue.push_front(queued);
            return ApplyProgress::Running;
        }
        if hub.is_taken(transaction, &key, queued.row.state.content.as_ref()) {
            self.refuse_or_retry(world, queued);
            return ApplyProgress::Running;
        }
        let judged_by = match self.read_before_locking.remove(&key) {
            Some(early) => early,
            None => held(world, hub, transaction, &key, queued.record_read),
        };
        match judge(self.upload.sender, &queued.row, &judged_by, &self.made_with, &world.rules) {
            Judgement::Apply => self.write(world, hub, transaction, &queued.row, &judged_by),
            Judgement::Same => hub.transaction(transaction).same.push((key, queued.row.state)),
            Judgement::Conflict => self.resolve(world, hub, transaction, &queued.row, &judged_by),
        }
        ApplyProgress::Running
    }

    /// A value that is taken may be free once the others are written; if it is not, the row is refused.
    fn refuse_or_retry(&mut self, world: &mut World, mut queued: Queued) {
        if queued.is_last_attempt {
            world.tell(|| format!("row error: {}", row_name(&queued.row.key)));
            self.refused.insert(queued.row.key);
        } else {
            queued.is_last_attempt = true;
            queued.record_read = None;
            self.queue.push_back(queued);
        }
    }

    fn write(
        &self,
        world: &mut World,
        hub: &mut Hub,
        transaction: TransactionId,
        row: &UploadedRow,
        judged_by: &Held,
    ) {
        let sender = self.upload.sender;
        if let Some(present) = hub.row(transaction, &row.key).cloned() {
            let record = held(world, hub, transaction, &row.key, None).record;
            let is_senders = record.is_some_and(|record| record.via == Some(sender));
            // Of a row that a forgotten delete removed, a new life may begin.
            let is_reborn = judged_by.version.is_none()
                && !present.is_live()
                && row.is_born
                && !present.includes(row.state.life);
            if is_senders {
                world.ledger.recorded.insert(present.write);
            }
            if is_reborn {
                world.ledger.record(&present);
            }
            if !row.state.includes(present.write) && !world.ledger.recorded.contains(&present.write) {
                let (name, leaf) = (row_name(&row.key), replica_name(sender));
                let what =
                    format!("{name}: write {} replaced by {leaf}'s {}", present.write.0, row.state.write.0);
                world.ledger.violation(Fault::LostUpdate, what);
            }
        }
        hub.put(world, transaction, &row.key, row.state.clone(), Some(sender));
    }

    fn resolve(
        &mut self,
        world: &mut World,
        hub: &mut Hub,
        transaction: TransactionId,
        row: &UploadedRow,
        held: &Held,
    ) {
        let mine = held.state.clone().unwrap_or_else(|| world.write(None, None));
        let leaf_won = hub.policy.prefers_leaf(&mine, &row.state);
        self.record(world, row, (&mine, held.version), leaf_won);
        if leaf_won {
            let winner = row.state.clone().having_seen(&mine);
            hub.put(world, transaction, &row.key, winner, Some(self.upload.sender));
        } else if held.version.is_none() {
            // A tombstone, so that the sender hears of it.
            let tombstone = world.write(Some(&mine), None);
            hub.put(world, transaction, &row.key, tombstone, None);
        }
    }

    fn record(
        &mut self,
        world: &mut World,
        row: &UploadedRow,
        (mine, version): (&RowState, Option<Version>),
        leaf_won: bool,
    ) {
        let sender = self.upload.sender;
        let place = (Place::Hub, sender);
        self.conflicts.push(Conflict::new(&row.key, place, (mine, &row.state), leaf_won, &self.made_with));
        world.tell(|| {
            let (name, leaf) = (row_name(&row.key), replica_name(sender));
            let writes = (mine.write.0, row.state.write.0);
            format!("conflict at hub: {name}, hub {} and {leaf} {}, leaf won: {leaf_won}", writes.0, writes.1)
        });
        if self.is_needless(world, row, (mine, version)) {
            let what = format!("{}: {} and {}", row_name(&row.key), mine.write.0, row.state.write.0);
            world.ledger.violation(Fault::NeedlessConflict, what);
        }
        world.ledger.record(mine);
        world.ledger.record(&row.state);
    }

    /// Ghost: whether one of the two had seen the other (or what a trigger of the hub made of it).
    fn is_needless(
        &self,
        world: &World,
        row: &UploadedRow,
        (mine, version): (&RowState, Option<Version>),
    ) -> bool {
        let completed = world.ledger.completes.get(&mine.write).copied();
        let has_completed_it = completed.is_some_and(|completed| row.state.includes(completed));
        // Who does not know of a TRUNCATE is judged as if it had seen nothing.
        let is_made_with_kept = version.is_none() || self.made_with == self.upload.made_with;
        let has_seen_it = row.state.includes(mine.write) && is_made_with_kept;
        let is_needless = has_completed_it || has_seen_it || mine.includes(row.state.write);
        is_needless && !self.upload.is_confused
    }

    fn commit(&mut self, world: &mut World, hub: &mut Hub, transaction: TransactionId) -> ApplyProgress {
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

/// What the hub holds of a row, as the transaction sees it. `record_read` is a record that was read before the log.
fn held(
    world: &World,
    hub: &Hub,
    transaction: TransactionId,
    key: &RowKey,
    record_read: Option<Option<Record>>,
) -> Held {
    let state = hub.row(transaction, key).cloned();
    let record = hub.record_seen_by(transaction, key, record_read, &world.rules);
    let version = match record {
        Some(record) => Some(record.version),
        None => hub.state.baseline_of(state.as_ref()),
    };
    Held { state, record, version }
}

impl Hub {
    /// The row's record as the transaction sees it: what it wrote itself comes first.
    fn record_seen_by(
        &self,
        transaction: TransactionId,
        key: &RowKey,
        record_read: Option<Option<Record>>,
        rules: &super::rules::Rules,
    ) -> Option<Record> {
        let own = self.open.get(&transaction)?;
        if let Some(direct) = own.direct.get(key) {
            return Some(*direct);
        }
        let newest = own.entries.iter().rev().find(|(_, entry)| entry.key == *key);
        if let Some((sequence, entry)) = newest {
            let version = self.state.own(entry.tick);
            return Some(Record { version, via: None, origin: None, sequence: *sequence });
        }
        let stored = record_read.unwrap_or_else(|| self.state.records.get(key).copied());
        self.state.record_over(key, stored, rules)
    }
}

/// Before the engine's own transaction commits, its entries become records, which say whose rows they are.
fn harvest(hub: &mut Hub, transaction: TransactionId, sender: ReplicaId) -> Vec<(RowKey, Record)> {
    let tick = hub.tick(transaction);
    let version = hub.state.own(tick);
    let open = hub.transaction(transaction);
    let mut records = BTreeMap::new();
    // In the order of the sequence: the last entry of a row stays.
    for (sequence, entry) in std::mem::take(&mut open.entries) {
        let intent = open.intents.get(&entry.key).filter(|intent| intent.sender == Some(sender));
        let written = open.writes.get(&entry.key).and_then(|state| state.content.as_ref());
        let via = intent.map(|_| sender);
        let origin = intent.filter(|intent| intent.content.as_ref() == written).map(|_| sender);
        records.insert(entry.key, Record { version, via, origin, sequence });
    }
    records.extend(std::mem::take(&mut open.direct));
    // Popped from the end: in the order of the keys.
    records.into_iter().rev().collect()
}
