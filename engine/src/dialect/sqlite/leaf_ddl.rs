//! Tables of a leaf: as they are created from a scope's schema, and whether those that exist fit it.

use syncline::schema::{ColumnSchema, ForeignKey, ScopeSchema, TableSchema};
use syncline::value::CanonicalType;

use super::catalog::CatalogTable;
use super::statements::{literal, quote};
use super::types::{Affinity, canonical_type, declared_type};

/// What creates a table, and indexes for its references.
pub(super) fn create(schema: &ScopeSchema, table: &TableSchema) -> Vec<String> {
    let key = key_names(table);
    let rowid_alias = match table.key_columns().collect::<Vec<_>>()[..] {
        [only] if only.ty == CanonicalType::Int64 => Some(only.id),
        _ => None,
    };
    let mut parts: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            if rowid_alias == Some(column.id) {
                return format!("{} INTEGER PRIMARY KEY", quote(&column.name));
            }
            definition(column, table.is_key(column.id))
        })
        .collect();
    if rowid_alias.is_none() {
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    parts.extend(table.unique.iter().map(|columns| format!("UNIQUE ({})", names(table, columns).join(", "))));
    let references: Vec<_> =
        table.foreign_keys.iter().filter_map(|key| reference(schema, table, key)).collect();
    parts.extend(references);
    let name = quote(&table.name);
    let mut statements = vec![format!("CREATE TABLE {name} ({})", parts.join(", "))];
    for foreign in &table.foreign_keys {
        let begins = |columns: &[syncline::ids::ColumnId]| columns.starts_with(&foreign.columns);
        if begins(&table.key) || table.unique.iter().any(|columns| begins(columns)) {
            continue;
        }
        let plain: Vec<_> = foreign
            .columns
            .iter()
            .filter_map(|id| table.column(*id))
            .map(|column| column.name.as_str())
            .collect();
        let index = quote(&format!("{}_{}_idx", table.name, plain.join("_")));
        let columns = names(table, &foreign.columns).join(", ");
        statements.push(format!("CREATE INDEX IF NOT EXISTS {index} ON {name} ({columns})"));
    }
    statements
}

/// A column as it is declared.
pub(super) fn definition(column: &ColumnSchema, is_key: bool) -> String {
    let mut text = quote(&column.name);
    let declared = declared_type(column.ty, column.precision_scale);
    if !declared.is_empty() {
        text = format!("{text} {declared}");
    }
    if column.not_null || is_key {
        text.push_str(" NOT NULL");
    }
    if let Some(default) = &column.default {
        text = format!("{text} DEFAULT {}", default_literal(column.ty, default));
    }
    text
}

fn default_literal(ty: CanonicalType, default: &str) -> String {
    use CanonicalType as T;
    let number = default.parse::<f64>().is_ok_and(f64::is_finite);
    match ty {
        T::Bool if matches!(default, "true" | "t" | "1") => "1".to_owned(),
        T::Bool => "0".to_owned(),
        T::Int64 | T::Uint64 | T::Float64 | T::Decimal | T::Any if number => default.to_owned(),
        _ => literal(default),
    }
}

fn key_names(table: &TableSchema) -> Vec<String> {
    names(table, &table.key)
}

fn names(table: &TableSchema, columns: &[syncline::ids::ColumnId]) -> Vec<String> {
    columns.iter().filter_map(|id| table.column(*id)).map(|column| quote(&column.name)).collect()
}

/// SQLite takes a reference only to a key or unique columns: any other would make every write to the table fail.
fn reference(schema: &ScopeSchema, table: &TableSchema, key: &ForeignKey) -> Option<String> {
    let parent = schema.table(key.referenced_table)?;
    let same = |columns: &[syncline::ids::ColumnId]| {
        columns.len() == key.referenced_columns.len()
            && columns.iter().all(|column| key.referenced_columns.contains(column))
    };
    if !same(&parent.key) && !parent.unique.iter().any(|columns| same(columns)) {
        return None;
    }
    Some(format!(
        "FOREIGN KEY ({}) REFERENCES {} ({})",
        names(table, &key.columns).join(", "),
        quote(&parent.name),
        names(parent, &key.referenced_columns).join(", ")
    ))
}

