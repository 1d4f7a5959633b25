//! A leaf's database: rows, what is dirty, what it knows, and the marks of its sessions. All of it is in its backups.

use std::collections::BTreeMap;

use syncline::ids::{Mark, ReplicaId, Tick};
use syncline::knowledge::{Clocks, Knowledge, RowKey};

use super::apply::Upload;
use super::judge::UploadedRow;
use super::policy::{Conflict, Policy};
use super::row::{Content, RowState, is_live, row_name};
use super::session::SessionNumber;
use super::world::{World, told};

/// Uploads of a row that a hub refused, after which the leaf gives the row up.
pub const REFUSALS_MAX: u32 = 3;

/// How a leaf's database reads its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafKind {
    /// As in SQLite: an apply folds first, in its own transaction.
    FoldsFirst,
    /// As in PostgreSQL: an apply locks the rows, then reads log and dirty records together.
    ReadsLog,
}

/// What a user did to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Insert,
    Update,
    Delete,
}

/// A row that changed since it was last acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dirty {
    pub(super) tick: Tick,
    pub(super) birth: Birth,
}

/// Whether a dirty row was born here since its last acknowledgement: the first insert or delete decides, which need not
/// be the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Birth {
    /// There were only updates so far.
    Undecided,
    /// It was an insert, folded at this tick.
    At(Tick),
    /// It was a delete: the row is older.
    Before,
}

/// The marks that a leaf holds of one hub.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LeafMarks {
    /// The upload mark that was drawn last, and the one that was answered last.
    pub(super) drawn: Option<Mark>,
    pub(super) answered: Option<Mark>,
    pub(super) download: Option<Mark>,
}

/// A leaf.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) name: String,
    pub(super) id: ReplicaId,
    pub(super) kind: LeafKind,
    pub(super) policy: Policy,
    pub(super) rows: BTreeMap<RowKey, RowState>,
    pub(super) dirty: BTreeMap<RowKey, Dirty>,
    log: Vec<(RowKey, Operation)>,
    /// Its last tick.
    pub(super) tick: Tick,
    /// What it knows of its hub and its hub's peers.
    pub(super) knowledge: Knowledge,
    /// The marks, by the hub's name: the chain survives a change of the hub's id.
    pub(super) marks: BTreeMap<String, LeafMarks>,
    /// The session that may be taken up again.
    pub(super) session: Option<SessionNumber>,
    /// How often each row was refused.
    refusals: BTreeMap<RowKey, u32>,
    /// Everything must be compared.
    pub(super) must_reinitialise: bool,
    /// It has a new id, so nothing that it holds counts as made with any knowledge.
    pub(super) is_diverged: bool,
    pub(super) conflicts: Vec<Conflict>,
}

impl Leaf {
    pub(super) fn new(name: &str, id: ReplicaId, kind: LeafKind, policy: Policy) -> Self {
        Self {
            name: name.to_owned(),
            id,
            kind,
            policy,
            rows: BTreeMap::new(),
            dirty: BTreeMap::new(),
            log: Vec::new(),
            tick: Tick(0),
            knowledge: Knowledge::new(),
            marks: BTreeMap::new(),
            session: None,
            refusals: BTreeMap::new(),
            must_reinitialise: false,
            is_diverged: false,
            conflicts: Vec::new(),
        }
    }

    /// A user's insert or update.
    pub(super) fn write(&mut self, world: &mut World, key: &RowKey, value: &str) {
        let before = self.rows.get(key);
        let operation = if is_live(before) { Operation::Update } else { Operation::Insert };
        let state = world.write(before, Some(Content::of(value)));
        self.change(world, key, state, operation);
    }

    /// A user's delete. Answers whether there was a row.
    pub(super) fn delete(&mut self, world: &mut World, key: &RowKey) -> bool {
        let before = self.rows.get(key);
        let was_there = is_live(before);
        if was_there {
            let state = world.write(before, None);
            self.change(world, key, state, Operation::Delete);
        }
        was_there
    }

    fn change(&mut self, world: &mut World, key: &RowKey, state: RowState, operation: Operation) {
        world.tell(|| format!("{} edits {}", self.name, told(key, &state)));
        self.rows.insert(key.clone(), state);
        self.log.push((key.clone(), operation));
    }

    /// Whether another live row has this content's value.
    pub(super) fn is_taken(&self, key: &RowKey, content: Option<&Content>) -> bool {
        let Some(content) = content else { return false };
        let has_value = |state: &RowState| state.content.as_ref().is_some_and(|c| c.value == content.value);
        self.rows.iter().any(|(other, state)| other != key && has_value(state))
    }

