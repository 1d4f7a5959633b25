//! How long a commit at the hub takes to reach a leaf that watches.
//!
//! One clock, that of this process: from the moment when the application's commit was acknowledged until the row is
//! visible in the leaf's file, which is read every tenth of a millisecond. Service and client are processes, as always.
//! Beside it the least that could do the same: a commit that notifies, a connection that hears of it, one durable insert
//! into a file.

mod bare;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rusqlite::{Connection, OptionalExtension as _};

use crate::application::Application;
use crate::bench::{Bench, Kind, Unit, say, sync};
use crate::children::Job;
use crate::database::{Database, open};
use crate::leaf::Leaf;
use crate::processes::{Running, Service};
use crate::report::{CaseReport, Peak, Samples, Target, percentile};
use crate::rows::{SplitMix64, TABLE};
use crate::scope;

/// So many times fewer rows than other cases have.
const SMALLER: u64 = 10;
/// Between a commit that has arrived and the next one, at most: random, so that nothing beats in time with it.
const DISTANCE_MAX: Duration = Duration::from_millis(200);
/// Samples of both kinds are taken in turn, so many at a time.
const TURN: u32 = 50;
const SEED: u64 = 0x5EED_11FE;
/// Quantities that no row has by itself begin here.
const MARKED: i64 = 1_000_000;
const NAME: &str = "live";
/// A commit that has not arrived by then is lost.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);
/// How often a place is looked at where something is to appear.
const LOOK_INTERVAL: Duration = Duration::from_micros(100);
/// Half of all commits.
const P50_TARGET: Target = Target::ours(10.0);
/// All but one in a hundred.
const P99_TARGET: Target = Target::ours(50.0);

/// Measures it, before a PostgreSQL hub and before a SQLite hub.
pub(crate) async fn run(bench: &Bench) -> Result<Vec<CaseReport>> {
    let mut reports = measure(bench, Kind::Postgres, ["postgres_p50", "postgres_p99"]).await?;
    reports.extend(measure(bench, Kind::Sqlite, ["sqlite_p50", "sqlite_p99"]).await?);
    Ok(reports)
}

async fn measure(bench: &Bench, kind: Kind, figures: [&'static str; 2]) -> Result<Vec<CaseReport>> {
    let rows = (bench.rows / SMALLER).max(1_000);
    say(&format!("live, {kind:?}: filling a hub with {rows} rows, and a leaf"));
    let hub = bench.database(kind).await?;
    hub.fill(rows).await?;
    scope::define(&hub).await?;
    let leaf = Leaf::fresh(bench, Kind::Sqlite).await?;
    let service = Service::start(&hub, &bench.fresh("spool")?).await?;
    sync(&service, &leaf, (0, rows)).await?;
    let mut bare = bare::Bare::start(bench, &hub).await?;
    let follower = Running::start(&Job::Follow { server: service.url(), leaf: leaf.clone() })?;
    let mut live = Live {
        application: Application::connect(&hub).await?,
        leaf: Looker::open(&leaf.database)?,
        keys: hub.keys((rows / 1_000).max(1), 0).await?,
        follower,
        random: SplitMix64(SEED),
        marked: MARKED,
    };
    // Not counted: the client may not be there yet.
    live.sample().await?;

    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    while ours.len() < bench.counts.samples as usize {
        for _ in 0..TURN.min(bench.counts.samples) {
            ours.push(Unit::Milliseconds.of(live.sample().await?));
        }
        for _ in 0..TURN.min(bench.counts.samples) {
            limit.push(Unit::Milliseconds.of(bare.sample(live.pause()).await?));
        }
        say(&format!("live, {kind:?}: {} of {} commits", ours.len(), bench.counts.samples));
    }
    let client_kib = live.follower.stop().await?.peak_kib;
    let peak = Peak::from_kib(service.stop().await?, client_kib);
    leaf.database.expect_same(&hub).await?;
    bare.stop().await?;
    leaf.remove().await?;
    hub.remove().await?;

    let at =
        |share: f64| Samples { ours: vec![percentile(&ours, share)], limit: vec![percentile(&limit, share)] };
    let report = |figure, share, target| CaseReport::new((NAME, figure), "ms", at(share), target, Some(peak));
    let [p50, p99] = figures;
    Ok(vec![report(p50, 0.5, P50_TARGET), report(p99, 0.99, P99_TARGET)])
}

/// A leaf that watches, and the application at its hub.
struct Live {
    application: Application,
    leaf: Looker,
    keys: Vec<String>,
    follower: Running,
    random: SplitMix64,
    marked: i64,
}

impl Live {
    /// Changes a row after a pause; answers how long it took to arrive.
    async fn sample(&mut self) -> Result<Duration> {
        let pause = self.pause();
        tokio::time::sleep(pause).await;
        let place = self.random.next() % self.keys.len() as u64;
        let key = self.keys.get(usize::try_from(place)?).context("the hub has rows")?;
        self.marked += 1;
        self.application.change(key, self.marked).await?;
        let committed = Instant::now();
        while self.leaf.quantity(key)? != Some(self.marked) {
            ensure!(committed.elapsed() < ARRIVAL_MAX, "a commit has not arrived at the leaf");
            self.follower.check()?;
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(committed.elapsed())
    }

    fn pause(&mut self) -> Duration {
        Duration::from_micros(self.random.next() % DISTANCE_MAX.as_micros() as u64)
    }
}

/// Looks into the leaf's file.
struct Looker(Connection);

impl Looker {
    fn open(leaf: &Database) -> Result<Self> {
        let Database::Sqlite(path) = leaf else { bail!("the leaf is a SQLite file here") };
        let path: &Path = path;
        Ok(Self(open(path)?))
    }

    fn quantity(&self, key: &str) -> Result<Option<i64>> {
        let mut select = self.0.prepare_cached(&format!("SELECT quantity FROM {TABLE} WHERE id = ?1"))?;
        Ok(select.query_row([key], |row| row.get(0)).optional()?)
    }
}
