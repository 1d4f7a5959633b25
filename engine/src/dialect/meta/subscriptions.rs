//! Scopes that a database synchronises as a leaf: one JSON document each.

use syncline::error::{Result, SyncError};
use syncline::ids::ScopeName;

use super::{MetaRow, Statement};
use crate::store::Subscription;

/// Stores a subscription, new or known.
///
/// # Errors
/// INTERNAL; never in practice.
pub fn save(subscription: &Subscription) -> Result<Statement> {
    let document = serde_json::to_string(subscription).map_err(SyncError::internal)?;
    Ok(Statement::new(
        "INSERT INTO syncline_subscriptions (scope, document) VALUES ($1, $2) \
         ON CONFLICT (scope) DO UPDATE SET document = excluded.document",
        [subscription.schema.name.as_str().into(), document.into()],
    ))
}

/// Reads one.
#[must_use]
pub fn load(scope: &ScopeName) -> Statement {
    Statement::new("SELECT document FROM syncline_subscriptions WHERE scope = $1", [scope.as_str().into()])
}

/// Reads all, by scope.
#[must_use]
pub fn list() -> Statement {
    Statement::new("SELECT document FROM syncline_subscriptions ORDER BY scope", [])
}

/// Removes one.
#[must_use]
pub fn delete(scope: &ScopeName) -> Statement {
    Statement::new("DELETE FROM syncline_subscriptions WHERE scope = $1", [scope.as_str().into()])
}

/// A row of [`load`] or [`list`].
///
/// # Errors
/// INTERNAL if the document is not as it should be.
pub fn from_row(row: &MetaRow) -> Result<Subscription> {
    serde_json::from_str(row.text(0)?).map_err(SyncError::internal)
}
