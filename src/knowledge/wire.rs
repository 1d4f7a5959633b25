//! Knowledge on the wire: checked once, by the receiver. Opaque bytes to leaves.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use super::{Clock, Clocks, Knowledge, RowKey, TickRanges};
use crate::ids::{IdError, ReplicaId, TableId, Tick};
use crate::{limits, pb};

/// Knowledge that came from outside breaks its rules or its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KnowledgeError {
    /// It does not decode.
    #[error("knowledge does not decode: {0}")]
    Undecodable(String),
    /// An id in it is wrong.
    #[error("knowledge: {0}")]
    Id(#[from] IdError),
    /// Missing ranges are not sorted, overlap, or lie above the tick.
    #[error("knowledge: the missing ticks of {0} are not sorted, overlap, or lie above its tick")]
    Ranges(ReplicaId),
    /// A replica or a row stands in it twice.
    #[error("knowledge names {0} twice")]
    Twice(String),
    /// It is beyond a bound.
    #[error("knowledge has {found} {what}; at most {bound} are allowed")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much may be.
        bound: usize,
    },
}

/// Which view some knowledge is of: made from the scope's incarnation and the canonical parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct ViewId(pub Bytes);

/// Knowledge together with the view it is of: what a leaf stores as bytes and hands back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ViewKnowledge {
    /// The view; empty for "knows nothing".
    pub view: ViewId,
    /// What is known.
    pub knowledge: Knowledge,
}

impl ViewKnowledge {
    /// The bytes that travel.
    ///
    /// # Errors
    /// [`KnowledgeError::TooLarge`]; a clock is never lowered silently.
    pub fn encode(&self) -> Result<Bytes, KnowledgeError> {
        let message = pb::Knowledge {
            view_id: self.view.0.clone(),
            clocks: clocks_to_wire(self.knowledge.clocks()),
            exceptions: self.knowledge.exceptions().iter().map(exception_to_wire).collect(),
        };
        let bytes = Bytes::from(message.encode_to_vec());
        bound("bytes", bytes.len(), limits::KNOWLEDGE_BYTES_MAX)?;
        bound("row exceptions", message.exceptions.len(), limits::ROW_EXCEPTIONS_MAX)?;
        // What a receiver would refuse is not sent.
        let row_clocks = message.exceptions.iter().map(|exception| &exception.clocks);
        for clocks in row_clocks.chain([&message.clocks]) {
            bound("clocks", clocks.len(), limits::KNOWLEDGE_CLOCKS_MAX)?;
            for clock in clocks {
                bound("missing ranges", clock.missing.len(), limits::CLOCK_RANGES_MAX)?;
            }
        }
        Ok(bytes)
    }

    /// Checks bytes that came from outside. No bytes are no knowledge.
    ///
    /// # Errors
    /// [`KnowledgeError`], whatever is wrong with them.
    pub fn decode(bytes: &Bytes) -> Result<Self, KnowledgeError> {
        bound("bytes", bytes.len(), limits::KNOWLEDGE_BYTES_MAX)?;
        let message = pb::Knowledge::decode(bytes.clone())
            .map_err(|error| KnowledgeError::Undecodable(error.to_string()))?;
        bound("row exceptions", message.exceptions.len(), limits::ROW_EXCEPTIONS_MAX)?;
        let mut knowledge = Knowledge::from_clocks(clocks_from_wire(&message.clocks)?);
        let mut rows = BTreeSet::new();
        for exception in message.exceptions {
            let clocks = clocks_from_wire(&exception.clocks)?;
            let row = RowKey { table: TableId(exception.table_id), key: exception.key };
            if !rows.insert(row.clone()) {
                return Err(KnowledgeError::Twice(format!("a row of table {}", row.table)));
            }
            knowledge.except(row, clocks);
        }
        Ok(Self { view: ViewId(message.view_id), knowledge })
    }
}

/// A clock as a message.
#[must_use]
pub fn clock_to_wire(replica: ReplicaId, clock: &Clock) -> pb::ReplicaClock {
    let range = |(first, last): (Tick, Tick)| pb::TickRange { first: first.0, last: last.0 };
    pb::ReplicaClock {
        replica_id: Bytes::copy_from_slice(replica.as_bytes()),
        tick: clock.tick().0,
        missing: clock.missing().iter().map(range).collect(),
    }
}

/// Checks a clock that came from outside.
///
/// # Errors
/// [`KnowledgeError`], if its ranges break their rules.
pub fn clock_from_wire(message: &pb::ReplicaClock) -> Result<(ReplicaId, Clock), KnowledgeError> {
    let replica = ReplicaId::from_slice(&message.replica_id)?;
    bound("missing ranges", message.missing.len(), limits::CLOCK_RANGES_MAX)?;
    let ranges = message.missing.iter().map(|range| (Tick(range.first), Tick(range.last)));
    let missing = TickRanges::from_sorted(ranges).ok_or(KnowledgeError::Ranges(replica))?;
    let tick = Tick(message.tick);
    if !missing.above(tick).is_empty() {
        return Err(KnowledgeError::Ranges(replica));
    }
    Ok((replica, Clock::new(tick, &missing)))
}

fn clocks_to_wire(clocks: &Clocks) -> Vec<pb::ReplicaClock> {
    clocks.iter().map(|(replica, clock)| clock_to_wire(*replica, clock)).collect()
}

fn clocks_from_wire(messages: &[pb::ReplicaClock]) -> Result<Clocks, KnowledgeError> {
    bound("clocks", messages.len(), limits::KNOWLEDGE_CLOCKS_MAX)?;
    let mut clocks = Clocks::new();
    for message in messages {
        let (replica, clock) = clock_from_wire(message)?;
        if clocks.insert(replica, clock).is_some() {
            return Err(KnowledgeError::Twice(format!("replica {replica}")));
        }
    }
    Ok(clocks)
}

fn exception_to_wire((row, clocks): (&RowKey, &Clocks)) -> pb::RowException {
    pb::RowException { table_id: row.table.0, key: row.key.clone(), clocks: clocks_to_wire(clocks) }
}

fn bound(what: &'static str, found: usize, bound: usize) -> Result<(), KnowledgeError> {
    if found > bound { Err(KnowledgeError::TooLarge { what, found, bound }) } else { Ok(()) }
}

/// Row exceptions as a list, for formats whose maps need text keys.
pub(super) mod exceptions {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Clocks, RowKey};

    pub(in super::super) fn serialize<S: Serializer>(
        exceptions: &BTreeMap<RowKey, Clocks>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(exceptions)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<RowKey, Clocks>, D::Error> {
        Vec::<(RowKey, Clocks)>::deserialize(deserializer).map(|pairs| pairs.into_iter().collect())
    }
}
