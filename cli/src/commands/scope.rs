//! `syncline scope`: defines what is synchronised, and shows and drops it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use syncline::error::{ErrorReason, SyncError};
use syncline::ids::ScopeName;
use syncline::schema::{ColumnSchema, Direction, RowErrorPolicy, ScopeSchema, TableSchema};
use syncline_engine::store::{ScopeChange, StoredScope, StoredTable, Subscription};

use super::parse_scope_name;
use crate::database::{DatabaseArg, Store};
use crate::exit::Exit;
use crate::failure::{Failure, FailureReason};
use crate::output::{Output, Table, count};
use crate::scope_file::ScopeFile;

/// What to do with scopes.
#[derive(Debug, Subcommand)]
pub(crate) enum ScopeCommand {
    /// Defines or changes a scope and puts its tables under synchronisation; also while the service runs
    #[command(
        after_help = "Example: syncline scope apply shop.toml --database postgres://me@db.example/shop"
    )]
    Apply(ApplyArgs),
    /// Lists the scopes of a hub
    #[command(after_help = "Example: syncline scope list --database sqlite:shop.db")]
    List(ListArgs),
    /// Shows a scope: tables, columns, types, directions
    #[command(after_help = "Example: syncline scope show shop --database sqlite:shop.db")]
    Show(NamedArgs),
    /// Removes what was put into the database for a scope, and nothing else; at a leaf, ends its synchronisation
    #[command(after_help = "Example: syncline scope drop shop --database sqlite:shop.db")]
    Drop(NamedArgs),
}

/// Arguments of `scope apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The scope file
    file: PathBuf,
    #[command(flatten)]
    database: DatabaseArg,
    /// Change nothing: print the statements that would be run
    #[arg(long)]
    dry_run: bool,
    /// Have leaves compare this table with the hub's as a whole; may stand several times. For tables whose rows were
    /// changed past the triggers: ALTER COLUMN ... TYPE ... USING, for example
    #[arg(long, value_name = "TABLE")]
    compare: Vec<String>,
}

/// Arguments of `scope list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    database: DatabaseArg,
}

/// Arguments of `scope show` and `scope drop`.
#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    /// The scope
    #[arg(value_parser = parse_scope_name)]
    name: ScopeName,
    #[command(flatten)]
    database: DatabaseArg,
}

/// Runs the command.
pub(crate) async fn run(command: ScopeCommand, output: &Output) -> Result<Exit, Failure> {
    match command {
        ScopeCommand::Apply(arguments) => apply(arguments, output).await,
        ScopeCommand::List(arguments) => list(arguments, output).await,
        ScopeCommand::Show(arguments) => show(arguments, output).await,
        ScopeCommand::Drop(arguments) => drop_scope(arguments, output).await,
    }
}

async fn apply(arguments: ApplyArgs, output: &Output) -> Result<Exit, Failure> {
    let mut file = ScopeFile::read(&arguments.file)?;
    for table in &arguments.compare {
        if !file.definition.compare(table) {
            return Err(not_in_the_file(table, &file));
        }
    }
    let database = &arguments.database.database;
    // Tried before it is done: a file that does not fit must not even leave our own empty tables behind.
    let tried = database.look_at().await?.define_scope(&file.definition, true).await;
    let mut change = tried.map_err(|error| file.refused(error))?;
    if !arguments.dry_run {
        let defined = database.open_hub().await?.define_scope(&file.definition, false).await;
        change = defined.map_err(|error| file.refused(error))?;
    }
    output.answer(&change_json(&change, arguments.dry_run), || change_text(&change, arguments.dry_run));
    Ok(Exit::Done)
}

async fn list(arguments: ListArgs, output: &Output) -> Result<Exit, Failure> {
    let mut scopes = Vec::new();
    let hub = arguments.database.database.look_at().await?;
    for name in hub.scope_names().await? {
        // A scope that is dropped between the two questions is no longer listed.
        scopes.extend(hub.scope(&name).await?);
    }
    let document =
        json!({ "scopes": scopes.iter().map(|scope| summary_json(&scope.schema)).collect::<Vec<_>>() });
    output.answer(&document, || list_text(&scopes));
    Ok(Exit::Done)
}

