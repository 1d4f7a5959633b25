//! Lists of plain operations, one after the other: what a real database can be asked to do as well.

use syncline::knowledge::RowKey;

use crate::testing::oracle::plain::Operation;
use crate::testing::oracle::{HubKind, row_key};
use crate::testing::random::Random;

/// Rows that hub and leaves write.
const SHARED_ROWS: [&str; 3] = ["x", "y", "z"];
/// Rows that only the hub writes: transactions that wrote no others may stay open while leaves synchronise.
const HUB_ROWS: [&str; 2] = ["u", "v"];
/// Transactions that are open at once, where there may be several.
const OPEN_MAX: usize = 3;

/// A list of operations of which none has to wait for another, with all transactions ended and every leaf synchronised
/// twice at the end: so all replicas must hold the same rows then, and those that the oracle holds.
#[must_use]
pub fn operations(hub_kind: HubKind, leaves: usize, length: usize, seed: u64) -> Vec<Operation> {
    let mut list = List::new(hub_kind, seed);
    for _ in 0..length {
        list.extend(leaves);
    }
    list.close(leaves)
}

/// A step of a history, as a generator of one's own may draw it: rows and transactions are named by any number, and
/// settled against what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A transaction begins at the hub, if another may be open.
    Begin,
    /// An open transaction of the hub writes or deletes a row; one begins if there is none.
    Write {
        /// Whether it is a row that leaves write too.
        shared: bool,
        /// Which row.
        row: u8,
        /// Which of the open transactions.
        place: u8,
        /// Whether it deletes.
        deletes: bool,
    },
    /// An open transaction ends.
    End {
        /// Which of them.
        place: u8,
        /// Whether it commits.
        commits: bool,
    },
    /// A leaf writes a row.
    LeafWrite {
        /// The leaf.
        leaf: usize,
        /// Which row.
        row: u8,
    },
    /// A leaf deletes a row.
    LeafDelete {
        /// The leaf.
        leaf: usize,
        /// Which row.
        row: u8,
    },
    /// A leaf synchronises.
    Session {
        /// The leaf.
        leaf: usize,
    },
}

/// The operations of these steps, with the same promises as [`operations`]: any list of steps is a history.
#[must_use]
pub fn operations_of(hub_kind: HubKind, leaves: usize, steps: &[Step]) -> Vec<Operation> {
    let mut list = List::new(hub_kind, 0);
    for step in steps {
        list.take(*step);
    }
    list.close(leaves)
}

struct List {
    random: Random,
    shared_rows: Vec<RowKey>,
    hub_rows: Vec<RowKey>,
    hub_kind: HubKind,
    open_max: usize,
    /// Transactions that have begun so far.
    begun: usize,
    /// Those that are open, with the rows that each has written.
    open: Vec<(usize, Vec<RowKey>)>,
    operations: Vec<Operation>,
}

impl List {
    fn new(hub_kind: HubKind, seed: u64) -> Self {
        Self {
            random: Random::from_seed(seed),
            shared_rows: SHARED_ROWS.iter().map(|name| row_key(name)).collect(),
            hub_rows: HUB_ROWS.iter().map(|name| row_key(name)).collect(),
            hub_kind,
            open_max: if hub_kind == HubKind::Folds { 1 } else { OPEN_MAX },
            begun: 0,
            open: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// Ends what is open, and synchronises every leaf twice.
    fn close(mut self, leaves: usize) -> Vec<Operation> {
        self.end_all();
        for _ in 0..2 {
            self.operations.extend((0..leaves).map(Operation::Session));
        }
        self.operations
    }

    fn take(&mut self, step: Step) {
        let pick = |rows: &[RowKey], row: u8| rows[usize::from(row) % rows.len()].clone();
        match step {
            Step::Begin if self.open.len() < self.open_max => self.begin(),
            Step::Begin => {}
            Step::Write { shared, row, place, deletes } => {
                let key = pick(if shared { &self.shared_rows } else { &self.hub_rows }, row);
                if self.open.is_empty() {
                    self.begin();
                }
                self.write(usize::from(place) % self.open.len(), key, deletes);
            }
            Step::End { .. } if self.open.is_empty() => {}
            Step::End { place, commits } => self.end_with(usize::from(place) % self.open.len(), commits),
            Step::LeafWrite { leaf, row } => {
                let (key, value) = (pick(&self.shared_rows, row), self.value());
                self.operations.push(Operation::LeafWrite(leaf, key, value));
            }
            Step::LeafDelete { leaf, row } => {
                self.operations.push(Operation::LeafDelete(leaf, pick(&self.shared_rows, row)));
            }
            Step::Session { leaf } => {
                self.end_those_in_the_way();
                self.operations.push(Operation::Session(leaf));
            }
        }
    }

    fn extend(&mut self, leaves: usize) {
        let leaf = self.random.below(leaves);
        let key = self.random.pick(&self.shared_rows).clone();
        match self.random.below(100) {
            0..20 => self.step_transaction(key),
            20..40 => {
                let key = self.random.pick(&self.hub_rows).clone();
                self.step_transaction(key);
            }
            40..60 => self.operations.push(Operation::LeafWrite(leaf, key, self.value())),
            60..70 => self.operations.push(Operation::LeafDelete(leaf, key)),
            _ => {
                self.end_those_in_the_way();
                self.operations.push(Operation::Session(leaf));
            }
        }
    }

    fn value(&self) -> String {
        format!("v{}", self.operations.len())
    }

    fn step_transaction(&mut self, key: RowKey) {
        let begins = self.open.is_empty() || (self.open.len() < self.open_max && self.random.chance(40));
        if begins {
            self.begin();
        }
        let place = self.random.below(self.open.len());
        if self.random.chance(30) {
            return self.end(place);
        }
        if self.is_free(place, &key) {
            let deletes = self.random.chance(25);
            self.write(place, key, deletes);
        }
    }

    /// Whether no other open transaction has written the row.
    fn is_free(&self, place: usize, key: &RowKey) -> bool {
        let mut others = self.open.iter().enumerate().filter(|(number, _)| *number != place);
        others.all(|(_, (_, written))| !written.contains(key))
    }

    fn write(&mut self, place: usize, key: RowKey, deletes: bool) {
        if !self.is_free(place, &key) {
            return;
        }
        let transaction = self.open[place].0;
        let value = self.value();
        self.open[place].1.push(key.clone());
        self.operations.push(if deletes {
            Operation::HubDelete(transaction, key)
        } else {
            Operation::HubWrite(transaction, key, value)
        });
    }

    fn begin(&mut self) {
        self.operations.push(Operation::HubBegin);
        self.open.push((self.begun, Vec::new()));
        self.begun += 1;
    }

    fn end(&mut self, place: usize) {
        let commits = self.random.chance(80);
        self.end_with(place, commits);
    }

    fn end_with(&mut self, place: usize, commits: bool) {
        let (transaction, _) = self.open.remove(place);
        self.operations.push(if commits {
            Operation::HubCommit(transaction)
        } else {
            Operation::HubRollback(transaction)
        });
    }

    /// An upload would wait for whoever has written one of its rows; a lone writer keeps everybody else out.
    fn end_those_in_the_way(&mut self) {
        for place in (0..self.open.len()).rev() {
            let is_apart = self.open[place].1.iter().all(|key| self.hub_rows.contains(key));
            if self.hub_kind == HubKind::Folds || !is_apart {
                self.end(place);
            }
        }
    }

    fn end_all(&mut self) {
        while !self.open.is_empty() {
            self.end(0);
        }
    }
}
