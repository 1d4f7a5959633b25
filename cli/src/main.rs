//! The `syncline` command.
//!
//! ```text
//!  arguments -> command -> engine, service, client -> answer (table or JSON) or failure (reason, remedy) -> exit status
//! ```
//!
//! Modules in reading order: [`arguments`] what can be said; [`commands`] one file each; [`database`] URLs and opening;
//! [`scope_file`] scope files with their problems shown; [`output`] tables, JSON, progress; [`failure`], [`remedy`] and
//! [`exit`] what happens when something goes wrong; [`interrupt`] Ctrl-C; [`heap`] how memory is kept.

mod arguments;
mod commands;
mod database;
mod exit;
mod failure;
mod heap;
mod interrupt;
mod output;
mod remedy;
mod scope_file;
mod telemetry;

use std::process::ExitCode;

use exit::Exit;
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let arguments = match arguments::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(refused) => return refused.report().into(),
    };
    if arguments.command.moves_rows() {
        heap::settle();
    }
    let output = Output::new(arguments.json, arguments.verbose > 0);
    telemetry::start(&arguments);
    let ended = run(arguments, &output).unwrap_or_else(|failure| {
        output.failure(&failure);
        Exit::of(&failure)
    });
    ended.into()
}

fn run(arguments: arguments::Arguments, output: &Output) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::internal)?;
    let ended = runtime.block_on(async {
        let interrupt = interrupt::listen(output.clone());
        commands::run(arguments.command, output, &interrupt).await
    });
    // A blocking call that does not end must not keep the program: whatever is committed is committed.
    runtime.shutdown_background();
    ended
}
