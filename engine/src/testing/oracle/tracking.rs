//! What a hub writes down beside its rows: the log that its triggers append to, and the records folded from it.

use std::collections::{BTreeMap, BTreeSet};

use syncline::ids::{Mark, ReplicaId, Tick};
use syncline::knowledge::{Knowledge, RowKey, Version};

use super::row::{RowState, WriteId, is_live};
use super::rules::Rules;

/// Where a hub's ticks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubKind {
    /// As in PostgreSQL: a tick is the id of the writing transaction, of which many are open at once.
    Transactions,
    /// As in SQLite: one writer at a time; a tick is the number of a fold.
    Folds,
}

/// Orders the entries of a row: drawn under the row's lock, and by this database alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sequence(pub(super) u64);

/// What a trigger appends: this row was changed.
#[derive(Debug, Clone)]
pub(super) struct LogEntry {
    pub(super) key: RowKey,
    /// The id of the writing transaction. Means nothing in a database whose ticks are folds.
    pub(super) tick: Tick,
}

/// Who wrote a row last, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) version: Version,
    /// The leaf whose uploaded row this is.
    pub(super) via: Option<ReplicaId>,
    /// The same, if the row is exactly what that leaf sent.
    pub(super) origin: Option<ReplicaId>,
    pub(super) sequence: Sequence,
}

/// The last TRUNCATE of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Truncation {
    pub(super) version: Version,
    pub(super) sequence: Sequence,
}

/// The download marks that a hub accepts from a leaf.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DownloadMarks {
    /// The one that the leaf presented when its last session began.
    pub(super) presented: Option<Mark>,
    /// The newest that was drawn since.
    pub(super) drawn: Option<Mark>,
}

/// All that a hub's database holds: what a snapshot sees, and what a backup keeps.
#[derive(Debug, Clone)]
pub(super) struct HubState {
    pub(super) id: ReplicaId,
    pub(super) kind: HubKind,
    /// Whose tick 0 rows without a record are.
    pub(super) baseline: ReplicaId,
    /// The live rows are the base table; states of rows that are gone are kept for the ghost alone.
    pub(super) rows: BTreeMap<RowKey, RowState>,
    pub(super) log: BTreeMap<Sequence, LogEntry>,
    pub(super) records: BTreeMap<RowKey, Record>,
    pub(super) truncation: Option<Truncation>,
    pub(super) sequence: Sequence,
    /// The last transaction id that was given, and the last that was seen to end.
    pub(super) given: Tick,
    pub(super) ended: Tick,
    /// The number of the last fold.
    pub(super) folds: Tick,
    /// What this hub knows of other peers, its own former ids among them.
    pub(super) peers: Knowledge,
    pub(super) leaf_clocks: BTreeMap<ReplicaId, Knowledge>,
    pub(super) upload_marks: BTreeMap<ReplicaId, Mark>,
    pub(super) download_marks: BTreeMap<ReplicaId, DownloadMarks>,
    /// Ghost: the users' writes that are committed here.
    pub(super) committed: BTreeSet<WriteId>,
}

impl HubState {
    pub(super) fn new(id: ReplicaId, kind: HubKind) -> Self {
        Self {
            id,
            kind,
            baseline: id,
            rows: BTreeMap::new(),
            log: BTreeMap::new(),
            records: BTreeMap::new(),
            truncation: None,
            sequence: Sequence(0),
            given: Tick(0),
            ended: Tick(0),
            folds: Tick(0),
            peers: Knowledge::new(),
            leaf_clocks: BTreeMap::new(),
            upload_marks: BTreeMap::new(),
            download_marks: BTreeMap::new(),
            committed: BTreeSet::new(),
        }
    }

    /// This hub's version of that tick.
    pub(super) const fn own(&self, tick: Tick) -> Version {
        Version { replica: self.id, tick }
    }

    /// The tick of an entry: its transaction's, or that of the fold that is to come.
    pub(super) fn entry_tick(&self, entry: &LogEntry) -> Tick {
        match self.kind {
            HubKind::Transactions => entry.tick,
            HubKind::Folds => self.folds.next(),
        }
    }

    /// All keys that anything is known of.
    pub(super) fn keys(&self) -> BTreeSet<RowKey> {
        let logged = self.log.values().map(|entry| &entry.key);
        self.rows.keys().chain(self.records.keys()).chain(logged).cloned().collect()
    }

    /// What a fold of everything would make of this row's record.
    pub(super) fn record_of(&self, key: &RowKey, rules: &Rules) -> Option<Record> {
        self.record_over(key, self.records.get(key).copied(), rules)
    }

    /// What a fold of everything would make of this record of the row.
    pub(super) fn record_over(&self, key: &RowKey, stored: Option<Record>, rules: &Rules) -> Option<Record> {
        let newest = self.log.iter().rev().find(|(_, entry)| entry.key == *key);
        let logged = newest.map(|(sequence, entry)| self.record_from(*sequence, entry));
        let record = match (stored, logged) {
            (Some(stored), Some(logged)) if rules.rec_seq && stored.sequence > logged.sequence => {
                Some(stored)
            }
            (stored, logged) => logged.or(stored),
        };
        record.filter(|record| !rules.trunc_drop || !self.is_truncated(record.sequence))
    }

    /// The record that an entry folds into.
    fn record_from(&self, sequence: Sequence, entry: &LogEntry) -> Record {
        Record { version: self.own(self.entry_tick(entry)), via: None, origin: None, sequence }
    }

    /// Whether something of this sequence number is from before the last TRUNCATE.
    fn is_truncated(&self, sequence: Sequence) -> bool {
        self.truncation.is_some_and(|truncation| sequence < truncation.sequence)
    }

    /// The version of a row or tombstone: that of its record, else the table's baseline.
    pub(super) fn version_of(&self, key: &RowKey, rules: &Rules) -> Option<Version> {
        match self.record_of(key, rules) {
            Some(record) => Some(record.version),
            None => self.baseline_of(self.rows.get(key)),
        }
    }

    /// The version of a row that no record speaks of.
    pub(super) fn baseline_of(&self, state: Option<&RowState>) -> Option<Version> {
        is_live(state).then_some(Version { replica: self.baseline, tick: Tick(0) })
    }

    /// The records that these entries fold into: of each row the newest entry.
    pub(super) fn folded<'a>(
        &self,
        entries: impl IntoIterator<Item = (&'a Sequence, &'a LogEntry)>,
    ) -> BTreeMap<RowKey, Record> {
        let mut records = BTreeMap::<RowKey, Record>::new();
        for (sequence, entry) in entries {
            let record = self.record_from(*sequence, entry);
            let newest = records.entry(entry.key.clone()).or_insert(record);
            if newest.sequence < record.sequence {
                *newest = record;
            }
        }
        records
    }

    /// Folds the whole log at once: the next tick, unless there is nothing to fold.
    pub(super) fn fold_now(&mut self, rules: &Rules) {
        let folded = self.folded(&self.log);
        if folded.is_empty() {
            return;
        }
        self.folds = self.folds.next();
        self.log.clear();
        for (key, record) in folded {
            let stored = self.records.get(&key);
            if !rules.rec_seq || stored.is_none_or(|stored| stored.sequence < record.sequence) {
                self.records.insert(key, record);
            }
        }
    }

    /// Whether the last TRUNCATE is news to who knows this.
    pub(super) fn is_truncated_since(&self, knowledge: &Knowledge) -> bool {
        self.truncation.is_some_and(|truncation| !knowledge.contains_version(truncation.version))
    }
}
