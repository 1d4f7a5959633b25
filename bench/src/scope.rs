//! The scope of every measurement.

use anyhow::{Context as _, Result};

use crate::database::Database;
use crate::store;

/// Its name.
pub(crate) const SCOPE: &str = "bench";
const FILE: &str = "name = \"bench\"\n[[tables]]\nname = \"item\"\n";

/// Puts the table under synchronisation, as `syncline scope apply` does.
pub(crate) async fn define(hub: &Database) -> Result<()> {
    let definition = syncline_engine::scope::parse(FILE)?;
    let store = store::open_hub(hub).await?;
    store.open_hub().await?;
    store.define_scope(&definition, false).await.context("the scope can't be defined")?;
    Ok(())
}
