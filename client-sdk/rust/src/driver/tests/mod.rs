//! The driver against a hub and a leaf in memory, over real parts on disk: whatever breaks, the next run goes on, and
//! both sides hold the same rows in the end.
#![allow(clippy::unwrap_used)]

mod ahead;
mod chain;
mod follow;
mod kill;
mod report;
mod resume;
mod session;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use syncline::error::ErrorReason;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{ApplyMode, Due, Progress, RunError, SyncOptions, SyncReport, Synchronizer};
use crate::parts::PartsDirectory;
use crate::testing::{FakeHub, FakeLeaf, Fault, Faults, SCOPE};

/// A hub, a leaf, and the directory beside it.
struct World {
    hub: Arc<FakeHub>,
    leaf: Arc<FakeLeaf>,
    faults: Arc<Faults>,
    parts: Arc<PartsDirectory>,
    directory: TempDir,
    options: SyncOptions,
}

impl World {
    fn new() -> Self {
        let faults = Arc::new(Faults::default());
        let directory = TempDir::new().unwrap();
        Self {
            hub: Arc::new(FakeHub::new(faults.clone())),
            leaf: Arc::new(FakeLeaf::new(faults.clone())),
            faults,
            parts: PartsDirectory::open(directory.path().join("shop.db-syncline")).unwrap(),
            directory,
            options: SyncOptions::of_scope(SCOPE.parse().unwrap()),
        }
    }

    fn applying(mode: ApplyMode) -> Self {
        let mut world = Self::new();
        world.options.apply = mode;
        world
    }

    /// Rows at the hub, some batches of them.
    fn with_hub_rows(self, ids: std::ops::Range<i64>) -> Self {
        ids.for_each(|id| self.hub.edit(id, Some(&format!("of the hub {id}"))));
        self
    }

    fn synchronizer(&self) -> Synchronizer {
        Synchronizer::new(self.leaf.clone(), self.hub.clone(), self.parts.clone(), self.options.clone())
    }

    async fn run(&self) -> Result<SyncReport, RunError> {
        self.run_due(Due::Perhaps).await
    }

    async fn run_due(&self, due: Due) -> Result<SyncReport, RunError> {
        self.synchronizer().run_due(due, &Progress::unseen(), &CancellationToken::new()).await
    }

    /// Runs until it is done, or dies at that point; answers whether it died.
    async fn run_and_die_at(&self, point: usize) -> bool {
        self.faults.kill_at(Some(point));
        let died = tokio::select! {
            () = self.faults.killed() => true,
            outcome = self.run() => {
                outcome.unwrap();
                false
            }
        };
        self.faults.kill_at(None);
        died
    }

    fn assert_in_step(&self) {
        assert_eq!(self.leaf.rows(), self.hub.rows());
        assert_eq!(self.leaf.dirty(), Vec::<i64>::new());
        let stored = self.leaf.stored();
        assert_eq!((stored.session, stored.upload, stored.upload_mark_drawn), (None, None, None));
        assert!(!stored.applied && !stored.download_started && !stored.diverged && !stored.reinitialize);
        assert_eq!(
            self.folders(),
            Vec::<String>::new(),
            "nothing is left in the directory beside the database"
        );
    }

    /// Nothing was taken for a restored copy, which would cost a comparison of everything.
    fn assert_never_diverged(&self) {
        assert!(!self.faults.calls().contains(&"diverge"), "it took itself for a copy");
    }

    /// What is in the directory beside the database, the lock aside.
    fn folders(&self) -> Vec<String> {
        names(&self.directory.path().join("shop.db-syncline"), "")
    }
}

fn names(folder: &Path, suffix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "lock" && name.ends_with(suffix)).collect()
}

/// A name that makes a batch too large to travel inline.
fn long_name(letter: &str) -> String {
    letter.repeat(100_000)
}

fn reason(outcome: Result<SyncReport, RunError>) -> ErrorReason {
    outcome.unwrap_err().error().unwrap().reason()
}
