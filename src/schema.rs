//! A scope's schema as both sides know it.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{ErrorReason, Result, SyncError};
use crate::ids::{ColumnId, Incarnation, ScopeName, TableId};
use crate::value::CanonicalType;
use crate::{limits, pb};

/// Which way the rows of a table travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// From the hub to leaves only.
    Download,
    /// From leaves to the hub only.
    Upload,
}

impl Direction {
    /// Whether leaves send rows of the table.
    #[must_use]
    pub const fn uploads(self) -> bool {
        matches!(self, Self::Both | Self::Upload)
    }
    /// Whether the hub sends rows of the table.
    #[must_use]
    pub const fn downloads(self) -> bool {
        matches!(self, Self::Both | Self::Download)
    }
}

/// How a conflict between hub and leaf is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictPolicy {
    /// The hub's row is kept.
    #[default]
    ServerWins,
    /// The leaf's row is kept.
    ClientWins,
    /// The row that was changed last is kept; ties: the hub's.
    LastWriterWins,
}

impl ConflictPolicy {
    /// Its name in scope files and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerWins => "server_wins",
            Self::ClientWins => "client_wins",
            Self::LastWriterWins => "last_writer_wins",
        }
    }
    /// The policy of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::ServerWins, Self::ClientWins, Self::LastWriterWins].into_iter().find(|p| p.as_str() == name)
    }
    /// The number in the protocol's enum.
    #[must_use]
    pub const fn wire(self) -> pb::ConflictPolicy {
        match self {
            Self::ServerWins => pb::ConflictPolicy::ServerWins,
            Self::ClientWins => pb::ConflictPolicy::ClientWins,
            Self::LastWriterWins => pb::ConflictPolicy::LastWriterWins,
        }
    }
    fn from_wire(number: i32) -> Self {
        match pb::ConflictPolicy::try_from(number) {
            Ok(pb::ConflictPolicy::ClientWins) => Self::ClientWins,
            Ok(pb::ConflictPolicy::LastWriterWins) => Self::LastWriterWins,
            _ => Self::ServerWins,
        }
    }
}

/// What happens to a session in which a row can't be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowErrorPolicy {
    /// The other rows are applied; the row is reported, kept, and sent again.
    #[default]
    Skip,
    /// The session fails and nothing is applied.
    Abort,
}

/// A scope as its clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeSchema {
    /// The name.
    pub name: ScopeName,
    /// New whenever the scope is defined after having been dropped.
    pub incarnation: Incarnation,
    /// Counts the definitions, from 1.
    pub version: u32,
    /// The tables, parents before children as far as cycles allow.
    pub tables: Vec<TableSchema>,
    /// The policy of tables that have none of their own.
    pub conflict_policy: ConflictPolicy,
    /// What happens to rows that can't be applied.
    pub row_error_policy: RowErrorPolicy,
}

/// A table of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The number that batches carry.
    pub id: TableId,
    /// The name at a leaf.
    pub name: String,
    /// The columns that are carried.
    pub columns: Vec<ColumnSchema>,
    /// The primary key's columns, in order.
    pub key: Vec<ColumnId>,
    /// References to tables of the same scope.
    pub foreign_keys: Vec<ForeignKey>,
    /// Unique constraints, the primary key aside.
    pub unique: Vec<Vec<ColumnId>>,
    /// Which way rows travel.
    pub direction: Direction,
    /// The table's own policy.
    pub conflict_policy: Option<ConflictPolicy>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSchema {
    /// The number that batches carry.
    pub id: ColumnId,
    /// The name.
    pub name: String,
    /// The canonical type.
    pub ty: CanonicalType,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// For decimals of a fixed form: digits in all, and after the point.
    pub precision_scale: Option<(u32, u32)>,
    /// A constant default, in the text form of the canonical type.
    pub default: Option<String>,
}

/// A reference to a table of the same scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The referring columns.
    pub columns: Vec<ColumnId>,
    /// The table referred to.
    pub referenced_table: TableId,
    /// The columns referred to.
    pub referenced_columns: Vec<ColumnId>,
}

impl ScopeSchema {
    /// The table of this id.
    #[must_use]
    pub fn table(&self, id: TableId) -> Option<&TableSchema> {
        self.tables.iter().find(|table| table.id == id)
    }

