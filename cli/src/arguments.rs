//! What can be said on the command line.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::commands::{conflicts, demo, health, scope, serve, status, sync};
use crate::exit::Exit;
use crate::failure::{Failure, FailureReason};
use crate::output::Output;

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 failed, and the message says why and what to do; 2 bad usage; 3 done, but rows could not be \
applied; 4 temporary (unreachable, overloaded, stopping), run it again; 130 interrupted.

Environment: SYNCLINE_DATABASE stands for --database; PostgreSQL passwords come from PGPASSWORD or PGPASSFILE; \
SYNCLINE_LOG__FILTER sets the log (error, warn, info, debug, or a filter), SYNCLINE_LOG__FORMAT=json its form.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "syncline", version, about = "Keeps SQLite and PostgreSQL databases in step", after_help = EXIT_STATUS)]
pub(crate) struct Arguments {
    /// Answer with one JSON document on standard output, and nothing else there
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more: details of failures, and the log (twice: all of it)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows the whole thing in one process: a hub, two leaves, a conflict, a broken transfer
    Demo(demo::DemoArgs),
    /// Runs the service
    Serve(serve::ServeArgs),
    /// Defines what is synchronised
    #[command(subcommand)]
    Scope(scope::ScopeCommand),
    /// Synchronises a local database with a service
    Sync(Box<sync::SyncArgs>),
    /// Says how a database stands: scopes, replicas, pending changes
    Status(status::StatusArgs),
    /// Shows the conflict log of a hub or of a leaf
    #[command(subcommand)]
    Conflicts(conflicts::ConflictsCommand),
    /// Asks a service whether it is healthy: exit status 0 or 1
    Health(health::HealthArgs),
}

impl Command {
    /// Whether rows go through this process.
    pub(crate) const fn moves_rows(&self) -> bool {
        matches!(self, Self::Demo(_) | Self::Serve(_) | Self::Sync(_))
    }
}

/// A command line that is not run: help was asked for, or it is wrong.
#[derive(Debug)]
pub(crate) struct Refused {
    error: clap::Error,
    json: bool,
}

/// Reads the command line.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, Refused> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    Arguments::try_parse_from(&arguments).map_err(|error| {
        // clap stops before it has read `--json`, but a program that asked for JSON reads nothing else.
        let json = arguments.iter().any(|argument| argument == "--json");
        Refused { error, json }
    })
}

impl Refused {
    /// Prints the help or what is wrong.
    pub(crate) fn report(&self) -> Exit {
        if !self.error.use_stderr() {
            self.error.print().ok();
            return Exit::Done;
        }
        if self.json {
            Output::new(true, false).failure(&self.failure());
        } else {
            self.error.print().ok();
        }
        Exit::Usage
    }

    fn failure(&self) -> Failure {
        let text = self.error.render().to_string();
        // What is missing stands in the lines below the first; after them comes what is no message.
        let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
        let message = lines.collect::<Vec<_>>().join(" ");
        Failure::new(FailureReason::Usage, message.strip_prefix("error: ").unwrap_or(&message))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn refused(line: &str) -> Refused {
        parse(line.split_whitespace().map(OsString::from)).unwrap_err()
    }

    fn taken(line: &str) -> Arguments {
        parse(line.split_whitespace().map(OsString::from)).unwrap()
    }

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.has_subcommands() {
                for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
                    check(below, &path);
                }
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example") && help.contains("syncline "), "{path} has no example");
            }
        }
        for command in Arguments::command().get_subcommands() {
            check(command, "syncline");
        }
    }

    #[test]
    fn lines_of_the_documentation_are_taken() {
        for line in [
            "syncline demo",
            "syncline serve --config syncline.toml --listen 127.0.0.1:50051 --database sqlite:hub.db --spool dir --batch-bytes 4MiB --lease 24h --insecure-listen",
            "syncline scope apply shop.toml --database postgres://u@h/d --dry-run --json",
            "syncline scope list --database sqlite:a.db",
            "syncline scope show shop --database sqlite:a.db",
            "syncline scope drop shop --database sqlite:a.db",
            "syncline sync --server http://h:50051 --scope shop --database sqlite:a.db --direction upload --every 30s --batch-bytes 65536 --retry-for 2m --apply per-batch --param a=b",
            "syncline --json sync --server http://h:50051 --scope shop --database sqlite:a.db",
            "syncline status --database sqlite:a.db",
            "syncline conflicts list --database sqlite:a.db --scope shop --limit 5",
            "syncline conflicts show 0193d7c0-0000-7000-8000-000000000001 --database sqlite:a.db",
            "syncline conflicts resolve 0193d7c0-0000-7000-8000-000000000001 --keep local --database sqlite:a.db",
            "syncline health --server http://127.0.0.1:50051",
        ] {
            taken(line);
        }
    }

    #[test]
    fn bad_usage_is_refused_with_status_2() {
        for line in [
            "syncline",
            "syncline frobnicate",
            "syncline scope apply --database sqlite:a.db",
            "syncline scope list --database mysql://h/d",
            "syncline scope show bad/name --database sqlite:a.db",
            "syncline sync --scope shop --database sqlite:a.db",
            "syncline sync --server http://h --peer http://h --scope shop --database sqlite:a.db",
            "syncline sync --server h:1 --scope shop --database sqlite:a.db",
            "syncline sync --server http://h --scope shop --database sqlite:a.db --direction sideways",
            "syncline sync --server http://h --scope shop --database sqlite:a.db --every soon",
            "syncline sync --server http://h --scope shop --database sqlite:a.db --every 1s --watch",
            "syncline sync --server http://h --scope shop --database sqlite:a.db --batch-bytes 1KiB",
            "syncline conflicts show 7 --database sqlite:a.db",
            "syncline conflicts resolve 0193d7c0-0000-7000-8000-000000000001 --keep both --database sqlite:a.db",
            "syncline health --server ftp://h",
        ] {
            assert!(refused(line).error.use_stderr(), "{line}");
        }
        assert!(!refused("syncline --help").error.use_stderr());
    }

    #[test]
    fn bad_usage_is_one_json_document_if_json_was_asked_for() {
        let refused = refused("syncline scope show bad/name --database sqlite:a.db --json");
        assert!(refused.json);
        let document = refused.failure().document();
        assert_eq!(document["error"]["reason"], "USAGE");
        assert!(document["error"]["message"].as_str().unwrap().contains("bad/name"), "{document}");
        let missing = super::tests::refused("syncline sync --scope shop --json").failure().message;
        assert!(missing.contains("--server <URL>") && missing.contains("--database <URL>"), "{missing}");
        assert!(!missing.contains("Usage"), "{missing}");
    }
}
