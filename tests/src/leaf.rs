//! `syncline sync` as a process.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::binary;
use crate::database::Database;

/// A local database and the service that it synchronises with.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The local database.
    pub database: Database,
    /// The service's address, or a proxy's.
    pub server: String,
    /// More arguments for `sync`.
    pub arguments: Vec<String>,
    /// The disk has no room for a file of more than so many KiB.
    pub files_kib_max: Option<u64>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// The exit status; `None` if it was killed.
    pub status: Option<i32>,
    /// The JSON document on standard output; null if there is none.
    pub report: Value,
    /// Standard error.
    pub errors: String,
}

impl Run {
    /// A number of the report, by path.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn number(&self, pointer: &str) -> u64 {
        self.report
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no {pointer} in {} {}", self.report, self.errors))
    }
}

impl Leaf {
    /// A leaf.
    #[must_use]
    pub fn new(database: &Database, server: impl Into<String>) -> Self {
        Self { database: database.clone(), server: server.into(), arguments: Vec::new(), files_kib_max: None }
    }

    /// With more arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Synchronises; the run must be done (exit status 0).
    ///
    /// # Panics
    /// If it is not.
    pub async fn sync(&self) -> Run {
        let run = self.run().await;
        assert_eq!(run.status, Some(0), "{} {}", run.report, run.errors);
        run
    }

    /// Runs `syncline sync` to its end.
    ///
    /// # Panics
    /// If it can't be started.
    pub async fn run(&self) -> Run {
        let output = self.command().output().await.unwrap();
        Run {
            status: output.status.code(),
            report: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts `syncline sync`, to be killed.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn start(&self) -> Child {
        self.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// `syncline sync` with all its arguments.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.files_kib_max.map_or_else(|| Command::new(binary()), crate::with_files_up_to);
        command
            .args(["sync", "--scope", "shop", "--json", "--server", &self.server])
            .args(["--database", &self.database.url()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Database::Postgres(_) = self.database {
            command.arg("--state-dir").arg(state_directory());
        }
        command
    }
}

/// Where PostgreSQL replicas keep their parts, each in a folder of its own.
#[must_use]
pub fn state_directory() -> PathBuf {
    std::env::temp_dir().join("syncline-tests-state")
}