    /// The policy that holds for this table.
    #[must_use]
    pub fn policy(&self, table: &TableSchema) -> ConflictPolicy {
        table.conflict_policy.unwrap_or(self.conflict_policy)
    }

    /// SHA-256 over the canonical form: two schemas that a client could tell apart differ in it.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        use prost::Message as _;
        // prost writes fields in their order and no maps are in it: the form is canonical.
        let message = self.message_without_fingerprint();
        Sha256::digest(message.encode_to_vec()).into()
    }

    fn message_without_fingerprint(&self) -> pb::ScopeSchema {
        let row_errors = match self.row_error_policy {
            RowErrorPolicy::Skip => pb::RowErrorPolicy::Skip,
            RowErrorPolicy::Abort => pb::RowErrorPolicy::Abort,
        };
        pb::ScopeSchema {
            name: self.name.to_string(),
            incarnation: Bytes::copy_from_slice(self.incarnation.as_bytes()),
            version: self.version,
            fingerprint: Bytes::new(),
            tables: self.tables.iter().map(TableSchema::message).collect(),
            conflict_policy: self.conflict_policy.wire() as i32,
            row_error_policy: row_errors as i32,
            parameters: Vec::new(),
        }
    }
}

impl TableSchema {
    /// The column of this id.
    #[must_use]
    pub fn column(&self, id: ColumnId) -> Option<&ColumnSchema> {
        self.columns.iter().find(|column| column.id == id)
    }

    /// The place of a column among [`columns`](Self::columns).
    #[must_use]
    pub fn column_index(&self, id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }

    /// The key's columns, in the key's order.
    pub fn key_columns(&self) -> impl Iterator<Item = &ColumnSchema> {
        self.key.iter().filter_map(|id| self.column(*id))
    }

    /// Whether the column belongs to the key.
    #[must_use]
    pub fn is_key(&self, id: ColumnId) -> bool {
        self.key.contains(&id)
    }

    fn message(&self) -> pb::TableSchema {
        let ids = |columns: &[ColumnId]| columns.iter().map(|id| id.0).collect::<Vec<_>>();
        let direction = match self.direction {
            Direction::Both => pb::Direction::Both,
            Direction::Download => pb::Direction::Download,
            Direction::Upload => pb::Direction::Upload,
        };
        pb::TableSchema {
            id: self.id.0,
            name: self.name.clone(),
            columns: self.columns.iter().map(ColumnSchema::message).collect(),
            key_column_ids: ids(&self.key),
            foreign_keys: self
                .foreign_keys
                .iter()
                .map(|key| pb::ForeignKey {
                    column_ids: ids(&key.columns),
                    referenced_table_id: key.referenced_table.0,
                    referenced_column_ids: ids(&key.referenced_columns),
                })
                .collect(),
            unique_constraints: self
                .unique
                .iter()
                .map(|columns| pb::UniqueConstraint { column_ids: ids(columns) })
                .collect(),
            direction: direction as i32,
            conflict_policy: self.conflict_policy.map_or(0, |policy| policy.wire() as i32),
        }
    }
}

impl ColumnSchema {
    fn message(&self) -> pb::ColumnSchema {
        let (precision, scale) = self.precision_scale.unwrap_or_default();
        pb::ColumnSchema {
            id: self.id.0,
            name: self.name.clone(),
            r#type: self.ty.wire() as i32,
            not_null: self.not_null,
            precision,
            scale,
            default_value: self.default.clone(),
        }
    }
}

impl From<&ScopeSchema> for pb::ScopeSchema {
    fn from(schema: &ScopeSchema) -> Self {
        let fingerprint = Bytes::copy_from_slice(&schema.fingerprint());
        Self { fingerprint, ..schema.message_without_fingerprint() }
    }
}

impl TryFrom<pb::ScopeSchema> for ScopeSchema {
    type Error = SyncError;