async fn show(arguments: NamedArgs, output: &Output) -> Result<Exit, Failure> {
    let hub = arguments.database.database.look_at().await?;
    let scope = known(hub.as_ref(), &arguments.name).await?;
    output.answer(&scope_json(&scope), || scope_text(&scope));
    Ok(Exit::Done)
}

async fn drop_scope(arguments: NamedArgs, output: &Output) -> Result<Exit, Failure> {
    let hub = arguments.database.database.look_at().await?;
    if let Some(subscription) = hub.subscription(&arguments.name).await? {
        return leave(hub.as_ref(), &subscription, output).await;
    }
    known(hub.as_ref(), &arguments.name).await?;
    if !hub.drop_scope(&arguments.name).await? {
        return Err(no_scope(&arguments.name));
    }
    let document = json!({ "scope": arguments.name.as_str(), "dropped": true });
    output.answer(&document, || {
        format!("scope {} is dropped; its tables and rows are untouched", arguments.name)
    });
    Ok(Exit::Done)
}

/// Ends what a leaf synchronises: tables and rows stay, and what was not uploaded is no change any more.
async fn leave(leaf: &dyn Store, subscription: &Subscription, output: &Output) -> Result<Exit, Failure> {
    let name = &subscription.schema.name;
    let _held = leaf.hold(name).await?;
    // Where tracking is broken nobody can tell; this is the way out of it.
    let pending = leaf.pending_changes(subscription).await.ok();
    if !leaf.unsubscribe(name).await? {
        return Err(no_scope(name));
    }
    let document = json!({ "scope": name.as_str(), "dropped": true, "pending_changes": pending });
    output.answer(&document, || {
        let lost = match pending {
            Some(0) => String::new(),
            Some(pending) => format!("\n{} changes had not been uploaded", count(pending)),
            None => "\nhow many changes had not been uploaded can't be told".to_owned(),
        };
        format!(
            "scope {name} is not synchronised here any more; its tables and rows are untouched{lost}\n\
             if it is synchronised again, all that is compared, and rows that only stand here are uploaded"
        )
    });
    Ok(Exit::Done)
}

/// A scope that must be there. A database in which nothing of ours is has no scopes.
async fn known(hub: &dyn Store, name: &ScopeName) -> Result<StoredScope, Failure> {
    if !hub.scope_names().await?.contains(name) {
        return Err(no_scope(name));
    }
    hub.scope(name).await?.ok_or_else(|| no_scope(name))
}

fn no_scope(name: &ScopeName) -> Failure {
    SyncError::new(ErrorReason::ScopeNotFound, format!("there is no scope \"{name}\"")).into()
}

fn not_in_the_file(table: &str, file: &ScopeFile) -> Failure {
    let names: Vec<_> = file.definition.tables.iter().map(|table| table.name.value.as_str()).collect();
    let message = format!("--compare {table}: the scope file has no table of this name");
    let mut failure = Failure::new(FailureReason::Usage, message);
    failure.remedy = format!("name one of its tables: {}", names.join(", "));
    failure
}

fn change_json(change: &ScopeChange, dry_run: bool) -> Value {
    json!({
        "scope": change.scope.schema.name.as_str(),
        "version": change.scope.schema.version,
        "changed": change.changed,
        "dry_run": dry_run,
        "tables": change.scope.schema.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(),
        "statements": change.statements,
        "notes": change.notes,
    })
}

