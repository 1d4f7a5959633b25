//! `syncline status`: how a database stands, as a hub and as a leaf.

use clap::Args;
use serde::Serialize;
use syncline::ids::ReplicaId;
use syncline::value::format_timestamptz;
use syncline_engine::dialect::meta::{leaves, row_errors};
use syncline_engine::store::{StoredScope, Subscription};

use super::scope::direction;
use crate::database::{DatabaseUrl, Store};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, Table, count};

/// Row errors that are counted; more are "at least".
const ROW_ERRORS_COUNTED_MAX: i64 = 10_000;

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Example: syncline status --database sqlite:shop.db")]
#[group(required = true)]
pub(crate) struct StatusArgs {
    /// The database: sqlite:FILE or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL", env = "SYNCLINE_DATABASE", hide_env_values = true, group = "whose")]
    database: Option<DatabaseUrl>,
    /// The administration address of a service (not in this version)
    #[arg(long, value_name = "URL", group = "whose")]
    admin: Option<String>,
}

/// How a database stands.
#[derive(Debug, Serialize)]
struct Status {
    database: String,
    hub: Vec<HubScope>,
    leaf: Vec<LeafScope>,
}

/// A scope that the database serves.
#[derive(Debug, Serialize)]
struct HubScope {
    scope: String,
    version: u32,
    tables: Vec<HubTable>,
    replicas: Vec<HubReplica>,
    row_errors: usize,
}

#[derive(Debug, Serialize)]
struct HubTable {
    name: String,
    direction: &'static str,
    log_entries: u64,
    records: u64,
}

#[derive(Debug, Serialize)]
struct HubReplica {
    id: String,
    last_seen: String,
    acknowledged: bool,
}

