//! A session with few changes among many rows: it should cost what changed, not what the table holds.

use std::time::Duration;

use anyhow::Result;

use crate::bench::{Bench, Kind, Measured, Unit, run_limit, say, sync};
use crate::database::Database;
use crate::limit::Limit;
use crate::processes::Service;
use crate::report::{CaseReport, Peak, Samples, Target, rounded};
use crate::scope;

/// Rows that change between two sessions.
const CHANGES: u64 = 100;
/// The small table has so many times fewer rows.
const SMALLER: u64 = 100;

/// Measures the session itself.
pub(crate) async fn run(bench: &Bench) -> Result<CaseReport> {
    let (samples, peak) = measure(bench, "delta", bench.rows).await?;
    Ok(CaseReport::new("delta", Unit::Milliseconds.as_str(), samples, Target::NONE, Some(peak)))
}

/// Measures how it grows with the table: large over small, ours and the limit.
pub(crate) async fn run_scale(bench: &Bench) -> Result<CaseReport> {
    let name = "delta_scale";
    let (small, _) = measure(bench, name, (bench.rows / SMALLER).max(CHANGES)).await?;
    let (large, peak) = measure(bench, name, bench.rows).await?;
    let over = |large: &[f64], small: &[f64]| large.iter().zip(small).map(|(l, s)| rounded(l / s)).collect();
    let samples = Samples { ours: over(&large.ours, &small.ours), limit: over(&large.limit, &small.limit) };
    Ok(CaseReport::new(name, "large / small", samples, Target::NONE, Some(peak)))
}

async fn measure(bench: &Bench, name: &str, rows: u64) -> Result<(Samples, Peak)> {
    say(&format!("{name}: filling a hub with {rows} rows, and a leaf"));
    let hub = bench.hub(Kind::Postgres).await?;
    hub.fill(rows).await?;
    scope::define(&hub).await?;
    let leaf_path = bench.fresh("leaf.db")?;
    let leaf = Database::Sqlite(leaf_path.clone());
    let limit_path = bench.fresh("limit.db")?;
    let Database::Postgres(url) = &hub else { anyhow::bail!("the hub is a PostgreSQL database here") };
    run_limit(Limit::Copy { from: hub.clone(), to: limit_path.clone() }).await?;
    let service = Service::start(&hub, &bench.fresh("spool")?).await?;
    sync(&service, &leaf_path, (0, rows)).await?;

    let nth = rows / CHANGES;
    let ours = async |round: u32| {
        hub.change(nth, round.into()).await?;
        hub.settle().await?;
        let changes = hub.keys(nth, round.into()).await?.len() as u64;
        let (elapsed, client) = sync(&service, &leaf_path, (0, changes)).await?;
        leaf.expect_same(&hub).await?;
        Ok(Measured { elapsed, peak: Peak::from_kib(0, client) })
    };
    let limit = async |round: u32| -> Result<Duration> {
        let keys = hub.keys(nth, round.into()).await?;
        run_limit(Limit::Fetch { from: url.clone(), keys, to: limit_path.clone() }).await
    };
    let (samples, peak) = bench.interleaved(name, Unit::Milliseconds, ours, limit).await?;
    let service_kib = service.stop().await?;
    Ok((samples, peak.max(Peak::from_kib(service_kib, 0))))
}
