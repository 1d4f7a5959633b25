//! Folding: the entries of a log, one for each row, become records. In PostgreSQL: a log in SQLite folds itself as it
//! grows, which its writers pay for.

use std::time::Instant;

use anyhow::Result;

use crate::bench::{Bench, Kind, Measured, Unit, say};
use crate::database::{RECORD_VALUES, RECORDS};
use crate::report::{CaseReport, Peak, Target};
use crate::rows::TABLE;
use crate::scope;

const NAME: &str = "fold";
/// At most so many times a set-based upsert of the same records.
const TARGET: Target = Target::ratio(1.3);

/// Measures it.
pub(crate) async fn run(bench: &Bench) -> Result<CaseReport> {
    say(&format!("{NAME}: filling a hub with {} rows", bench.rows));
    let hub = bench.database(Kind::Postgres).await?;
    hub.fill(bench.rows).await?;
    hub.create_records().await?;
    let (store, stored) = scope::tracked(&hub).await?;
    let change = format!("UPDATE {TABLE} SET quantity = quantity + 1");
    let upsert = format!(
        "INSERT INTO {RECORDS} (id, peer, tick, via, origin, changed_at, seq) \
         SELECT id, 1, 2, 3, 3, quantity, number FROM {TABLE} \
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
    let (samples, _) = bench.interleaved(NAME, Unit::Seconds, ours, limit).await?;
    drop(store);
    hub.remove().await?;
    Ok(CaseReport::new(NAME, Unit::Seconds.as_str(), samples, TARGET, None))
}