/// A scope that the database synchronises as a leaf.
#[derive(Debug, Serialize)]
struct LeafScope {
    scope: String,
    version: u32,
    replica: String,
    hub: String,
    pending_changes: u64,
    last_completed: Option<String>,
    session_id: Option<String>,
    stuck: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(arguments: StatusArgs, output: &Output) -> Result<Exit, Failure> {
    let Some(url) = arguments.database else {
        return Err(Failure::unsupported("asking a service for its status", "use --database at the hub"));
    };
    let mut status = Status { database: url.to_string(), hub: Vec::new(), leaf: Vec::new() };
    let database = url.look_at().await?;
    for name in database.scope_names().await? {
        if let Some(scope) = database.scope(&name).await? {
            status.hub.push(hub_scope(database.as_ref(), &scope).await?);
        }
    }
    for subscription in database.subscriptions().await? {
        status.leaf.push(leaf_scope(database.as_ref(), &subscription).await?);
    }
    output.answer(&status, || status_text(&status));
    Ok(Exit::Done)
}

async fn hub_scope(hub: &dyn Store, scope: &StoredScope) -> Result<HubScope, Failure> {
    let counts = hub.tracking_counts(scope).await?;
    let tables = scope.schema.tables.iter().map(|table| {
        let (log_entries, records) = counts.get(&table.id).copied().unwrap_or_default();
        HubTable { name: table.name.clone(), direction: direction(table.direction), log_entries, records }
    });
    let mut replicas = Vec::new();
    for row in hub.read(leaves::list(scope.id)).await? {
        let id = ReplicaId::from_slice(row.bytes(0)?).map_err(Failure::internal)?;
        replicas.push(HubReplica {
            id: id.to_string(),
            last_seen: format_timestamptz(row.int(1)?),
            acknowledged: row.bytes_or_null(2)?.is_some(),
        });
    }
    let errors = hub.read(row_errors::of_scope(&scope.schema.name, ROW_ERRORS_COUNTED_MAX)).await?;
    Ok(HubScope {
        scope: scope.schema.name.to_string(),
        version: scope.schema.version,
        tables: tables.collect(),
        replicas,
        row_errors: errors.len(),
    })
}

async fn leaf_scope(leaf: &dyn Store, subscription: &Subscription) -> Result<LeafScope, Failure> {
    Ok(LeafScope {
        scope: subscription.schema.name.to_string(),
        version: subscription.schema.version,
        replica: subscription.replica.to_string(),
        hub: subscription.hub.to_string(),
        pending_changes: leaf.pending_changes(subscription).await?,
        last_completed: subscription.completed_at.map(format_timestamptz),
        session_id: subscription.session.map(|session| session.to_string()),
        stuck: stuck(subscription),
    })
}

/// What keeps a leaf from being in step, beside changes that merely wait for the next session.
fn stuck(subscription: &Subscription) -> Vec<String> {
    let mut stuck = Vec::new();
    if subscription.diverged {
        stuck.push("one side was restored from a copy: the next session compares everything".to_owned());
    } else if subscription.reinitialize {
        stuck.push("the next session compares everything anew".to_owned());
    }
    if let Some(session) = subscription.session {
        stuck.push(format!("session {session} was broken off: the next run goes on with it"));
    }
    match subscription.excepted_keys.len() {
        0 => {}
        1 => stuck.push("one row could not be applied here: it is sent again every time".to_owned()),
        more => stuck.push(format!("{more} rows could not be applied here: they are sent again every time")),
    }
    stuck
}

fn status_text(status: &Status) -> String {
    let mut text = String::new();
    for scope in &status.hub {
        text.push_str(&hub_text(scope));
    }
    for scope in &status.leaf {
        text.push_str(&leaf_text(scope));
    }
    if text.is_empty() { format!("{} is neither hub nor leaf of any scope", status.database) } else { text }
}

fn hub_text(scope: &HubScope) -> String {
    let mut tables = Table::new(["table", "direction", "log entries", "records"]);
    for table in &scope.tables {
        tables.row([
            table.name.clone(),
            table.direction.to_owned(),
            count(table.log_entries),
            count(table.records),
        ]);
    }
    let mut replicas = Table::new(["replica", "last seen", "acknowledged"]);
    for replica in &scope.replicas {
        let acknowledged = if replica.acknowledged { "yes" } else { "nothing yet" };
        replicas.row([replica.id.clone(), replica.last_seen.clone(), acknowledged.to_owned()]);
    }
    let mut text =
        format!("hub of scope {}, version {}\n\n{}\n", scope.scope, scope.version, tables.text_or(""));
    text.push_str(&replicas.text_or("no replica has synchronised yet\n"));
    if scope.row_errors > 0 {
        text.push_str(&format!("\n{} uploaded rows could not be applied\n", scope.row_errors));
    }
    text.push('\n');
    text
}

fn leaf_text(scope: &LeafScope) -> String {
    let last = scope.last_completed.as_deref().unwrap_or("never");
    let mut text = format!(
        "leaf of scope {}, version {}\n  replica {} of hub {}\n  last complete session: {last}\n  changes that wait for \
         upload: {}\n",
        scope.scope,
        scope.version,
        scope.replica,
        scope.hub,
        count(scope.pending_changes),
    );
    for line in &scope.stuck {
        text.push_str(&format!("  {line}\n"));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_neither_says_so() {
        let status = Status { database: "sqlite:a.db".into(), hub: Vec::new(), leaf: Vec::new() };
        assert_eq!(status_text(&status), "sqlite:a.db is neither hub nor leaf of any scope");
    }

    #[test]
    fn hub_and_leaf_are_shown() {
        let hub = HubScope {
            scope: "shop".into(),
            version: 1,
            tables: vec![HubTable { name: "item".into(), direction: "both", log_entries: 0, records: 1_200 }],
            replicas: vec![HubReplica { id: "r1".into(), last_seen: "now".into(), acknowledged: true }],
            row_errors: 2,
        };
        let leaf = LeafScope {
            scope: "shop".into(),
            version: 1,
            replica: "r1".into(),
            hub: "h".into(),
            pending_changes: 3,
            last_completed: None,
            session_id: None,
            stuck: vec!["x".into()],
        };
        let text = status_text(&Status { database: String::new(), hub: vec![hub], leaf: vec![leaf] });
        assert!(text.contains("item   both                 0    1,200"), "{text}");
        assert!(text.contains("r1       now        yes") && text.contains("2 uploaded rows"), "{text}");
        assert!(
            text.contains("last complete session: never\n  changes that wait for upload: 3\n  x\n"),
            "{text}"
        );
    }
}
