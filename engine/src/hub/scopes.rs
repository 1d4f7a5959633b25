//! The scopes that a hub serves.

use std::sync::Arc;

use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::ScopeName;

use super::Hub;
use crate::store::StoredScope;

/// A scope in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeSummary {
    /// The name.
    pub name: ScopeName,
    /// The version.
    pub version: u32,
    /// The number of tables.
    pub tables: u32,
}

impl Hub {
    /// The scopes, by name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn scopes(&self) -> Result<Vec<ScopeSummary>> {
        let mut summaries = Vec::new();
        for name in self.store().scope_names().await? {
            if let Some(scope) = self.store().scope(&name).await? {
                let tables = u32::try_from(scope.tables.len()).unwrap_or(u32::MAX);
                summaries.push(ScopeSummary { name, version: scope.schema.version, tables });
            }
        }
        Ok(summaries)
    }

    pub(super) async fn stored_scope(&self, name: &ScopeName) -> Result<Arc<StoredScope>> {
        self.store().scope(name).await?.map(Arc::new).ok_or_else(|| not_found(name))
    }
}

/// There is no such scope.
pub(super) fn not_found(name: &ScopeName) -> SyncError {
    SyncError::new(
        ErrorReason::ScopeNotFound,
        format!("there is no scope \"{name}\" here; `syncline scope list` shows those that are"),
    )
    .with("scope", name)
}
