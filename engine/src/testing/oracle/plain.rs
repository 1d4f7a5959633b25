//! Driving the oracle one call after the other, as a real database and its sessions are driven.
//!
//! A list of [`Operation`]s can be played here and on real databases, and the rows that come of it compared
//! ([`crate::testing::histories::sequential`] makes such lists).

use syncline::ids::ReplicaId;
use syncline::knowledge::{Knowledge, RowKey};

use super::hub::Refused;
use super::policy::Conflict;
use super::row::{Rows, live_rows};
use super::session::{Report, SessionOptions};
use super::transaction::{TransactionId, Writer};
use super::{Oracle, Progress};

/// Steps of a session that waits for what nobody will give it, until its lock times out.
const WAITS_MAX: u32 = 64;

/// Something that users and their replicas do, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A transaction begins at the hub. Transactions are numbered from 0, in the order in which they begin.
    HubBegin,
    /// An open transaction of the hub inserts the row, or updates it if it is there.
    HubWrite(usize, RowKey, String),
    /// An open transaction of the hub deletes the row, if it is there.
    HubDelete(usize, RowKey),
    /// An open transaction of the hub truncates the table.
    HubTruncate(usize),
    /// A transaction of the hub commits.
    HubCommit(usize),
    /// A transaction of the hub rolls back.
    HubRollback(usize),
    /// A leaf inserts the row, or updates it if it is there.
    LeafWrite(usize, RowKey, String),
    /// A leaf deletes the row, if it is there.
    LeafDelete(usize, RowKey),
    /// A leaf synchronises with the hub.
    Session(usize),
}

impl Oracle {
    /// Puts a row into the hub's table that was there before the table came under synchronisation: nothing tracks it.
    pub fn hub_fill(&mut self, key: &RowKey, value: &str) {
        let state = self.world.write(None, Some(super::Content::of(value)));
        self.hub.state.committed.insert(state.write);
        self.world.ledger.at_hub.insert(state.write);
        self.hub.state.rows.insert(key.clone(), state);
    }

    /// Begins a user's transaction at the hub.
    ///
    /// # Errors
    /// [`Refused::Locked`], where there is one writer at a time.
    pub fn hub_begin(&mut self) -> Result<TransactionId, Refused> {
        self.hub.begin(Writer::User)
    }

    /// Inserts or updates a row in an open transaction of the hub.
    ///
    /// # Errors
    /// [`Refused`]; the transaction stays open, and nothing was written.
    ///
    /// # Panics
    /// If the transaction has ended.
    pub fn hub_write(&mut self, open: TransactionId, key: &RowKey, value: &str) -> Result<(), Refused> {
        self.hub.user_write(&mut self.world, open, key, value)
    }

    /// Deletes a row in an open transaction of the hub.
    ///
    /// # Errors
    /// [`Refused`]; the transaction stays open, and nothing was written.
    ///
    /// # Panics
    /// If the transaction has ended.
    pub fn hub_delete(&mut self, open: TransactionId, key: &RowKey) -> Result<(), Refused> {
        self.hub.user_delete(&mut self.world, open, key)
    }

    /// Truncates the table in an open transaction of the hub.
    ///
    /// # Errors
    /// [`Refused::Locked`], if another transaction uses the table.
    ///
    /// # Panics
    /// If the transaction has ended.
    pub fn hub_truncate(&mut self, open: TransactionId) -> Result<(), Refused> {
        self.hub.truncate(&mut self.world, open)
    }

    /// Commits a transaction of the hub.
    ///
    /// # Panics
    /// If the transaction has ended.
    pub fn hub_commit(&mut self, open: TransactionId) {
        self.hub.commit(&mut self.world, open);
    }

    /// Rolls a transaction of the hub back.
    ///
    /// # Panics
    /// If the transaction has ended.
    pub fn hub_rollback(&mut self, open: TransactionId) {
        self.hub.roll_back(open);
    }

