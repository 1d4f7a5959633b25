//! A session with few changes among many rows: it should cost what changed, not what the table holds.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bench::{Bench, Kind, Measured, Unit, run_limit, say, sync};
use crate::children::Job;
use crate::database::Database;
use crate::leaf::Leaf;
use crate::limit::Limit;
use crate::processes::{Service, run as run_process};
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
    let measured = measure(bench, "delta", bench.rows, CHANGES).await?;
    let unit = Unit::Milliseconds.as_str();
    Ok(CaseReport::new("delta", unit, measured.samples, Target::NONE, Some(measured.peak)))
}

/// Measures how it grows with the table: large over small, ours and the limits.
pub(crate) async fn run_scale(bench: &Bench) -> Result<Vec<CaseReport>> {
    let name = "delta_scale";
    let small = measure(bench, name, (bench.rows / SMALLER).max(SCALE_CHANGES), SCALE_CHANGES).await?;
    let large = measure(bench, name, bench.rows * LARGER, SCALE_CHANGES).await?;
    let over = |large: &[f64], small: &[f64]| -> Vec<f64> {
        large.iter().zip(small).map(|(large, small)| rounded(large / small)).collect()
    };
    let ours = over(&large.samples.ours, &small.samples.ours);
    let bare = Samples { ours: ours.clone(), limit: over(&large.bare, &small.bare) };
    let copied = Samples { ours, limit: over(&large.samples.limit, &small.samples.limit) };
    let report = |name, samples| {
        CaseReport::new(name, "large / small", samples, SCALE_TARGET, Some(large.peak.max(small.peak)))
    };
    Ok(vec![report(name, bare), report("delta_scale_copied", copied)])
}

/// What was measured, in milliseconds.
pub(crate) struct Sessions {
    /// Beside ours: the changed rows by COPY, and an upsert.
    pub(crate) samples: Samples,
    /// The upsert alone, of rows that are there already.
    bare: Vec<f64>,
    peak: Peak,
}

/// Sessions with so many changes among so many rows.
pub(crate) async fn measure(bench: &Bench, name: &str, rows: u64, changes: u64) -> Result<Sessions> {
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
    let mut bare = Vec::new();
    let limit = async |round: u32| -> Result<Duration> {
        let keys = hub.keys(nth, round.into()).await?;
        let fetched = run_limit(Limit::Fetch { from: url.clone(), keys, to: limit_path.clone() }).await?;
        let first = usize::try_from(u64::from(round) % nth)?;
        let upsert =
            Job::Commits { files: vec![limit_path.clone()], rows, nth: usize::try_from(nth)?, first };
        let seconds = run_process(&upsert).await?.ending.figure.context("the upsert was timed")?;
        bare.push(rounded(seconds * 1_000.0));
        Ok(fetched)
    };
    let (samples, peak) = bench.interleaved(name, Unit::Milliseconds, ours, limit).await?;
    let service_kib = service.stop().await?;
    leaf.remove().await?;
    limit_copy.remove().await?;
    hub.remove().await?;
    Ok(Sessions { samples, bare, peak: peak.max(Peak::from_kib(service_kib, 0)) })
}
