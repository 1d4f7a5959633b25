//! A session that finds nothing: what a client does every half a minute of its life.

use anyhow::Result;

use crate::bench::{Bench, Kind, Measured, Unit, say, sync};
use crate::children::Job;
use crate::leaf::Leaf;
use crate::processes::{Service, run as run_process};
use crate::report::{CaseReport, Peak, Target};
use crate::scope;

const NAME: &str = "poll_empty";

/// Measures it.
pub(crate) async fn run(bench: &Bench) -> Result<CaseReport> {
    say(&format!("{NAME}: filling a hub with {} rows, and a leaf", bench.rows));
    let hub = bench.database(Kind::Postgres).await?;
    hub.fill(bench.rows).await?;
    scope::define(&hub).await?;
    let leaf = Leaf::fresh(bench, Kind::Sqlite).await?;
    let service = Service::start(&hub, &bench.fresh("spool")?).await?;
    sync(&service, &leaf, (0, bench.rows)).await?;

    let ours = async |_| {
        let (elapsed, client) = sync(&service, &leaf, (0, 0)).await?;
        Ok(Measured { elapsed, peak: Peak::from_kib(0, client) })
    };
    let limit = async |_| Ok(run_process(&Job::Health { server: service.url() }).await?.elapsed);
    let (samples, peak) = bench.interleaved(NAME, Unit::Milliseconds, ours, limit).await?;
    let service_kib = service.stop().await?;
    leaf.remove().await?;
    hub.remove().await?;
    let peak = peak.max(Peak::from_kib(service_kib, 0));
    Ok(CaseReport::new(NAME, Unit::Milliseconds.as_str(), samples, Target::NONE, Some(peak)))
}
