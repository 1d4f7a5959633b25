//! What a scope's definition says, held against the database: the schema that clients will see, or all problems at
//! once.

use std::collections::BTreeSet;
use std::ops::Range;

use rusqlite::Connection;
use syncline::error::Result;
use syncline::schema::{ColumnSchema, ForeignKey, TableSchema};
use syncline::value::CanonicalType;

use super::catalog::{self, CatalogTable, Found};
use super::errors::DatabaseResult as _;
use super::scope::TrackedTable;
use super::statements::{KeyName, TableNames};
use super::tracking::{Provisioned, Role};
use super::types::{Form, canonical_type, may_be_key};
use crate::scope::{Problem, ScopeDefinition, Spanned, TableDefinition, parents_first};

/// A table of a definition that fits the database.
#[derive(Debug, Clone)]
pub(super) struct DefinedTable {
    pub(super) schema: TableSchema,
    pub(super) catalog: CatalogTable,
    /// As it is to be stored; not saved yet.
    pub(super) tracked: TrackedTable,
    /// Whether it is to be compared as a whole, whatever has become of it.
    pub(super) compare: bool,
}

/// What a definition comes to.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Parents before children as far as cycles allow.
    pub(super) tables: Vec<DefinedTable>,
    pub(super) notes: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

/// Holds a definition against the database. Within a transaction. Blocks.
pub(super) fn resolve(connection: &Connection, definition: &ScopeDefinition) -> Result<Resolved> {
    let mut resolved = Resolved::default();
    let mut names = BTreeSet::new();
    let mut leaf_names = BTreeSet::new();
    let mut next_id = TrackedTable::next_id(connection)?;
    for table in &definition.tables {
        let Some(catalog) = find_table(connection, table, &mut resolved)? else { continue };
        if !names.insert(catalog.name.to_ascii_lowercase()) {
            resolved.problem(&table.name.span, "the table stands in the scope twice", "name it once");
            continue;
        }
        let leaf_name = table.leaf_name.as_ref().unwrap_or(&table.name);
        let name = table.leaf_name.as_ref().map_or_else(|| catalog.name.clone(), |name| name.value.clone());
        if !leaf_names.insert(name.to_ascii_lowercase()) {
            let problem = format!("two tables have the name \"{name}\" at leaves");
            resolved.problem(&leaf_name.span, problem, "give one of them another name with `as`");
        }
        let found = TrackedTable::find(connection, &catalog.name)?;
        let known = found.is_some();
        let mut tracked = found.unwrap_or_else(|| {
            let id = next_id;
            next_id.0 += 1;
            untracked(id, &catalog)
        });
        if known && tracked.role == Role::Leaf && !tracked.provisioned.shape.is_empty() {
            let problem = format!("table \"{}\" is synchronised from another hub here", catalog.name);
            resolved.problem(&table.name.span, problem, "serve it from that hub, or leave that scope first");
            continue;
        }
        tracked.role = Role::Hub;
        check_keys(connection, table, &catalog, &mut resolved)?;
        if let Some(schema) = table_schema(table, name, &catalog, &mut tracked, &mut resolved) {
            resolved.tables.push(DefinedTable { schema, catalog, tracked, compare: table.compare });
        }
    }
    add_foreign_keys(&mut resolved.tables);
    sort(&mut resolved.tables);
    Ok(resolved)
}

impl Resolved {
    fn problem(&mut self, span: &Range<usize>, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem { span: span.clone(), message: message.into(), remedy: remedy.into() });
    }
}

fn untracked(id: syncline::ids::TableId, catalog: &CatalogTable) -> TrackedTable {
    TrackedTable {
        id,
        name: catalog.name.clone(),
        role: Role::Hub,
        columns: Default::default(),
        provisioned: Provisioned::default(),
        baseline: (0, 0),
        baseline_changed_at: 0,
    }
}

fn find_table(
    connection: &Connection,
    table: &TableDefinition,
    resolved: &mut Resolved,
) -> Result<Option<CatalogTable>> {
    let Spanned { value: written, span } = &table.name;
    let name = written.strip_prefix("main.").unwrap_or(written);
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("syncline_") || lower.starts_with("sqlite_") {
        resolved.problem(span, format!("table \"{name}\" is not a user's table"), "leave it out");
        return Ok(None);
    }
    match catalog::find(connection, name)? {
        Found::Table(table) => Ok(Some(table)),
        Found::NotATable(kind) => {
            resolved.problem(
                span,
                format!("\"{name}\" is {kind}"),
                "only ordinary tables can be synchronised",
            );
            Ok(None)
        }
        Found::Nothing => {
            let known = catalog::user_tables(connection)?.join(", ");
            let remedy = if known.is_empty() {
                "the database has no tables".to_owned()
            } else {
                format!("the database has: {known}")
            };
            resolved.problem(span, format!("there is no table \"{name}\""), remedy);
            Ok(None)
        }
    }
}

