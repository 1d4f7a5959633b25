//! Names and counters, each a type of its own: a bare `u64`, `Uuid` or `String` never crosses a module.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits;

/// An id did not have its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct IdError {
    /// The kind of id.
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $fresh:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new one.
            #[must_use]
            pub fn fresh() -> Self {
                Self(Uuid::$fresh())
            }
            /// From a UUID that is known to be one of these.
            #[must_use]
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }
            /// The UUID.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
            /// The 16 bytes that stand for it on the wire and in databases.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
            /// From the 16 bytes that stand for it on the wire and in databases.
            ///
            /// # Errors
            /// If there are not 16 bytes, or all of them are zero.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                match Uuid::from_slice(bytes) {
                    Ok(id) if !id.is_nil() => Ok(Self(id)),
                    Ok(_) => Err(IdError { what: $what, problem: "must not be all zeros".into() }),
                    Err(_) => Err(IdError {
                        what: $what,
                        problem: format!("must be 16 bytes, not {}", bytes.len()),
                    }),
                }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

uuid_id!(
    /// One database (or one client with its own store) that takes part in a scope.
    ReplicaId, "replica id", new_v4);
uuid_id!(
    /// A session; made by the client.
    SessionId, "session id", now_v7);
uuid_id!(
    /// A batch: never a path, never guessable.
    BatchId, "batch id", new_v4);
uuid_id!(
    /// A mark of the session chain (upload or download).
    Mark, "mark", new_v4);
uuid_id!(
    /// Fences the older of two holders of a session.
    SessionToken, "session token", new_v4);
uuid_id!(
    /// A life of a scope: new when it is defined after having been dropped.
    Incarnation, "incarnation", new_v4);
uuid_id!(
    /// An entry of a conflict log.
    ConflictId, "conflict id", now_v7);

/// A number that a replica's database gives to a local change; compared only for containment in a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tick(pub u64);

impl Tick {
    /// The tick after this one.
    ///
    /// # Panics
    /// At `u64::MAX`, which a counter that steps by one can't reach.
    #[must_use]
    pub fn next(self) -> Self {
        assert!(self.0 < u64::MAX, "ticks are used up");
        Self(self.0 + 1)
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A table of a hub, by the number that batches carry; never reused within the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A column of a table, by the number that batches carry; never reused within the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ColumnId(pub u32);

impl fmt::Display for ColumnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The place of a batch in its session and direction, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BatchSequence(pub u32);

impl BatchSequence {
    /// The first.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for BatchSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The name of a scope: 1 to 63 of `a-z A-Z 0-9 _ - .`, not beginning with `-` or `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScopeName(String);

impl ScopeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ScopeName {
    type Err = IdError;

    fn from_str(name: &str) -> Result<Self, IdError> {
        let problem = if name.is_empty() {
            "must not be empty".to_owned()
        } else if name.len() > limits::SCOPE_NAME_BYTES_MAX {
            format!("must have at most {} characters", limits::SCOPE_NAME_BYTES_MAX)
        } else if name.starts_with(['-', '.'])
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        {
            "may hold letters, digits, '_', '-' and '.', and must not begin with '-' or '.'".to_owned()
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(IdError { what: "scope name", problem })
    }
}

impl TryFrom<String> for ScopeName {
    type Error = IdError;

    fn try_from(name: String) -> Result<Self, IdError> {
        name.parse()
    }
}

impl From<ScopeName> for String {
    fn from(name: ScopeName) -> Self {
        name.0
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
