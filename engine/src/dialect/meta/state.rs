//! The state row: what a database of ours is once, whatever its scopes.

use super::Statement;

/// Raises the tick of the last durable mark, beside which the mark is stored: a restored hub stands still there.
#[must_use]
pub fn raise_durable_tick(tick: i64) -> Statement {
    Statement::new(
        "UPDATE syncline_state SET durable_tick = $1 WHERE durable_tick < $2",
        [tick.into(), tick.into()],
    )
}

/// Reads the spool's id.
#[must_use]
pub fn spool() -> Statement {
    Statement::new("SELECT spool FROM syncline_state", [])
}

/// Stores the spool's id.
#[must_use]
pub fn set_spool(id: &[u8]) -> Statement {
    Statement::new("UPDATE syncline_state SET spool = $1", [id.into()])
}

/// Forgets all sessions (their spool is gone).
#[must_use]
pub fn forget_sessions() -> Statement {
    Statement::new("DELETE FROM syncline_sessions", [])
}

/// Forgets all batches (their spool is gone).
#[must_use]
pub fn forget_batches() -> Statement {
    Statement::new("DELETE FROM syncline_batches", [])
}
