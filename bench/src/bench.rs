//! What all cases share: where files are, the PostgreSQL server, and how a figure and its limit are measured in turn.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use syncline_engine::throwaway::ThrowawayCluster;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::children::Job;
use crate::database::{Database, durable_postgres};
use crate::leaf::Leaf;
use crate::limit::Limit;
use crate::processes::{Service, run};
use crate::report::{Peak, Samples, rounded};

/// One run of this program.
pub(crate) struct Bench {
    /// Rows of the large tables.
    pub(crate) rows: u64,
    /// How much else there is of everything.
    pub(crate) counts: Counts,
    repeat: u32,
    directory: TempDir,
    postgres: OnceCell<ThrowawayCluster>,
}

/// How much there is of what `--rows` does not say.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Counts {
    /// Commits that `live` waits for
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) samples: u32,
    /// Clients of `fan_out`, each of which downloads 500 rows
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) clients: u32,
    /// Leaves that synchronise in `knowledge_size`
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(101..))]
    pub(crate) leaves: u32,
    /// Kills of `resume_cost`
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) kills: u32,
}

/// The kind of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Sqlite,
}

/// What one measurement of ours has found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) elapsed: Duration,
    pub(crate) peak: Peak,
}

/// The unit that times are reported in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
}

impl Unit {
    /// As it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
        }
    }

    /// A time in it.
    pub(crate) fn of(self, elapsed: Duration) -> f64 {
        rounded(match self {
            Self::Seconds => elapsed.as_secs_f64(),
            Self::Milliseconds => elapsed.as_secs_f64() * 1_000.0,
        })
    }
}

impl Bench {
    /// Makes a directory for this run.
    pub(crate) fn new(rows: u64, counts: Counts, repeat: u32, directory: Option<PathBuf>) -> Result<Self> {
        let parent = match directory {
            Some(directory) => directory,
            None => {
                let program = std::env::current_exe()?;
                program.parent().context("this program is in no directory")?.join("syncline-bench-data")
            }
        };
        std::fs::create_dir_all(&parent)?;
        Ok(Self { rows, counts, repeat, directory: TempDir::new_in(parent)?, postgres: OnceCell::new() })
    }

    /// A place for a file or directory that is not there.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let directory = TempDir::new_in(self.directory.path())?.keep();
        Ok(directory.join(name))
    }

    /// An empty database.
    pub(crate) async fn database(&self, kind: Kind) -> Result<Database> {
        Ok(match kind {
            Kind::Sqlite => Database::Sqlite(self.fresh("item.db")?),
            Kind::Postgres => {
                let cluster = self.postgres.get_or_try_init(|| async { durable_postgres() }).await?;
                Database::Postgres(cluster.fresh_database())
            }
        })
    }

    /// Times ours and its limit in turn: see [`interleaved_figures`](Self::interleaved_figures).
    pub(crate) async fn interleaved(
        &self,
        name: &str,
        unit: Unit,
        mut ours: impl AsyncFnMut(u32) -> Result<Measured>,
        mut limit: impl AsyncFnMut(u32) -> Result<Duration>,
    ) -> Result<(Samples, Peak)> {
        let ours = async |round| {
            let measured = ours(round).await?;
            Ok((unit.of(measured.elapsed), measured.peak))
        };
        let limit = async |round| Ok(unit.of(limit(round).await?));
        self.interleaved_figures(name, unit.as_str(), ours, limit).await
    }

    /// Measures ours and its limit in turn, as often as was asked for; who is first changes each time.
    pub(crate) async fn interleaved_figures(
        &self,
        name: &str,
        unit: &str,
        mut ours: impl AsyncFnMut(u32) -> Result<(f64, Peak)>,
        mut limit: impl AsyncFnMut(u32) -> Result<f64>,
    ) -> Result<(Samples, Peak)> {
        let (mut samples, mut peak) = (Samples::default(), Peak::default());
        for round in 0..self.repeat {
            let (figures, had) = self.round(name, unit, round, &mut ours, &mut limit).await?;
            samples.append(figures);
            peak = peak.max(had);
        }
        Ok((samples, peak))
    }

    /// One round of them.
    pub(crate) async fn round(
        &self,
        name: &str,
        unit: &str,
        round: u32,
        mut ours: impl AsyncFnMut(u32) -> Result<(f64, Peak)>,
        mut limit: impl AsyncFnMut(u32) -> Result<f64>,
    ) -> Result<(Samples, Peak)> {
        let (mut samples, mut peak) = (Samples::default(), Peak::default());
        for first in [true, false] {
            // The disk has nothing left to do for what came before.
            std::process::Command::new("sync").status()?;
            if first == round.is_multiple_of(2) {
                let (figure, had) = ours(round).await?;
                samples.ours.push(figure);
                peak = had;
            } else {
                samples.limit.push(limit(round).await?);
            }
        }
        let (ours, limit) = (&samples.ours, &samples.limit);
        say(&format!("{name} {}/{}: {ours:?} {unit}, limit {limit:?} {unit}", round + 1, self.repeat));
        Ok((samples, peak))
    }

    /// How often each thing is measured.
    pub(crate) const fn repeat(&self) -> u32 {
        self.repeat
    }
}

/// Says on standard error how far we are.
pub(crate) fn say(what: &str) {
    eprintln!("{what}");
}

/// Synchronises a leaf once with a service of its own, which is up before the clock starts. `moved` are the rows that
/// must go up and down.
pub(crate) async fn sync_once(
    bench: &Bench,
    hub: &Database,
    leaf: &Leaf,
    moved: (u64, u64),
) -> Result<Measured> {
    sync_once_with(bench, hub, leaf, moved, None).await
}

/// The same, with batches of so many bytes.
pub(crate) async fn sync_once_with(
    bench: &Bench,
    hub: &Database,
    leaf: &Leaf,
    moved: (u64, u64),
    batch_bytes: Option<u64>,
) -> Result<Measured> {
    let spool = bench.fresh("spool")?;
    let service = Service::start_with(hub, &spool, batch_bytes).await?;
    let client = sync(&service, leaf, moved).await?;
    let peak = Peak::from_kib(service.stop().await?, client.1);
    std::fs::remove_dir_all(spool)?;
    Ok(Measured { elapsed: client.0, peak })
}

/// Synchronises a leaf once: answers the time and the client's peak memory in KiB.
pub(crate) async fn sync(service: &Service, leaf: &Leaf, moved: (u64, u64)) -> Result<(Duration, u64)> {
    let client = run(&Job::Sync { server: service.url(), leaf: leaf.clone() }).await?;
    ensure!(client.ending.moved == Some(moved), "{:?} rows moved, not {moved:?}", client.ending.moved);
    Ok((client.elapsed, client.ending.peak_kib))
}

/// Runs a limit as a process.
pub(crate) async fn run_limit(limit: Limit) -> Result<Duration> {
    Ok(run(&Job::Limit(limit)).await?.elapsed)
}