fn change_text(change: &ScopeChange, dry_run: bool) -> String {
    let schema = &change.scope.schema;
    let mut text = String::new();
    if dry_run {
        for statement in &change.statements {
            text.push_str(statement.trim_end_matches([';', '\n']));
            text.push_str(";\n");
        }
    }
    for note in &change.notes {
        text.push_str(&format!("{}note: {note}\n", if dry_run { "-- " } else { "" }));
    }
    let tables = match schema.tables.len() {
        1 => "one table".to_owned(),
        more => format!("{more} tables"),
    };
    text.push_str(&match (dry_run, change.changed) {
        (true, true) => {
            format!("-- dry run: nothing was changed; these are {} statements", change.statements.len())
        }
        (true, false) => "-- dry run: there is nothing to do".to_owned(),
        (false, true) => {
            format!("scope {} is at version {}: {tables} under synchronisation", schema.name, schema.version)
        }
        (false, false) => {
            format!("scope {} is as the file says already (version {})", schema.name, schema.version)
        }
    });
    text
}

fn summary_json(schema: &ScopeSchema) -> Value {
    json!({
        "name": schema.name.as_str(),
        "version": schema.version,
        "conflict": schema.conflict_policy.as_str(),
        "row_errors": row_errors(schema.row_error_policy),
        "tables": schema.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(),
    })
}

fn scope_json(scope: &StoredScope) -> Value {
    let schema = &scope.schema;
    let fingerprint: String = schema.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect();
    let tables: Vec<Value> = schema
        .tables
        .iter()
        .map(|table| table_json(schema, table, scope.tables.iter().find(|stored| stored.id == table.id)))
        .collect();
    json!({
        "name": schema.name.as_str(),
        "version": schema.version,
        "incarnation": schema.incarnation.to_string(),
        "fingerprint": fingerprint,
        "conflict": schema.conflict_policy.as_str(),
        "row_errors": row_errors(schema.row_error_policy),
        "tables": tables,
    })
}

fn table_json(schema: &ScopeSchema, table: &TableSchema, stored: Option<&StoredTable>) -> Value {
    json!({
        "name": table.name,
        "source": stored.map(source_name),
        "direction": direction(table.direction),
        "conflict": schema.policy(table).as_str(),
        "key": table.key_columns().map(|column| column.name.as_str()).collect::<Vec<_>>(),
        "columns": table.columns.iter().map(|column| json!({
            "name": column.name,
            "type": column.ty.as_str(),
            "not_null": column.not_null,
        })).collect::<Vec<_>>(),
    })
}

fn source_name(stored: &StoredTable) -> String {
    if stored.source_schema.is_empty() {
        stored.source_name.clone()
    } else {
        format!("{}.{}", stored.source_schema, stored.source_name)
    }
}

fn list_text(scopes: &[StoredScope]) -> String {
    let mut table = Table::new(["scope", "version", "tables", "conflict", "row errors"]);
    for StoredScope { schema, .. } in scopes {
        table.row([
            schema.name.to_string(),
            schema.version.to_string(),
            schema.tables.len().to_string(),
            schema.conflict_policy.as_str().to_owned(),
            row_errors(schema.row_error_policy).to_owned(),
        ]);
    }
    table.text_or("no scopes; `syncline scope apply FILE` defines one")
}

fn scope_text(scope: &StoredScope) -> String {
    let schema = &scope.schema;
    let mut text = format!(
        "scope {}, version {}: conflicts {}, row errors {}\n",
        schema.name,
        schema.version,
        schema.conflict_policy.as_str(),
        row_errors(schema.row_error_policy),
    );
    for table in &schema.tables {
        let direction = direction(table.direction);
        text.push_str(&format!("\n{} ({direction}, {})\n", table.name, schema.policy(table).as_str()));
        let mut columns = Table::new(["column", "type", ""]);
        for column in &table.columns {
            columns.row([column.name.clone(), type_text(column), column_note(table, column)]);
        }
        text.push_str(&columns.text_or(""));
    }
    text
}

fn type_text(column: &ColumnSchema) -> String {
    match column.precision_scale {
        Some((precision, scale)) => format!("{}({precision},{scale})", column.ty.as_str()),
        None => column.ty.as_str().to_owned(),
    }
}

fn column_note(table: &TableSchema, column: &ColumnSchema) -> String {
    let note = match (table.is_key(column.id), column.not_null) {
        (true, _) => "key",
        (false, true) => "not null",
        (false, false) => "",
    };
    note.to_owned()
}

