//! A scope file: TOML, with every key and value checked, and all problems said at once with their places.

use std::collections::BTreeMap;
use std::ops::Range;

use syncline::ids::ScopeName;
use syncline::limits;
use syncline::schema::{ConflictPolicy, Direction, RowErrorPolicy};
use syncline::value::CanonicalType;
use toml::de::{DeTable, DeValue};

use super::reader::{Item, Known, Reader};
use super::{DefineError, ScopeDefinition, Spanned, TableDefinition};

const SCOPE: Known =
    Known { place: "a scope file", keys: &["name", "conflict", "row_errors", "params", "tables"] };
const TABLE: Known = Known {
    place: "[[tables]]",
    keys: &["name", "as", "columns", "types", "direction", "filter", "conflict"],
};
const POLICIES: &[&str] = &["server_wins", "client_wins", "last_writer_wins"];
const POLICIES_LATER: &[&str] = &["merge_columns", "custom"];

/// Parses a scope file. What it says of tables and columns is not compared with any database yet.
///
/// # Errors
/// All problems at once, in the order of the file.
pub fn parse(text: &str) -> Result<ScopeDefinition, DefineError> {
    let mut reader = Reader::default();
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        reader.problem(
            error.span().unwrap_or(0..0),
            format!("this is not TOML: {}", error.message()),
            "correct the syntax; https://toml.io describes it",
        );
    }
    // What follows a broken line may be read wrong: other problems are looked for once the syntax is right.
    let definition = if reader.is_clean() { scope(&mut reader, document.get_ref()) } else { None };
    match definition {
        Some(definition) if reader.is_clean() => Ok(definition),
        _ => Err(DefineError::Problems(reader.into_problems())),
    }
}

fn scope(reader: &mut Reader, document: &DeTable<'_>) -> Option<ScopeDefinition> {
    reader.refuse_unknown_keys(document, &SCOPE);
    if let Some((key, _)) = document.get_key_value("params") {
        let remedy = "remove the section: all rows of the scope's tables are synchronised";
        reader.problem(key.span(), "parameters are not supported by this version", remedy);
    }
    let name = scope_name(reader, document);
    let conflict_policy = policy(reader, document).unwrap_or_default();
    let row_error_policy = reader
        .choice(document, "row_errors", &["skip", "abort"], |name| match name {
            "skip" => Some(RowErrorPolicy::Skip),
            "abort" => Some(RowErrorPolicy::Abort),
            _ => None,
        })
        .map_or(RowErrorPolicy::Skip, |chosen| chosen.value);
    let tables = tables(reader, document);
    refuse_tables_that_meet(reader, &tables);
    Some(ScopeDefinition { name: name?, conflict_policy, row_error_policy, tables })
}

fn scope_name(reader: &mut Reader, document: &DeTable<'_>) -> Option<ScopeName> {
    if !document.contains_key("name") {
        reader.problem(0..0, "the scope has no name", "begin the file with `name = \"...\"`");
    }
    let name = reader.text(document, "name")?;
    match name.value.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let remedy = "choose a name like \"shop\" or \"shop-2.eu\"";
            reader.problem(name.span, error.to_string(), remedy);
            None
        }
    }
}

fn policy(reader: &mut Reader, table: &DeTable<'_>) -> Option<ConflictPolicy> {
    let text = reader.text(table, "conflict")?;
    if POLICIES_LATER.contains(&text.value.as_str()) {
        let message = format!("the conflict policy \"{}\" is not supported by this version", text.value);
        reader.problem(text.span, message, format!("use one of {}", POLICIES.join(", ")));
        return None;
    }
    reader.chosen(text, "`conflict`", POLICIES, ConflictPolicy::from_name).map(|chosen| chosen.value)
}

