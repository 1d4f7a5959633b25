//! `syncline conflicts`: the log of a hub or of a leaf, with both sides of every conflict.

use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use syncline::error::{ErrorReason, SyncError};
use syncline::ids::{ConflictId, ScopeName};
use syncline::value::format_timestamptz;
use syncline_engine::dialect::meta::conflicts::{self, ConflictEntry};

use super::parse_scope_name;
use crate::database::{DatabaseArg, Store};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, Table, time};

/// The most entries that are listed at once.
const LISTED_MAX: i64 = 1_000;

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsCommand {
    /// Lists conflicts, newest first
    #[command(after_help = "Example: syncline conflicts list --database sqlite:shop.db")]
    List(ListArgs),
    /// Shows one conflict with both rows
    #[command(after_help = "Example: syncline conflicts show 0193d7c0-... --database sqlite:shop.db")]
    Show(ShowArgs),
    /// Settles a conflict by hand (not in this version)
    #[command(
        after_help = "Example: syncline conflicts resolve 0193d7c0-... --keep local --database sqlite:shop.db"
    )]
    Resolve(ResolveArgs),
}

/// Arguments of `conflicts list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    database: DatabaseArg,
    /// Only those of this scope
    #[arg(long, value_parser = parse_scope_name)]
    scope: Option<ScopeName>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=LISTED_MAX))]
    limit: i64,
    /// Pass over this many first
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    offset: i64,
}

/// Arguments of `conflicts show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The entry's id
    #[arg(value_parser = parse_conflict_id)]
    id: ConflictId,
    #[command(flatten)]
    database: DatabaseArg,
}

/// Arguments of `conflicts resolve`.
#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// The entry's id
    #[arg(value_parser = parse_conflict_id)]
    id: ConflictId,
    /// The side to keep
    #[arg(long)]
    keep: Keep,
    #[command(flatten)]
    database: DatabaseArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Keep {
    Local,
    Remote,
}

fn parse_conflict_id(text: &str) -> Result<ConflictId, String> {
    let id = uuid::Uuid::try_parse(text).map_err(|_| "a conflict's id is a UUID".to_owned())?;
    ConflictId::from_slice(id.as_bytes()).map_err(|error| error.problem)
}

/// Runs the command.
pub(crate) async fn run(command: ConflictsCommand, output: &Output) -> Result<Exit, Failure> {
    match command {
        ConflictsCommand::List(arguments) => list(arguments, output).await,
        ConflictsCommand::Show(arguments) => show(arguments, output).await,
        ConflictsCommand::Resolve(ResolveArgs { id, keep, database }) => {
            let what = format!("settling conflict {id} in {} by keeping {keep:?}", database.database);
            Err(Failure::unsupported(
                &what.to_lowercase(),
                "write the row that you want: it is synchronised like any other",
            ))
        }
    }
}

async fn list(arguments: ListArgs, output: &Output) -> Result<Exit, Failure> {
    let mut entries = Vec::new();
    if let Some(database) = log(&arguments.database).await? {
        let statement = conflicts::list(arguments.scope.as_ref(), arguments.limit, arguments.offset);
        for row in database.read(statement).await? {
            entries.push(conflicts::from_row(&row)?);
        }
    }
    let document = json!({ "conflicts": entries.iter().map(entry_json).collect::<Vec<_>>() });
    output.answer(&document, || list_text(&entries));
    Ok(Exit::Done)
}

/// The database, if it has a log: one in which there is nothing of ours has none.
async fn log(database: &DatabaseArg) -> Result<Option<Arc<dyn Store>>, Failure> {
    let database = database.database.look_at().await?;
    let has_log = !database.scope_names().await?.is_empty() || !database.subscriptions().await?.is_empty();
    Ok(has_log.then_some(database))
}

async fn show(arguments: ShowArgs, output: &Output) -> Result<Exit, Failure> {
    let rows = match log(&arguments.database).await? {
        Some(database) => database.read(conflicts::load(arguments.id)).await?,
        None => Vec::new(),
    };
    let row = rows.first().ok_or_else(|| {
        let message = format!("the log has no conflict {}", arguments.id);
        Failure::from(SyncError::new(ErrorReason::RequestInvalid, message))
            .with_remedy("`syncline conflicts list` shows the ids")
    })?;
    let entry = conflicts::from_row(row)?;
    output.answer(&entry_json(&entry), || entry_text(&entry));
    Ok(Exit::Done)
}

/// An entry as programs read it. Local is the replica whose log it is.
pub(super) fn entry_json(entry: &ConflictEntry) -> Value {
    let summary = &entry.summary;
    let operation = |removes: bool| if removes { "delete" } else { "upsert" };
    json!({
        "id": summary.id.to_string(),
        "scope": entry.scope.as_str(),
        "session_id": entry.session.to_string(),
        "table": summary.table_name,
        "key": key_json(entry),
        "kind": summary.kind.name(),
        "policy": summary.policy.as_str(),
        "outcome": summary.outcome.as_str(),
        "detected_at": format_timestamptz(entry.detected_at),
        "local": { "operation": operation(summary.kind.local.operation().removes()), "row": entry.local_row },
        "remote": { "operation": operation(summary.kind.remote.operation().removes()), "row": entry.remote_row },
        "made_with": entry.made_with,
    })
}

