//! `syncline sync`: synchronises a local database with a service, once or again and again.

pub(crate) mod report;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use syncline::error::ErrorReason;
use syncline::ids::ScopeName;
use syncline::limits;
use syncline::schema::Direction;
use syncline_client::{
    ApplyMode, Due, PartsDirectory, Progress, RemoteHub, RemoteOptions, RunError, SyncOptions, SyncReport,
    Synchronizer, find_scope,
};
use syncline_engine::limits::WATCH_INTERVAL_DEFAULT;
use tokio_util::sync::CancellationToken;

use super::{TlsArgs, bad_connection, parse_scope_name, parse_server};
use crate::database::{DatabaseArg, DatabaseUrl};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, parse_bytes, watch};

/// How long a client that watches waits for another one that has the database.
const HELD_PAUSE: Duration = Duration::from_secs(5);

/// Arguments of `sync`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: syncline sync --server http://hub.example:50051 --scope shop --database sqlite:shop.db"
)]
pub(crate) struct SyncArgs {
    /// The service
    #[arg(long, value_name = "URL", value_parser = parse_server, required_unless_present = "peer", conflicts_with = "peer")]
    server: Option<String>,
    /// Another hub (not in this version)
    #[arg(long, value_name = "URL", value_parser = parse_server)]
    peer: Option<String>,
    /// The scope
    #[arg(long, value_parser = parse_scope_name)]
    scope: ScopeName,
    #[command(flatten)]
    database: DatabaseArg,
    /// A value for a parameter of the scope, once for each
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_parameter)]
    param: Vec<(String, String)>,
    /// Which way rows go
    #[arg(long, value_enum, default_value_t = Way::Both)]
    direction: Way,
    /// Go on, and synchronise whenever something is new at either side
    #[arg(long)]
    watch: bool,
    /// Synchronise again and again, with this pause
    #[arg(long, value_name = "PAUSE", value_parser = humantime::parse_duration, conflicts_with = "watch")]
    every: Option<Duration>,
    /// The largest batch before compression, 64KiB to 64MiB; by default what the service says
    #[arg(long, value_name = "BYTES", value_parser = parse_batch_bytes)]
    batch_bytes: Option<u64>,
    /// How long temporary failures are retried
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    retry_for: Duration,
    /// When what was downloaded is applied
    #[arg(long, value_enum, default_value_t = Apply::Once)]
    apply: Apply,
    /// Keep parts of broken-off sessions below this directory, in a folder for each database; by default in
    /// FILE-syncline beside a SQLite file, and for PostgreSQL below the user's state directory
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A file with the token that is sent along, for a proxy that checks it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Which way rows go in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Both ways
    Both,
    /// From here to the hub only
    Upload,
    /// From the hub to here only
    Download,
}

/// When what was downloaded is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Apply {
    /// In one transaction; a first download while it transfers
    Once,
    /// In a transaction a batch: readers see parts, and less is lost when it breaks off
    PerBatch,
    /// In one transaction, and never before the transfer is complete
    AfterTransfer,
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// Reads a batch size.
pub(crate) fn parse_batch_bytes(text: &str) -> Result<u64, String> {
    let number = parse_bytes(text)?;
    if (limits::BATCH_BYTES_MIN..=limits::BATCH_BYTES_MAX).contains(&number) {
        Ok(number)
    } else {
        Err("64KiB to 64MiB".to_owned())
    }
}

/// Refuses, by name, what later versions do. Answers the service's address.
fn refuse_unsupported(arguments: &SyncArgs) -> Result<String, Failure> {
    if !arguments.param.is_empty() {
        return Err(Failure::unsupported("--param: scopes with parameters", "leave it out"));
    }
    arguments.server.clone().ok_or_else(|| {
        Failure::unsupported("--peer: two hubs", "use --server: the local database is then a leaf")
    })
}

/// Runs the command.
pub(crate) async fn run(
    arguments: SyncArgs,
    output: &Output,
    interrupt: &CancellationToken,
) -> Result<Exit, Failure> {
    let address = refuse_unsupported(&arguments)?;
    let remote = RemoteHub::new(&RemoteOptions {
        address,
        tls: arguments.tls.options(),
        token_file: arguments.token_file.clone(),
    })
    .map_err(bad_connection)?;
    let options = options(&arguments);
    let database = &arguments.database.database;
    let place = state::directory(database, arguments.state_dir.as_deref())?;
    if is_first_contact(database, &options.scope).await? {
        ask_for_scope(&remote, &options, output.is_watched(), interrupt).await?;
    }
    let parts = open_parts(&arguments, &place, output, interrupt).await?;
    let store = database.open_leaf().await?;
    let synchronizer = Synchronizer::new(store, Arc::new(remote), parts, options);
    match arguments.every {
        None if arguments.watch => {
            let ended = run_watching(&synchronizer, output, interrupt).await;
            synchronizer.close().await;
            ended
        }
        None => {
            let (report, kept) =
                run_once(&synchronizer, Due::Perhaps, output.is_watched(), interrupt).await?;
            output.answer(&report, || report::text(&report, kept));
            Ok(report::exit(&report))
        }
        Some(pause) => run_every(&synchronizer, pause, output, interrupt).await,
    }
}