fn tables(reader: &mut Reader, document: &DeTable<'_>) -> Vec<TableDefinition> {
    let remedy = "add a section `[[tables]]` with `name = \"...\"` for each table";
    let Some(item) = document.get("tables") else {
        reader.problem(0..0, "the scope has no tables", remedy);
        return Vec::new();
    };
    let Some(items) = item.get_ref().as_array() else {
        reader.wrong_type(item, "`tables`", "a list of tables (`[[tables]]`, with two brackets)");
        return Vec::new();
    };
    if items.is_empty() {
        reader.problem(item.span(), "the scope has no tables", remedy);
    }
    if items.len() > limits::SCOPE_TABLES_MAX {
        let message = format!("a scope has at most {} tables", limits::SCOPE_TABLES_MAX);
        reader.problem(item.span(), message, "divide it into several scopes");
    }
    items.iter().take(limits::SCOPE_TABLES_MAX).filter_map(|item| table(reader, item)).collect()
}

fn table(reader: &mut Reader, item: &Item<'_>) -> Option<TableDefinition> {
    let DeValue::Table(fields) = item.get_ref() else {
        reader.wrong_type(item, "an entry of `tables`", "a table");
        return None;
    };
    reader.refuse_unknown_keys(fields, &TABLE);
    if let Some((key, _)) = fields.get_key_value("filter") {
        let remedy = "remove the filter: all rows of the table are synchronised";
        reader.problem(key.span(), "filters are not supported by this version", remedy);
    }
    if !fields.contains_key("name") {
        reader.problem(item.span(), "a table has no name", "add `name = \"...\"`");
    }
    let leaf_name = leaf_name(reader, fields);
    let name = table_name(reader, fields, leaf_name.is_some());
    let columns = columns(reader, fields);
    let types = types(reader, fields, columns.as_deref());
    let direction = reader
        .choice(fields, "direction", &["both", "download", "upload"], |name| match name {
            "both" => Some(Direction::Both),
            "download" => Some(Direction::Download),
            "upload" => Some(Direction::Upload),
            _ => None,
        })
        .map_or(Direction::Both, |chosen| chosen.value);
    let conflict_policy = policy(reader, fields);
    Some(TableDefinition {
        name: name?,
        leaf_name,
        columns,
        types,
        direction,
        conflict_policy,
        compare: false,
    })
}

fn table_name(reader: &mut Reader, fields: &DeTable<'_>, has_leaf_name: bool) -> Option<Spanned<String>> {
    let name = reader.text(fields, "name")?;
    let mut parts: Vec<&str> = name.value.split('.').collect();
    let (plain, schema) = (parts.pop().unwrap_or_default(), parts.pop());
    if !parts.is_empty() || schema.is_some_and(str::is_empty) {
        let message = format!("\"{}\" is no table's name", name.value);
        reader.problem(name.span, message, "write \"table\", or \"schema.table\"");
        return None;
    }
    if schema == Some("syncline") {
        refuse_ours(reader, &name.value, name.span);
        return None;
    }
    if !is_good_name(reader, plain, "a table", name.span.clone()) {
        return None;
    }
    if schema.is_some_and(|schema| schema != "public") && !has_leaf_name && !fields.contains_key("as") {
        let message = format!("\"{}\" is not in schema public: its name at leaves is not clear", name.value);
        reader.problem(name.span.clone(), message, format!("add `as = \"{plain}\"`, or another name"));
    }
    Some(name)
}

fn leaf_name(reader: &mut Reader, fields: &DeTable<'_>) -> Option<Spanned<String>> {
    let name = reader.text(fields, "as")?;
    if name.value.contains('.') {
        let message = format!("`as` can't be \"{}\": a name at leaves has no schema", name.value);
        reader.problem(name.span, message, "use a name without a point");
        return None;
    }
    is_good_name(reader, &name.value, "a table", name.span.clone()).then_some(name)
}

