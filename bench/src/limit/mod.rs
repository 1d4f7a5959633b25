//! The limits: what the databases themselves need for the same rows, in the same key order, as well as it can be written
//! by hand: reading and writing overlap on two threads, one transaction, durable. Each is run as a process, like a
//! client.

mod block;
mod read;
mod write;

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::database::Database;
use block::BLOCKS_WAITING;
use read::{read_postgres, read_sqlite};
use write::{SqliteWrite, upsert_postgres, write_sqlite};

/// The table that limits write to in a hub's PostgreSQL database: a copy of the other, and not tracked.
pub(crate) const LIMIT_TABLE: &str = "item_limit";

/// A limit to be measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Limit {
    /// Every row into a new SQLite file.
    Copy { from: Database, to: PathBuf },
    /// The rows of these keys, of a PostgreSQL database by its URL, into a SQLite file that has older ones.
    Fetch { from: String, keys: Vec<String>, to: PathBuf },
    /// The rows of a SQLite file into a database that has older ones.
    Upload { from: PathBuf, to: Database },
}

/// Runs a limit. Blocks.
pub(crate) fn run(limit: Limit) -> Result<()> {
    let (sender, blocks) = mpsc::channel(BLOCKS_WAITING);
    let read = match &limit {
        Limit::Copy { from, .. } => reader(from.clone(), None, sender),
        Limit::Fetch { from, keys, .. } => {
            reader(Database::Postgres(from.clone()), Some(keys.clone()), sender)
        }
        Limit::Upload { from, .. } => reader(Database::Sqlite(from.clone()), None, sender),
    };
    match limit {
        Limit::Copy { to, .. } => write_sqlite(&to, SqliteWrite::Insert, blocks)?,
        Limit::Fetch { to, .. } => write_sqlite(&to, SqliteWrite::Upsert, blocks)?,
        Limit::Upload { to: Database::Sqlite(path), .. } => write_sqlite(&path, SqliteWrite::Update, blocks)?,
        Limit::Upload { to: Database::Postgres(url), .. } => {
            runtime()?.block_on(upsert_postgres(&url, LIMIT_TABLE, blocks))?;
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
