//! A session with few changes among many rows: it should cost what changed, not what the table holds.

use std::time::Duration;

use anyhow::Result;

use crate::bench::{Bench, Kind, Measured, Unit, run_limit, say, sync};
use crate::database::Database;
use crate::leaf::Leaf;
use crate::limit::Limit;
use crate::processes::Service;
use crate::report::{CaseReport, Peak, Samples, Target, rounded};
use crate::scope;

/// Rows that change between two sessions.
const CHANGES: u64 = 100;
/// The same, where a large table is compared with a small one.
const SCALE_CHANGES: u64 = 1_000;
/// The large table has so many times more rows than other cases.
const LARGER: u64 = 10;
/// The small table has so many times fewer.
const SMALLER: u64 = 100;
/// At most so much more than the limit grows.
const SCALE_TARGET: Target = Target::ratio(1.2);

/// Measures the session itself.
pub(crate) async fn run(bench: &Bench) -> Result<CaseReport> {
    let (samples, peak) = measure(bench, "delta", bench.rows, CHANGES).await?;
    Ok(CaseReport::new("delta", Unit::Milliseconds.as_str(), samples, Target::NONE, Some(peak)))
}

/// Measures how it grows with the table: large over small, ours and the limit.
pub(crate) async fn run_scale(bench: &Bench) -> Result<CaseReport> {
    let name = "delta_scale";
    let (small, _) = measure(bench, name, (bench.rows / SMALLER).max(SCALE_CHANGES), SCALE_CHANGES).await?;
    let (large, peak) = measure(bench, name, bench.rows * LARGER, SCALE_CHANGES).await?;
    let over = |large: &[f64], small: &[f64]| large.iter().zip(small).map(|(l, s)| rounded(l / s)).collect();
    let samples = Samples { ours: over(&large.ours, &small.ours), limit: over(&large.limit, &small.limit) };
    Ok(CaseReport::new(name, "large / small", samples, SCALE_TARGET, Some(peak)))
}

/// Sessions with so many changes among so many rows, in milliseconds.
pub(crate) async fn measure(bench: &Bench, name: &str, rows: u64, changes: u64) -> Result<(Samples, Peak)> {
    say(&format!("{name}: filling a hub with {rows} rows, and a leaf"));
    let hub = bench.database(Kind::Postgres).await?;
    hub.fill(rows).await?;
    scope::define(&hub).await?;
    let leaf = Leaf::fresh(bench, Kind::Sqlite).await?;
    let limit_path = bench.fresh("limit.db")?;
    let limit_copy = Database::Sqlite(limit_path.clone());
    let Database::Postgres(url) = &hub else { anyhow::bail!("the hub is a PostgreSQL database here") };
    run_limit(Limit::Copy { from: hub.clone(), to: limit_copy.clone() }).await?;
    let service = Service::start(&hub, &bench.fresh("spool")?).await?;
    sync(&service, &leaf, (0, rows)).await?;

    let nth = rows / changes;
    let ours = async |round: u32| {
        let changed = hub.change(nth, round.into()).await?;
        hub.settle().await?;
        let (elapsed, client) = sync(&service, &leaf, (0, changed)).await?;
        leaf.database.expect_same(&hub).await?;
        Ok(Measured { elapsed, peak: Peak::from_kib(0, client) })
    };
    let limit = async |round: u32| -> Result<Duration> {
        let keys = hub.keys(nth, round.into()).await?;
        run_limit(Limit::Fetch { from: url.clone(), keys, to: limit_path.clone() }).await
    };
    let (samples, peak) = bench.interleaved(name, Unit::Milliseconds, ours, limit).await?;
    let service_kib = service.stop().await?;
    leaf.remove().await?;
    limit_copy.remove().await?;
    hub.remove().await?;
    Ok((samples, peak.max(Peak::from_kib(service_kib, 0))))
}
