//! Changes of a leaf, a fifth as many as it has rows, up to a hub: conflict check, tracking and commit included.
//!
//! The limit writes the same rows and a record of each, with the index that tracking needs; it judges no conflicts.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Kind, Unit, run_limit, say, sync_once};
use crate::database::{Database, extract};
use crate::leaf::Leaf;
use crate::limit::{LIMIT_TABLE, Limit};
use crate::report::{CaseReport, Target};
use crate::rows::TABLE;
use crate::scope;

/// A leaf with so many times more rows than change.
const NTH: u64 = 5;

/// What the leaf does before it uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// It inserts rows.
    Insert,
    /// It updates rows, the same ones each time: the hub has records of them already.
    Update,
}

/// Measures it; at most `ratio` times the limit is wanted.
pub(crate) async fn run(
    bench: &Bench,
    name: &'static str,
    (kind, change): (Kind, Change),
    ratio: f64,
) -> Result<CaseReport> {
    say(&format!("{name}: filling a hub with {} rows, and a leaf", bench.rows));
    let hub = bench.database(kind).await?;
    hub.fill(bench.rows).await?;
    let leaf = Leaf::fresh(bench, Kind::Sqlite).await?;
    let upload = Upload { bench, change, limit: limit_database(bench, &hub).await?, hub, leaf };
    scope::define(&upload.hub).await?;
    sync_once(bench, &upload.hub, &upload.leaf, (0, bench.rows)).await?;
    if change == Change::Update {
        // Makes the records.
        upload.ours(0).await?;
        upload.limit(0).await?;
    }
    let ours = async |round: u32| upload.ours(round).await;
    let limit = async |round: u32| upload.limit(round).await;
    let (samples, peak) = bench.interleaved(name, Unit::Seconds, ours, limit).await?;
    upload.leaf.remove().await?;
    upload.hub.remove().await?;
    Ok(CaseReport::new(name, Unit::Seconds.as_str(), samples, Target::ratio(ratio), Some(peak)))
}

/// Databases that have the same rows.
struct Upload<'a> {
    bench: &'a Bench,
    change: Change,
    hub: Database,
    leaf: Leaf,
    /// Where the limit writes, with tables that nothing tracks.
    limit: Database,
}

impl Upload<'_> {
    async fn ours(&self, round: u32) -> Result<crate::bench::Measured> {
        let changed = match self.change {
            Change::Insert => {
                let rows = self.rows(round);
                self.leaf.database.insert(rows.clone()).await?;
                rows.end - rows.start
            }
            Change::Update => self.leaf.database.change(NTH, 0).await?,
        };
        self.hub.settle().await?;
        self.leaf.database.settle().await?;
        let measured = sync_once(self.bench, &self.hub, &self.leaf, (changed, 0)).await?;
        self.leaf.database.expect_same(&self.hub).await?;
        Ok(measured)
    }

    async fn limit(&self, round: u32) -> Result<std::time::Duration> {
        let from = Database::Sqlite(self.bench.fresh("changed.db")?);
        match (&from, &self.leaf.database, self.change) {
            (from, _, Change::Insert) => {
                from.create().await?;
                from.insert(self.rows(round)).await?;
            }
            // What the leaf has now, whether ours has uploaded it before or does after.
            (Database::Sqlite(to), Database::Sqlite(leaf), Change::Update) => extract(leaf, to, NTH, 0)?,
            _ => anyhow::bail!("the leaf is a SQLite file here"),
        }
        self.limit.settle().await?;
        let elapsed =
            run_limit(Limit::Upload { from: from.clone(), to: self.limit.clone(), change: self.change })
                .await?;
        let (sent, there) = (from.sum(TABLE).await?, self.limit.sum(&self.arrived(round)).await?);
        ensure!(there == sent, "the limit has uploaded {there:?}, not {sent:?}");
        from.remove().await?;
        Ok(elapsed)
    }

    /// The rows that are inserted in a round, by number.
    fn rows(&self, round: u32) -> std::ops::Range<u64> {
        let (rows, many) = (self.bench.rows, self.bench.rows / NTH);
        rows + u64::from(round) * many..rows + u64::from(round + 1) * many
    }

    /// The rows that the limit has written in a round, for a query.
    fn arrived(&self, round: u32) -> String {
        let table = if matches!(self.limit, Database::Postgres(_)) { LIMIT_TABLE } else { TABLE };
        match self.change {
            Change::Insert => {
                let rows = self.rows(round);
                format!("{table} WHERE number >= {} AND number < {}", rows.start, rows.end)
            }
            Change::Update => format!("{table} WHERE number % {NTH} = 0"),
        }
    }
}

/// The same rows, not tracked: a table of the same server, or a file; with an empty table for the limit's records.
async fn limit_database(bench: &Bench, hub: &Database) -> Result<Database> {
    let limit = match hub {
        Database::Postgres(_) => {
            hub.copy_table(LIMIT_TABLE).await?;
            hub.clone()
        }
        Database::Sqlite(path) => {
            hub.settle().await?;
            let copy = bench.fresh("limit.db")?;
            std::fs::copy(path, &copy)?;
            Database::Sqlite(copy)
        }
    };
    limit.create_records().await?;
    Ok(limit)
}
