//! What a scope becomes in this database: pure, from its definition, the catalogue, and what is stored already.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use syncline::ids::{ColumnId, Incarnation, TableId};
use syncline::schema::{ColumnSchema, ForeignKey, ScopeSchema, TableSchema};
use syncline::value::CanonicalType;

use super::catalog::{CatalogColumn, CatalogTable};
use super::defaults::constant_default;
use super::key_types::key_problem;
use super::types::ColumnType;
use crate::scope::{Problem, ScopeDefinition, TableDefinition, parents_first};
use crate::store::StoredScope;

/// The ids that were given to a table's columns; none is ever given again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ColumnIds {
    next: u32,
    /// By name: the id, and the column's number in the catalogue (a column made anew under an old name has another).
    given: BTreeMap<String, (u32, i16)>,
}

impl ColumnIds {
    fn id(&mut self, column: &CatalogColumn) -> ColumnId {
        match self.given.get(&column.name) {
            Some((id, number)) if *number == column.number => ColumnId(*id),
            _ => {
                self.next += 1;
                self.given.insert(column.name.clone(), (self.next, column.number));
                ColumnId(self.next)
            }
        }
    }
}

/// A table that is tracked already.
#[derive(Debug, Clone)]
pub(super) struct KnownTable {
    pub(super) id: TableId,
    pub(super) columns: ColumnIds,
}

/// What there is before a scope is defined.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// The definition's tables, in its order; `None` if there is none of the name.
    pub(super) found: Vec<Option<CatalogTable>>,
    /// Tracked tables by their oid's name.
    pub(super) known: BTreeMap<(String, String), KnownTable>,
    /// Tables that this database synchronises from another hub, as a leaf.
    pub(super) of_leaf: BTreeSet<(String, String)>,
    /// The number that the next tracked table gets.
    pub(super) next_table: u32,
    /// The scope as it is.
    pub(super) scope: Option<StoredScope>,
}

/// A table of the scope, as it is to be.
#[derive(Debug, Clone)]
pub(super) struct PlannedTable {
    pub(super) schema: TableSchema,
    pub(super) catalog: CatalogTable,
    pub(super) columns: ColumnIds,
    /// Whether it is to be compared as a whole, whatever has become of it.
    pub(super) compare: bool,
}

/// The scope as it is to be.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) schema: ScopeSchema,
    /// In the schema's order.
    pub(super) tables: Vec<PlannedTable>,
    pub(super) next_table: u32,
    pub(super) notes: Vec<String>,
}

/// Checks the definition. All problems at once.
pub(super) fn check(definition: &ScopeDefinition, present: &Present) -> Result<Planned, Vec<Problem>> {
    let mut checker =
        Checker { problems: Vec::new(), notes: Vec::new(), next_table: present.next_table.max(1) };
    let mut tables = Vec::new();
    let mut seen = BTreeSet::new();
    let mut leaf_names = BTreeSet::new();
    for (table, found) in definition.tables.iter().zip(&present.found) {
        let Some(found) = found else {
            checker.problem(
                &table.name.span,
                format!("there is no table \"{}\" in this database", table.name.value),
                "check the name, or write it with its schema (\"schema.name\")",
            );
            continue;
        };
        if !seen.insert(found.oid) {
            let twice = format!("table \"{}\" stands in the scope twice", table.name.value);
            checker.problem(&table.name.span, twice, "remove one of them");
        }
        if let Some(planned) = checker.table(table, found, present) {
            if !leaf_names.insert(planned.schema.name.to_lowercase()) {
                let twice = format!("two tables would be called \"{}\" at a leaf", planned.schema.name);
                checker.problem(&table.name.span, twice, "give one of them another name with as = \"name\"");
            }
            tables.push(planned);
        }
    }
    if !checker.problems.is_empty() {
        return Err(checker.problems);
    }
    let mut tables = with_references(tables);
    keep_order(&mut tables);
    let before = present.scope.as_ref().map(|scope| &scope.schema);
    let mut schema = ScopeSchema {
        name: definition.name.clone(),
        incarnation: before.map_or_else(Incarnation::fresh, |schema| schema.incarnation),
        version: before.map_or(1, |schema| schema.version),
        tables: tables.iter().map(|table| table.schema.clone()).collect(),
        conflict_policy: definition.conflict_policy,
        row_error_policy: definition.row_error_policy,
    };
    if before.is_some_and(|before| *before != schema) {
        schema.version += 1;
    }
    Ok(Planned { schema, tables, next_table: checker.next_table, notes: checker.notes })
}

