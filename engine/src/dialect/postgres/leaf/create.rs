//! The statements that create local tables.

use syncline::ids::ColumnId;
use syncline::schema::{ColumnSchema, ForeignKey, ScopeSchema, TableSchema};

use super::LEAF_SCHEMA;
use super::fit::create_type;
use crate::dialect::postgres::statements::{list, literal, qualified, quote};

/// Creates a table with columns, key, NOT NULL, UNIQUE and constant defaults; foreign keys come when all are there.
pub(super) fn create_table(table: &TableSchema) -> String {
    let mut parts: Vec<String> =
        table.columns.iter().map(|column| definition(column, column.not_null)).collect();
    parts.push(format!("PRIMARY KEY ({})", names(table, &table.key)));
    parts.extend(table.unique.iter().map(|columns| format!("UNIQUE ({})", names(table, columns))));
    format!("CREATE TABLE {} ({})", base(table), list(parts))
}

/// Adds a column that joined the scope. NULL is refused only where rows that are there already get a value.
pub(super) fn add_column(table: &TableSchema, column: &ColumnSchema) -> String {
    let not_null = column.not_null && column.default.is_some();
    format!("ALTER TABLE {} ADD COLUMN {}", base(table), definition(column, not_null))
}

fn definition(column: &ColumnSchema, not_null: bool) -> String {
    let ty = create_type(column).unwrap_or_default();
    let default = column.default.as_ref().map(|text| format!(" DEFAULT {}::{ty}", literal(text)));
    let refused = if not_null { " NOT NULL" } else { "" };
    format!("{} {ty}{refused}{}", quote(&column.name), default.unwrap_or_default())
}

/// Adds a new table's foreign keys, and an index for each that neither the key nor a unique constraint begins with.
pub(super) fn add_foreign_keys(schema: &ScopeSchema, table: &TableSchema) -> Vec<String> {
    let mut statements = Vec::new();
    for key in &table.foreign_keys {
        let Some(parent) = schema.table(key.referenced_table) else { continue };
        statements.push(format!(
            "ALTER TABLE {} ADD FOREIGN KEY ({}) REFERENCES {} ({})",
            base(table),
            names(table, &key.columns),
            base(parent),
            names(parent, &key.referenced_columns)
        ));
        if !is_indexed(table, key) {
            statements.push(format!("CREATE INDEX ON {} ({})", base(table), names(table, &key.columns)));
        }
    }
    statements
}

fn is_indexed(table: &TableSchema, key: &ForeignKey) -> bool {
    let mut indexes = std::iter::once(&table.key).chain(&table.unique);
    indexes.any(|index| index.starts_with(&key.columns))
}

/// The quoted name of a local table.
pub(super) fn base(table: &TableSchema) -> String {
    qualified(LEAF_SCHEMA, &table.name)
}

fn names(table: &TableSchema, columns: &[ColumnId]) -> String {
    list(columns.iter().filter_map(|id| table.column(*id)).map(|column| quote(&column.name)))
}
