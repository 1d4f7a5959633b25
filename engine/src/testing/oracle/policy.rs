//! Who wins a conflict, and what is kept of it.

use syncline::ids::ReplicaId;
use syncline::knowledge::{Knowledge, RowKey};

use super::row::{Content, RowState, content_of};

/// How a scope resolves conflicts between hub and leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The hub's row stays.
    ServerWins,
    /// The leaf's row stays.
    ClientWins,
    /// The later row stays; the hub's, if they are of the same time.
    LastWriterWins,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ServerWins, Self::ClientWins, Self::LastWriterWins];

    /// Whether the leaf's state is preferred to the hub's.
    pub(super) const fn prefers_leaf(self, hub: &RowState, leaf: &RowState) -> bool {
        match self {
            Self::ServerWins => false,
            Self::ClientWins => true,
            Self::LastWriterWins => leaf.changed_at > hub.changed_at,
        }
    }
}

/// Where a conflict was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the hub, by an upload.
    Hub,
    /// At the leaf, by a download.
    Leaf,
}

/// An entry of a conflict log: the loser is never thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The row.
    pub key: RowKey,
    /// Where it was found.
    pub place: Place,
    /// The leaf that it was found with.
    pub leaf: ReplicaId,
    /// What the hub holds or sent; `None` if that is a delete.
    pub hub: Option<Content>,
    /// What the leaf holds or sent.
    pub client: Option<Content>,
    /// Whether the leaf's state won.
    pub leaf_won: bool,
    /// What the incoming change was made with.
    pub made_with: Knowledge,
}

impl Conflict {
    pub(super) fn new(
        key: &RowKey,
        (place, leaf): (Place, ReplicaId),
        (hub, client): (&RowState, &RowState),
        leaf_won: bool,
        made_with: &Knowledge,
    ) -> Self {
        Self {
            key: key.clone(),
            place,
            leaf,
            hub: content_of(Some(hub)).cloned(),
            client: content_of(Some(client)).cloned(),
            leaf_won,
            made_with: made_with.clone(),
        }
    }
}
