//! What is measured for the pictures: cases, with one of their sizes changed.

use anyhow::Result;

use super::{Axis, Line, Plot, Scale};
use crate::bench::Bench;
use crate::bench::Kind::{Postgres, Sqlite};
use crate::cases::{delta, download, fan_out};
use crate::report::{Peak, Samples, median};

/// Tables have so many times fewer rows than other cases.
const ROWS: [u64; 5] = [100, 30, 10, 3, 1];
/// Where the size of a table does not matter, it has so many times fewer rows.
const SMALLER: u64 = 10;
const CHANGES: [u64; 5] = [1, 10, 100, 1_000, 10_000];
/// At most this part of all rows changes.
const CHANGES_SHARE: u64 = 10;
const CLIENTS: [u32; 6] = [1, 5, 20, 50, 100, 200];
const BATCH_BYTES: [u64; 5] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];

const SECONDS: Axis = Axis { label: "seconds", scale: Scale::Logarithmic, format: number };

/// A first download, by rows.
pub(super) async fn rows(bench: &Bench) -> Result<Plot> {
    let mut lines = Lines::default();
    for smaller in ROWS {
        let rows = bench.rows / smaller;
        let (samples, _) = download::measure(bench, "by rows", (Postgres, Sqlite), rows, None).await?;
        lines.add(rows as f64, &samples);
    }
    Ok(Plot {
        name: "cost-by-rows",
        title: "A first download, PostgreSQL to SQLite".to_owned(),
        across: Axis { label: "rows", scale: Scale::Logarithmic, format: number },
        up: SECONDS,
        lines: lines.named("Syncline", "COPY and insert"),
    })
}

/// A session, by changes.
pub(super) async fn changes(bench: &Bench) -> Result<Plot> {
    let rows = bench.rows / SMALLER;
    let mut lines = Lines::default();
    for changes in CHANGES.into_iter().filter(|changes| *changes <= rows / CHANGES_SHARE) {
        let (samples, _) = delta::measure(bench, "by changes", rows, changes).await?;
        lines.add(changes as f64, &samples);
    }
    Ok(Plot {
        name: "cost-by-changes",
        title: format!("A session with changes among {} rows", number(rows as f64)),
        across: Axis { label: "changed rows", scale: Scale::Logarithmic, format: number },
        up: Axis { label: "milliseconds", ..SECONDS },
        lines: lines.named("Syncline", "COPY and upsert"),
    })
}

/// Many clients at the same time, by their number.
pub(super) async fn replicas(bench: &Bench) -> Result<Plot> {
    let mut lines = Lines::default();
    for clients in CLIENTS.into_iter().filter(|clients| *clients <= bench.counts.clients) {
        let (samples, _) = fan_out::measure(bench, clients).await?;
        lines.add(clients.into(), &samples);
    }
    Ok(Plot {
        name: "cost-by-replicas",
        title: "Clients that download the same 500 changes at the same time".to_owned(),
        across: Axis { label: "clients", scale: Scale::Logarithmic, format: number },
        up: SECONDS,
        lines: lines.named("Syncline", "one client and commits"),
    })
}

/// A first download, by the size of batches: time and memory.
pub(super) async fn batch_size(bench: &Bench) -> Result<[Plot; 2]> {
    let rows = bench.rows / SMALLER;
    let mut lines = Lines::default();
    let mut peaks: Vec<(f64, Peak)> = Vec::new();
    for bytes in BATCH_BYTES {
        let measured = download::measure(bench, "by batches", (Postgres, Sqlite), rows, Some(bytes)).await?;
        lines.add(bytes as f64, &measured.0);
        peaks.push((bytes as f64, measured.1));
    }
    let across = Axis { label: "batch before compression", scale: Scale::Logarithmic, format: bytes_text };
    let title = format!("A first download of {} rows", number(rows as f64));
    let of = |side: fn(&Peak) -> f64| peaks.iter().map(|(bytes, peak)| (*bytes, side(peak))).collect();
    let time = Plot {
        name: "time-by-batch-size",
        title: title.clone(),
        across,
        up: Axis { scale: Scale::Linear, ..SECONDS },
        lines: lines.named("Syncline", "COPY and insert"),
    };
    let memory = Plot {
        name: "memory-by-batch-size",
        title: format!("Peak memory, {}", title.replacen('A', "a", 1)),
        across,
        up: Axis { label: "MiB", scale: Scale::Linear, format: number },
        lines: vec![
            Line { name: "service", points: of(|peak| peak.service) },
            Line { name: "client", points: of(|peak| peak.client) },
        ],
    };
    Ok([time, memory])
}

/// Ours and the limit, measurement by measurement.
#[derive(Default)]
struct Lines {
    ours: Vec<(f64, f64)>,
    limit: Vec<(f64, f64)>,
}

impl Lines {
    fn add(&mut self, at: f64, samples: &Samples) {
        self.ours.extend(median(&samples.ours).map(|value| (at, value)));
        self.limit.extend(median(&samples.limit).map(|value| (at, value)));
    }

    fn named(self, ours: &'static str, limit: &'static str) -> Vec<Line> {
        vec![Line { name: ours, points: self.ours }, Line { name: limit, points: self.limit }]
    }
}

/// With thousands apart, and as many digits as say something.
fn number(value: f64) -> String {
    if value < 10.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes_text(value: f64) -> String {
    let kib = value / 1_024.0;
    if kib < 1_024.0 { format!("{kib} KiB") } else { format!("{} MiB", kib / 1_024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        let all = [0.05, 2.0, 9.5, 50.0, 1_000.0, 1_234_567.0].map(number);
        assert_eq!(all, ["0.05", "2", "9.5", "50", "1,000", "1,234,567"]);
        assert_eq!([65_536.0, 4_194_304.0].map(bytes_text), ["64 KiB", "4 MiB"]);
    }
}