/// Adds the foreign keys between the scope's tables, as far as their columns are carried.
fn with_references(mut tables: Vec<PlannedTable>) -> Vec<PlannedTable> {
    let places: BTreeMap<i64, usize> =
        tables.iter().enumerate().map(|(at, table)| (table.catalog.oid, at)).collect();
    let ids = |table: &PlannedTable, numbers: &[i16]| -> Option<Vec<ColumnId>> {
        let id = |number: &i16| {
            let name = &table.catalog.column_numbered(*number)?.name;
            table.schema.columns.iter().find(|column| column.name == *name).map(|column| column.id)
        };
        numbers.iter().map(id).collect()
    };
    let mut references = Vec::with_capacity(tables.len());
    for table in &tables {
        let of_table = table.catalog.foreign_keys.iter().filter_map(|key| {
            let parent = &tables[*places.get(&key.table)?];
            Some(ForeignKey {
                columns: ids(table, &key.columns)?,
                referenced_table: parent.schema.id,
                referenced_columns: ids(parent, &key.referenced)?,
            })
        });
        references.push(of_table.collect::<Vec<_>>());
    }
    for (table, references) in tables.iter_mut().zip(references) {
        table.schema.foreign_keys = references;
    }
    tables
}

/// Parents before children.
fn keep_order(tables: &mut Vec<PlannedTable>) {
    let places: BTreeMap<TableId, usize> =
        tables.iter().enumerate().map(|(at, table)| (table.schema.id, at)).collect();
    let references: Vec<_> = tables
        .iter()
        .enumerate()
        .flat_map(|(at, table)| table.schema.foreign_keys.iter().map(move |key| (at, key.referenced_table)))
        .filter_map(|(at, parent)| Some((at, *places.get(&parent)?)))
        .collect();
    let order = parents_first(tables.len(), &references);
    *tables = order.into_iter().map(|at| tables[at].clone()).collect();
}

struct Checker {
    problems: Vec<Problem>,
    notes: Vec<String>,
    next_table: u32,
}

