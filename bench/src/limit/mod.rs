//! The limits: what the databases themselves need for the same rows, in the same key order, as well as it can be written
//! by hand: reading and writing overlap on two threads, one transaction, durable. Each is run as a process, like a
//! client.

mod block;
mod commits;
mod read;
mod write;

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::cases::Change;
use crate::database::Database;
use block::BLOCKS_WAITING;
pub(crate) use commits::commit_each;
use read::{read_postgres, read_sqlite};
use write::{SqliteWrite, copy_postgres, upload_postgres, write_sqlite};

/// The table that limits write to in a hub's PostgreSQL database: a copy of the other, and not tracked.
pub(crate) const LIMIT_TABLE: &str = "item_limit";

/// A limit to be measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Limit {
    /// Every row into an empty database.
    Copy { from: Database, to: Database },
    /// The rows of these keys, of a PostgreSQL database by its URL, into a SQLite file that has older ones.
    Fetch { from: String, keys: Vec<String>, to: PathBuf },
    /// The rows of a SQLite file into a database, as new rows or as newer ones, and a record of each.
    Upload { from: Database, to: Database, change: Change },
}

/// Runs a limit. Blocks.
pub(crate) fn run(limit: Limit) -> Result<()> {
    if let Limit::Copy { from: Database::Postgres(from), to: Database::Postgres(to) } = &limit {
        return runtime()?.block_on(copy_postgres(from, to));
    }
    let (sender, blocks) = mpsc::channel(BLOCKS_WAITING);
    let read = match &limit {
        Limit::Copy { from, .. } => reader(from.clone(), None, sender),
        Limit::Fetch { from, keys, .. } => {
            reader(Database::Postgres(from.clone()), Some(keys.clone()), sender)
        }
        Limit::Upload { from, .. } => reader(from.clone(), None, sender),
    };
    match limit {
        Limit::Copy { to: Database::Sqlite(path), .. } => write_sqlite(&path, SqliteWrite::Insert, blocks)?,
        Limit::Copy { to: Database::Postgres(_), .. } => {
            anyhow::bail!("nothing copies from SQLite to PostgreSQL")
        }
        Limit::Fetch { to, .. } => write_sqlite(&to, SqliteWrite::Upsert, blocks)?,
        Limit::Upload { to: Database::Sqlite(path), .. } => {
            write_sqlite(&path, SqliteWrite::UpsertWithRecord, blocks)?;
        }
        Limit::Upload { to: Database::Postgres(url), change, .. } => {
            runtime()?.block_on(upload_postgres(&url, LIMIT_TABLE, change, blocks))?;
        }
    }
    match read.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Reads on a thread of its own. A read that fails ends the blocks early, and is heard of when the thread is joined.
fn reader(
    from: Database,
    keys: Option<Vec<String>>,
    blocks: read::Sender,
) -> std::thread::JoinHandle<Result<()>> {
    std::thread::spawn(move || match from {
        Database::Sqlite(path) => read_sqlite(&path, &blocks),
        Database::Postgres(url) => runtime()?.block_on(read_postgres(&url, keys.as_deref(), &blocks)),
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
