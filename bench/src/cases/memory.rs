//! Peak memory of both sides in a first download: it must not grow with the rows.

use anyhow::Result;

use crate::bench::{Bench, Kind, say, sync_once};
use crate::database::Database;
use crate::report::{CaseReport, Peak, Samples, Target};
use crate::scope;

/// The small table has so many times fewer rows.
const SMALLER: u64 = 10;
/// The same for many rows as for few, within a tenth; and never more than this, in MiB.
const TARGET: Target = Target { ratio: Some(1.1), ceiling: Some(150.0) };

/// Measures it, with either kind of hub.
pub(crate) async fn run(bench: &Bench) -> Result<Vec<CaseReport>> {
    let mut reports = measure(bench, Kind::Postgres, ["memory_pg_service", "memory_pg_client"]).await?;
    reports.extend(measure(bench, Kind::Sqlite, ["memory_sqlite_service", "memory_sqlite_client"]).await?);
    Ok(reports)
}

async fn measure(bench: &Bench, kind: Kind, names: [&'static str; 2]) -> Result<Vec<CaseReport>> {
    let few = filled(bench, kind, bench.rows / SMALLER).await?;
    let many = filled(bench, kind, bench.rows).await?;
    let (mut service, mut client) = (Samples::default(), Samples::default());
    for round in 0..bench.repeat() {
        let small = first_download(bench, &few, bench.rows / SMALLER).await?;
        let large = first_download(bench, &many, bench.rows).await?;
        say(&format!("{names:?} {}/{}: {large:?}, fewer rows {small:?}", round + 1, bench.repeat()));
        service.ours.push(large.service);
        service.limit.push(small.service);
        client.ours.push(large.client);
        client.limit.push(small.client);
    }
    let report = |name, samples| CaseReport::new(name, "MiB", samples, TARGET, None);
    Ok(vec![report(names[0], service), report(names[1], client)])
}

async fn filled(bench: &Bench, kind: Kind, rows: u64) -> Result<Database> {
    say(&format!("memory: filling a hub with {rows} rows"));
    let hub = bench.hub(kind).await?;
    hub.fill(rows).await?;
    scope::define(&hub).await?;
    Ok(hub)
}

async fn first_download(bench: &Bench, hub: &Database, rows: u64) -> Result<Peak> {
    let path = bench.fresh("leaf.db")?;
    let measured = sync_once(bench, hub, &path, (0, rows)).await?;
    std::fs::remove_file(path)?;
    Ok(measured.peak)
}
