//! What is loaded of a leaf's tables: the scope's columns beside those of the catalogue.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ColumnId, TableId};
use syncline::schema::{ConflictPolicy, ScopeSchema, TableSchema};

use super::{LEAF_ROLE, LEAF_SCHEMA};
use crate::dialect::postgres::catalog::{self, CatalogTable};
use crate::dialect::postgres::errors;
use crate::dialect::postgres::provision::Provisioned;
use crate::dialect::postgres::statements::tracking::Role;
use crate::dialect::postgres::tracked::Tracked;

/// A table of a scope at a leaf.
#[derive(Debug, Clone)]
pub(super) struct LeafTable {
    /// The table as the hub describes it; its id is the hub's.
    pub(super) schema: TableSchema,
    /// The local table; its id is ours, and names our tables of it.
    pub(super) tracked: Tracked,
    /// The policy that holds for it.
    pub(super) policy: ConflictPolicy,
}

/// A local table that is registered for a scope.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub(super) id: TableId,
    pub(super) role: i64,
    /// Whether its changes are tracked: not at a hub, and not where rows only come down.
    pub(super) tracks: bool,
    pub(super) provisioned: Provisioned,
}

/// What `columns` of our table of tables holds for a leaf's table.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct LeafDocument {
    /// Whether its changes are tracked.
    pub(super) tracks: bool,
}

/// The local tables that are registered, by name, for hub or leaf.
pub(super) async fn registered(connection: &mut PgConnection) -> Result<BTreeMap<String, Registered>> {
    let rows: Vec<(i64, String, i64, String, String)> = sqlx::query_as(
        "SELECT id, source_name, role, columns, provisioned FROM syncline.tables WHERE source_schema = $1",
    )
    .bind(LEAF_SCHEMA)
    .fetch_all(connection)
    .await
    .map_err(errors::database)?;
    let mut tables = BTreeMap::new();
    for (id, name, role, columns, provisioned) in rows {
        let tracks = role == LEAF_ROLE && {
            let document: LeafDocument = serde_json::from_str(&columns).map_err(SyncError::internal)?;
            document.tracks
        };
        let id = TableId(u32::try_from(id).map_err(SyncError::internal)?);
        let provisioned = serde_json::from_str(&provisioned).map_err(SyncError::internal)?;
        tables.insert(name, Registered { id, role, tracks, provisioned });
    }
    Ok(tables)
}

/// The numbers of the scope's tables whose changes are tracked, and how many columns their keys have.
pub(super) async fn tracked_ids(
    connection: &mut PgConnection,
    schema: &ScopeSchema,
) -> Result<Vec<(TableId, usize)>> {
    let registered = registered(connection).await?;
    let tracked = schema.tables.iter().filter(|table| table.direction.uploads());
    tracked
        .map(|table| {
            let found = registered.get(&table.name).filter(|found| found.tracks);
            found.map(|found| (found.id, table.key.len())).ok_or_else(|| broken(&table.name, "tracking"))
        })
        .collect()
}

/// The scope's tables as the catalogue has them, in the scope's order.
///
/// # Errors
/// TRACKING_BROKEN if triggers, partitions, key or columns are not as they were provisioned.
pub(super) async fn load(connection: &mut PgConnection, schema: &ScopeSchema) -> Result<Vec<LeafTable>> {
    let registered = registered(connection).await?;
    let mut oids = Vec::with_capacity(schema.tables.len());
    for table in &schema.tables {
        let found = registered.get(&table.name).filter(|found| found.role == LEAF_ROLE);
        oids.push(found.ok_or_else(|| broken(&table.name, "tracking"))?.provisioned.oid);
    }
    let mut present: BTreeMap<i64, CatalogTable> =
        catalog::load(connection, &oids).await?.into_iter().map(|table| (table.oid, table)).collect();
    let mut tables = Vec::with_capacity(schema.tables.len());
    for (table, oid) in schema.tables.iter().zip(&oids) {
        let as_registered = &registered[&table.name];
        let found =
            present.remove(oid).filter(|found| found.schema == LEAF_SCHEMA && found.name == table.name);
        let found = found.ok_or_else(|| broken(&table.name, "the table itself"))?;
        if let Some(difference) = as_registered.difference(&found) {
            return Err(broken(&table.name, difference));
        }
        tables.push(LeafTable {
            schema: table.clone(),
            tracked: Tracked::of(table, as_registered.id, found)?,
            policy: schema.policy(table),
        });
    }
    Ok(tables)
}

impl Registered {
    /// What is not as it was provisioned, if anything.
    pub(super) fn difference(&self, found: &CatalogTable) -> Option<&'static str> {
        if self.tracks {
            return self.provisioned.difference(found, Role::Leaf);
        }
        let now = Provisioned::of(found);
        if now.oid != self.provisioned.oid {
            return Some("the table itself");
        }
        (now.key != self.provisioned.key).then_some("the primary key")
    }
}

impl LeafTable {
    /// Whether local changes are tracked.
    pub(super) fn tracks(&self) -> bool {
        self.schema.direction.uploads()
    }

    /// The place of a column among the carried ones.
    pub(super) fn place(&self, id: ColumnId) -> Option<usize> {
        self.schema.column_index(id)
    }

    /// The table's dirty records.
    pub(super) fn dirty(&self) -> String {
        format!("syncline.dirty_{}", self.tracked.id)
    }
}

/// Tracking is not as it was provisioned at this leaf.
pub(super) fn broken(table: &str, what: &str) -> SyncError {
    SyncError::new(
        ErrorReason::TrackingBroken,
        format!(
            "{what} of table \"{table}\" is not as it was provisioned; remove the subscription and subscribe again: \
             rows that are there are then compared with the hub's"
        ),
    )
    .with("table", table)
}
