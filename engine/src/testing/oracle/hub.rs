//! A hub's database: transactions, rows, the users' triggers, and the triggers that track them.

use std::collections::{BTreeMap, BTreeSet};

use syncline::ids::{ReplicaId, Tick};
use syncline::knowledge::{Clock, Knowledge, RowKey};

use super::policy::Policy;
use super::row::{Content, RowState, is_live, replica_name};
use super::session::Spool;
use super::tracking::{HubKind, HubState, LogEntry, Record, Sequence, Truncation};
use super::transaction::{Intent, Transaction, TransactionId, Writer};
use super::triggers::UserTriggers;
use super::world::{World, told};

/// A write had to wait for another transaction, or broke a constraint: nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another open transaction holds the row, the table, or the database.
    #[error("another transaction is in the way")]
    Locked,
    /// Another row has the value.
    #[error("the value is taken")]
    Taken,
    /// There is no such row.
    #[error("the row is not there")]
    Absent,
}

/// A hub: its database, and the engine's memory beside it.
#[derive(Debug)]
pub(super) struct Hub {
    /// What leaves call it, whatever its replica id.
    pub(super) name: String,
    pub(super) state: HubState,
    pub(super) open: BTreeMap<TransactionId, Transaction>,
    transactions: u64,
    pub(super) triggers: UserTriggers,
    pub(super) policy: Policy,
    /// Whether the column `value` is unique.
    pub(super) is_unique: bool,
    /// What was enumerated for each leaf; gone after a restart.
    pub(super) spools: BTreeMap<ReplicaId, Spool>,
}

impl Hub {
    pub(super) fn new(name: &str, id: ReplicaId, kind: HubKind, policy: Policy) -> Self {
        Self {
            name: name.to_owned(),
            state: HubState::new(id, kind),
            open: BTreeMap::new(),
            transactions: 0,
            triggers: UserTriggers::default(),
            policy,
            is_unique: false,
            spools: BTreeMap::new(),
        }
    }

    /// Opens a transaction. Where there is one writer at a time, an open one refuses others.
    pub(super) fn begin(&mut self, writer: Writer) -> Result<TransactionId, Refused> {
        if self.state.kind == HubKind::Folds && !self.open.is_empty() {
            return Err(Refused::Locked);
        }
        self.transactions += 1;
        let transaction = TransactionId(self.transactions);
        self.open.insert(transaction, Transaction::new(writer));
        Ok(transaction)
    }

    /// An open transaction. It is a fault of the oracle's caller to name one that has ended.
    pub(super) fn transaction(&mut self, transaction: TransactionId) -> &mut Transaction {
        self.open.get_mut(&transaction).expect("a transaction is used only while it is open")
    }

    /// The transaction's tick, drawn when it is first asked for.
    pub(super) fn tick(&mut self, transaction: TransactionId) -> Tick {
        if self.state.kind == HubKind::Folds {
            // What is in the log is folded first, and takes a tick of its own.
            let before = if self.state.log.is_empty() { self.state.folds } else { self.state.folds.next() };
            self.transaction(transaction).tick = Some(before.next());
            return before.next();
        }
        let next = self.state.given.next();
        let tick = *self.transaction(transaction).tick.get_or_insert(next);
        self.state.given = self.state.given.max(tick);
        tick
    }

    pub(super) const fn next_sequence(&mut self) -> Sequence {
        self.state.sequence.0 += 1;
        self.state.sequence
    }

    /// Whether another transaction than this one has the row.
    pub(super) fn is_locked(&self, transaction: TransactionId, key: &RowKey) -> bool {
        self.open.iter().any(|(id, other)| *id != transaction && other.locks(key))
    }

    /// The row as the transaction sees it.
    pub(super) fn row(&self, transaction: TransactionId, key: &RowKey) -> Option<&RowState> {
        let own = self.open.get(&transaction).and_then(|own| own.writes.get(key));
        own.or_else(|| self.state.rows.get(key))
    }

