//! Many clients that download the same changes at the same time.
//!
//! The limit is what cannot be saved: one client that downloads as many rows as all of them together, and as many bare
//! commits into as many files. Clients are threads of one process; files are open before its clock starts.

use anyhow::{Context as _, Result, ensure};

use crate::bench::{Bench, Kind, say};
use crate::children::Job;
use crate::database::Database;
use crate::leaf::Leaf;
use crate::processes::{Service, run as run_process};
use crate::report::{CaseReport, Peak, Samples, Target, rounded};
use crate::rows::TABLE;
use crate::scope;

const NAME: &str = "fan_out";
/// At most so many times the sum of both limits.
const TARGET: Target = Target::ratio(1.5);
/// Rows that change, and that each client downloads.
const CHANGES: u64 = 500;
/// The table has so many times more.
const NTH: u64 = 10;
const TABLE_ROWS: u64 = NTH * CHANGES;

/// Measures it.
pub(crate) async fn run(bench: &Bench) -> Result<CaseReport> {
    let (samples, peak) = measure(bench, bench.counts.clients).await?;
    Ok(CaseReport::new(NAME, "s", samples, TARGET, Some(peak)))
}

/// So many clients, in seconds.
pub(crate) async fn measure(bench: &Bench, clients: u32) -> Result<(Samples, Peak)> {
    let crowd = Group::new(bench, clients, TABLE_ROWS).await?;
    let single = Group::new(bench, 1, u64::from(clients) * CHANGES).await?;
    let mut files = Vec::new();
    for _ in 0..clients {
        let file = bench.fresh("limit.db")?;
        let database = Database::Sqlite(file.clone());
        database.fill(TABLE_ROWS).await?;
        database.settle().await?;
        files.push(file);
    }

    let ours = async |round: u32| crowd.download(NTH, round).await;
    let limit = async |round: u32| {
        let (one, _) = single.download(1, round).await?;
        let commits =
            run_process(&Job::Commits { files: files.clone(), rows: TABLE_ROWS, nth: NTH as usize }).await?;
        Ok(rounded(one + commits.ending.figure.context("the commits were timed")?))
    };
    let (samples, peak) = bench.interleaved_figures(NAME, "s", ours, limit).await?;
    for file in files {
        Database::Sqlite(file).remove().await?;
    }
    let service_kib = crowd.stop().await?;
    single.stop().await?;
    Ok((samples, peak.max(Peak::from_kib(service_kib, 0))))
}

/// A hub, its service, and leaves that are in step with it.
struct Group {
    hub: Database,
    service: Service,
    leaves: Vec<Leaf>,
}

impl Group {
    async fn new(bench: &Bench, clients: u32, rows: u64) -> Result<Self> {
        say(&format!("{NAME}: filling a hub with {rows} rows, and {clients} leaves"));
        let hub = bench.database(Kind::Postgres).await?;
        hub.fill(rows).await?;
        scope::define(&hub).await?;
        let service = Service::start(&hub, &bench.fresh("spool")?).await?;
        let mut leaves = Vec::new();
        for _ in 0..clients {
            leaves.push(Leaf::fresh(bench, Kind::Sqlite).await?);
        }
        let group = Self { hub, service, leaves };
        group.sync(rows).await?;
        Ok(group)
    }

    /// Changes every `nth` row at the hub and brings it to all leaves; answers the seconds that they needed.
    async fn download(&self, nth: u64, round: u32) -> Result<(f64, Peak)> {
        let changed = self.hub.change(nth, round.into()).await?;
        self.hub.settle().await?;
        let figure = self.sync(changed).await?;
        let sum = self.hub.sum(TABLE).await?;
        for leaf in &self.leaves {
            ensure!(leaf.database.sum(TABLE).await? == sum, "a leaf differs from its hub");
        }
        Ok(figure)
    }

    async fn sync(&self, rows: u64) -> Result<(f64, Peak)> {
        let job = Job::SyncMany { server: self.service.url(), leaves: self.leaves.clone() };
        let ended = run_process(&job).await?;
        let expected = Some((0, rows * self.leaves.len() as u64));
        ensure!(ended.ending.moved == expected, "{:?} rows moved, not {expected:?}", ended.ending.moved);
        let seconds = ended.ending.figure.context("the downloads were timed")?;
        Ok((rounded(seconds), Peak::from_kib(0, ended.ending.peak_kib)))
    }

    /// Answers the service's peak memory in KiB.
    async fn stop(self) -> Result<u64> {
        let peak_kib = self.service.stop().await?;
        for leaf in self.leaves {
            leaf.remove().await?;
        }
        self.hub.remove().await?;
        Ok(peak_kib)
    }
}
