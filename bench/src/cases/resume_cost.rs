//! What a kill costs: the bytes of a first download that the next run receives once more.
//!
//! The client is a process that is killed, as by `kill -9`, once so many bytes have passed; how many is random. Somebody
//! in between counts all bytes that go to it, in both runs, and takes away those of a download that nobody disturbs. The
//! spool is a directory. The limit is one batch as it is stored.

use anyhow::{Context as _, Result, ensure};

use crate::bench::{Bench, Kind, say};
use crate::children::Job;
use crate::database::Database;
use crate::leaf::Leaf;
use crate::processes::{Running, Service, run as run_process};
use crate::report::{CaseReport, Peak, Samples, Target, percentile, rounded};
use crate::rows::SplitMix64;
use crate::scope;
use crate::wire::Wire;

/// So many times fewer rows than other cases have.
const SMALLER: u64 = 10;
/// At most so many batches.
const TARGET: Target = Target::ratio(1.0);
const SEED: u64 = 0x5EED_0DEA_D000;
/// Downloads that nobody disturbs.
const UNDISTURBED: usize = 3;

/// Measures it.
pub(crate) async fn run(bench: &Bench) -> Result<Vec<CaseReport>> {
    let rows = (bench.rows / SMALLER).max(1_000);
    say(&format!("resume_cost: filling a hub with {rows} rows"));
    let hub = bench.database(Kind::Postgres).await?;
    hub.fill(rows).await?;
    scope::define(&hub).await?;
    let service = Service::start(&hub, &bench.fresh("spool")?).await?;
    let (wire, server) = Wire::to(service.address())?;
    let mut stage = Stage { bench, hub: &hub, rows, wire, server, peak: Peak::default() };

    let (mut whole, mut batch) = (Vec::new(), 0.0);
    for _ in 0..UNDISTURBED {
        let undisturbed = stage.undisturbed().await?;
        whole.push(undisturbed.bytes as f64);
        batch = rounded(undisturbed.stored as f64 / undisturbed.batches as f64);
    }
    let whole = percentile(&whole, 0.5);
    let (mut random, mut twice) = (SplitMix64(SEED), Vec::new());
    while twice.len() < bench.counts.kills as usize {
        let point = 1 + random.next() % (whole as u64);
        let Some(received) = stage.killed_at(point).await? else { continue };
        twice.push((received as f64 - whole).max(0.0));
        say(&format!(
            "resume_cost {}/{}: killed at {point} of {whole} bytes, {} bytes twice",
            twice.len(),
            bench.counts.kills,
            twice.last().copied().unwrap_or_default()
        ));
    }
    let peak = stage.peak.max(Peak::from_kib(service.stop().await?, 0));
    hub.remove().await?;
    let report = |figure, share| {
        let samples = Samples { ours: vec![percentile(&twice, share)], limit: vec![batch] };
        CaseReport::new(("resume_cost", figure), "bytes", samples, TARGET, Some(peak))
    };
    Ok(vec![report("p50", 0.5), report("worst", 1.0)])
}

/// A hub, its service, and somebody in between.
struct Stage<'a> {
    bench: &'a Bench,
    hub: &'a Database,
    rows: u64,
    wire: Wire,
    server: String,
    peak: Peak,
}

/// A download that nobody disturbed.
struct Undisturbed {
    bytes: u64,
    batches: u64,
    stored: u64,
}

impl Stage<'_> {
    async fn undisturbed(&self) -> Result<Undisturbed> {
        let leaf = Leaf::fresh(self.bench, Kind::Sqlite).await?;
        let before = self.wire.to_client();
        let job = Job::Sync { server: self.server.clone(), leaf: leaf.clone() };
        let ended = run_process(&job).await?.ending;
        let bytes = self.wire.to_client() - before;
        ensure!(ended.moved == Some((0, self.rows)), "{:?} rows moved", ended.moved);
        let (batches, stored) = ended.batches.context("a client counts batches")?;
        leaf.remove().await?;
        Ok(Undisturbed { bytes, batches, stored })
    }

    /// Downloads with a kill after so many bytes; answers all bytes that were received, or nothing if the client was
    /// done before.
    async fn killed_at(&mut self, point: u64) -> Result<Option<u64>> {
        let leaf = Leaf::fresh(self.bench, Kind::Sqlite).await?;
        let before = self.wire.to_client();
        let job = Job::Sync { server: self.server.clone(), leaf: leaf.clone() };
        let mut client = Running::start(&job)?;
        let killed = tokio::select! {
            () = self.wire.wait_until(before + point) => client.kill().await?,
            ended = client.wait() => { ended?; false }
        };
        let ended = run_process(&job).await?.ending;
        self.peak = self.peak.max(Peak::from_kib(0, ended.peak_kib));
        leaf.database.expect_same(self.hub).await?;
        leaf.remove().await?;
        Ok(killed.then(|| self.wire.to_client() - before))
    }
}
