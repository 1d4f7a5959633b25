//! Folding: the entries of a log, one for each row, become records; and what single writes of the application take while
//! that goes on.
//!
//! In PostgreSQL a log may grow as large as the table, and is folded as a whole. In SQLite whoever writes waits for whoever
//! folds, and a log that grows without end folds itself, so all rows are folded piece by piece, as by sessions that follow
//! each other, and the limit upserts the same pieces.

mod writes;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use syncline_engine::store::{HubStore, StoredScope};

use crate::application::Application;
use crate::bench::{Bench, Kind, Measured, Unit, say};
use crate::database::{Database, RECORD_VALUES, RECORDS};
use crate::report::{CaseReport, Name, Peak, Target};
use crate::rows::TABLE;
use crate::scope;
use writes::Writer;

const NAME: &str = "fold";
/// At most so many times a set-based upsert of the same records.
const TARGET: Target = Target::ratio(1.3);
/// At most so many times what a single write takes otherwise.
const WRITES_TARGET: Target = Target::ratio(3.0);
/// Entries that are folded at once in SQLite: other writers wait meanwhile.
const SQLITE_PIECE: u64 = 4_000;
/// So many pieces are folded while the application writes: between its writes, one on the heels of the other, a fold mostly
/// waits for the file's lock, and all pieces would take five minutes a run.
const PIECES_BESIDE_WRITES: usize = 40;
const _: () = assert!(SQLITE_PIECE < syncline_engine::limits::SQLITE_LOG_ENTRIES_MAX as u64);

/// Measures it in both databases.
pub(crate) async fn run(bench: &Bench) -> Result<Vec<CaseReport>> {
    let mut reports = measure(bench, Kind::Postgres, ["postgres", "postgres_writes_p99"]).await?;
    reports.extend(measure(bench, Kind::Sqlite, ["sqlite", "sqlite_writes_p99"]).await?);
    Ok(reports)
}

async fn measure(bench: &Bench, kind: Kind, figures: [&'static str; 2]) -> Result<Vec<CaseReport>> {
    let [folds, writes] = figures;
    let (name, writes_name) = (Name::from((NAME, folds)), Name::from((NAME, writes)));
    let folding = Folding::new(bench, &name.to_string(), kind).await?;
    let mut writer = Writer::connect(&folding.hub).await?;
    // Both have all records from here on.
    folding.limit().await?;
    folding.ours().await?;
    let ours = async |_| Ok(Measured { elapsed: folding.ours().await?, peak: Peak::default() });
    let limit = async |_| folding.limit().await;
    let (samples, _) = bench.interleaved(&name.to_string(), Unit::Seconds, ours, limit).await?;
    let report = CaseReport::new(name, Unit::Seconds.as_str(), samples, TARGET, None);

    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..bench.repeat() {
        let lasted = folding.while_writing(&mut writer).await?;
        with.push(writer.take_p99());
        writer.alone(lasted).await?;
        without.push(writer.take_p99());
        say(&format!("{writes_name} {}/{}: {with:?} ms, {without:?} ms", round + 1, bench.repeat()));
    }
    let samples = crate::report::Samples { ours: with, limit: without };
    let writes = CaseReport::new(writes_name, Unit::Milliseconds.as_str(), samples, WRITES_TARGET, None);
    drop(writer);
    folding.end().await?;
    Ok(vec![report, writes])
}

/// A hub with records of all rows, and a table of the limit's own.
struct Folding {
    rows: u64,
    hub: Database,
    store: std::sync::Arc<dyn HubStore>,
    stored: StoredScope,
    /// Conditions that choose what is changed and folded at once.
    pieces: Vec<String>,
}

impl Folding {
    async fn new(bench: &Bench, name: &str, kind: Kind) -> Result<Self> {
        say(&format!("{name}: filling a hub with {} rows", bench.rows));
        let hub = bench.database(kind).await?;
        hub.fill(bench.rows).await?;
        hub.create_records().await?;
        let (store, stored) = scope::tracked(&hub).await?;
        let pieces = match kind {
            Kind::Postgres => vec!["true".to_owned()],
            Kind::Sqlite => {
                let mut starts = hub.keys(SQLITE_PIECE, 0).await?;
                // Above all keys.
                starts.push("g".to_owned());
                starts.windows(2).map(|ends| format!("id >= '{}' AND id < '{}'", ends[0], ends[1])).collect()
            }
        };
        Ok(Self { rows: bench.rows, hub, store, stored, pieces })
    }

    /// Changes all rows and folds what that has left in the log: answers how long folding took.
    async fn ours(&self) -> Result<Duration> {
        let mut application = Application::connect(&self.hub).await?;
        let mut elapsed = Duration::ZERO;
        for piece in &self.pieces {
            application.execute(&change(piece)).await?;
            self.hub.settle().await?;
            let started = Instant::now();
            self.store.fold(&self.stored).await?;
            elapsed += started.elapsed();
        }
        self.check().await?;
        Ok(elapsed)
    }

    /// Upserts the same records.
    async fn limit(&self) -> Result<Duration> {
        let mut application = Application::connect(&self.hub).await?;
        let mut elapsed = Duration::ZERO;
        for piece in &self.pieces {
            self.hub.settle().await?;
            let upsert = format!(
                "INSERT INTO {RECORDS} (id, peer, tick, via, origin, changed_at, seq) \
                 SELECT id, 1, 2, 3, 3, quantity, number FROM {TABLE} WHERE {piece} \
                 ON CONFLICT (id) DO UPDATE SET {RECORD_VALUES}"
            );
            let started = Instant::now();
            application.execute(&upsert).await?;
            elapsed += started.elapsed();
        }
        Ok(elapsed)
    }

    /// The same as ours, as far as [`PIECES_BESIDE_WRITES`], while the application writes single rows.
    async fn while_writing(&self, writer: &mut Writer) -> Result<Duration> {
        let mut application = Application::connect(&self.hub).await?;
        let mut elapsed = Duration::ZERO;
        for piece in self.pieces.iter().take(PIECES_BESIDE_WRITES) {
            application.execute(&change(piece)).await?;
            self.hub.settle().await?;
            let fold = async {
                let started = Instant::now();
                self.store.fold(&self.stored).await?;
                Ok(started.elapsed())
            };
            elapsed += writer.beside(fold).await?;
        }
        self.store.fold(&self.stored).await?;
        self.check().await?;
        Ok(elapsed)
    }

    /// The log is empty, and there is a record of each row.
    async fn check(&self) -> Result<()> {
        let counts = self.store.tracking_counts(&self.stored).await?;
        let (waiting, records) = counts.into_values().next().context("the scope has a table")?;
        ensure!((waiting, records) == (0, self.rows), "{waiting} entries are left, {records} are records");
        Ok(())
    }

    async fn end(self) -> Result<()> {
        let there = self.hub.sum(TABLE).await?;
        ensure!(there.rows() == self.rows, "rows are lost: {there:?}");
        drop(self.store);
        self.hub.remove().await
    }
}

fn change(piece: &str) -> String {
    format!("UPDATE {TABLE} SET quantity = quantity + 1 WHERE {piece}")
}
