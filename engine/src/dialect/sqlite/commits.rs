//! Looking for commits: `PRAGMA data_version` changes with those of any other connection, of this process or another.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::Connection;
use syncline::error::Result;

use super::connection::blocking;
use super::state;
use crate::dialect::meta::Commits;

/// A connection that looks for commits, and never makes any.
pub(super) struct SqliteCommits {
    connection: Arc<Mutex<Connection>>,
    seen: Option<i64>,
}

impl SqliteCommits {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection: Arc::new(Mutex::new(connection)), seen: None }
    }
}

#[async_trait]
impl Commits for SqliteCommits {
    async fn look(&mut self) -> Result<bool> {
        let connection = Arc::clone(&self.connection);
        let now = blocking(move || {
            // Nothing is left half done by a look that panicked.
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            state::data_version(&connection)
        })
        .await?;
        Ok(self.seen.replace(now) != Some(now))
    }
}