    /// Whether a live row with another key has this content's value, also in an open transaction.
    pub(super) fn is_taken(
        &self,
        transaction: TransactionId,
        key: &RowKey,
        content: Option<&Content>,
    ) -> bool {
        let (true, Some(content)) = (self.is_unique, content) else { return false };
        let has_value = |state: &RowState| state.content.as_ref().is_some_and(|c| c.value == content.value);
        let written = self.open.values().flat_map(|open| open.writes.keys());
        let keys: BTreeSet<_> = self.state.rows.keys().chain(written).filter(|other| *other != key).collect();
        keys.into_iter().any(|other| {
            let elsewhere = self.open.iter().filter(|(id, _)| **id != transaction);
            self.row(transaction, other).is_some_and(has_value)
                || elsewhere.filter_map(|(_, open)| open.writes.get(other)).any(has_value)
        })
    }

    /// A user's insert or update.
    pub(super) fn user_write(
        &mut self,
        world: &mut World,
        transaction: TransactionId,
        key: &RowKey,
        value: &str,
    ) -> Result<(), Refused> {
        let content = Content::of(value);
        if self.is_locked(transaction, key) {
            return Err(Refused::Locked);
        }
        if self.is_taken(transaction, key, Some(&content)) {
            return Err(Refused::Taken);
        }
        let state = world.write(self.row(transaction, key), Some(content));
        self.put(world, transaction, key, state, None);
        Ok(())
    }

    /// A user's delete.
    pub(super) fn user_delete(
        &mut self,
        world: &mut World,
        transaction: TransactionId,
        key: &RowKey,
    ) -> Result<(), Refused> {
        if self.is_locked(transaction, key) {
            return Err(Refused::Locked);
        }
        if !is_live(self.row(transaction, key)) {
            return Err(Refused::Absent);
        }
        let state = world.write(self.row(transaction, key), None);
        self.put(world, transaction, key, state, None);
        Ok(())
    }

    /// A user's TRUNCATE: every row is gone, and one table-level entry says so.
    pub(super) fn truncate(&mut self, world: &mut World, transaction: TransactionId) -> Result<(), Refused> {
        if self.open.iter().any(|(id, other)| *id != transaction && other.uses_table()) {
            return Err(Refused::Locked);
        }
        let tick = self.tick(transaction);
        let mut keys: BTreeSet<RowKey> = self.state.rows.keys().cloned().collect();
        keys.extend(self.transaction(transaction).writes.keys().cloned());
        for key in keys {
            let before = self.row(transaction, &key).cloned();
            if is_live(before.as_ref()) {
                let gone = world.write(before.as_ref(), None);
                self.transaction(transaction).writes.insert(key, gone);
            }
        }
        let truncation = Truncation { version: self.state.own(tick), sequence: self.next_sequence() };
        self.transaction(transaction).truncation = Some(truncation);
        world.tell(|| format!("{} tx {tick} TRUNCATE", self.name));
        Ok(())
    }

    /// Writes a row, which must not be locked by others, and lets all triggers fire. `sender` is the leaf whose row
    /// the engine applies.
    pub(super) fn put(
        &mut self,
        world: &mut World,
        transaction: TransactionId,
        key: &RowKey,
        state: RowState,
        sender: Option<ReplicaId>,
    ) {
        let tick = self.tick(transaction);
        world.tell(|| format!("{} tx {tick} writes {}", self.name, told(key, &state)));
        if self.transaction(transaction).writer == Writer::Engine {
            let stays_absent = !state.is_live() && !is_live(self.row(transaction, key));
            if stays_absent || self.triggers.swallows.contains(key) {
                return self.put_record(transaction, key, state, sender, stays_absent);
            }
            let intent = Intent { content: state.content.clone(), sender };
            self.transaction(transaction).intents.insert(key.clone(), intent);
        }
        self.transaction(transaction).direct.remove(key);
        self.transaction(transaction).writes.insert(key.clone(), state);
        self.fire_user_triggers(world, transaction, key);
        self.append(transaction, key, tick);
    }

