//! What tracking costs the application's own writes: the same statements on a table that is tracked, at a hub or at a
//! leaf, and on one that nobody tracks. More is better: rows a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use syncline_engine::store::{HubStore, StoredScope};

use crate::application::Application;
use crate::bench::{Bench, Kind, say, sync_once};
use crate::database::Database;
use crate::leaf::Leaf;
use crate::report::{CaseReport, Name, Samples, Target, rounded};
use crate::rows::TABLE;
use crate::scope;

/// Rows that are written one by one, each in a transaction of its own.
const SINGLES: u64 = 4_000;

/// So many of them in turn with as many on the other table. The tax is a twentieth of the wait for the disk, which itself
/// is half as long again in one second as in another: of 500 writes and then 500 others the ratio said more about the
/// seconds than about the tax.
const SINGLES_IN_TURN: usize = 50;

/// What is wanted, by figure: at least so much of the rate without tracking.
type Wanted = &'static [(&'static str, Work, f64)];

const POSTGRES: Wanted = &[("single", Work::Single, 0.9), ("update", Work::Update, 0.7)];
const SQLITE_HUB: Wanted =
    &[("single", Work::Single, 0.65), ("insert", Work::Insert, 0.5), ("update", Work::Update, 0.38)];
const SQLITE_LEAF: Wanted = &[
    ("leaf_single", Work::Single, 0.65),
    ("leaf_insert", Work::Insert, 0.5),
    ("leaf_update", Work::Update, 0.38),
];

/// What the application does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Updates of single rows.
    Single,
    /// One insert of a tenth as many rows as there are, from a SQLite file beside it.
    Insert,
    /// One update of three tenths of the rows; all of them have records.
    Update,
}

/// Measures it at a hub, and in SQLite at a leaf too.
pub(crate) async fn run(bench: &Bench, kind: Kind) -> Result<Vec<CaseReport>> {
    let hub = Tracked::hub(bench, kind).await?;
    match kind {
        Kind::Postgres => measure(bench, hub, kind, POSTGRES).await,
        Kind::Sqlite => {
            let mut reports = measure(bench, hub, kind, SQLITE_HUB).await?;
            reports.extend(measure(bench, Tracked::leaf(bench).await?, kind, SQLITE_LEAF).await?);
            Ok(reports)
        }
    }
}

/// A database whose table is tracked.
struct Tracked {
    database: Database,
    /// A hub is folded before each measurement, as it is in the background. A leaf's log folds itself as it grows.
    folds: Option<(Arc<dyn HubStore>, StoredScope)>,
    /// Where it came from, and where a client keeps its parts.
    beside: Option<(Database, std::path::PathBuf)>,
}

impl Tracked {
    async fn hub(bench: &Bench, kind: Kind) -> Result<Self> {
        say(&format!("write_tax, {kind:?}: filling a hub with {} rows", bench.rows));
        let database = bench.database(kind).await?;
        database.fill(bench.rows).await?;
        let folds = Some(scope::tracked(&database).await?);
        let tracked = Self { database, folds, beside: None };
        tracked.database.execute(&update(bench)).await?;
        tracked.fold().await?;
        if let Some((store, stored)) = &tracked.folds {
            let counts = store.tracking_counts(stored).await?;
            let records: u64 = counts.into_values().map(|(_, records)| records).sum();
            ensure!(records == updated(bench), "{records} records, not {}", updated(bench));
        }
        Ok(tracked)
    }

    async fn leaf(bench: &Bench) -> Result<Self> {
        say(&format!("write_tax, leaf: filling a hub with {} rows, and a leaf", bench.rows));
        let hub = bench.database(Kind::Sqlite).await?;
        hub.fill(bench.rows).await?;
        scope::define(&hub).await?;
        let leaf = Leaf::fresh(bench, Kind::Sqlite).await?;
        sync_once(bench, &hub, &leaf, (0, bench.rows)).await?;
        leaf.database.execute(&format!("ANALYZE; {}", update(bench))).await?;
        Ok(Self { database: leaf.database, folds: None, beside: Some((hub, leaf.parts)) })
    }

    async fn fold(&self) -> Result<()> {
        match &self.folds {
            Some((store, stored)) => Ok(store.fold(stored).await?),
            None => Ok(()),
        }
    }

    async fn remove(self) -> Result<()> {
        drop(self.folds);
        if let Some((hub, parts)) = self.beside {
            std::fs::remove_dir_all(parts)?;
            hub.remove().await?;
        }
        self.database.remove().await
    }
}

