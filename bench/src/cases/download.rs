//! The first download: from the start of the client process until it has committed and exited.

use anyhow::Result;

use crate::bench::{Bench, Kind, Unit, run_limit, say, sync_once_with};
use crate::leaf::Leaf;
use crate::limit::Limit;
use crate::report::{CaseReport, Peak, Samples, Target};
use crate::scope;

/// Measures it, from a hub of one kind into a leaf of another; at most `ratio` times the limit is wanted.
pub(crate) async fn run(
    bench: &Bench,
    name: &'static str,
    kinds: (Kind, Kind),
    ratio: f64,
) -> Result<CaseReport> {
    let (samples, peak) = measure(bench, name, kinds, bench.rows, None).await?;
    Ok(CaseReport::new(name, Unit::Seconds.as_str(), samples, Target::ratio(ratio), Some(peak)))
}

/// Measures a download of so many rows, in batches of so many bytes if it is said; in seconds.
pub(crate) async fn measure(
    bench: &Bench,
    name: &str,
    (from, to): (Kind, Kind),
    rows: u64,
    batch_bytes: Option<u64>,
) -> Result<(Samples, Peak)> {
    say(&format!("{name}: filling a hub with {rows} rows"));
    let hub = bench.database(from).await?;
    hub.fill(rows).await?;
    scope::define(&hub).await?;
    hub.settle().await?;

    let ours = async |_| {
        let leaf = Leaf::fresh(bench, to).await?;
        let measured = sync_once_with(bench, &hub, &leaf, (0, rows), batch_bytes).await?;
        leaf.database.expect_same(&hub).await?;
        leaf.remove().await?;
        Ok(measured)
    };
    let limit = async |_| {
        let copy = bench.database(to).await?;
        let elapsed = run_limit(Limit::Copy { from: hub.clone(), to: copy.clone() }).await?;
        copy.expect_same(&hub).await?;
        copy.remove().await?;
        Ok(elapsed)
    };
    let measured = bench.interleaved(name, Unit::Seconds, ours, limit).await?;
    hub.remove().await?;
    Ok(measured)
}
