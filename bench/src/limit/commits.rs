//! Bare commits into many SQLite files, on as many threads as there are processors.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Result;
use rusqlite::{Connection, params};

use super::block::{RowBlock, Stored};
use super::write::{SqliteWrite, statement};
use crate::rows::Rows;

/// Upserts every `nth` of the first rows of the sequence, from the row `first` on, into each file, one transaction a
/// file. Answers the time; the files are open and the rows are there before it begins, and they are closed after it.
pub(crate) fn commit_each(files: &[PathBuf], rows: u64, nth: usize, first: usize) -> Result<Duration> {
    let threads = std::thread::available_parallelism()?.get();
    let mut scratch = Vec::new();
    let mut block = RowBlock::with_room();
    for row in Rows::first(rows).skip(first).step_by(nth) {
        block.push_cells(&(&row).into(), &mut scratch)?;
    }
    let ready = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let share = files.len().div_ceil(threads).max(1);
        let (ready, block) = (&ready, &block);
        let mut shares = files.chunks(share);
        let mut running = Vec::new();
        for _ in 0..threads {
            let files = shares.next().unwrap_or_default();
            running.push(scope.spawn(move || {
                let connections = files.iter().map(|file| open(file)).collect::<Result<Vec<_>>>();
                ready.wait();
                let connections = connections?;
                connections.iter().try_for_each(|connection| commit(connection, block))?;
                anyhow::Ok(connections)
            }));
        }
        ready.wait();
        let started = Instant::now();
        let mut open = Vec::new();
        for thread in running {
            match thread.join() {
                Ok(done) => open.push(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let elapsed = started.elapsed();
        // To close a file writes it from its log, which nobody waits for.
        drop(open);
        Ok(elapsed)
    })
}

fn open(file: &Path) -> Result<Connection> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn commit(connection: &Connection, block: &RowBlock) -> Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let mut upsert = connection.prepare(&statement(SqliteWrite::Upsert))?;
    for row in block.rows() {
        let Stored { id, number, quantity, price, active, changed_at, name, note } = row;
        upsert.execute(params![id, number, quantity, price, active, changed_at, name, note])?;
    }
    Ok(connection.execute_batch("COMMIT")?)
}
