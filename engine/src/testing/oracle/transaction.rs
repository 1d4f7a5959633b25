//! A transaction of a hub, and what it has written so far.

use std::collections::{BTreeMap, BTreeSet};

use syncline::ids::{Mark, ReplicaId, Tick};
use syncline::knowledge::{Knowledge, RowKey};

use super::row::{Content, RowState};
use super::tracking::{LogEntry, Record, Sequence, Truncation};

/// Names an open transaction of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionId(pub(super) u64);

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// An application. The engine does not know of it.
    User,
    /// The engine, on behalf of a leaf or of itself.
    Engine,
    /// The engine, folding the log.
    Folder,
}

/// What the engine meant to write, to be compared with what triggers made of it.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) content: Option<Content>,
    /// Whose row it is; `None` if it is the hub's own.
    pub(super) sender: Option<ReplicaId>,
}

/// What is remembered of an upload together with its rows.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    pub(super) sender: ReplicaId,
    /// The leaf's clock from now on, failed keys excepted.
    pub(super) clock: Knowledge,
    pub(super) mark: Mark,
}

/// An open transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) writer: Writer,
    /// Its tick, once it has one.
    pub(super) tick: Option<Tick>,
    pub(super) writes: BTreeMap<RowKey, RowState>,
    /// What the tracking triggers appended.
    pub(super) entries: BTreeMap<Sequence, LogEntry>,
    pub(super) truncation: Option<Truncation>,
    /// Rows that are locked, though perhaps not written.
    pub(super) locks: BTreeSet<RowKey>,
    /// Per row, what the engine meant to write.
    pub(super) intents: BTreeMap<RowKey, Intent>,
    /// Records that the engine writes where no trigger fired.
    pub(super) direct: BTreeMap<RowKey, Record>,
    /// Records that it has written, by harvest or fold; each is a lock on that record.
    pub(super) records: BTreeMap<RowKey, Record>,
    /// Entries that it has folded.
    pub(super) folded: BTreeSet<Sequence>,
    pub(super) receipt: Option<Receipt>,
    /// Ghost: uploaded states that say the same as the hub's.
    pub(super) same: Vec<(RowKey, RowState)>,
}

impl Transaction {
    pub(super) const fn new(writer: Writer) -> Self {
        Self {
            writer,
            tick: None,
            writes: BTreeMap::new(),
            entries: BTreeMap::new(),
            truncation: None,
            locks: BTreeSet::new(),
            intents: BTreeMap::new(),
            direct: BTreeMap::new(),
            records: BTreeMap::new(),
            folded: BTreeSet::new(),
            receipt: None,
            same: Vec::new(),
        }
    }

    /// Whether others must wait for this transaction before they write the row.
    pub(super) fn locks(&self, key: &RowKey) -> bool {
        self.writes.contains_key(key) || self.locks.contains(key) || self.truncation.is_some()
    }

    /// Whether it keeps others from truncating the table.
    pub(super) fn uses_table(&self) -> bool {
        let wrote = !self.writes.is_empty() || !self.locks.is_empty() || self.truncation.is_some();
        wrote && self.writer != Writer::Folder
    }
}
