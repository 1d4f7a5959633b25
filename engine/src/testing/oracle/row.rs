//! A row's state, and the ghost state by which losses are judged.

use std::collections::{BTreeMap, BTreeSet};

use syncline::ids::{ReplicaId, TableId};
use syncline::knowledge::RowKey;
use uuid::Uuid;

/// The one table of the oracle.
pub const TABLE: TableId = TableId(1);

/// The row of this name.
#[must_use]
pub fn row_key(name: &str) -> RowKey {
    RowKey { table: TABLE, key: bytes::Bytes::copy_from_slice(name.as_bytes()) }
}

/// The name of a row, for people.
pub(super) fn row_name(key: &RowKey) -> String {
    String::from_utf8_lossy(&key.key).into_owned()
}

/// A replica whose id spells its name (of at most 16 characters), so that traces can be read.
pub(super) fn replica_named(name: &str) -> ReplicaId {
    let mut id = [0; 16];
    for (place, letter) in id.iter_mut().zip(name.bytes()) {
        *place = letter;
    }
    ReplicaId::from_uuid(Uuid::from_bytes(id))
}

/// The name that a replica's id spells.
pub(super) fn replica_name(replica: ReplicaId) -> String {
    String::from_utf8_lossy(replica.as_bytes()).trim_end_matches('\0').to_owned()
}

/// What a live row holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    /// What the user wrote. Unique in the table, if the oracle is told so.
    pub value: String,
    /// What the hub's trigger computed from it, if it has that trigger.
    pub total: Option<String>,
}

impl Content {
    /// A row as a user writes it: nothing is computed yet.
    #[must_use]
    pub fn of(value: &str) -> Self {
        Self { value: value.to_owned(), total: None }
    }
}

/// The rows of a table, as its users see them.
pub type Rows = BTreeMap<RowKey, Content>;

/// Ghost: names one write of one user, wherever it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WriteId(pub(super) u64);

/// A state of a row. A row that is gone keeps a state too: its time, and the ghost.
#[derive(Debug, Clone)]
pub(super) struct RowState {
    /// `None` if the row is gone.
    pub(super) content: Option<Content>,
    /// When it was written; greater than that of any state of this row that the writer saw.
    pub(super) changed_at: u64,
    /// Ghost: the write that made it.
    pub(super) write: WriteId,
    /// Ghost: the writes that its writer had seen.
    pub(super) seen: BTreeSet<WriteId>,
    /// Ghost: the write that gave birth to the row in its present life.
    pub(super) life: WriteId,
}

impl RowState {
    /// Whether the row is there.
    pub(super) const fn is_live(&self) -> bool {
        self.content.is_some()
    }

    /// Ghost: whether the write is this one, or was seen by it.
    pub(super) fn includes(&self, write: WriteId) -> bool {
        self.write == write || self.seen.contains(&write)
    }

    /// Ghost: this write and all that it has seen.
    pub(super) fn lineage(&self) -> impl Iterator<Item = WriteId> + '_ {
        self.seen.iter().copied().chain([self.write])
    }

    /// Ghost: from now on, this state counts as made in sight of the other.
    pub(super) fn having_seen(mut self, other: &Self) -> Self {
        self.seen.extend(other.lineage());
        self
    }
}

/// Whether the row is there.
pub(super) fn is_live(state: Option<&RowState>) -> bool {
    state.is_some_and(RowState::is_live)
}

/// The content of a row, if it is there.
pub(super) fn content_of(state: Option<&RowState>) -> Option<&Content> {
    state.and_then(|state| state.content.as_ref())
}

/// The live rows, without what they carry for the oracle alone.
pub(super) fn live_rows(rows: &BTreeMap<RowKey, RowState>) -> Rows {
    let live = rows.iter().filter_map(|(key, state)| Some((key.clone(), state.content.clone()?)));
    live.collect()
}
