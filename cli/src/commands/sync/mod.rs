//! `syncline sync`: synchronises a local database with a service, once or again and again.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use syncline::ids::ScopeName;
use syncline::limits;
use tokio_util::sync::CancellationToken;

use super::{parse_scope_name, parse_server};
use crate::database::DatabaseArg;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, parse_bytes};

pub(crate) use report::{Moved, SyncReport};

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
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    direction: Direction,
    /// Synchronise whenever something is new (not in this version: use --every)
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
    /// Where parts of a broken-off session are kept; by default NAME.db-syncline beside a SQLite file, and the user's
    /// state directory for PostgreSQL
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A file with the token that says who you are (not in this version)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates of authorities that are trusted (not in this version)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A client certificate (not in this version)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of the client certificate (not in this version)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// Which way rows go in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
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

/// Refuses, by name, what later versions do.
fn refuse_unsupported(arguments: &SyncArgs) -> Result<(), Failure> {
    let refused = [
        (
            arguments.peer.is_some(),
            "--peer: synchronising two hubs",
            "use --server: the local database is then a leaf",
        ),
        (arguments.watch, "--watch", "use --every, `--every 5s` for example: a poll costs one small call"),
        (!arguments.param.is_empty(), "--param: scopes with parameters", "leave it out"),
        (
            arguments.token_file.is_some(),
            "--token-file",
            "put the service behind a proxy that checks who calls",
        ),
        (arguments.ca.is_some() || arguments.cert.is_some(), "TLS", "use a tunnel or a proxy on both sides"),
        (
            arguments.server.as_ref().is_some_and(|url| url.starts_with("https://")),
            "TLS",
            "use a tunnel or a proxy on both sides, and http://",
        ),
    ];
    match refused.into_iter().find(|(asked, ..)| *asked) {
        Some((_, what, remedy)) => Err(Failure::unsupported(what, remedy)),
        None => Ok(()),
    }
}

/// Runs the command.
pub(crate) async fn run(
    arguments: SyncArgs,
    _output: &Output,
    _interrupt: &CancellationToken,
) -> Result<Exit, Failure> {
    refuse_unsupported(&arguments)?;
    Err(Failure::unsupported("synchronising", "wait for the next version"))
}
