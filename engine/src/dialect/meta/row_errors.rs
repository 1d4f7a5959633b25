//! Rows that an apply could not write: kept until the replica's next session has applied, or 30 days.

use syncline::conflict::RowError;
use syncline::error::{Result, SyncError};
use syncline::ids::{ReplicaId, ScopeName, SessionId};

use super::{MetaRow, Statement};

/// Adds the `ordinal`th row error of a session.
///
/// # Errors
/// INTERNAL; never in practice.
pub fn insert(
    session: SessionId,
    ordinal: i64,
    scope: &ScopeName,
    replica: ReplicaId,
    now: i64,
    error: &RowError,
) -> Result<Statement> {
    let document = serde_json::to_string(error).map_err(SyncError::internal)?;
    Ok(Statement::new(
        "INSERT INTO syncline_row_errors (session, ordinal, scope, replica, at, document) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        [
            session.as_bytes().into(),
            ordinal.into(),
            scope.as_str().into(),
            replica.as_bytes().into(),
            now.into(),
            document.into(),
        ],
    ))
}

/// The row errors of a session, in order.
#[must_use]
pub fn of_session(session: SessionId) -> Statement {
    Statement::new(
        "SELECT document FROM syncline_row_errors WHERE session = $1 ORDER BY ordinal",
        [session.as_bytes().into()],
    )
}

/// All row errors of a scope, newest session first.
#[must_use]
pub fn of_scope(scope: &ScopeName, limit: i64) -> Statement {
    Statement::new(
        "SELECT document FROM syncline_row_errors WHERE scope = $1 ORDER BY at DESC, ordinal LIMIT $2",
        [scope.as_str().into(), limit.into()],
    )
}

/// Forgets those of the replica's older sessions.
#[must_use]
pub fn forget(session: SessionId, scope: &ScopeName, replica: ReplicaId) -> Statement {
    Statement::new(
        "DELETE FROM syncline_row_errors WHERE scope = $1 AND replica = $2 AND session <> $3",
        [scope.as_str().into(), replica.as_bytes().into(), session.as_bytes().into()],
    )
}

/// Forgets those that are older.
#[must_use]
pub fn expire(before: i64) -> Statement {
    Statement::new("DELETE FROM syncline_row_errors WHERE at < $1", [before.into()])
}

/// A row of [`of_session`] or [`of_scope`].
///
/// # Errors
/// INTERNAL if the row is not as it should be.
pub fn from_row(row: &MetaRow) -> Result<RowError> {
    serde_json::from_str(row.text(0)?).map_err(SyncError::internal)
}
