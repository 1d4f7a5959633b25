//! Conflicts and row errors: what is reported of a row that could not simply be applied.

use serde::{Deserialize, Serialize};

use crate::batch::Operation;
use crate::ids::{ConflictId, TableId};
use crate::schema::ConflictPolicy;
use crate::{knowledge::RowKey, pb};

/// What is at one side of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The row was inserted.
    Insert,
    /// The row was updated.
    Update,
    /// The row was deleted, or left the view.
    Delete,
}

impl Side {
    /// Its name in `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// The operation that stands for it on the wire.
    #[must_use]
    pub const fn operation(self) -> Operation {
        match self {
            Self::Insert | Self::Update => Operation::Upsert,
            Self::Delete => Operation::Delete,
        }
    }
}

/// The kind of a conflict: `<local>_<remote>`, local being the side that found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConflictKind {
    /// What the side that found it has.
    pub local: Side,
    /// What came in.
    pub remote: Side,
}

impl ConflictKind {
    /// `update_delete` for example.
    #[must_use]
    pub fn name(self) -> String {
        format!("{}_{}", self.local.as_str(), self.remote.as_str())
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let side = |name: &str| {
            [Side::Insert, Side::Update, Side::Delete].into_iter().find(|side| side.as_str() == name)
        };
        let (local, remote) = name.split_once('_')?;
        Some(Self { local: side(local)?, remote: side(remote)? })
    }
}

/// What a conflict ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The row of the side that found it was kept.
    Local,
    /// The row that came in was taken.
    Remote,
    /// A new row was made of both.
    Merged,
}

impl Outcome {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Merged => "merged",
        }
    }

    /// The outcome of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Local, Self::Remote, Self::Merged].into_iter().find(|outcome| outcome.as_str() == name)
    }
}

/// A conflict as it is listed in an answer; the log holds both rows beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictSummary {
    /// The log entry's id.
    pub id: ConflictId,
    /// The table.
    pub table: TableId,
    /// The table's name.
    pub table_name: String,
    /// The key as a JSON object by column name.
    pub key_json: String,
    /// What met what.
    pub kind: ConflictKind,
    /// What settled it.
    pub policy: ConflictPolicy,
    /// What it ended with.
    pub outcome: Outcome,
}

macro_rules! row_error_reasons {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// Why a row could not be applied.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum RowErrorReason { $($(#[$doc])* $name),* }

        impl RowErrorReason {
            const ALL: &'static [Self] = &[$(Self::$name),*];
            /// Its name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
            /// The number in the protocol's enum.
            #[must_use]
            pub const fn wire(self) -> pb::RowErrorReason {
                match self { $(Self::$name => pb::RowErrorReason::$name),* }
            }
            /// The reason of this number; an unknown one is `Other`.
            #[must_use]
            pub fn from_wire(number: i32) -> Self {
                Self::ALL.iter().copied().find(|reason| reason.wire() as i32 == number).unwrap_or(Self::Other)
            }
            /// The reason of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
            }
        }
    };
}

row_error_reasons! {
    /// A unique constraint.
    Unique, "UNIQUE";
    /// A foreign key.
    ForeignKey, "FOREIGN_KEY";
    /// A check constraint.
    Check, "CHECK";
    /// NULL in a column that refuses it.
    NotNull, "NOT_NULL";
    /// A value that the destination's column can't hold.
    Type, "TYPE";
    /// The caller may not write this row.
    Forbidden, "FORBIDDEN";
    /// A trigger of the user's own raised an error.
    Trigger, "TRIGGER";
    /// Anything else.
    Other, "OTHER";
}

/// A row that could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// The row.
    pub row: RowKey,
    /// The table's name.
    pub table_name: String,
    /// The key as a JSON object by column name.
    pub key_json: String,
    /// What was to be done.
    pub operation: Operation,
    /// Why it could not.
    pub reason: RowErrorReason,
    /// For people.
    pub message: String,
}

impl From<&RowError> for pb::RowError {
    fn from(error: &RowError) -> Self {
        Self {
            table_id: error.row.table.0,
            table: error.table_name.clone(),
            key: error.row.key.clone(),
            key_json: error.key_json.clone(),
            operation: error.operation.wire() as i32,
            reason: error.reason.wire() as i32,
            message: error.message.clone(),
        }
    }
}

impl From<pb::RowError> for RowError {
    fn from(message: pb::RowError) -> Self {
        Self {
            row: RowKey { table: TableId(message.table_id), key: message.key },
            table_name: message.table,
            key_json: message.key_json,
            operation: Operation::from_wire(message.operation).unwrap_or(Operation::Upsert),
            reason: RowErrorReason::from_wire(message.reason),
            message: message.message,
        }
    }
}

impl From<&ConflictSummary> for pb::Conflict {
    fn from(conflict: &ConflictSummary) -> Self {
        let outcome = match conflict.outcome {
            Outcome::Local => pb::ConflictOutcome::Local,
            Outcome::Remote => pb::ConflictOutcome::Remote,
            Outcome::Merged => pb::ConflictOutcome::Merged,
        };
        Self {
            conflict_id: bytes::Bytes::copy_from_slice(conflict.id.as_bytes()),
            table_id: conflict.table.0,
            table: conflict.table_name.clone(),
            key_json: conflict.key_json.clone(),
            local_operation: conflict.kind.local.operation().wire() as i32,
            remote_operation: conflict.kind.remote.operation().wire() as i32,
            both_born: conflict.kind.local == Side::Insert && conflict.kind.remote == Side::Insert,
            policy: conflict.policy.wire() as i32,
            outcome: outcome as i32,
        }
    }
}