async fn measure(bench: &Bench, tracked: Tracked, kind: Kind, wanted: Wanted) -> Result<Vec<CaseReport>> {
    let plain = bench.database(kind).await?;
    plain.fill(bench.rows).await?;
    plain.execute(&update(bench)).await?;
    let case = match kind {
        Kind::Postgres => "write_tax_pg",
        Kind::Sqlite => "write_tax_sqlite",
    };
    let mut reports = Vec::new();
    for (figure, work, least) in wanted {
        let name = Name::from((case, *figure));
        let mut samples = Samples::default();
        for round in 0..bench.repeat() {
            let [ours, limit] = match work {
                Work::Single => singles(bench, &tracked, &plain, round).await?,
                Work::Insert => {
                    in_turn(&tracked, &plain, round, async |database| {
                        insert_many(bench, database, round).await
                    })
                    .await?
                }
                Work::Update => {
                    in_turn(&tracked, &plain, round, async |database| update_many(bench, database).await)
                        .await?
                }
            };
            samples.ours.push(ours);
            samples.limit.push(limit);
        }
        say(&format!("{name}: {:?} rows/s, untracked {:?}", samples.ours, samples.limit));
        tracked.database.expect_same(&plain).await?;
        reports.push(CaseReport::new(name, "rows/s", samples, Target::at_least(*least), None));
    }
    tracked.remove().await?;
    plain.remove().await?;
    Ok(reports)
}

/// Changes three tenths of the rows that were there at first: always the same ones.
fn update(bench: &Bench) -> String {
    format!("UPDATE {TABLE} SET quantity = quantity + 1 WHERE number < {} AND number % 10 < 3", bench.rows)
}

/// How many rows that are.
const fn updated(bench: &Bench) -> u64 {
    let rest = bench.rows % 10;
    bench.rows / 10 * 3 + if rest < 3 { rest } else { 3 }
}

/// One of the two tables, written to over a connection that has written before.
struct Side {
    application: Application,
    taken: Duration,
}

impl Side {
    async fn of(database: &Database, key: &str, quantity: i64) -> Result<Self> {
        database.settle().await?;
        let mut application = Application::connect(database).await?;
        application.change(key, quantity).await?;
        Ok(Self { application, taken: Duration::ZERO })
    }

    async fn write(&mut self, keys: &[String], quantity: i64) -> Result<()> {
        let started = Instant::now();
        for key in keys {
            self.application.change(key, quantity).await?;
        }
        self.taken += started.elapsed();
        Ok(())
    }

    fn rate(&self, rows: usize) -> f64 {
        rounded(rows as f64 / self.taken.as_secs_f64())
    }
}

/// Writes single rows of the tracked table and of the other: rows a second.
async fn singles(bench: &Bench, tracked: &Tracked, plain: &Database, round: u32) -> Result<[f64; 2]> {
    tracked.fold().await?;
    let keys = plain.keys((bench.rows / SINGLES).max(1), round.into()).await?;
    let quantity = i64::from(round);
    let mut ours = Side::of(&tracked.database, &keys[0], quantity).await?;
    let mut limit = Side::of(plain, &keys[0], quantity).await?;
    for (turn, some) in keys.chunks(SINGLES_IN_TURN).enumerate() {
        let sides = if turn.is_multiple_of(2) { [&mut ours, &mut limit] } else { [&mut limit, &mut ours] };
        for side in sides {
            side.write(some, quantity).await?;
        }
    }
    Ok([ours.rate(keys.len()), limit.rate(keys.len())])
}

/// The work on the tracked table and on the other, in turn: rows a second.
async fn in_turn(
    tracked: &Tracked,
    plain: &Database,
    round: u32,
    work: impl AsyncFn(&Database) -> Result<f64>,
) -> Result<[f64; 2]> {
    let mut rates = [0.0; 2];
    for at in if round.is_multiple_of(2) { [0, 1] } else { [1, 0] } {
        let database = [&tracked.database, plain][at];
        tracked.fold().await?;
        database.settle().await?;
        rates[at] = work(database).await?;
    }
    Ok(rates)
}

/// Inserts a tenth as many rows as there are.
async fn insert_many(bench: &Bench, database: &Database, round: u32) -> Result<f64> {
    let many = bench.rows / 10;
    let first = bench.rows + u64::from(round) * many;
    let staging = bench.fresh("staging.db")?;
    let staged = Database::Sqlite(staging.clone());
    staged.create().await?;
    staged.insert(first..first + many).await?;
    let insert = format!(
        "ATTACH '{}' AS staging; INSERT INTO {TABLE} SELECT * FROM staging.{TABLE} ORDER BY id",
        staging.display()
    );
    let started = Instant::now();
    database.execute(&insert).await?;
    let elapsed = started.elapsed();
    staged.remove().await?;
    Ok(rounded(many as f64 / elapsed.as_secs_f64()))
}

/// Changes three tenths of the rows.
async fn update_many(bench: &Bench, database: &Database) -> Result<f64> {
    let started = Instant::now();
    database.execute(&update(bench)).await?;
    Ok(rounded(updated(bench) as f64 / started.elapsed().as_secs_f64()))
}
