//! `syncline sync --watch` as a process: one document a round.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::leaf::Leaf;

/// How long a round may be waited for.
const ROUND_MAX: Duration = Duration::from_secs(60);

/// A client that follows its hub. Killed when it is dropped.
#[derive(Debug)]
pub struct Watching {
    child: Child,
    rounds: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    /// Starts it.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn start(leaf: &Leaf) -> Self {
        Self::start_with(leaf, &["--watch"])
    }

    /// Starts one that goes on in another way.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn start_with(leaf: &Leaf, arguments: &[&str]) -> Self {
        let mut child = leaf.command().args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let rounds = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, rounds }
    }

    /// The next document.
    ///
    /// # Panics
    /// If none comes in time.
    pub async fn round(&mut self) -> Value {
        let line = tokio::time::timeout(ROUND_MAX, self.rounds.next_line()).await.expect("a round");
        serde_json::from_str(&line.unwrap().expect("it goes on")).unwrap()
    }

    /// Waits for a round that moves rows that way (`uploaded` or `downloaded`), and answers how many.
    ///
    /// # Panics
    /// If none comes in time.
    pub async fn round_that_moves(&mut self, way: &str) -> u64 {
        loop {
            let round = self.round().await;
            let rows = |what| round[way][what].as_u64().unwrap();
            let moved = rows("upserts") + rows("deletes");
            if moved > 0 {
                return moved;
            }
        }
    }

    /// kill -9.
    ///
    /// # Panics
    /// If it is not running.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}
