//! Looking for commits: a snapshot differs from an earlier one exactly if a transaction with an id has ended in between.
//!
//! Not by NOTIFY: PostgreSQL lets transactions that notify commit one after the other, each waiting for the disk alone.
//! Writers would pay for every listener.

use async_trait::async_trait;
use sqlx::PgConnection;
use syncline::error::{ErrorReason, Result, SyncError};

use super::errors;
use crate::dialect::meta::Commits;
use crate::limits::WATCH_LOOK_TIMEOUT;

/// A connection that looks for commits. After an error it is of no use any more.
pub(super) struct PostgresCommits {
    connection: PgConnection,
    seen: Option<String>,
}

impl PostgresCommits {
    pub(super) const fn new(connection: PgConnection) -> Self {
        Self { connection, seen: None }
    }
}

#[async_trait]
impl Commits for PostgresCommits {
    async fn look(&mut self) -> Result<bool> {
        let look = sqlx::query_scalar("SELECT pg_catalog.pg_current_snapshot()::text");
        let now: String = tokio::time::timeout(WATCH_LOOK_TIMEOUT, look.fetch_one(&mut self.connection))
            .await
            .map_err(|_| {
                let message = "the database did not answer a look for commits in time; watch again";
                SyncError::new(ErrorReason::DatabaseUnavailable, message)
            })?
            .map_err(errors::database)?;
        let changed = self.seen.as_ref() != Some(&now);
        self.seen = Some(now);
        Ok(changed)
    }
}