impl Checker {
    fn problem(&mut self, span: &Range<usize>, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem { span: span.clone(), message: message.into(), remedy: remedy.into() });
    }

    fn table(
        &mut self,
        definition: &TableDefinition,
        found: &CatalogTable,
        present: &Present,
    ) -> Option<PlannedTable> {
        let before = self.problems.len();
        self.check_kind(definition, found);
        if present.of_leaf.contains(&(found.schema.clone(), found.name.clone())) {
            let message =
                format!("table \"{}\" is synchronised from another hub here", definition.name.value);
            let remedy = "serve it from that hub, or leave that scope first";
            self.problem(&definition.name.span, message, remedy);
        }
        let known = present.known.get(&(found.schema.clone(), found.name.clone()));
        let mut ids = known.map(|known| known.columns.clone()).unwrap_or_default();
        let columns = self.columns(definition, found, &mut ids);
        self.check_key(definition, found, &columns);
        let name = self.leaf_name(definition, found);
        if self.problems.len() > before {
            return None;
        }
        let id_of = |number: &i16| {
            let name = &found.column_numbered(*number)?.name;
            columns.iter().find(|column| column.name == *name).map(|column| column.id)
        };
        let id = known.map_or_else(
            || {
                self.next_table += 1;
                TableId(self.next_table - 1)
            },
            |known| known.id,
        );
        let schema = TableSchema {
            id,
            name,
            key: found.key.iter().flat_map(|key| &key.columns).filter_map(id_of).collect(),
            foreign_keys: Vec::new(),
            unique: found
                .unique
                .iter()
                .filter_map(|numbers| numbers.iter().map(id_of).collect::<Option<Vec<_>>>())
                .collect(),
            direction: definition.direction,
            conflict_policy: definition.conflict_policy,
            columns,
        };
        Some(PlannedTable { schema, catalog: found.clone(), columns: ids, compare: definition.compare })
    }

    fn check_kind(&mut self, definition: &TableDefinition, found: &CatalogTable) {
        let span = &definition.name.span;
        let name = &definition.name.value;
        let mut refuse = |what: &str, remedy: &str| self.problem(span, format!("\"{name}\" {what}"), remedy);
        match found.kind.as_str() {
            "r" | "p" => {}
            "v" | "m" => refuse("is a view", "name the tables that it reads"),
            "f" => refuse(
                "is a foreign table, whose changes can't be tracked",
                "name its table in its own database",
            ),
            _ => refuse("is not a table", "name a table"),
        }
        if found.persistence == "t" {
            refuse("is a temporary table", "name a permanent table");
        }
        if found.schema == "syncline" || found.schema == "pg_catalog" || found.schema == "information_schema"
        {
            refuse("is a table of the system's or of Syncline's own", "name a table of yours");
        }
        if found.is_partition {
            refuse(
                "is a partition, whose rows may be written through its parent",
                "name the partitioned table",
            );
        }
        if found.inherits {
            refuse(
                "takes part in inheritance, where a statement may touch rows of several tables",
                "use partitioning, or tables of their own",
            );
        }
        if found.has_rules {
            refuse("has rules, which rewrite writes", "use triggers instead of rules");
        }
    }

    fn check_key(&mut self, definition: &TableDefinition, found: &CatalogTable, columns: &[ColumnSchema]) {
        let span = &definition.name.span;
        let name = &definition.name.value;
        let Some(key) = &found.key else {
            if matches!(found.kind.as_str(), "r" | "p") {
                self.problem(
                    span,
                    format!("table \"{name}\" has no primary key"),
                    "add one: ALTER TABLE ... ADD PRIMARY KEY (...)",
                );
            }
            return;
        };
        if !key.immediate {
            let message = format!("the primary key of \"{name}\" is DEFERRABLE: a key may be there twice");
            self.problem(span, message, "make it NOT DEFERRABLE");
        }
        for column in found.key_columns() {
            match columns.iter().find(|carried| carried.name == column.name) {
                None => {
                    let message = format!("column \"{}\" belongs to the key and is not carried", column.name);
                    self.problem(span, message, "add it to columns");
                }
                Some(_) => {
                    if let Some(found) = key_problem(column) {
                        let message = format!("column \"{}\" can't be a key: {}", column.name, found.what);
                        self.problem(span, message, found.remedy);
                    }
                }
            }
        }
    }

    fn columns(
        &mut self,
        definition: &TableDefinition,
        found: &CatalogTable,
        ids: &mut ColumnIds,
    ) -> Vec<ColumnSchema> {
        let table = &definition.name.value;
        for (name, ty) in &definition.types {
            if found.column(name).is_none() {
                let message = format!("table \"{table}\" has no column \"{name}\"");
                self.problem(&ty.span, message, "check the name in types");
            }
        }
        let Some(named) = &definition.columns else {
            for column in found.columns.iter().filter(|column| column.generated) {
                self.notes.push(format!(
                    "\"{table}\".\"{}\" is generated and not carried: each side computes its own",
                    column.name
                ));
            }
            let carried = found.columns.iter().filter(|column| !column.generated);
            return carried.filter_map(|column| self.column(definition, column, ids)).collect();
        };
        let mut seen = BTreeSet::new();
        let mut columns = Vec::with_capacity(named.len());
        for name in named {
            if !seen.insert(name.value.as_str()) {
                let message = format!("column \"{}\" stands in columns twice", name.value);
                self.problem(&name.span, message, "remove one of them");
                continue;
            }
            match found.column(&name.value) {
                None => {
                    let message = format!("table \"{table}\" has no column \"{}\"", name.value);
                    self.problem(&name.span, message, "check the name");
                }
                Some(column) if column.generated => {
                    let message =
                        format!("column \"{}\" is generated: each side computes its own", name.value);
                    self.problem(&name.span, message, "remove it from columns");
                }
                Some(column) => columns.extend(self.column(definition, column, ids)),
            }
        }
        for column in &found.columns {
            let left_out = !seen.contains(column.name.as_str()) && !column.generated;
            if left_out && column.not_null && !column.has_default && column.identity.is_empty() {
                self.notes.push(format!(
                    "\"{table}\".\"{}\" is NOT NULL, has no default and is not carried: rows that are born at a leaf \
                     will be refused",
                    column.name
                ));
            }
        }
        columns
    }

    fn column(
        &mut self,
        definition: &TableDefinition,
        column: &CatalogColumn,
        ids: &mut ColumnIds,
    ) -> Option<ColumnSchema> {
        let wanted = definition.types.get(&column.name);
        let Some(ColumnType { canonical, .. }) = column.carried_as(wanted.map(|ty| ty.value)) else {
            let ty = wanted.map_or(CanonicalType::Text, |ty| ty.value);
            let span = wanted.map_or(&definition.name.span, |ty| &ty.span).clone();
            let message = format!(
                "column \"{}\" is {} and can't be carried as {}",
                column.name,
                column.declared,
                ty.as_str()
            );
            self.problem(&span, message, "use its own type, or text");
            return None;
        };
        Some(ColumnSchema {
            id: ids.id(column),
            name: column.name.clone(),
            ty: canonical,
            not_null: column.not_null,
            precision_scale: (canonical == CanonicalType::Decimal)
                .then(|| column.precision_scale())
                .flatten(),
            default: column.default.as_deref().and_then(|text| constant_default(text, canonical)),
        })
    }

    fn leaf_name(&mut self, definition: &TableDefinition, found: &CatalogTable) -> String {
        match &definition.leaf_name {
            Some(name) => name.value.clone(),
            None => {
                if found.schema != "public" {
                    let message = format!("table \"{}\" is not in the schema public", definition.name.value);
                    self.problem(
                        &definition.name.span,
                        message,
                        "say what it is called at leaves: as = \"name\"",
                    );
                }
                found.name.clone()
            }
        }
    }
}
