//! Peak memory of both sides in a first download: it must not grow with the rows.

use anyhow::Result;

use crate::bench::{Bench, Kind, say, sync_once};
use crate::database::Database;
use crate::leaf::Leaf;
use crate::report::{CaseReport, Peak, Samples, Target};
use crate::scope;

/// The large table has so many times more rows than other cases.
const LARGER: u64 = 5;
/// The small table has so many times fewer.
const SMALLER: u64 = 10;
/// The same for many rows as for few, within a tenth; and never more than this.
const TARGET: Target = Target { peak_mib: Some(96.0), ..Target::ratio(1.1) };

/// Measures it. The figures are those of the side that grows more: with many rows, and with few.
pub(crate) async fn run(bench: &Bench, name: &'static str, kind: Kind) -> Result<CaseReport> {
    let (few, many) = (bench.rows / SMALLER, bench.rows * LARGER);
    let (small, large) = (filled(bench, name, kind, few).await?, filled(bench, name, kind, many).await?);
    let (mut service, mut client) = (Samples::default(), Samples::default());
    let mut peak = Peak::default();
    for round in 1..=bench.repeat() {
        let with_few = first_download(bench, &small, few).await?;
        let with_many = first_download(bench, &large, many).await?;
        say(&format!(
            "{name} {round}/{}: {many} rows {with_many:?}, {few} rows {with_few:?}",
            bench.repeat()
        ));
        service.ours.push(with_many.service);
        service.limit.push(with_few.service);
        client.ours.push(with_many.client);
        client.limit.push(with_few.client);
        peak = peak.max(with_many).max(with_few);
    }
    small.remove().await?;
    large.remove().await?;
    let report = |samples| CaseReport::new(name, "MiB", samples, TARGET, Some(peak));
    let (service, client) = (report(service), report(client));
    Ok(if service.ratio > client.ratio { service } else { client })
}

async fn filled(bench: &Bench, name: &str, kind: Kind, rows: u64) -> Result<Database> {
    say(&format!("{name}: filling a hub with {rows} rows"));
    let hub = bench.database(kind).await?;
    hub.fill(rows).await?;
    scope::define(&hub).await?;
    Ok(hub)
}

async fn first_download(bench: &Bench, hub: &Database, rows: u64) -> Result<Peak> {
    let leaf = Leaf::fresh(bench, Kind::Sqlite).await?;
    let measured = sync_once(bench, hub, &leaf, (0, rows)).await?;
    leaf.remove().await?;
    Ok(measured.peak)
}
