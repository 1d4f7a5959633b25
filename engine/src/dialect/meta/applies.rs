//! Applied uploads: what makes an apply happen exactly once.
//!
//! The apply's transaction inserts (session, digest) under the unique key first, and the result last. Another apply of
//! the same session blocks on the key and then finds the result; an outcome that is unknown is settled by reading it.

use syncline::error::{Result, SyncError};
use syncline::ids::{ReplicaId, SessionId};

use super::{MetaRow, Statement};
use crate::replica::ApplyResult;

/// Claims the session. No row is inserted, and none answered, if it was claimed before.
#[must_use]
pub fn claim(session: SessionId, scope: i64, leaf: ReplicaId, digest: &[u8; 32], now: i64) -> Statement {
    Statement::new(
        "INSERT INTO syncline_applies (session, scope, replica, digest, applied_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (session) DO NOTHING RETURNING session",
        [session.as_bytes().into(), scope.into(), leaf.as_bytes().into(), digest[..].into(), now.into()],
    )
}

/// Stores the result, in the same transaction.
///
/// # Errors
/// INTERNAL; never in practice.
pub fn finish(session: SessionId, result: &ApplyResult) -> Result<Statement> {
    let document = serde_json::to_string(result).map_err(SyncError::internal)?;
    Ok(Statement::new(
        "UPDATE syncline_applies SET result = $1 WHERE session = $2",
        [document.into(), session.as_bytes().into()],
    ))
}

/// Reads digest and result of a session.
#[must_use]
pub fn load(session: SessionId) -> Statement {
    Statement::new(
        "SELECT digest, result FROM syncline_applies WHERE session = $1",
        [session.as_bytes().into()],
    )
}

/// The row of [`load`]: the digest of the list of batches, and the result.
///
/// # Errors
/// INTERNAL if the row is not as it should be.
pub fn from_row(row: &MetaRow) -> Result<([u8; 32], Option<ApplyResult>)> {
    let digest = row.bytes(0)?.try_into().map_err(SyncError::internal)?;
    let result = row.text_or_null(1)?.map(serde_json::from_str).transpose().map_err(SyncError::internal)?;
    Ok((digest, result))
}

/// Forgets results of the leaf's older sessions.
#[must_use]
pub fn forget(session: SessionId, scope: i64, leaf: ReplicaId) -> Statement {
    Statement::new(
        "DELETE FROM syncline_applies WHERE scope = $1 AND replica = $2 AND session <> $3",
        [scope.into(), leaf.as_bytes().into(), session.as_bytes().into()],
    )
}

/// Forgets results that are older.
#[must_use]
pub fn expire(before: i64) -> Statement {
    Statement::new("DELETE FROM syncline_applies WHERE applied_at < $1", [before.into()])
}
