//! Opens databases as the engine sees them.

use std::sync::Arc;

use anyhow::Result;
use syncline_engine::dialect::postgres::PostgresDatabase;
use syncline_engine::dialect::sqlite::SqliteDatabase;
use syncline_engine::store::{HubStore, LeafStore};

use crate::database::Database;

/// As a hub.
pub(crate) async fn open_hub(database: &Database) -> Result<Arc<dyn HubStore>> {
    Ok(match database {
        Database::Sqlite(path) => SqliteDatabase::open(path).await?,
        Database::Postgres(url) => PostgresDatabase::open(url).await?,
    })
}

/// As a leaf; a file that is not there is made.
pub(crate) async fn open_leaf(database: &Database) -> Result<Arc<dyn LeafStore>> {
    Ok(match database {
        Database::Sqlite(path) => SqliteDatabase::open(path).await?,
        Database::Postgres(url) => PostgresDatabase::open(url).await?,
    })
}
