//! Stored scopes: one JSON document each.

use sqlx::PgConnection;
use syncline::error::{Result, SyncError};
use syncline::ids::ScopeName;

use super::errors;
use crate::store::StoredScope;

/// The scope of this name.
pub(super) async fn load(connection: &mut PgConnection, name: &ScopeName) -> Result<Option<StoredScope>> {
    document(connection, name).await.map_err(errors::database)?.as_deref().map(parse).transpose()
}

/// As [`load`], where our tables may not be there at all. Outside any transaction.
pub(super) async fn load_if_there(
    connection: &mut PgConnection,
    name: &ScopeName,
) -> Result<Option<StoredScope>> {
    match document(connection, name).await {
        Ok(document) => document.as_deref().map(parse).transpose(),
        Err(error) if errors::is_missing(&error) => Ok(None),
        Err(error) => Err(errors::database(error)),
    }
}

async fn document(connection: &mut PgConnection, name: &ScopeName) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT document FROM syncline.scopes WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await
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
