//! Stored scopes: one JSON document each.

use sqlx::PgConnection;
use syncline::error::{Result, SyncError};
use syncline::ids::ScopeName;

use super::errors;
use crate::store::StoredScope;

/// The scope of this name.
pub(super) async fn load(connection: &mut PgConnection, name: &ScopeName) -> Result<Option<StoredScope>> {
    let document: Option<String> = sqlx::query_scalar("SELECT document FROM syncline.scopes WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await
        .map_err(errors::database)?;
    document.as_deref().map(parse).transpose()
}

/// All scopes, by name.
pub(super) async fn all(connection: &mut PgConnection) -> Result<Vec<StoredScope>> {
    let documents: Vec<String> =
        sqlx::query_scalar("SELECT document FROM syncline.scopes ORDER BY name COLLATE \"C\"")
            .fetch_all(connection)
            .await
            .map_err(errors::database)?;
    documents.iter().map(|document| parse(document)).collect()
}

/// Stores a scope, new or known.
pub(super) async fn save(connection: &mut PgConnection, scope: &StoredScope) -> Result<()> {
    let document = serde_json::to_string(scope).map_err(SyncError::internal)?;
    sqlx::query(
        "INSERT INTO syncline.scopes (id, name, document) VALUES ($1, $2, $3) \
         ON CONFLICT (id) DO UPDATE SET document = excluded.document",
    )
    .bind(scope.id)
    .bind(scope.schema.name.as_str())
    .bind(document)
    .execute(connection)
    .await
    .map(drop)
    .map_err(errors::database)
}

fn parse(document: &str) -> Result<StoredScope> {
    serde_json::from_str(document).map_err(SyncError::internal)
}
