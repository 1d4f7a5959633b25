//! What tracking costs the application's own writes: the same statements on a table that a hub tracks, and on one that
//! nobody tracks. More is better: rows a second.

use std::time::Instant;

use anyhow::Result;

use crate::bench::{Bench, Kind, say};
use crate::database::Database;
use crate::report::{CaseReport, Samples, Target, rounded};
use crate::rows::TABLE;
use crate::scope;

/// Rows that are written one by one, each in a transaction of its own.
const SINGLES: u64 = 500;

/// What the application does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Updates of single rows.
    Single,
    /// One insert of a tenth as many rows as there are.
    Insert,
    /// One update of three tenths of the rows; all of them have records.
    Update,
}

/// Measures it.
pub(crate) async fn run(bench: &Bench, kind: Kind) -> Result<Vec<CaseReport>> {
    let cases: &[(&'static str, Work, f64)] = match kind {
        Kind::Postgres => {
            &[("write_tax_pg_single", Work::Single, 0.9), ("write_tax_pg_update", Work::Update, 0.7)]
        }
        Kind::Sqlite => &[
            ("write_tax_sqlite_single", Work::Single, 0.65),
            ("write_tax_sqlite_insert", Work::Insert, 0.5),
            ("write_tax_sqlite_update", Work::Update, 0.38),
        ],
    };
    say(&format!("write_tax: filling two databases with {} rows", bench.rows));
    let (tracked, plain) = (bench.database(kind).await?, bench.database(kind).await?);
    tracked.fill(bench.rows).await?;
    plain.fill(bench.rows).await?;
    let (store, stored) = scope::tracked(&tracked).await?;
    let update = update();
    tracked.execute(&update).await?;
    let mut reports = Vec::new();
    for (name, work, least) in cases {
        let mut samples = Samples::default();
        for round in 0..bench.repeat() {
            for first in [true, false] {
                let is_ours = first == (round % 2 == 0);
                store.fold(&stored).await?;
                let database = if is_ours { &tracked } else { &plain };
                database.settle().await?;
                let rate = do_work(bench, database, *work, round).await?;
                if is_ours { samples.ours.push(rate) } else { samples.limit.push(rate) }
            }
        }
        say(&format!("{name}: {:?} rows/s, untracked {:?}", samples.ours, samples.limit));
        reports.push(CaseReport::new(name, "rows/s", samples, Target::at_least(*least), None));
    }
    drop(store);
    tracked.remove().await?;
    plain.remove().await?;
    Ok(reports)
}

fn update() -> String {
    format!("UPDATE {TABLE} SET quantity = quantity + 1 WHERE number % 10 < 3")
}

/// Does the work; answers rows a second.
async fn do_work(bench: &Bench, database: &Database, work: Work, round: u32) -> Result<f64> {
    let many = bench.rows / 10;
    let (rows, started) = match work {
        Work::Single => {
            let keys = database.keys((bench.rows / SINGLES).max(1), round.into()).await?;
            let started = Instant::now();
            database.touch_each(&keys).await?;
            (keys.len() as u64, started)
        }
        Work::Insert => {
            let first = bench.rows + u64::from(round) * many;
            let started = Instant::now();
            database.insert(first..first + many).await?;
            (many, started)
        }
        Work::Update => {
            let started = Instant::now();
            database.execute(&update()).await?;
            (many * 3, started)
        }
    };
    Ok(rounded(rows as f64 / started.elapsed().as_secs_f64()))
}
