//! The commands, one file each.

pub(crate) mod conflicts;
pub(crate) mod demo;
pub(crate) mod health;
pub(crate) mod scope;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod sync;

use std::path::PathBuf;

use clap::Args;
use syncline::ids::ScopeName;
use syncline_client::TlsOptions;
use tokio_util::sync::CancellationToken;

use crate::arguments::Command;
use crate::exit::Exit;
use crate::failure::{Failure, FailureReason};
use crate::output::Output;

/// Runs a command.
pub(crate) async fn run(
    command: Command,
    output: &Output,
    interrupt: &CancellationToken,
) -> Result<Exit, Failure> {
    match command {
        Command::Demo(arguments) => demo::run(arguments, output, interrupt).await,
        Command::Serve(arguments) => serve::run(arguments, output, interrupt).await,
        Command::Scope(command) => unless_interrupted(interrupt, scope::run(command, output)).await,
        Command::Sync(arguments) => sync::run(*arguments, output, interrupt).await,
        Command::Status(arguments) => unless_interrupted(interrupt, status::run(arguments, output)).await,
        Command::Conflicts(command) => unless_interrupted(interrupt, conflicts::run(command, output)).await,
        Command::Health(arguments) => unless_interrupted(interrupt, health::run(arguments, output)).await,
    }
}

/// For commands that may stop anywhere: their transactions are rolled back when they are dropped.
async fn unless_interrupted(
    interrupt: &CancellationToken,
    command: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    interrupt.run_until_cancelled(command).await.unwrap_or_else(|| Err(Failure::interrupted()))
}

/// How a service's certificate is checked, and what is shown to it.
#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    /// The authority that the service's certificate must come from (PEM); by default those that this machine trusts
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A client certificate (PEM), where one is asked for
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl TlsArgs {
    /// As the client takes them.
    fn options(&self) -> TlsOptions {
        TlsOptions { ca: self.ca.clone(), certificate: self.cert.clone(), key: self.key.clone() }
    }
}

/// What the client refuses of the connection's options is bad usage.
fn bad_connection(error: syncline::error::SyncError) -> Failure {
    let mut failure = Failure::new(FailureReason::Usage, error.message());
    failure.detail = error.detail().map(Into::into);
    failure
}

/// Reads a scope's name.
fn parse_scope_name(text: &str) -> Result<ScopeName, String> {
    text.parse().map_err(|error: syncline::ids::IdError| error.problem)
}

/// Reads a service's URL.
fn parse_server(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(host) if !host.is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("a URL like http://host:50051".to_owned()),
    }
}
