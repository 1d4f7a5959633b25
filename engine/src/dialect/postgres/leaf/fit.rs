//! Whether local tables that exist fit a scope: every difference at once.

use syncline::error::{ErrorReason, SyncError};
use syncline::schema::{ColumnSchema, ScopeSchema, TableSchema};
use syncline::value::CanonicalType;

use crate::dialect::postgres::catalog::{CatalogColumn, CatalogTable};
use crate::dialect::postgres::key_types::key_problem;

/// What is beyond this of a name is cut off (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

/// Something in which a local table does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// The table, or the table's column.
    pub(super) field: String,
    /// What is wrong and what would fit.
    pub(super) problem: String,
}

impl Difference {
    fn of_table(table: &TableSchema, problem: impl Into<String>) -> Self {
        Self { field: table.name.clone(), problem: problem.into() }
    }

    fn of_column(table: &TableSchema, column: &str, problem: impl Into<String>) -> Self {
        Self { field: format!("{}.{column}", table.name), problem: problem.into() }
    }
}

/// SCHEMA_MISMATCH, naming every difference.
pub(super) fn mismatch(schema: &ScopeSchema, differences: &[Difference]) -> SyncError {
    let all: Vec<_> = differences.iter().map(|one| format!("{}: {}", one.field, one.problem)).collect();
    let error = SyncError::new(
        ErrorReason::SchemaMismatch,
        format!("the local tables do not fit the scope \"{}\": {}", schema.name, all.join("; ")),
    )
    .with("scope", &schema.name);
    differences.iter().fold(error, |error, one| error.violation(one.field.clone(), one.problem.clone()))
}

/// What a column of the scope can't be in any PostgreSQL database.
pub(super) fn unsupported(table: &TableSchema) -> Vec<Difference> {
    let names = table.columns.iter().map(|column| &column.name).chain([&table.name]);
    let mut all: Vec<_> = names
        .filter(|name| name.len() > NAME_BYTES_MAX)
        .map(|name| {
            let problem =
                format!("the name \"{name}\" is longer than PostgreSQL keeps ({NAME_BYTES_MAX} bytes)");
            Difference::of_table(table, problem)
        })
        .collect();
    for column in &table.columns {
        let problem = if create_type(column).is_none() {
            "which PostgreSQL does not have"
        } else if table.is_key(column.id) && has_equals(column) {
            "which in PostgreSQL takes different texts for the same key"
        } else {
            continue;
        };
        let problem = format!(
            "is of type {} at the hub, {problem}; give the column a type in the scope file (types = {{ {} = \"text\" }})",
            column.ty.as_str(),
            column.name
        );
        all.push(Difference::of_column(table, &column.name, problem));
    }
    all
}

/// Whether the type that the column is created with can't be a key's: see [`key_problem`].
const fn has_equals(column: &ColumnSchema) -> bool {
    match column.ty {
        CanonicalType::Decimal => column.precision_scale.is_none(),
        CanonicalType::Json => true,
        _ => false,
    }
}

/// The type that a column is created with; `None` if there is none.
pub(super) fn create_type(column: &ColumnSchema) -> Option<String> {
    use CanonicalType as T;
    let name = match column.ty {
        T::Bool => "boolean",
        T::Int64 => "bigint",
        T::Float64 => "double precision",
        T::Decimal => {
            let modifier = column.precision_scale.map(|(digits, scale)| format!("({digits},{scale})"));
            return Some(format!("numeric{}", modifier.unwrap_or_default()));
        }
        T::Text => "text",
        T::Bytes => "bytea",
        T::Date => "date",
        T::Time => "time",
        T::Timestamp => "timestamp",
        T::Timestamptz => "timestamptz",
        T::Uuid => "uuid",
        // Not jsonb: the text comes back as it was.
        T::Json => "json",
        T::Uint64 | T::Any => return None,
    };
    Some(name.to_owned())
}

