//! A tracked table as the statements need it: the scope's columns beside those of the catalogue.

use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ColumnId, TableId};
use syncline::schema::TableSchema;

use super::catalog::CatalogTable;
use super::statements::{qualified, quote};
use super::types::ColumnType;
use crate::store::StoredTable;

/// A table with the columns that a scope carries.
#[derive(Debug, Clone)]
pub(super) struct Tracked {
    /// Names our tables of it.
    pub(super) id: TableId,
    /// At a hub: its name in the scope, for people.
    pub(super) name: String,
    /// The quoted name of the base table.
    pub(super) base: String,
    /// The carried columns, in the schema's order.
    pub(super) columns: Vec<TrackedColumn>,
    /// The key's columns as places among `columns`, in the key's order.
    pub(super) key: Vec<usize>,
    /// The base table.
    pub(super) catalog: CatalogTable,
}

/// A carried column.
#[derive(Debug, Clone)]
pub(super) struct TrackedColumn {
    pub(super) id: ColumnId,
    pub(super) name: String,
    /// The name, quoted.
    pub(super) quoted: String,
    pub(super) ty: ColumnType,
    pub(super) nullable: bool,
    /// GENERATED ALWAYS AS IDENTITY: may be inserted by us, but never updated.
    pub(super) identity_always: bool,
    pub(super) collation: Option<String>,
    pub(super) sequence: Option<String>,
    pub(super) number: i16,
}

impl Tracked {
    /// A table of a hub's scope.
    ///
    /// # Errors
    /// TRACKING_BROKEN if the base table no longer has the columns that the scope carries.
    pub(super) fn at_hub(schema: &TableSchema, stored: &StoredTable, catalog: CatalogTable) -> Result<Self> {
        debug_assert_eq!((&stored.source_schema, &stored.source_name), (&catalog.schema, &catalog.name));
        Self::of(schema, stored.id, catalog)
    }

    /// A table of a schema; `id` names our tables of it, and need not be the schema's.
    ///
    /// # Errors
    /// TRACKING_BROKEN if the base table does not have the schema's columns.
    pub(super) fn of(schema: &TableSchema, id: TableId, catalog: CatalogTable) -> Result<Self> {
        let mut columns = Vec::with_capacity(schema.columns.len());
        for column in &schema.columns {
            let found = catalog.column(&column.name);
            let fits = found.filter(|found| !found.generated).and_then(|found| {
                found.carried_as(Some(column.ty)).map(|ty| TrackedColumn {
                    id: column.id,
                    name: column.name.clone(),
                    quoted: quote(&column.name),
                    ty,
                    nullable: !found.not_null,
                    identity_always: found.identity == "a",
                    collation: found.collation.clone(),
                    sequence: found.sequence.clone(),
                    number: found.number,
                })
            });
            columns.push(fits.ok_or_else(|| broken(&schema.name, &format!("column \"{}\"", column.name)))?);
        }
        let places: Option<Vec<usize>> = schema.key.iter().map(|id| schema.column_index(*id)).collect();
        let key = places.ok_or_else(|| broken(&schema.name, "the key"))?;
        let names: Vec<_> = key.iter().map(|at| columns[*at].name.as_str()).collect();
        let present: Vec<_> = catalog.key_columns().iter().map(|column| column.name.as_str()).collect();
        if catalog.key.is_none() || names != present {
            return Err(broken(&schema.name, "the primary key"));
        }
        Ok(Self {
            id,
            name: schema.name.clone(),
            base: qualified(&catalog.schema, &catalog.name),
            columns,
            key,
            catalog,
        })
    }

    /// The key's columns, in its order.
    pub(super) fn key_columns(&self) -> impl Iterator<Item = &TrackedColumn> {
        self.key.iter().map(|at| &self.columns[*at])
    }

    /// Whether the column at this place belongs to the key.
    pub(super) fn is_key(&self, place: usize) -> bool {
        self.key.contains(&place)
    }

    /// Whether a row may lose the value at this place for a moment: it is not of the key, and no other row follows it.
    pub(super) fn may_be_parked(&self, place: usize) -> bool {
        !self.is_key(place) && self.is_unfollowed(place)
    }

    /// Whether no other row changes with the value at this place.
    pub(super) fn is_unfollowed(&self, place: usize) -> bool {
        !self.catalog.followed.contains(&self.columns[place].number)
    }

    /// Whether an upload's cells can be copied into the types of the table's own columns: none of them refuses a value
    /// that was sent, but for numbers beyond its range, and all give back what they were given.
    pub(super) fn is_staged_as_it_is(&self) -> bool {
        self.columns.iter().all(|column| column.ty.takes_staged())
    }

    /// Our log of the table.
    pub(super) fn log(&self) -> String {
        format!("syncline.log_{}", self.id)
    }

    /// Our records of the table.
    pub(super) fn record(&self) -> String {
        format!("syncline.record_{}", self.id)
    }

    /// The sequence of the table's entries.
    pub(super) fn sequence(&self) -> String {
        format!("syncline.seq_{}", self.id)
    }
}

/// Tracking is not as provisioned.
pub(super) fn broken(table: &str, what: &str) -> SyncError {
    SyncError::new(
        ErrorReason::TrackingBroken,
        format!("{what} of table \"{table}\" is not as it was provisioned; apply the scope again"),
    )
    .with("table", table)
}
