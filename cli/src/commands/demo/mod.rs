//! `syncline demo`: the whole thing in one process, over real gRPC, on databases in a temporary directory.

mod shop;
mod wire;

use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example: syncline demo")]
pub(crate) struct DemoArgs {
    /// Put the databases here and keep them, instead of a temporary directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs the command.
pub(crate) async fn run(
    _arguments: DemoArgs,
    _output: &Output,
    _interrupt: &CancellationToken,
) -> Result<Exit, Failure> {
    Err(Failure::unsupported("the demo", "wait for the next version"))
}