fn key_json(entry: &ConflictEntry) -> Value {
    let text = &entry.summary.key_json;
    serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into())
}

fn list_text(entries: &[ConflictEntry]) -> String {
    let mut table = Table::new(["id", "detected", "table", "key", "local/remote", "policy", "kept"]);
    for entry in entries {
        let summary = &entry.summary;
        table.row([
            summary.id.to_string(),
            time(entry.detected_at),
            summary.table_name.clone(),
            summary.key_json.clone(),
            format!("{}/{}", summary.kind.local.as_str(), summary.kind.remote.as_str()),
            summary.policy.as_str().to_owned(),
            summary.outcome.as_str().to_owned(),
        ]);
    }
    table.text_or("no conflicts")
}

/// An entry as people read it, both rows column by column.
pub(super) fn entry_text(entry: &ConflictEntry) -> String {
    let summary = &entry.summary;
    let mut text = format!(
        "conflict {} in scope {}, found {}\ntable {}, key {}\n{} here met {} from there: {} kept the {} row\n\n",
        summary.id,
        entry.scope,
        time(entry.detected_at),
        summary.table_name,
        summary.key_json,
        summary.kind.local.as_str(),
        summary.kind.remote.as_str(),
        summary.policy.as_str(),
        summary.outcome.as_str(),
    );
    text.push_str(&both_rows(entry));
    text
}

/// Both rows side by side; a star marks where they differ.
pub(super) fn both_rows(entry: &ConflictEntry) -> String {
    let (local, remote) = (entry.local_row.as_ref(), entry.remote_row.as_ref());
    let Some(columns) = local.or(remote).and_then(Value::as_object) else { return String::new() };
    let cell = |row: Option<&Value>, column: &str| match row.map(|row| &row[column]) {
        None => "(deleted)".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let mut table = Table::new(["column", "local", "remote", ""]);
    for column in columns.keys() {
        let (here, there) = (cell(local, column), cell(remote, column));
        let mark = if here == there { "" } else { "*" };
        table.row([column.clone(), here, there, mark.to_owned()]);
    }
    table.text_or("")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use syncline::conflict::{ConflictKind, ConflictSummary, Outcome, Side};
    use syncline::ids::{SessionId, TableId};
    use syncline::schema::ConflictPolicy;

    use super::*;

    fn entry(remote: Option<Value>) -> ConflictEntry {
        let side = if remote.is_some() { Side::Update } else { Side::Delete };
        ConflictEntry {
            summary: ConflictSummary {
                id: ConflictId::fresh(),
                table: TableId(1),
                table_name: "customer".into(),
                key_json: "{\"id\":7}".into(),
                kind: ConflictKind { local: Side::Update, remote: side },
                policy: ConflictPolicy::ServerWins,
                outcome: Outcome::Local,
            },
            session: SessionId::fresh(),
            scope: "shop".parse().unwrap(),
            row_key: Default::default(),
            detected_at: 1_500_000,
            local_row: Some(json!({"id": 7, "name": "Ada"})),
            remote_row: remote,
            made_with: "{A:5}".into(),
        }
    }

    #[test]
    fn an_entry_has_the_documented_form() {
        let entry = entry(None);
        let mut document = entry_json(&entry);
        assert_eq!(document["id"], entry.summary.id.to_string());
        document.as_object_mut().unwrap().retain(|key, _| !["id", "session_id"].contains(&key.as_str()));
        assert_eq!(
            document,
            json!({
                "scope": "shop", "table": "customer", "key": {"id": 7}, "kind": "update_delete",
                "policy": "server_wins", "outcome": "local", "detected_at": "1970-01-01 00:00:01.5+00:00",
                "local": {"operation": "upsert", "row": {"id": 7, "name": "Ada"}},
                "remote": {"operation": "delete", "row": null}, "made_with": "{A:5}",
            })
        );
    }

    #[test]
    fn both_rows_are_shown_and_differences_marked() {
        assert_eq!(
            both_rows(&entry(Some(json!({"id": 7, "name": "Grace"})))),
            "column  local  remote\nid      7      7\nname    Ada    Grace   *\n"
        );
        assert!(both_rows(&entry(None)).contains("Ada    (deleted)  *"));
    }

    #[test]
    fn a_list_is_a_table() {
        assert_eq!(list_text(&[]), "no conflicts");
        assert!(
            list_text(&[entry(None)]).contains("customer  {\"id\":7}  update/delete  server_wins  local")
        );
        assert!(
            entry_text(&entry(None))
                .contains("update here met delete from there: server_wins kept the local row")
        );
    }
}
