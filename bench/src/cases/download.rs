//! The first download: from the start of the client process until it has committed and exited.

use anyhow::Result;

use crate::bench::{Bench, Kind, Unit, run_limit, say, sync_once};
use crate::database::Database;
use crate::limit::Limit;
use crate::report::{CaseReport, Target};
use crate::scope;

/// At most so many times what the databases themselves need.
const TARGET: Target = Target::ratio(3.0);

/// Measures it.
pub(crate) async fn run(bench: &Bench, name: &'static str, kind: Kind) -> Result<CaseReport> {
    say(&format!("{name}: filling a hub with {} rows", bench.rows));
    let hub = bench.hub(kind).await?;
    hub.fill(bench.rows).await?;
    scope::define(&hub).await?;
    hub.settle().await?;

    let ours = async |_| {
        let path = bench.fresh("leaf.db")?;
        let measured = sync_once(bench, &hub, &path, (0, bench.rows)).await?;
        Database::Sqlite(path.clone()).expect_same(&hub).await?;
        std::fs::remove_file(path)?;
        Ok(measured)
    };
    let limit = async |_| {
        let path = bench.fresh("limit.db")?;
        let elapsed = run_limit(Limit::Copy { from: hub.clone(), to: path.clone() }).await?;
        Database::Sqlite(path.clone()).expect_same(&hub).await?;
        std::fs::remove_file(path)?;
        Ok(elapsed)
    };
    let (samples, peak) = bench.interleaved(name, Unit::Seconds, ours, limit).await?;
    Ok(CaseReport::new(name, Unit::Seconds.as_str(), samples, TARGET, Some(peak)))
}
