//! Folding logs into records: one folder at a time, one table per transaction.

use syncline::error::{Result, SyncError};
use syncline::ids::TableId;

use super::provision::repeat;
use super::statements::qualified;
use super::{PostgresDatabase, errors, statements};
use crate::store::StoredScope;

/// The number by which folders of a table lock each other out.
pub(super) fn advisory_number(id: TableId) -> Result<i32> {
    i32::try_from(id.0).map_err(SyncError::internal)
}

impl PostgresDatabase {
    /// Folds the logs of a scope's tables that have more than so many entries.
    pub(super) async fn fold_scope(&self, scope: &StoredScope, entries: u32) -> Result<()> {
        let ids: Vec<_> = scope.tables.iter().map(|table| table.id).collect();
        // Without a transaction, and for all tables at once: mostly there is nothing.
        let with_entries: Vec<i64> = statements::query(&statements::reading::long_logs(&ids, entries))
            .fetch_one(&self.pool)
            .await
            .and_then(|row| sqlx::Row::try_get(&row, 0))
            .map_err(errors::database)?;
        for (schema, stored) in scope.schema.tables.iter().zip(&scope.tables) {
            if !with_entries.contains(&i64::from(stored.id.0)) {
                continue;
            }
            let base = qualified(&stored.source_schema, &stored.source_name);
            repeat(|| self.fold_table(stored.id, &base, schema.key.len())).await?;
        }
        Ok(())
    }

    async fn fold_table(&self, id: TableId, base: &str, keys: usize) -> Result<()> {
        let mut connection = self.pool.acquire().await.map_err(errors::database)?;
        let fold = statements::reading::fold_alone(id, advisory_number(id)?, base, keys);
        statements::run(&mut connection, &fold).await.map(drop).map_err(errors::database)
    }
}
