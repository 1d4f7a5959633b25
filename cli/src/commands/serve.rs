//! `syncline serve`: runs the service over a hub's database.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use syncline_engine::hub::{Hub, HubConfig};
use syncline_engine::spool::Spool;
use syncline_service::config::{ConfigProblem, ServeConfig, ServeFlags, load};
use syncline_service::{ServeError, serve, telemetry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::sync::parse_batch_bytes;
use crate::database::DatabaseUrl;
use crate::exit::Exit;
use crate::failure::{Failure, FailureProblem, FailureReason};
use crate::output::Output;

/// How often expired sessions are removed and logs folded.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(60);

/// Arguments of `serve`. Each overrides what environment and file say.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: syncline serve --database postgres://me@db.example/shop --spool /var/lib/syncline"
)]
pub(crate) struct ServeArgs {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen; beyond loopback only with TLS or --insecure-listen
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The hub's database: sqlite:FILE or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL", env = "SYNCLINE_DATABASE", hide_env_values = true)]
    database: Option<DatabaseUrl>,
    /// The directory for batches that wait
    #[arg(long, value_name = "DIR")]
    spool: Option<String>,
    /// The largest batch before compression that is agreed, 64KiB to 64MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_batch_bytes)]
    batch_bytes: Option<u64>,
    /// How long a session is kept without a call
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    lease: Option<Duration>,
    /// Listen beyond loopback without TLS
    #[arg(long)]
    insecure_listen: bool,
}

/// Runs the command.
pub(crate) async fn run(
    arguments: ServeArgs,
    output: &Output,
    interrupt: &CancellationToken,
) -> Result<Exit, Failure> {
    let config = settings(&arguments)?;
    telemetry::init(&config.log).map_err(invalid)?;
    // What is wrong with the settings is found before anything is made in the database or on disk.
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| invalid(format!("can't listen on {}: {error}", config.listen)))?;
    let hub = open_hub(&config).await?;
    let address = listener.local_addr().map_err(Failure::internal)?;
    output.line(&format!("listening on {address}; Ctrl-C stops"));
    let housekeeping = tokio::spawn(keep_house(hub.clone()));
    let served = serve(config, Arc::new(hub), listener, interrupt.clone().cancelled_owned()).await;
    housekeeping.abort();
    served.map_err(|error| match error {
        ServeError::Transport(_) | ServeError::Reflection(_) => Failure::internal(error),
        refused => invalid(refused),
    })?;
    Ok(Exit::Done)
}

fn settings(arguments: &ServeArgs) -> Result<ServeConfig, Failure> {
    let flags = ServeFlags {
        listen: arguments.listen,
        database: arguments.database.as_ref().map(DatabaseUrl::whole),
        spool: arguments.spool.clone(),
        batch_bytes: arguments.batch_bytes,
        lease: arguments.lease,
        insecure_listen: arguments.insecure_listen,
    };
    load(arguments.config.as_deref(), std::env::vars(), &flags).map_err(|error| {
        let mut failure = invalid("the configuration is wrong");
        failure.problems = error.problems.into_iter().map(problem).collect();
        failure
    })
}

fn problem(problem: ConfigProblem) -> FailureProblem {
    let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
    FailureProblem {
        file: (!problem.source.is_empty()).then_some(problem.source),
        line: None,
        column: None,
        message: format!("{key}{}", problem.message),
        remedy: String::new(),
    }
}

fn invalid(message: impl ToString) -> Failure {
    Failure::new(FailureReason::ConfigInvalid, message.to_string())
}

async fn open_hub(config: &ServeConfig) -> Result<Hub, Failure> {
    let url = config.database.as_ref().ok_or_else(|| {
        invalid("no database is named")
            .with_remedy("say --database, SYNCLINE_DATABASE, or `database` in the file")
    })?;
    let url: DatabaseUrl =
        url.expose().parse().map_err(|problem: String| invalid(format!("database: {problem}")))?;
    // Both are there before anything is made in either.
    let store = url.look_at().await?;
    let spool = Spool::directory(config.spool.directory()).map_err(|error| invalid(error.message()))?;
    store.open_hub().await?;
    Ok(Hub::open(store, spool, hub_config(config)).await?)
}

fn hub_config(config: &ServeConfig) -> HubConfig {
    HubConfig {
        lease: config.session.lease,
        batch_bytes_max: config.session.batch_bytes_max,
        row_bytes_max: config.session.row_bytes_max,
        spool_session_bytes_max: config.spool.session_bytes_max(),
        spool_bytes_max: config.spool.bytes_max(),
        sessions_max: config.session.sessions_max,
        ..HubConfig::default()
    }
}

/// Removes what nobody asks for any more, and folds logs, so that neither grows while no client comes.
async fn keep_house(hub: Hub) {
    let mut pause = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    // The first tick comes at once: opening the hub has just swept.
    pause.tick().await;
    loop {
        pause.tick().await;
        if let Err(error) = hub.sweep().await {
            tracing::warn!(?error, "expired sessions could not be removed; tried again later");
        }
        if let Err(error) = fold(&hub).await {
            tracing::warn!(?error, "logs could not be folded; tried again later");
        }
    }
}

async fn fold(hub: &Hub) -> syncline::error::Result<()> {
    for name in hub.store().scope_names().await? {
        if let Some(scope) = hub.store().scope(&name).await? {
            hub.store().fold(&scope).await?;
        }
    }
    Ok(())
}