/// In what a table that exists does not fit. Columns in `addable` may be missing: they will be added.
pub(super) fn differences(table: &TableSchema, found: &CatalogTable, addable: bool) -> Vec<Difference> {
    let mut all = of_shape(table, found);
    for column in &table.columns {
        match found.column(&column.name) {
            None if addable && !table.is_key(column.id) => {}
            None => all.push(Difference::of_column(
                table,
                &column.name,
                format!("is missing; add it as {}", create_type(column).unwrap_or_default()),
            )),
            Some(present) => {
                all.extend(
                    of_column(table, column, present)
                        .map(|problem| Difference::of_column(table, &column.name, problem)),
                );
            }
        }
    }
    for extra in &found.columns {
        let carried = table.columns.iter().any(|column| column.name == extra.name);
        let filled = extra.has_default || extra.generated || !extra.identity.is_empty();
        if !carried && extra.not_null && !filled {
            all.push(Difference::of_column(
                table,
                &extra.name,
                "is not in the scope, refuses NULL and has no default; give it a default",
            ));
        }
    }
    all
}

fn of_shape(table: &TableSchema, found: &CatalogTable) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut add = |problem: String| all.push(Difference::of_table(table, problem));
    if !matches!(found.kind.as_str(), "r" | "p") || found.persistence == "t" {
        add("is not an ordinary or partitioned table".to_owned());
    }
    if found.is_partition {
        add("is a partition; synchronise the partitioned table instead".to_owned());
    }
    if found.inherits {
        add("takes part in inheritance, which can't be tracked".to_owned());
    }
    if found.has_rules {
        add("has rules, which hide changes from tracking; use triggers instead".to_owned());
    }
    let wanted: Vec<_> = table.key_columns().map(|column| column.name.as_str()).collect();
    let key = found.key_columns();
    let present: Vec<_> = key.iter().map(|column| column.name.as_str()).collect();
    if wanted != present {
        let has = if present.is_empty() { "none".to_owned() } else { format!("({})", present.join(", ")) };
        add(format!("needs the primary key ({}), and has {has}", wanted.join(", ")));
    }
    if found.key.as_ref().is_some_and(|key| !key.immediate) {
        add("has a primary key that is DEFERRABLE; make it NOT DEFERRABLE".to_owned());
    }
    for column in key {
        if let Some(problem) = key_problem(column) {
            let problem = format!("can't be a key: {}; {}", problem.what, problem.remedy);
            all.push(Difference::of_column(table, &column.name, problem));
        }
    }
    all
}

fn of_column(table: &TableSchema, column: &ColumnSchema, found: &CatalogColumn) -> Option<String> {
    if found.generated {
        return Some("is generated; its values come from the hub".to_owned());
    }
    if found.carried_as(Some(column.ty)).is_none() {
        let wanted = create_type(column)?;
        return Some(format!("is {}, and must hold {wanted}", found.declared));
    }
    if found.not_null && !column.not_null && !table.is_key(column.id) {
        return Some("refuses NULL, which the hub allows; drop NOT NULL".to_owned());
    }
    match (column.precision_scale, found.precision_scale()) {
        (Some((digits, scale)), Some((_, local_scale)))
            if table.is_key(column.id) && local_scale != scale =>
        {
            Some(format!(
                "is {}, and must be numeric({digits},{scale}): it belongs to the key",
                found.declared
            ))
        }
        (Some((digits, scale)), Some((local_digits, local_scale)))
            if local_scale < scale || local_digits - local_scale < digits - scale =>
        {
            Some(format!("is {}, and must hold numeric({digits},{scale})", found.declared))
        }
        (None, Some(_)) if column.ty == CanonicalType::Decimal => {
            Some(format!("is {}, and must hold numeric of any size", found.declared))
        }
        _ => None,
    }
}

/// References of new tables to tables that exist, whose columns are not unique there.
pub(super) fn missing_unique(
    parent: &TableSchema,
    found: &CatalogTable,
    columns: &[String],
) -> Option<Difference> {
    let names = |numbers: &[i16]| -> Vec<String> {
        let mut names: Vec<_> = numbers
            .iter()
            .filter_map(|at| found.column_numbered(*at))
            .map(|column| column.name.clone())
            .collect();
        names.sort_unstable();
        names
    };
    let mut wanted = columns.to_vec();
    wanted.sort_unstable();
    let key = found.key.iter().map(|key| names(&key.columns));
    let unique = found.unique.iter().map(|numbers| names(numbers));
    let there = key.chain(unique).any(|candidate| candidate == wanted);
    (!there).then(|| {
        Difference::of_table(
            parent,
            format!("needs a unique constraint on ({}), which is referred to", columns.join(", ")),
        )
    })
}