/// A direction's name in scope files.
pub(super) fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Both => "both",
        Direction::Download => "download",
        Direction::Upload => "upload",
    }
}

fn row_errors(policy: RowErrorPolicy) -> &'static str {
    match policy {
        RowErrorPolicy::Skip => "skip",
        RowErrorPolicy::Abort => "abort",
    }
}

#[cfg(test)]
mod tests {
    use syncline::ids::{ColumnId, Incarnation, ReplicaId, TableId, Tick};
    use syncline::knowledge::Version;
    use syncline::schema::ConflictPolicy;
    use syncline::value::CanonicalType;

    use super::*;

    fn scope() -> StoredScope {
        let column = |id, name: &str, ty, not_null| ColumnSchema {
            id: ColumnId(id),
            name: name.to_owned(),
            ty,
            not_null,
            precision_scale: (ty == CanonicalType::Decimal).then_some((10, 2)),
            default: None,
        };
        let table = TableSchema {
            id: TableId(1),
            name: "item".into(),
            columns: vec![
                column(1, "id", CanonicalType::Int64, true),
                column(2, "price", CanonicalType::Decimal, false),
            ],
            key: vec![ColumnId(1)],
            foreign_keys: Vec::new(),
            unique: Vec::new(),
            direction: Direction::Download,
            conflict_policy: Some(ConflictPolicy::LastWriterWins),
        };
        let version = Version { replica: ReplicaId::fresh(), tick: Tick(3) };
        let stored = StoredTable {
            id: TableId(1),
            source_schema: "public".into(),
            source_name: "item".into(),
            since: version,
            reshaped: version,
            columns_since: Vec::new(),
            columns_left: Vec::new(),
            baseline: version,
            baseline_changed_at: 0,
        };
        let schema = ScopeSchema {
            #[allow(clippy::unwrap_used)]
            name: "shop".parse().unwrap(),
            incarnation: Incarnation::fresh(),
            version: 2,
            tables: vec![table],
            conflict_policy: ConflictPolicy::ServerWins,
            row_error_policy: RowErrorPolicy::Skip,
        };
        StoredScope { id: 1, schema, tables: vec![stored] }
    }

    #[test]
    fn a_scope_is_shown_with_its_columns() {
        assert_eq!(
            scope_text(&scope()),
            "scope shop, version 2: conflicts server_wins, row errors skip\n\n\
             item (download, last_writer_wins)\n\
             column  type\nid      int64          key\nprice   decimal(10,2)\n"
        );
        let document = scope_json(&scope());
        assert_eq!(document["tables"][0]["source"], "public.item");
        assert_eq!(document["tables"][0]["key"], json!(["id"]));
        assert_eq!(document["tables"][0]["columns"][1]["type"], "decimal");
    }

    #[test]
    fn scopes_are_listed() {
        assert!(list_text(&[]).starts_with("no scopes"));
        assert!(
            list_text(&[scope()]).contains("shop         2       1  server_wins  skip"),
            "{}",
            list_text(&[scope()])
        );
    }

    #[test]
    fn a_dry_run_prints_the_statements() {
        let change = |changed| ScopeChange {
            scope: scope(),
            statements: vec!["CREATE TABLE a (b);\n".into(), "SELECT 1".into()],
            changed,
            notes: vec!["column \"x\" is generated and not carried".into()],
        };
        let text = change_text(&change(true), true);
        assert!(text.starts_with("CREATE TABLE a (b);\nSELECT 1;\n-- note: column"), "{text}");
        assert!(text.ends_with("-- dry run: nothing was changed; these are 2 statements"), "{text}");
        let text = change_text(&change(true), false);
        assert!(text.ends_with("scope shop is at version 2: one table under synchronisation"), "{text}");
        assert!(change_text(&change(false), false).contains("already"));
        assert_eq!(change_json(&change(true), true)["statements"][1], "SELECT 1");
    }
}
