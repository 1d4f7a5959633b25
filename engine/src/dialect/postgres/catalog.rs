//! What PostgreSQL's catalogue says of users' tables.

use serde::Deserialize;
use sqlx::PgConnection;
use syncline::error::{Result, SyncError};
use syncline::value::CanonicalType;

use super::types::{ColumnType, Keeps, Wire, natural};
use super::{errors, statements};

const CATALOG: &str = include_str!("sql/catalog.sql");

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct CatalogTable {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    /// `relkind`: `r` a table, `p` a partitioned one, and much that can't be synchronised.
    pub(super) kind: String,
    /// `relpersistence`: `t` is temporary.
    pub(super) persistence: String,
    pub(super) is_partition: bool,
    pub(super) has_rules: bool,
    /// Whether it is parent or child of another by inheritance.
    pub(super) inherits: bool,
    pub(super) columns: Vec<CatalogColumn>,
    pub(super) key: Option<CatalogKey>,
    /// Unique indexes over whole columns and all rows, by column numbers, the primary key aside.
    pub(super) unique: Vec<Vec<i16>>,
    pub(super) foreign_keys: Vec<CatalogForeignKey>,
    /// Whether a foreign key with an action on delete refers to it.
    pub(super) referenced_with_action: bool,
    /// Numbers of columns whose values other rows follow: a foreign key with an action on update refers to them.
    pub(super) followed: Vec<i16>,
    pub(super) partitions: Vec<CatalogPartition>,
    /// Our triggers on it and its partitions.
    pub(super) triggers: Vec<CatalogTrigger>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct CatalogColumn {
    pub(super) number: i16,
    pub(super) name: String,
    pub(super) not_null: bool,
    pub(super) generated: bool,
    /// `attidentity`: `a` always, `d` by default, empty for none.
    pub(super) identity: String,
    pub(super) has_default: bool,
    pub(super) default: Option<String>,
    pub(super) type_name: String,
    /// `typtype`: `b` base, `e` enum, `c` composite, `r` range.
    pub(super) type_kind: String,
    pub(super) built_in: bool,
    pub(super) modifier: i32,
    pub(super) declared: String,
    pub(super) bare: String,
    pub(super) collation: Option<String>,
    /// Whether only equal bytes are equal under its collation; true without one.
    pub(super) deterministic: bool,
    /// The sequence that it owns, quoted.
    pub(super) sequence: Option<String>,
}

/// The primary key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct CatalogKey {
    pub(super) columns: Vec<i16>,
    /// Whether it is checked at once: it is not DEFERRABLE.
    pub(super) immediate: bool,
}

/// A reference to another table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct CatalogForeignKey {
    pub(super) columns: Vec<i16>,
    pub(super) table: i64,
    pub(super) referenced: Vec<i16>,
}

/// A foreign key that acts when the row is deleted that it refers to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct CatalogAction {
    /// The table referred to.
    pub(super) parent: i64,
    /// The table that refers, whole if it is partitioned.
    pub(super) child: i64,
    /// The table that refers, perhaps a part; quoted.
    pub(super) name: String,
    /// Its columns, quoted.
    pub(super) columns: Vec<String>,
    /// The columns referred to, quoted.
    pub(super) referenced: Vec<String>,
    /// Whether the referring row is deleted too; else its reference is cleared.
    pub(super) cascades: bool,
}

/// A partition, at any depth.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct CatalogPartition {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
}

/// A trigger of ours.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct CatalogTrigger {
    pub(super) oid: i64,
    pub(super) table: i64,
    pub(super) name: String,
    /// `tgenabled`: `A` is always, `R` in sessions of the replication role `replica`.
    pub(super) enabled: String,
}

impl CatalogTable {
    /// The column of this name.
    pub(super) fn column(&self, name: &str) -> Option<&CatalogColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The column of this number.
    pub(super) fn column_numbered(&self, number: i16) -> Option<&CatalogColumn> {
        self.columns.iter().find(|column| column.number == number)
    }