/// Columns whose names differ in case alone: to SQLite they are one.
pub(super) fn names_alike(table: &TableSchema) -> Vec<String> {
    let mut seen: Vec<&str> = Vec::new();
    let mut alike = Vec::new();
    for column in &table.columns {
        match seen.iter().find(|name| name.eq_ignore_ascii_case(&column.name)) {
            Some(name) => alike.push(format!(
                "columns \"{name}\" and \"{}\" are one to SQLite, as their names differ in case alone",
                column.name
            )),
            None => seen.push(&column.name),
        }
    }
    alike
}

/// All differences between a table that exists and the schema; columns that are missing stand apart.
pub(super) struct Differences<'s> {
    pub(super) missing: Vec<&'s ColumnSchema>,
    pub(super) other: Vec<String>,
}

/// Compares a table that exists with the schema.
pub(super) fn compare<'s>(table: &'s TableSchema, found: &CatalogTable) -> Differences<'s> {
    let mut differences = Differences { missing: Vec::new(), other: Vec::new() };
    for column in &table.columns {
        let Some(place) = found.column(&column.name) else {
            differences.missing.push(column);
            continue;
        };
        let here = &found.columns[place];
        if here.generated {
            differences.other.push(format!("column \"{}\" is generated here", column.name));
        } else if !fits(column, &here.declared) {
            differences.other.push(format!(
                "column \"{}\" is declared {} here, the hub's is {}",
                column.name,
                if here.declared.is_empty() { "without a type" } else { &here.declared },
                column.ty.as_str()
            ));
        }
        if here.not_null && !column.not_null && here.default.is_none() && !table.is_key(column.id) {
            differences
                .other
                .push(format!("column \"{}\" refuses NULL here, the hub's does not", column.name));
        }
    }
    let key_here: Vec<_> =
        found.key.iter().map(|part| found.columns[part.column].name.to_lowercase()).collect();
    let key: Vec<_> = table.key_columns().map(|column| column.name.to_lowercase()).collect();
    if key != key_here {
        let problem =
            format!("its primary key is ({}), the hub's is ({})", key_here.join(", "), key.join(", "));
        differences.other.push(problem);
    }
    for column in &found.columns {
        let carried = table.columns.iter().any(|other| other.name.eq_ignore_ascii_case(&column.name));
        if !carried && column.not_null && column.default.is_none() && !column.generated {
            let problem =
                format!("column \"{}\" refuses NULL, has no default, and is not in the scope", column.name);
            differences.other.push(problem);
        }
    }
    if found.unique.iter().any(|index| index.columns.is_none()) {
        differences.other.push("it has a unique index over an expression, which can't be tracked".to_owned());
    }
    differences
}

/// Whether a column that is declared so holds values of the hub's type without loss.
fn fits(column: &ColumnSchema, declared: &str) -> bool {
    use CanonicalType as T;
    let affinity = Affinity::of(declared);
    match column.ty {
        T::Any => true,
        T::Decimal => {
            let exact = column.precision_scale.is_some_and(|(precision, _)| precision <= 15);
            (exact && affinity == Affinity::Numeric) || matches!(affinity, Affinity::Text | Affinity::Blob)
        }
        T::Json => {
            matches!(affinity, Affinity::Text | Affinity::Blob) || canonical_type(declared).0 == T::Json
        }
        T::Uint64 => canonical_type(declared).0 == T::Int64 || declared.is_empty(),
        // Texts in their one form: any column that leaves text alone holds them.
        T::Text | T::Date | T::Time | T::Timestamp | T::Timestamptz | T::Uuid => {
            matches!(affinity, Affinity::Text | Affinity::Blob) || canonical_type(declared).0 == column.ty
        }
        ty => declared.is_empty() || canonical_type(declared).0 == ty,
    }
}
