//! `syncline serve`: runs the service over a hub's database.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::sync::parse_batch_bytes;
use crate::database::DatabaseUrl;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// Arguments of `serve`. Each overrides what environment and file say.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: syncline serve --database postgres://me@db.example/shop --spool /var/lib/syncline"
)]
pub(crate) struct ServeArgs {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen; beyond loopback only with TLS or --insecure-listen
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The hub's database: sqlite:FILE or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL", env = "SYNCLINE_DATABASE", hide_env_values = true)]
    pub(crate) database: Option<DatabaseUrl>,
    /// The directory for batches that wait
    #[arg(long, value_name = "DIR")]
    pub(crate) spool: Option<String>,
    /// The largest batch before compression that is agreed, 64KiB to 64MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_batch_bytes)]
    pub(crate) batch_bytes: Option<u64>,
    /// How long a session is kept without a call
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) lease: Option<Duration>,
    /// Listen beyond loopback without TLS
    #[arg(long)]
    pub(crate) insecure_listen: bool,
}

/// Runs the command.
pub(crate) async fn run(
    _arguments: ServeArgs,
    _output: &Output,
    _interrupt: &CancellationToken,
) -> Result<Exit, Failure> {
    Err(Failure::unsupported("serving", "wait for the next version"))
}
