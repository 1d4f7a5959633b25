//! The commands, one file each.

pub(crate) mod conflicts;
pub(crate) mod demo;
pub(crate) mod health;
pub(crate) mod scope;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod sync;

use syncline::ids::ScopeName;
use tokio_util::sync::CancellationToken;

use crate::arguments::Command;
use crate::exit::Exit;
use crate::failure::Failure;
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