fn check_keys(
    connection: &Connection,
    table: &TableDefinition,
    catalog: &CatalogTable,
    resolved: &mut Resolved,
) -> Result<()> {
    let (name, span) = (&catalog.name, &table.name.span);
    if catalog.key.is_empty() {
        let problem = format!("table \"{name}\" has no primary key");
        resolved.problem(span, problem, "give it one: rows are told apart by it");
        return Ok(());
    }
    if catalog.unique.iter().any(|index| index.columns.is_none()) {
        resolved.problem(
            span,
            format!("table \"{name}\" has a unique index over an expression"),
            "rows that REPLACE removes over it can't be seen by triggers: make it an index over a generated column",
        );
    }
    let key = catalog.key.iter().map(|part| KeyName::of(&catalog.columns[part.column].name, part));
    let names = TableNames {
        table: super::statements::quote(name),
        columns: Vec::new(),
        key: key.collect(),
        conflict_clause: "",
    };
    let nullable: Vec<_> = catalog.key.iter().map(|part| part.nullable).collect();
    if let Some(sql) = names.null_key(&nullable)
        && connection.query_row(&sql, [], |row| row.get(0)).db()?
    {
        let problem = format!("table \"{name}\" has rows with NULL in their primary key");
        resolved.problem(span, problem, "give these rows a key, and declare the key NOT NULL");
    }
    Ok(())
}

/// The table's schema without its foreign keys.
fn table_schema(
    table: &TableDefinition,
    name: String,
    catalog: &CatalogTable,
    tracked: &mut TrackedTable,
    resolved: &mut Resolved,
) -> Option<TableSchema> {
    let before = resolved.problems.len();
    let carried = carried_columns(table, catalog, resolved);
    for (column, ty) in &table.types {
        if catalog.column(column).is_none_or(|place| !carried.contains(&place)) {
            let problem = format!("`types` names column \"{column}\", which is not carried");
            resolved.problem(&ty.span, problem, "leave it out, or add the column");
        }
    }
    for part in &catalog.key {
        let column = &catalog.columns[part.column];
        if !carried.contains(&part.column) {
            let problem = format!("column \"{}\" belongs to the primary key", column.name);
            resolved.problem(&table.name.span, problem, "add it to `columns`");
        }
        let Some(ty) = chosen_type(table, &column.name) else { continue };
        if !may_be_key(Form { ty: ty.value, affinity: catalog.affinity(part.column), scale: None }) {
            let problem = format!(
                "column \"{}\" belongs to the primary key and is not stored as {}",
                column.name,
                ty.value.as_str()
            );
            resolved.problem(&ty.span, problem, "leave the type out: keys travel as they are stored");
        }
    }
    if resolved.problems.len() > before || catalog.key.is_empty() {
        return None;
    }
    let is_key = |place: usize| catalog.key.iter().any(|part| part.column == place);
    let columns: Vec<_> =
        carried.iter().map(|&place| column_schema(table, catalog, place, is_key(place), tracked)).collect();
    let ids = |places: &mut dyn Iterator<Item = usize>| -> Option<Vec<_>> {
        places
            .map(|place| carried.iter().position(|column| *column == place).map(|at| columns[at].id))
            .collect()
    };
    let key = ids(&mut catalog.key.iter().map(|part| part.column))?;
    let unique = catalog
        .unique
        .iter()
        .filter(|index| !index.partial)
        .filter_map(|index| ids(&mut index.columns.iter().flatten().map(|(place, _)| *place)))
        .collect();
    Some(TableSchema {
        id: tracked.id,
        name,
        key,
        unique,
        columns,
        foreign_keys: Vec::new(),
        direction: table.direction,
        conflict_policy: table.conflict_policy,
    })
}

