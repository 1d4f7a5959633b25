//! Changes of a leaf, a tenth of its rows, up to a hub: conflict check, tracking and commit included.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::bench::{Bench, Kind, Measured, Unit, run_limit, say, sync_once};
use crate::database::{Database, extract_changed};
use crate::limit::{LIMIT_TABLE, Limit};
use crate::report::{CaseReport, Target};
use crate::rows::TABLE;
use crate::scope;

/// Every so manieth row changes.
const NTH: u64 = 10;

/// Measures it.
pub(crate) async fn run(bench: &Bench, name: &'static str, kind: Kind) -> Result<CaseReport> {
    say(&format!("{name}: filling a hub with {} rows, and a leaf", bench.rows));
    let hub = bench.hub(kind).await?;
    hub.fill(bench.rows).await?;
    let limit_database = limit_database(bench, &hub).await?;
    scope::define(&hub).await?;
    let leaf_path = bench.fresh("leaf.db")?;
    let leaf = Database::Sqlite(leaf_path.clone());
    sync_once(bench, &hub, &leaf_path, (0, bench.rows)).await?;

    let ours = async |round: u32| {
        leaf.change(NTH, round.into()).await?;
        settle(&[&hub, &leaf]).await?;
        let changed = changed_rows(bench.rows, round);
        let measured: Measured = sync_once(bench, &hub, &leaf_path, (changed, 0)).await?;
        leaf.expect_same(&hub).await?;
        Ok(measured)
    };
    let limit = async |round: u32| {
        let changed = bench.fresh("changed.db")?;
        // What the leaf has now, whether ours has uploaded it before or does after.
        extract_changed(&leaf_path, &changed, NTH, round.into())?;
        settle(&[&limit_database]).await?;
        let elapsed = run_limit(Limit::Upload { from: changed.clone(), to: limit_database.clone() }).await?;
        expect_uploaded(&limit_database, &changed, round).await?;
        std::fs::remove_file(changed)?;
        Ok(elapsed)
    };
    let (samples, peak) = bench.interleaved(name, Unit::Seconds, ours, limit).await?;
    Ok(CaseReport::new(name, Unit::Seconds.as_str(), samples, Target::NONE, Some(peak)))
}

fn changed_rows(rows: u64, round: u32) -> u64 {
    (u64::from(round) % NTH..rows).step_by(usize::try_from(NTH).unwrap_or(1)).count() as u64
}

/// The same rows, not tracked: a table of the same server, or a file.
async fn limit_database(bench: &Bench, hub: &Database) -> Result<Database> {
    match hub {
        Database::Postgres(_) => {
            hub.copy_table(LIMIT_TABLE).await?;
            Ok(hub.clone())
        }
        Database::Sqlite(path) => {
            hub.settle().await?;
            let copy = bench.fresh("limit.db")?;
            std::fs::copy(path, &copy)?;
            Ok(Database::Sqlite(copy))
        }
    }
}

async fn settle(databases: &[&Database]) -> Result<()> {
    for database in databases {
        database.settle().await?;
    }
    Ok(())
}

/// The limit has to have done its work.
async fn expect_uploaded(to: &Database, changed: &Path, round: u32) -> Result<()> {
    let table = match to {
        Database::Postgres(_) => LIMIT_TABLE,
        Database::Sqlite(_) => TABLE,
    };
    let condition = format!("{table} WHERE number % {NTH} = {}", u64::from(round) % NTH);
    let (there, sent) = (to.sum(&condition).await?, Database::Sqlite(changed.to_owned()).sum(TABLE).await?);
    ensure!(there == sent, "the limit has uploaded {there:?}, not {sent:?}");
    Ok(())
}
