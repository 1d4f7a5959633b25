//! A session with few changes among many rows: it should cost what changed, not what the table holds.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::bench::{Bench, Kind, Unit, run_limit, say, sync};
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

/// Measures how it grows with the table: large over small, ours and the limits. Both tables in turn, as a machine may be
/// faster in one minute than in the next.
pub(crate) async fn run_scale(bench: &Bench) -> Result<Vec<CaseReport>> {
    let name = "delta_scale";
    let mut small =
        Sessions::begin(bench, name, (bench.rows / SMALLER).max(SCALE_CHANGES), SCALE_CHANGES).await?;
    let mut large = Sessions::begin(bench, name, bench.rows * LARGER, SCALE_CHANGES).await?;
    for round in 0..bench.repeat() {
        small.round(bench, name, round).await?;
        large.round(bench, name, round).await?;
    }
    let (small, large) = (small.end().await?, large.end().await?);
    let over = |large: &[f64], small: &[f64]| -> Vec<f64> {
        large.iter().zip(small).map(|(large, small)| rounded(large / small)).collect()
    };
    let ours = over(&large.samples.ours, &small.samples.ours);
    let bare = Samples { ours: ours.clone(), limit: over(&large.bare, &small.bare) };
    let copied = Samples { ours, limit: over(&large.samples.limit, &small.samples.limit) };
    let report = |figure, samples| {
        let peak = Some(large.peak.max(small.peak));
        CaseReport::new((name, figure), "large / small", samples, SCALE_TARGET, peak)
    };
    Ok(vec![report("bare", bare), report("copied", copied)])
}

/// Sessions with so many changes among so many rows.
pub(crate) async fn measure(bench: &Bench, name: &str, rows: u64, changes: u64) -> Result<Measurements> {
    let mut sessions = Sessions::begin(bench, name, rows, changes).await?;
    for round in 0..bench.repeat() {
        sessions.round(bench, name, round).await?;
    }
    sessions.end().await
}

/// What was measured, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Measurements {
    /// Beside ours: the changed rows by COPY, and an upsert.
    pub(crate) samples: Samples,
    /// The upsert alone, of rows that are there already.
    bare: Vec<f64>,
    peak: Peak,
}

/// A hub and a leaf that have the same rows, and a copy for the limits.
struct Sessions {
    rows: u64,
    nth: u64,
    hub: Database,
    leaf: Leaf,
    service: Service,
    copy: PathBuf,
    measured: Measurements,
}

impl Sessions {
    async fn begin(bench: &Bench, name: &str, rows: u64, changes: u64) -> Result<Self> {
        say(&format!("{name}: filling a hub with {rows} rows, and a leaf"));
        let hub = bench.database(Kind::Postgres).await?;
        hub.fill(rows).await?;
        scope::define(&hub).await?;
        let leaf = Leaf::fresh(bench, Kind::Sqlite).await?;
        let copy = bench.fresh("limit.db")?;
        run_limit(Limit::Copy { from: hub.clone(), to: Database::Sqlite(copy.clone()) }).await?;
        let service = Service::start(&hub, &bench.fresh("spool")?).await?;
        sync(&service, &leaf, (0, rows)).await?;
        Ok(Self { rows, nth: rows / changes, hub, leaf, service, copy, measured: Measurements::default() })
    }

    /// A session and its limits; who is first changes each time.
    async fn round(&mut self, bench: &Bench, name: &str, round: u32) -> Result<()> {
        let Self { rows, nth, hub, leaf, service, copy, measured } = self;
        let unit = Unit::Milliseconds;
        let ours = async |_| {
            let changed = hub.change(*nth, round.into()).await?;
            hub.settle().await?;
            let (elapsed, client) = sync(service, leaf, (0, changed)).await?;
            leaf.database.expect_same(hub).await?;
            Ok((unit.of(elapsed), Peak::from_kib(0, client)))
        };
        let limit = async |_| -> Result<f64> {
            let Database::Postgres(url) = &*hub else { bail!("the hub is a PostgreSQL database here") };
            let keys = hub.keys(*nth, round.into()).await?;
            let fetched = run_limit(Limit::Fetch { from: url.clone(), keys, to: copy.clone() }).await?;
            let (first, nth) = (usize::try_from(u64::from(round) % *nth)?, usize::try_from(*nth)?);
            let upsert = Job::Commits { files: vec![copy.clone()], rows: *rows, nth, first };
            let seconds = run_process(&upsert).await?.ending.figure.context("the upsert was timed")?;
            measured.bare.push(rounded(seconds * 1_000.0));
            Ok(unit.of(fetched))
        };
        let (samples, peak) = bench.round(name, unit.as_str(), round, ours, limit).await?;
        measured.samples.append(samples);
        measured.peak = measured.peak.max(peak);
        Ok(())
    }

    async fn end(self) -> Result<Measurements> {
        let service_kib = self.service.stop().await?;
        self.leaf.remove().await?;
        Database::Sqlite(self.copy).remove().await?;
        self.hub.remove().await?;
        let peak = self.measured.peak.max(Peak::from_kib(service_kib, 0));
        Ok(Measurements { peak, ..self.measured })
    }
}