fn columns(reader: &mut Reader, fields: &DeTable<'_>) -> Option<Vec<Spanned<String>>> {
    let item = fields.get("columns")?;
    let Some(items) = item.get_ref().as_array() else {
        reader.wrong_type(item, "`columns`", "a list of names");
        return None;
    };
    if items.is_empty() {
        reader.problem(item.span(), "`columns` names no column", "name some, or remove it to carry all");
    }
    if items.len() > limits::BLOCK_COLUMNS_MAX {
        let message = format!("a table has at most {} columns", limits::BLOCK_COLUMNS_MAX);
        reader.problem(item.span(), message, "name fewer columns");
        return None;
    }
    let mut columns: Vec<Spanned<String>> = Vec::with_capacity(items.len());
    for item in items {
        let Some(name) = reader.item_text(item, "a column's name") else { continue };
        if columns.iter().any(|column| column.value == name.value) {
            let message = format!("column \"{}\" stands in it twice", name.value);
            reader.problem(name.span, message, "remove one");
        } else if is_good_name(reader, &name.value, "a column", name.span.clone()) {
            columns.push(name);
        }
    }
    Some(columns)
}

fn types(
    reader: &mut Reader,
    fields: &DeTable<'_>,
    columns: Option<&[Spanned<String>]>,
) -> BTreeMap<String, Spanned<CanonicalType>> {
    let Some(item) = fields.get("types") else { return BTreeMap::new() };
    let DeValue::Table(entries) = item.get_ref() else {
        reader.wrong_type(item, "`types`", "a table like { column = \"text\" }");
        return BTreeMap::new();
    };
    let choices: Vec<&str> = CanonicalType::ALL.iter().map(|ty| ty.as_str()).collect();
    let mut types = BTreeMap::new();
    for (key, item) in entries {
        let column = key.get_ref().as_ref();
        if columns.is_some_and(|columns| !columns.iter().any(|name| name.value == column)) {
            let message = format!("`types` names column \"{column}\", which is not among `columns`");
            reader.problem(key.span(), message, "add it to `columns`, or remove it here");
        }
        let what = format!("the type of \"{column}\"");
        let Some(text) = reader.item_text(item, &what) else { continue };
        if let Some(ty) = reader.chosen(text, &what, &choices, CanonicalType::from_name) {
            types.insert(column.to_owned(), ty);
        }
    }
    types
}

/// Notes names that no database takes, or that are ours.
fn is_good_name(reader: &mut Reader, name: &str, what: &str, span: Range<usize>) -> bool {
    if name.is_empty() || name.contains('\0') {
        let message = format!("{what} can't have {} name", if name.is_empty() { "an empty" } else { "this" });
        reader.problem(span, message, "write the name as it stands in the database");
        return false;
    }
    if name.to_lowercase().starts_with("syncline_") {
        refuse_ours(reader, name, span);
        return false;
    }
    true
}

fn refuse_ours(reader: &mut Reader, name: &str, span: Range<usize>) {
    let message = format!("\"{name}\" is a name that Syncline keeps for its own tables");
    reader.problem(span, message, "rename yours, or leave it out");
}

/// Notes tables that stand in the file twice, or that would have the same name at a leaf (SQLite tells no case).
fn refuse_tables_that_meet(reader: &mut Reader, tables: &[TableDefinition]) {
    let mut sources = BTreeMap::new();
    let mut leaves = BTreeMap::new();
    for table in tables {
        let source = table.name.value.strip_prefix("public.").unwrap_or(&table.name.value);
        if sources.insert(source, ()).is_some() {
            let message = format!("table \"{}\" stands in the file twice", table.name.value);
            reader.problem(table.name.span.clone(), message, "remove one of the sections");
            continue;
        }
        let plain = source.rsplit('.').next().unwrap_or(source);
        let at_leaf = table.leaf_name.as_ref().map_or(plain, |name| name.value.as_str());
        if let Some(other) = leaves.insert(at_leaf.to_lowercase(), source) {
            let span = table.leaf_name.as_ref().unwrap_or(&table.name).span.clone();
            let message = format!("\"{source}\" and \"{other}\" would both be \"{at_leaf}\" at leaves");
            reader.problem(span, message, "give one of them another name with `as`");
        }
    }
}