/// Takes the directory of parts. A command that goes on waits for another client that has it.
async fn open_parts(
    arguments: &SyncArgs,
    place: &Path,
    output: &Output,
    interrupt: &CancellationToken,
) -> Result<Arc<PartsDirectory>, Failure> {
    let pause = arguments.every.or(arguments.watch.then_some(HELD_PAUSE));
    loop {
        let taken = match (PartsDirectory::open(place), pause) {
            (Err(error), Some(pause)) if error.reason() == ErrorReason::LockTimeout => (error, pause),
            (opened, _) => return opened.map_err(Failure::from),
        };
        output.failure(&taken.0.into());
        if interrupt.run_until_cancelled(tokio::time::sleep(taken.1)).await.is_none() {
            return Err(Failure::interrupted());
        }
    }
}

/// Whether the database knows nothing of the scope yet, or is not even there. Changes nothing.
async fn is_first_contact(database: &DatabaseUrl, scope: &ScopeName) -> Result<bool, Failure> {
    if !database.exists_or_can_be_made()? {
        return Ok(true);
    }
    let subscriptions = database.look_at().await?.subscriptions().await?;
    Ok(!subscriptions.iter().any(|subscription| subscription.schema.name == *scope))
}

/// A wrong address or scope must not leave an empty database or a directory behind.
async fn ask_for_scope(
    remote: &RemoteHub,
    options: &SyncOptions,
    is_watched: bool,
    interrupt: &CancellationToken,
) -> Result<(), Failure> {
    let (progress, states) = Progress::channel();
    let (found, _) = tokio::join!(
        async {
            let found = find_scope(remote, options, &progress, interrupt).await;
            drop(progress);
            found
        },
        watch(states, is_watched),
    );
    found.map_err(failed)
}

fn failed(error: RunError) -> Failure {
    match error {
        RunError::Interrupted => Failure::interrupted(),
        RunError::Temporary(error) | RunError::Failed(error) => error.into(),
    }
}

fn options(arguments: &SyncArgs) -> SyncOptions {
    let direction = match arguments.direction {
        Way::Both => Direction::Both,
        Way::Upload => Direction::Upload,
        Way::Download => Direction::Download,
    };
    let apply = match arguments.apply {
        Apply::Once => ApplyMode::Once,
        Apply::PerBatch => ApplyMode::PerBatch,
        Apply::AfterTransfer => ApplyMode::AfterTransfer,
    };
    SyncOptions {
        direction,
        batch_bytes_max: arguments.batch_bytes,
        retry_for: arguments.retry_for,
        apply,
        client_name: concat!("syncline ", env!("CARGO_PKG_VERSION")).to_owned(),
        ..SyncOptions::of_scope(arguments.scope.clone())
    }
}

/// One run, with progress where somebody watches. Answers also how many batches an earlier run had moved.
pub(crate) async fn run_once(
    synchronizer: &Synchronizer,
    due: Due,
    is_watched: bool,
    interrupt: &CancellationToken,
) -> Result<(SyncReport, u64), Failure> {
    let (progress, states) = Progress::channel();
    let (ended, kept) = tokio::join!(
        async {
            let ended = synchronizer.run_due(due, &progress, interrupt).await;
            drop(progress);
            ended
        },
        watch(states, is_watched),
    );
    ended.map(|report| (report, kept)).map_err(failed)
}

/// Again and again until it is interrupted or fails for good. What is temporary is said, and tried again next time.
async fn run_every(
    synchronizer: &Synchronizer,
    pause: Duration,
    output: &Output,
    interrupt: &CancellationToken,
) -> Result<Exit, Failure> {
    loop {
        match run_once(synchronizer, Due::Perhaps, output.is_watched(), interrupt).await {
            Ok((report, kept)) => output.answer(&report, || report::text(&report, kept)),
            Err(failure) if Exit::of(&failure) == Exit::Temporary => output.failure(&failure),
            Err(failure) => return Err(failure),
        }
        if interrupt.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Err(Failure::interrupted());
        }
    }
}

/// At once, and then whenever something is new at either side, until it is interrupted or fails for good. Rounds that
/// find nothing are not told of, except for the first.
async fn run_watching(
    synchronizer: &Synchronizer,
    output: &Output,
    interrupt: &CancellationToken,
) -> Result<Exit, Failure> {
    let mut follower = None;
    let mut first = true;
    let mut due = Due::Perhaps;
    loop {
        let last = match run_once(synchronizer, due, output.is_watched(), interrupt).await {
            Ok((report, kept)) => {
                if std::mem::take(&mut first) || !report.up_to_date || report.row_errors > 0 {
                    output.answer(&report, || report::text(&report, kept));
                }
                Some(report)
            }
            Err(failure) if Exit::of(&failure) == Exit::Temporary => {
                output.failure(&failure);
                None
            }
            Err(failure) => return Err(failure),
        };
        // Not before the first run: what there is to watch is known only now.
        let follower = follower.get_or_insert_with(|| synchronizer.follow(WATCH_INTERVAL_DEFAULT));
        due = interrupt
            .run_until_cancelled(follower.next(last.as_ref()))
            .await
            .ok_or_else(Failure::interrupted)?;
    }
}