    fn try_from(message: pb::ScopeSchema) -> Result<Self> {
        if message.tables.len() > limits::SCOPE_TABLES_MAX {
            return Err(malformed("too many tables"));
        }
        let fingerprint = message.fingerprint.clone();
        let row_error_policy = match pb::RowErrorPolicy::try_from(message.row_error_policy) {
            Ok(pb::RowErrorPolicy::Abort) => RowErrorPolicy::Abort,
            _ => RowErrorPolicy::Skip,
        };
        let schema = Self {
            name: message.name.parse()?,
            incarnation: Incarnation::from_slice(&message.incarnation)?,
            version: message.version,
            tables: message.tables.into_iter().map(TableSchema::try_from).collect::<Result<_>>()?,
            conflict_policy: ConflictPolicy::from_wire(message.conflict_policy),
            row_error_policy,
        };
        schema.check_references()?;
        // A field that this version does not know would be lost on the way: the fingerprint tells.
        if schema.fingerprint() != fingerprint[..] {
            return Err(SyncError::new(
                ErrorReason::CapabilityRequired,
                "the scope's schema holds what this version does not know; update the client",
            ));
        }
        Ok(schema)
    }
}

impl ScopeSchema {
    fn check_references(&self) -> Result<()> {
        let ids: BTreeSet<_> = self.tables.iter().map(|table| table.id).collect();
        if ids.len() != self.tables.len() {
            return Err(malformed("a table id stands in it twice"));
        }
        for table in &self.tables {
            for key in &table.foreign_keys {
                let Some(parent) = self.table(key.referenced_table) else {
                    return Err(malformed("a foreign key refers to a table that is not in it"));
                };
                let known = key.columns.iter().all(|id| table.column(*id).is_some())
                    && key.referenced_columns.iter().all(|id| parent.column(*id).is_some());
                if !known || key.columns.len() != key.referenced_columns.len() || key.columns.is_empty() {
                    return Err(malformed("a foreign key names columns that are not there"));
                }
            }
        }
        Ok(())
    }
}

impl TryFrom<pb::TableSchema> for TableSchema {
    type Error = SyncError;

    fn try_from(message: pb::TableSchema) -> Result<Self> {
        let ids = |ids: Vec<u32>| ids.into_iter().map(ColumnId).collect::<Vec<_>>();
        if message.columns.len() > limits::BLOCK_COLUMNS_MAX {
            return Err(malformed("a table has too many columns"));
        }
        let table = Self {
            id: TableId(message.id),
            name: message.name,
            columns: message.columns.into_iter().map(ColumnSchema::try_from).collect::<Result<_>>()?,
            key: ids(message.key_column_ids),
            foreign_keys: message
                .foreign_keys
                .into_iter()
                .map(|key| ForeignKey {
                    columns: ids(key.column_ids),
                    referenced_table: TableId(key.referenced_table_id),
                    referenced_columns: ids(key.referenced_column_ids),
                })
                .collect(),
            unique: message.unique_constraints.into_iter().map(|unique| ids(unique.column_ids)).collect(),
            direction: match pb::Direction::try_from(message.direction) {
                Ok(pb::Direction::Both) => Direction::Both,
                Ok(pb::Direction::Upload) => Direction::Upload,
                _ => Direction::Download,
            },
            conflict_policy: (message.conflict_policy != 0)
                .then(|| ConflictPolicy::from_wire(message.conflict_policy)),
        };
        let distinct: BTreeSet<_> = table.columns.iter().map(|column| column.id).collect();
        let known = |ids: &[ColumnId]| ids.iter().all(|id| distinct.contains(id));
        if distinct.len() != table.columns.len()
            || table.key.is_empty()
            || !known(&table.key)
            || !table.unique.iter().all(|columns| known(columns))
        {
            return Err(malformed("a table's columns, key or unique constraints do not fit together"));
        }
        Ok(table)
    }
}

impl TryFrom<pb::ColumnSchema> for ColumnSchema {
    type Error = SyncError;

    fn try_from(message: pb::ColumnSchema) -> Result<Self> {
        let ty = CanonicalType::from_wire(message.r#type).ok_or_else(|| {
            SyncError::new(
                ErrorReason::CapabilityRequired,
                format!("column \"{}\" has a type that this version does not know", message.name),
            )
            .with("column", &message.name)
        })?;
        Ok(Self {
            id: ColumnId(message.id),
            name: message.name,
            ty,
            not_null: message.not_null,
            precision_scale: (message.precision > 0).then_some((message.precision, message.scale)),
            default: message.default_value,
        })
    }
}

fn malformed(problem: &str) -> SyncError {
    SyncError::new(
        ErrorReason::Internal,
        format!("the service sent a schema that is not well-formed: {problem}"),
    )
}
