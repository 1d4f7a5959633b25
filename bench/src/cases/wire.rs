//! Bytes on the wire of a first download, as somebody in between counts them, beside the rows as CSV under zstd.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Result, ensure};

use crate::bench::{Bench, Kind, say};
use crate::children::Job;
use crate::leaf::Leaf;
use crate::processes::{Service, run as run_process};
use crate::report::{CaseReport, Samples, Target};
use crate::rows::{Rows, write_time, write_uuid};
use crate::scope;
use crate::wire::Wire;

const NAME: &str = "wire_bytes";
/// At most so many times the bytes of the limit.
const TARGET: Target = Target::ratio(0.9);
/// What the limit is compressed with.
const ZSTD_LEVEL: i32 = 3;

/// Measures it, once: bytes do not vary.
pub(crate) async fn run(bench: &Bench) -> Result<CaseReport> {
    say(&format!("{NAME}: filling a hub with {} rows", bench.rows));
    let hub = bench.database(Kind::Postgres).await?;
    hub.fill(bench.rows).await?;
    scope::define(&hub).await?;
    let service = Service::start(&hub, &bench.fresh("spool")?).await?;
    let leaf = Leaf::fresh(bench, Kind::Sqlite).await?;
    let (wire, server) = Wire::to(service.address())?;
    let client = run_process(&Job::Sync { server, leaf: leaf.clone() }).await?;
    ensure!(client.ending.moved == Some((0, bench.rows)), "{:?} rows moved", client.ending.moved);
    service.stop().await?;
    leaf.remove().await?;
    hub.remove().await?;
    let (ours, limit) = (wire.both_ways() as f64, csv_bytes(bench.rows)? as f64);
    let samples = Samples { ours: vec![ours], limit: vec![limit] };
    Ok(CaseReport::new(NAME, "bytes", samples, TARGET, None))
}

/// The rows as PostgreSQL writes CSV, compressed.
fn csv_bytes(rows: u64) -> Result<u64> {
    let mut encoder = zstd::Encoder::new(Counter(0), ZSTD_LEVEL)?;
    let mut line = Vec::new();
    for row in Rows::first(rows) {
        line.clear();
        write_uuid(&row.id, &mut line);
        let active = if row.active { 't' } else { 'f' };
        let mut numbers = String::new();
        write!(numbers, ",{},{},{},{active},", row.number, row.quantity, row.price)?;
        line.extend_from_slice(numbers.as_bytes());
        write_time(row.changed_at, &mut line);
        line.extend_from_slice(format!(",{},{}\n", row.name, row.note).as_bytes());
        encoder.write_all(&line)?;
    }
    Ok(encoder.finish()?.0)
}

/// Counts what is written.
struct Counter(u64);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
