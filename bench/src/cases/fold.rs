//! Folding: the entries of a log, one for each row, become records.

use std::time::Instant;

use anyhow::Result;

use crate::bench::{Bench, Kind, Measured, Unit, say};
use crate::database::{RECORD_VALUES, RECORDS};
use crate::report::{CaseReport, Peak, Target};
use crate::rows::TABLE;
use crate::scope;

/// Measures it; at most `ratio` times a set-based upsert of the same records is wanted.
pub(crate) async fn run(bench: &Bench, name: &'static str, kind: Kind, ratio: f64) -> Result<CaseReport> {
    say(&format!("{name}: filling a hub with {} rows", bench.rows));
    let hub = bench.database(kind).await?;
    hub.fill(bench.rows).await?;
    hub.create_records().await?;
    let (store, stored) = scope::tracked(&hub).await?;
    let change = format!("UPDATE {TABLE} SET quantity = quantity + 1");
    // SQLite can't tell ON CONFLICT from a join without a condition.
    let upsert = format!(
        "INSERT INTO {RECORDS} (id, peer, tick, via, origin, changed_at, seq) \
         SELECT id, 1, 2, 3, 3, quantity, number FROM {TABLE} WHERE true \
         ON CONFLICT (id) DO UPDATE SET {RECORD_VALUES}"
    );
    // Both have all records from here on.
    hub.execute(&upsert).await?;
    hub.execute(&change).await?;
    store.fold(&stored).await?;

    let ours = async |_| {
        hub.execute(&change).await?;
        hub.settle().await?;
        let started = Instant::now();
        store.fold(&stored).await?;
        Ok(Measured { elapsed: started.elapsed(), peak: Peak::default() })
    };
    let limit = async |_| {
        hub.settle().await?;
        let started = Instant::now();
        hub.execute(&upsert).await?;
        Ok(started.elapsed())
    };
    let (samples, _) = bench.interleaved(name, Unit::Seconds, ours, limit).await?;
    drop(store);
    hub.remove().await?;
    Ok(CaseReport::new(name, Unit::Seconds.as_str(), samples, Target::ratio(ratio), None))
}