    /// No trigger fires where the base table does not change: the engine writes the record itself. The sender gets the
    /// row back, unless it is gone there too.
    pub(super) fn put_record(
        &mut self,
        transaction: TransactionId,
        key: &RowKey,
        state: RowState,
        sender: Option<ReplicaId>,
        stays_absent: bool,
    ) {
        let tick = self.tick(transaction);
        let version = self.state.own(tick);
        let origin = sender.filter(|_| stays_absent);
        let record = Record { version, via: sender, origin, sequence: self.next_sequence() };
        let open = self.transaction(transaction);
        open.direct.insert(key.clone(), record);
        if stays_absent {
            open.writes.insert(key.clone(), state);
        }
    }

    /// A row that a user's trigger writes: tracked like any other.
    pub(super) fn put_nested(&mut self, transaction: TransactionId, key: &RowKey, state: RowState) {
        let tick = self.tick(transaction);
        self.transaction(transaction).direct.remove(key);
        self.transaction(transaction).writes.insert(key.clone(), state);
        self.append(transaction, key, tick);
    }

    /// The tracking trigger.
    fn append(&mut self, transaction: TransactionId, key: &RowKey, tick: Tick) {
        let sequence = self.next_sequence();
        let entry = LogEntry { key: key.clone(), tick };
        self.transaction(transaction).entries.insert(sequence, entry);
    }

    /// Everything that the transaction wrote becomes visible at once.
    pub(super) fn commit(&mut self, world: &mut World, transaction: TransactionId) {
        let done = self.end(transaction);
        let by_engine = self.state.kind == HubKind::Folds && done.writer != Writer::User;
        if by_engine {
            self.state.fold_now(&world.rules);
            self.state.folds = self.state.folds.max(done.tick.unwrap_or_default());
        }
        world.tell(|| format!("{} tx {:?} commits", self.name, done.tick.map(|tick| tick.0)));
        self.state.committed.extend(done.writes.values().map(|state| state.write));
        world.ledger.at_hub.extend(done.writes.values().flat_map(RowState::lineage));
        self.state.rows.extend(done.writes);
        for (key, uploaded) in done.same {
            world.ledger.at_hub.extend(uploaded.lineage());
            if let Some(mine) = self.state.rows.get_mut(&key) {
                mine.seen.extend(uploaded.lineage());
            }
        }
        self.state.truncation = done.truncation.or(self.state.truncation);
        self.state.log.extend(done.entries);
        self.state.log.retain(|sequence, _| !done.folded.contains(sequence));
        self.state.records.extend(done.records);
        if let Some(receipt) = done.receipt {
            self.state.leaf_clocks.insert(receipt.sender, receipt.clock);
            self.state.upload_marks.insert(receipt.sender, receipt.mark);
        }
    }

    /// Nothing of it was ever there.
    pub(super) fn roll_back(&mut self, transaction: TransactionId) {
        self.end(transaction);
    }

    fn end(&mut self, transaction: TransactionId) -> Transaction {
        let ended = self.open.remove(&transaction).expect("a transaction ends once");
        self.state.ended = self.state.ended.max(ended.tick.unwrap_or_default());
        ended
    }

    /// The ticks that a snapshot taken now has seen.
    pub(super) fn clock(&self, world: &World) -> Clock {
        if self.state.kind == HubKind::Folds {
            return Clock::up_to(self.state.folds);
        }
        let in_progress = self.open.values().filter_map(|open| open.tick);
        let missing = in_progress.filter(|_| world.rules.snapshot_missing).collect();
        Clock::new(self.state.ended, &missing)
    }

    /// What this hub knows.
    pub(super) fn knowledge(&self, world: &World) -> Knowledge {
        let mut knowledge = self.state.peers.clone();
        knowledge.set_own_clock(self.state.id, self.clock(world));
        knowledge
    }

    /// The hub's name and present replica id, for the trace.
    pub(super) fn told(&self) -> String {
        format!("{} ({})", self.name, replica_name(self.state.id))
    }
}
