//! SQLite: a database file as a hub, as a leaf, or both.
//!
//! ```text
//!  application ──▶ triggers ──▶ log ──fold──▶ records (hub) / dirty records (leaf)      tracking.rs
//!  down, hub:  snapshot.rs (folded) ──▶ enumerate.rs ──▶ rows.rs ──▶ blocks
//!  up, hub:    blocks ──▶ apply.rs ──▶ apply_rows.rs (judged) ──▶ writer.rs ──▶ apply_finish.rs (log becomes records)
//!  up, leaf:   leaf_enumerate.rs ──▶ blocks        down, leaf:  blocks ──▶ leaf_download.rs ──▶ writer.rs
//! ```
//!
//! Modules in reading order: `connection`, `errors`, `types`, `catalog`, `statements`, `plan` (a table as statements
//! need it), `state`, `tracking`, `scope`, `define`, `provision`, `snapshot`, `enumerate`, `rows`, then the applies,
//! then the leaf. See the README beside this file for isolation, versions and caveats.

mod along;
mod apply;
mod apply_finish;
mod apply_records;
mod apply_rows;
mod busy;
mod cascades;
mod catalog;
mod commits;
mod conflict_clause;
mod conflict_log;
mod connection;
mod dangling;
mod define;
mod enumerate;
mod errors;
mod fold;
mod guard;
mod hub;
mod incoming;
mod leaf;
mod leaf_acknowledge;
mod leaf_ddl;
mod leaf_dirty;
mod leaf_download;
mod leaf_enumerate;
mod leaf_provision;
mod leaf_rows;
mod leaf_unsendable;
mod leaf_whole;
mod meta;
mod names;
mod passes;
mod plan;
mod probe;
mod provision;
mod quiet;
mod rows;
mod scope;
mod side_effects;
mod snapshot;
mod state;
mod statements;
#[cfg(test)]
mod tests;
mod tracking;
mod types;
mod unique;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use syncline::error::Result;

use connection::{Connections, WriteTransaction, blocking};

/// A SQLite database file, as a hub or as a leaf.
#[derive(Clone)]
pub struct SqliteDatabase {
    connections: Arc<Connections>,
    scopes: Arc<probe::KnownScopes>,
}

impl SqliteDatabase {
    /// Opens a file, and makes it if it isn't there.
    ///
    /// # Errors
    /// DATABASE_UNAVAILABLE or REQUEST_INVALID if it can't be opened or is no database.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Arc<Self>> {
        Self::open_file(path.into(), true).await
    }

    /// Opens a file that must be there.
    ///
    /// # Errors
    /// DATABASE_UNAVAILABLE or REQUEST_INVALID if it can't be opened or is no database.
    pub async fn open_existing(path: impl Into<PathBuf>) -> Result<Arc<Self>> {
        Self::open_file(path.into(), false).await
    }

    async fn open_file(path: PathBuf, create: bool) -> Result<Arc<Self>> {
        let connections = blocking(move || Connections::open(&path, create)).await?;
        Ok(Arc::new(Self { connections: Arc::new(connections), scopes: Arc::default() }))
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.connections.path()
    }

    fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Runs work within a write transaction, and commits if it succeeds.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let writer = self.connections.writer().await;
        blocking(move || {
            let transaction = WriteTransaction::begin(writer)?;
            let answer = work(transaction.connection())?;
            transaction.commit()?;
            Ok(answer)
        })
        .await
    }

    /// Runs work within a read transaction.
    async fn read_only<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connections = Arc::clone(&self.connections);
        blocking(move || {
            let reader = connections.begin_read()?;
            work(reader.connection())
        })
        .await
    }
}
