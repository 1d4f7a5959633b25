//! The scope of every measurement.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use syncline_engine::store::{HubStore, StoredScope};

use crate::database::Database;
use crate::store;

/// Its name.
pub(crate) const SCOPE: &str = "bench";
const FILE: &str = "name = \"bench\"\n[[tables]]\nname = \"item\"\n";

/// Puts the table under synchronisation, as `syncline scope apply` does.
pub(crate) async fn define(hub: &Database) -> Result<()> {
    tracked(hub).await.map(drop)
}

/// The same; answers the hub as the engine sees it, and the scope.
pub(crate) async fn tracked(hub: &Database) -> Result<(Arc<dyn HubStore>, StoredScope)> {
    let definition = syncline_engine::scope::parse(FILE)?;
    let store = store::open_hub(hub).await?;
    store.open_hub().await?;
    let change = store.define_scope(&definition, false).await.context("the scope can't be defined")?;
    Ok((store, change.scope))
}