    /// Folds the log into dirty records: all entries get the next tick; an empty fold draws none.
    pub(super) fn fold(&mut self) {
        if self.log.is_empty() {
            return;
        }
        self.tick = self.tick.next();
        for (key, operation) in std::mem::take(&mut self.log) {
            let dirty = self.dirty.entry(key).or_insert(Dirty { tick: self.tick, birth: Birth::Undecided });
            dirty.tick = self.tick;
            dirty.birth = match (dirty.birth, operation) {
                (Birth::Undecided, Operation::Insert) => Birth::At(self.tick),
                (Birth::Undecided, Operation::Delete) => Birth::Before,
                (birth, _) => birth,
            };
        }
    }

    /// Whether the log holds an entry of this row.
    pub(super) fn is_logged(&self, key: &RowKey) -> bool {
        self.log.iter().any(|(logged, _)| logged == key)
    }

    /// Whether the row has changes that no hub has acknowledged. Entries count as dirty; where the engine folds before
    /// it looks, there are none.
    pub(super) fn is_dirty(&self, key: &RowKey) -> bool {
        self.dirty.contains_key(key) || (self.kind == LeafKind::ReadsLog && self.is_logged(key))
    }

    /// How many changes wait to be uploaded.
    pub(super) fn pending(&self) -> usize {
        self.dirty.len() + self.log.len()
    }

    /// The engine marks a row that it decided on.
    pub(super) fn mark(&mut self, key: &RowKey, is_tick_new: bool) {
        if is_tick_new {
            self.tick = self.tick.next();
        }
        let dirty =
            self.dirty.entry(key.clone()).or_insert(Dirty { tick: self.tick, birth: Birth::Undecided });
        dirty.tick = self.tick;
    }

    /// The row is no longer dirty, and nothing that was logged of it counts.
    pub(super) fn clean(&mut self, key: &RowKey, with_entries: bool) {
        self.dirty.remove(key);
        if with_entries {
            self.log.retain(|(logged, _)| logged != key);
        }
    }

    /// All dirty rows, in the present snapshot.
    pub(super) fn enumerate(&self, mark: Mark, made_with: Knowledge) -> Upload {
        let rows = self.dirty.iter().filter_map(|(key, dirty)| {
            let state = self.rows.get(key)?.clone();
            let birth = match dirty.birth {
                Birth::At(tick) => Some(tick),
                Birth::Undecided | Birth::Before => None,
            };
            Some(UploadedRow { key: key.clone(), state, tick: dirty.tick, birth })
        });
        let is_confused = self.must_reinitialise || self.is_diverged;
        Upload { sender: self.id, rows: rows.collect(), made_with, mark, is_confused }
    }

    /// The hub has the row as it was uploaded.
    pub(super) fn acknowledged(&mut self, world: &World, row: &UploadedRow) {
        let is_logged = self.is_logged(&row.key);
        let Some(dirty) = self.dirty.get_mut(&row.key) else { return };
        if dirty.tick == row.tick && !is_logged {
            self.dirty.remove(&row.key);
        } else if world.rules.born_ack {
            // It was edited since. Whether it was born counts from here on.
            let is_live = row.state.is_live();
            dirty.birth = if is_live { Birth::Before } else { Birth::At(row.tick.next()) };
        }
    }

    /// The hub has refused the row: it stays dirty, until the leaf gives it up.
    pub(super) fn refused(&mut self, world: &mut World, row: &UploadedRow) {
        let is_unchanged = self.dirty.get(&row.key).is_some_and(|dirty| dirty.tick == row.tick);
        if !is_unchanged || self.is_logged(&row.key) {
            return;
        }
        let refusals = self.refusals.entry(row.key.clone()).or_default();
        *refusals += 1;
        if *refusals < REFUSALS_MAX {
            return;
        }
        world.tell(|| format!("{} gives up {}", self.name, row_name(&row.key)));
        world.ledger.record(&row.state);
        self.refusals.remove(&row.key);
        self.dirty.remove(&row.key);
        if world.rules.dead_except {
            self.knowledge.except(row.key.clone(), Clocks::new());
        }
    }

    /// Takes a new id, which never counts as the old one.
    pub(super) fn diverge(&mut self, world: &mut World) {
        self.fold();
        let old = self.id;
        self.id = world.draw_replica(&self.name);
        let (old, new) = (super::row::replica_name(old), super::row::replica_name(self.id));
        world.tell(|| format!("REPLICA_DIVERGED: {old} is {new} now"));
        self.marks.clear();
        self.session = None;
        if world.rules.diverged_reinit {
            self.must_reinitialise = true;
            self.is_diverged = true;
        }
    }
}