fn carried_columns(table: &TableDefinition, catalog: &CatalogTable, resolved: &mut Resolved) -> Vec<usize> {
    let Some(named) = &table.columns else {
        let (generated, carried): (Vec<_>, Vec<_>) =
            (0..catalog.columns.len()).partition(|place| catalog.columns[*place].generated);
        for place in generated {
            resolved.notes.push(format!(
                "column \"{}\" of table \"{}\" is generated and not carried: each side computes its own",
                catalog.columns[place].name, catalog.name
            ));
        }
        return carried;
    };
    let mut carried = Vec::new();
    for name in named {
        match catalog.column(&name.value) {
            None => {
                let known: Vec<_> = catalog.columns.iter().map(|column| column.name.as_str()).collect();
                let problem = format!("table \"{}\" has no column \"{}\"", catalog.name, name.value);
                resolved.problem(&name.span, problem, format!("it has: {}", known.join(", ")));
            }
            Some(place) if catalog.columns[place].generated => {
                let problem = format!("column \"{}\" is generated", name.value);
                resolved.problem(&name.span, problem, "leave it out: each side computes its own");
            }
            Some(place) if carried.contains(&place) => {
                let problem = format!("column \"{}\" is named twice", name.value);
                resolved.problem(&name.span, problem, "name it once");
            }
            Some(place) => carried.push(place),
        }
    }
    for (place, column) in catalog.columns.iter().enumerate() {
        if column.not_null && column.default.is_none() && !column.generated && !carried.contains(&place) {
            resolved.notes.push(format!(
                "column \"{}\" of table \"{}\" is not carried, refuses NULL and has no default: rows inserted at a leaf \
                 can't be applied",
                column.name, catalog.name
            ));
        }
    }
    // In the table's order, whatever order they were named in: the definition means a set.
    carried.sort_unstable();
    carried
}

fn chosen_type<'a>(table: &'a TableDefinition, column: &str) -> Option<&'a Spanned<CanonicalType>> {
    table.types.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).map(|(_, chosen)| chosen)
}

fn column_schema(
    table: &TableDefinition,
    catalog: &CatalogTable,
    place: usize,
    is_key: bool,
    tracked: &mut TrackedTable,
) -> ColumnSchema {
    let column = &catalog.columns[place];
    let (ty, precision_scale) = canonical_type(&column.declared);
    let ty = chosen_type(table, &column.name).map_or(ty, |chosen| chosen.value);
    ColumnSchema {
        id: tracked.columns.of(&column.name),
        name: column.name.clone(),
        ty,
        not_null: column.not_null || is_key,
        precision_scale: precision_scale.filter(|_| ty == CanonicalType::Decimal),
        default: column.default.as_deref().and_then(constant),
    }
}

/// A default that is a plain literal, as text.
fn constant(expression: &str) -> Option<String> {
    let text = expression.trim();
    if let Some(quoted) = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
        let plain = quoted.replace("''", "");
        return (!plain.contains('\'')).then(|| quoted.replace("''", "'"));
    }
    let upper = text.to_ascii_uppercase();
    if matches!(upper.as_str(), "TRUE" | "FALSE") {
        return Some(upper.to_ascii_lowercase());
    }
    let number = text.parse::<f64>().is_ok_and(f64::is_finite)
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    number.then(|| text.to_owned())
}

/// References whose both ends are carried.
fn add_foreign_keys(tables: &mut [DefinedTable]) {
    let all: Vec<(CatalogTable, TableSchema)> =
        tables.iter().map(|table| (table.catalog.clone(), table.schema.clone())).collect();
    for table in tables {
        for reference in &table.catalog.references {
            let parent = all.iter().find(|(catalog, _)| catalog.name.eq_ignore_ascii_case(&reference.parent));
            let Some((parent_catalog, parent)) = parent else { continue };
            let ids = |schema: &TableSchema, names: &[&str]| -> Option<Vec<_>> {
                names
                    .iter()
                    .map(|name| {
                        schema
                            .columns
                            .iter()
                            .find(|column| column.name.eq_ignore_ascii_case(name))
                            .map(|c| c.id)
                    })
                    .collect()
            };
            let own: Vec<_> = reference.columns.iter().map(String::as_str).collect();
            let referenced = parent_catalog.referenced(reference);
            if let (Some(columns), Some(referenced_columns)) =
                (ids(&table.schema, &own), ids(parent, &referenced))
                && columns.len() == referenced_columns.len()
            {
                table.schema.foreign_keys.push(ForeignKey {
                    columns,
                    referenced_table: parent.id,
                    referenced_columns,
                });
            }
        }
    }
}

fn sort(tables: &mut Vec<DefinedTable>) {
    let place = |id| tables.iter().position(|table| table.schema.id == id);
    let references: Vec<_> = tables
        .iter()
        .enumerate()
        .flat_map(|(child, table)| {
            table
                .schema
                .foreign_keys
                .iter()
                .filter_map(move |key| Some((child, place(key.referenced_table)?)))
        })
        .collect();
    let order = parents_first(tables.len(), &references);
    *tables = order.into_iter().map(|place| tables[place].clone()).collect();
}
