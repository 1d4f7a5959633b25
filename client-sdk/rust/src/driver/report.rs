//! What a run has done.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use syncline::conflict::{ConflictSummary, RowError};
use syncline::error::SyncError;
use syncline::ids::{ScopeName, SessionId};
use syncline::limits::{CONFLICTS_LISTED_MAX, ROW_ERRORS_MAX};

/// What a run moved in one direction. All numbers are of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Moved {
    /// Rows inserted or updated at the destination.
    pub upserts: u64,
    /// Rows deleted at the destination; rows that left the view count as deleted.
    pub deletes: u64,
    /// Batches that were moved.
    pub batches: u64,
    /// Stored batch bytes that were moved.
    pub bytes: u64,
}

impl Moved {
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a run has done. Serialised, it is the answer of `syncline sync --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SyncReport {
    /// The scope.
    pub scope: ScopeName,
    /// The last session of the run; `None` if the poll was all that was needed.
    pub session_id: Option<SessionId>,
    /// Whether a session of an earlier run was taken up.
    pub resumed: bool,
    /// From here to the hub: rows that the hub accepted.
    pub uploaded: Moved,
    /// From the hub to here: rows applied here.
    pub downloaded: Moved,
    /// Stored batch bytes that an earlier run has moved, and that needn't be moved again.
    pub resumed_bytes: u64,
    /// Conflicts that were found at either end.
    pub conflicts: u64,
    /// Rows that could not be applied at either end.
    pub row_errors: u64,
    /// Whether nothing had to move.
    pub up_to_date: bool,
    /// How long the run took, in milliseconds.
    pub elapsed_ms: u64,
    /// Conflicts that the hub found, at most [`CONFLICTS_LISTED_MAX`]. Those found here are in the local log.
    #[serde(skip)]
    pub conflicts_at_hub: Vec<ConflictSummary>,
    /// Rows that the hub could not apply, at most [`ROW_ERRORS_MAX`]: they stay as they are here, and are sent again.
    #[serde(skip)]
    pub row_errors_at_hub: Vec<RowError>,
    /// Rows that could not be applied here, at most [`ROW_ERRORS_MAX`]: they come again.
    #[serde(skip)]
    pub row_errors_here: Vec<RowError>,
}

impl SyncReport {
    pub(super) fn new(scope: ScopeName) -> Self {
        Self {
            scope,
            session_id: None,
            resumed: false,
            uploaded: Moved::default(),
            downloaded: Moved::default(),
            resumed_bytes: 0,
            conflicts: 0,
            row_errors: 0,
            up_to_date: false,
            elapsed_ms: 0,
            conflicts_at_hub: Vec::new(),
            row_errors_at_hub: Vec::new(),
            row_errors_here: Vec::new(),
        }
    }

    /// How many of the rows that wait to be uploaded are known to be refused: the hub tells of each of them in each session of
    /// the run. What could not be applied here does not wait.
    pub(super) fn left_behind(&self) -> u64 {
        if self.row_errors_at_hub.len() >= ROW_ERRORS_MAX {
            // Not all of them are listed.
            return self.row_errors;
        }
        let rows: BTreeSet<_> = self.row_errors_at_hub.iter().map(|error| &error.row).collect();
        rows.len() as u64
    }

    pub(super) fn finish(mut self, elapsed: Duration) -> Self {
        self.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.up_to_date = self.uploaded.is_nothing() && self.downloaded.is_nothing();
        self.conflicts_at_hub.truncate(CONFLICTS_LISTED_MAX);
        self.row_errors_at_hub.truncate(ROW_ERRORS_MAX);
        self.row_errors_here.truncate(ROW_ERRORS_MAX);
        self
    }
}

/// Why a run did not come to its end. What was transferred is kept in every case but the last, and there where it is of
/// use.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It was cancelled.
    #[error("interrupted; what was transferred is kept, and the next run goes on from there")]
    Interrupted,
    /// A temporary failure outlasted the retries: run it again.
    #[error(transparent)]
    Temporary(SyncError),
    /// It failed, and the message says what to do.
    #[error(transparent)]
    Failed(SyncError),
}

impl RunError {
    /// The error behind it, if it was not interrupted.
    #[must_use]
    pub const fn error(&self) -> Option<&SyncError> {
        match self {
            Self::Interrupted => None,
            Self::Temporary(error) | Self::Failed(error) => Some(error),
        }
    }
}

impl From<SyncError> for RunError {
    fn from(error: SyncError) -> Self {
        if super::retry::is_temporary(&error) { Self::Temporary(error) } else { Self::Failed(error) }
    }
}