    /// Inserts or updates a row at a leaf.
    ///
    /// # Errors
    /// [`Refused::Taken`], if the value must be unique and is not.
    pub fn leaf_write(&mut self, leaf: usize, key: &RowKey, value: &str) -> Result<(), Refused> {
        let content = super::Content::of(value);
        if self.is_unique && self.leaves[leaf].is_taken(key, Some(&content)) {
            return Err(Refused::Taken);
        }
        self.leaves[leaf].write(&mut self.world, key, value);
        Ok(())
    }

    /// Deletes a row at a leaf.
    ///
    /// # Errors
    /// [`Refused::Absent`], if it is not there.
    pub fn leaf_delete(&mut self, leaf: usize, key: &RowKey) -> Result<(), Refused> {
        if self.leaves[leaf].delete(&mut self.world, key) { Ok(()) } else { Err(Refused::Absent) }
    }

    /// Runs a whole session. One that waits for a transaction that stays open ends with a lock timeout.
    pub fn run_session(&mut self, leaf: usize) -> Report {
        let mut session = self.begin_session(leaf, SessionOptions::WHOLE);
        let mut waits = 0;
        while waits < WAITS_MAX {
            match self.advance_session(&mut session) {
                Progress::Done => return session.report,
                Progress::Waiting => waits += 1,
                Progress::Running => {}
            }
        }
        self.kill_session(session)
    }

    /// Plays an operation. `open` holds the transactions that began so far. What a database would refuse is refused
    /// here, and changes nothing.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn play(
        &mut self,
        open: &mut Vec<TransactionId>,
        operation: &Operation,
    ) -> Result<Option<Report>, Refused> {
        match operation {
            Operation::HubBegin => open.push(self.hub_begin()?),
            Operation::HubWrite(number, key, value) => self.hub_write(open[*number], key, value)?,
            Operation::HubDelete(number, key) => self.hub_delete(open[*number], key)?,
            Operation::HubTruncate(number) => self.hub_truncate(open[*number])?,
            Operation::HubCommit(number) => self.hub_commit(open[*number]),
            Operation::HubRollback(number) => self.hub_rollback(open[*number]),
            Operation::LeafWrite(leaf, key, value) => self.leaf_write(*leaf, key, value)?,
            Operation::LeafDelete(leaf, key) => self.leaf_delete(*leaf, key)?,
            Operation::Session(leaf) => return Ok(Some(self.run_session(*leaf))),
        }
        Ok(None)
    }

    /// The hub's committed rows.
    #[must_use]
    pub fn hub_rows(&self) -> Rows {
        live_rows(&self.hub.state.rows)
    }

    /// A leaf's rows.
    #[must_use]
    pub fn leaf_rows(&self, leaf: usize) -> Rows {
        live_rows(&self.leaves[leaf].rows)
    }

    /// How many leaves there are.
    #[must_use]
    pub const fn leaves(&self) -> usize {
        self.leaves.len()
    }

    /// What a leaf knows.
    #[must_use]
    pub fn leaf_knowledge(&self, leaf: usize) -> &Knowledge {
        &self.leaves[leaf].knowledge
    }

    /// What the hub knows.
    #[must_use]
    pub fn hub_knowledge(&self) -> Knowledge {
        self.hub.knowledge(&self.world)
    }

    /// The hub's present replica id.
    #[must_use]
    pub const fn hub_id(&self) -> ReplicaId {
        self.hub.state.id
    }

    /// A leaf's present replica id.
    #[must_use]
    pub fn leaf_id(&self, leaf: usize) -> ReplicaId {
        self.leaves[leaf].id
    }

    /// The leaf's conflict log.
    #[must_use]
    pub fn leaf_conflicts(&self, leaf: usize) -> &[Conflict] {
        &self.leaves[leaf].conflicts
    }

    /// How many changes of a leaf wait to be uploaded.
    #[must_use]
    pub fn leaf_pending(&self, leaf: usize) -> usize {
        self.leaves[leaf].pending()
    }
}
