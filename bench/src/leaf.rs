//! A leaf: its database, and the directory where a client keeps parts of batches.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use syncline_client::PartsDirectory;

use crate::bench::{Bench, Kind};
use crate::database::Database;

/// A leaf of a hub.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Leaf {
    pub(crate) database: Database,
    pub(crate) parts: PathBuf,
}

impl Leaf {
    /// A leaf that holds nothing yet.
    pub(crate) async fn fresh(bench: &Bench, kind: Kind) -> Result<Self> {
        let database = bench.database(kind).await?;
        let parts = match &database {
            Database::Sqlite(path) => PartsDirectory::beside(path),
            Database::Postgres(_) => bench.fresh("parts")?,
        };
        Ok(Self { database, parts })
    }

    /// Gives back its room.
    pub(crate) async fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.parts)?;
        self.database.remove().await
    }
}
