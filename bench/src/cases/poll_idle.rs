//! Polls of many leaves that find nothing, beside health checks of the same service.

use anyhow::Result;

use crate::bench::{Bench, Kind, say, sync};
use crate::children::Job;
use crate::leaf::Leaf;
use crate::polls::{Asking, Load, check_commit, pollers};
use crate::processes::{Service, run as run_process};
use crate::report::{CaseReport, Peak, Target, rounded};
use crate::scope;

const NAME: &str = "poll_idle";
/// At least so much of the rate of health checks.
const TARGET: Target = Target::at_least(0.5);
const CONNECTIONS: usize = 64;
/// How long calls are counted, each time.
const MILLIS: u64 = 2_000;
/// The same where a run is made small, and counts are of no interest.
const MILLIS_SMALL: u64 = 100;
const ROWS_SMALL: u64 = 10_000;
/// Commits that all connections must be told of.
const CHECKS: u32 = 20;

/// Measures it.
pub(crate) async fn run(bench: &Bench) -> Result<CaseReport> {
    say(&format!("{NAME}: filling a hub with {} rows, and a leaf", bench.rows));
    let hub = bench.database(Kind::Postgres).await?;
    hub.fill(bench.rows).await?;
    scope::define(&hub).await?;
    let leaf = Leaf::fresh(bench, Kind::Sqlite).await?;
    let service = Service::start(&hub, &bench.fresh("spool")?).await?;
    sync(&service, &leaf, (0, bench.rows)).await?;
    hub.settle().await?;

    let millis = if bench.rows < ROWS_SMALL { MILLIS_SMALL } else { MILLIS };
    let load = Load { connections: CONNECTIONS, millis };
    let calls = async |asking: Asking| {
        let ended = run_process(&Job::Calls { server: service.url(), asking, load }).await?;
        anyhow::Ok((ended.ending.figure.map_or(0.0, rounded), Peak::from_kib(0, ended.ending.peak_kib)))
    };
    let ours = async |_| calls(Asking::Polls(leaf.clone())).await;
    let limit = async |_| Ok(calls(Asking::Health).await?.0);
    let (samples, peak) = bench.interleaved_figures(NAME, "calls/s", ours, limit).await?;

    for round in 0..CHECKS {
        let pollers = pollers(&service.url(), &leaf, CONNECTIONS).await?;
        let commit = async { hub.change(bench.rows, round.into()).await.map(drop) };
        check_commit(pollers, commit).await?;
        sync(&service, &leaf, (0, 1)).await?;
    }
    leaf.database.expect_same(&hub).await?;

    let service_kib = service.stop().await?;
    leaf.remove().await?;
    hub.remove().await?;
    let peak = peak.max(Peak::from_kib(service_kib, 0));
    Ok(CaseReport::new(NAME, "calls/s", samples, TARGET, Some(peak)))
}