    /// The key's columns, in its order.
    pub(super) fn key_columns(&self) -> Vec<&CatalogColumn> {
        let numbers = self.key.iter().flat_map(|key| &key.columns);
        numbers.filter_map(|number| self.column_numbered(*number)).collect()
    }

    /// Whether rows are written to partitions of it.
    pub(super) fn is_partitioned(&self) -> bool {
        self.kind == "p"
    }

    /// Its quoted name.
    pub(super) fn quoted(&self) -> String {
        statements::qualified(&self.schema, &self.name)
    }
}

impl CatalogColumn {
    /// The column's type, carried as `canonical`; its own canonical type if `None`. Answers `None` for a type that it
    /// can't be carried as.
    pub(super) fn carried_as(&self, canonical: Option<CanonicalType>) -> Option<ColumnType> {
        let (own, own_wire) = natural(&self.type_name, self.built_in);
        let (canonical, wire) = match canonical {
            None => (own, own_wire),
            Some(canonical) if canonical == own => (own, own_wire),
            // Everything has a text form that PostgreSQL reads again.
            Some(CanonicalType::Text) => (CanonicalType::Text, Wire::CastText),
            Some(_) => return None,
        };
        Some(ColumnType {
            canonical,
            wire,
            declared: self.declared.clone(),
            bare: self.bare.clone(),
            built_in: self.built_in || self.type_kind == "e",
            keeps: if self.built_in { Keeps::of(&self.type_name, self.modifier) } else { Keeps::All },
        })
    }

    /// Digits in all and after the point, for `numeric(p,s)`.
    pub(super) fn precision_scale(&self) -> Option<(u32, u32)> {
        if self.type_name != "numeric" || !self.built_in || self.modifier < 4 {
            return None;
        }
        let packed = self.modifier - 4;
        // The scale has 11 bits and a sign since PostgreSQL 15.
        let (precision, scale) = ((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024);
        (scale >= 0 && scale <= precision).then(|| (precision.unsigned_abs(), scale.unsigned_abs()))
    }
}

/// The tables of these oids; those that are not there are left out. Reads in the transaction's snapshot.
pub(super) async fn load(connection: &mut PgConnection, oids: &[i64]) -> Result<Vec<CatalogTable>> {
    let documents: Vec<String> =
        sqlx::query_scalar(CATALOG).bind(oids).fetch_all(connection).await.map_err(errors::database)?;
    documents.iter().map(|document| serde_json::from_str(document).map_err(SyncError::internal)).collect()
}

/// The foreign keys with actions on delete that refer to these tables.
pub(super) async fn actions(connection: &mut PgConnection, oids: &[i64]) -> Result<Vec<CatalogAction>> {
    let sql = include_str!("sql/actions.sql");
    let documents: Vec<String> =
        sqlx::query_scalar(sql).bind(oids).fetch_all(connection).await.map_err(errors::database)?;
    documents.iter().map(|document| serde_json::from_str(document).map_err(SyncError::internal)).collect()
}

/// The oid of a table, by its name as a scope file gives it: `schema.name`, or a name that is found by the search path
/// that the role has when it connects.
pub(super) async fn find(
    connection: &mut PgConnection,
    schema: Option<&str>,
    name: &str,
) -> Result<Option<i64>> {
    let found: Option<i64> = match schema {
        Some(schema) => {
            sqlx::query_scalar(
                "SELECT c.oid::bigint FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind NOT IN ('i', 'I', 'S', 't', 'c')",
            )
            .bind(schema)
            .bind(name)
            .fetch_optional(connection)
            .await
        }
        None => {
            sqlx::query_scalar(include_str!("sql/find_table.sql")).bind(name).fetch_optional(connection).await
        }
    }
    .map_err(errors::database)?;
    Ok(found)
}
