//! The databases of a measurement, as an application has them: filled, changed and looked into with plain SQL.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use syncline_engine::throwaway::{ThrowawayCluster, ThrowawayOptions};

use crate::copy;
use crate::rows::{COLUMNS, POSTGRES_SCHEMA, Rows, SQLITE_SCHEMA, TABLE, write_time, write_uuid};

/// The table in which limits write down what they have changed.
pub(crate) const RECORDS: &str = "item_limit_records";
/// What an older record of theirs becomes: its tick is newer each time, as that of every record is. With the tick that it
/// had, the index by version would stay as it is, and PostgreSQL would not touch it at all.
pub(crate) const RECORD_VALUES: &str = "peer = excluded.peer, tick = item_limit_records.tick + 1, via = excluded.via, \
     origin = excluded.origin, changed_at = excluded.changed_at, seq = excluded.seq";
/// Bytes of a COPY that are sent at once.
const COPY_BYTES: usize = 256 << 10;

/// A database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// The URL of a PostgreSQL database.
    Postgres(String),
}

/// What two databases with the same rows have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    rows: i64,
    numbers: i64,
    quantities: i64,
    text: i64,
}

impl Sum {
    /// How many rows there are.
    pub(crate) const fn rows(&self) -> u64 {
        self.rows.cast_unsigned()
    }
}

/// Starts a PostgreSQL server of our own whose commits reach the disk.
pub(crate) fn durable_postgres() -> Result<ThrowawayCluster> {
    Ok(ThrowawayCluster::start(ThrowawayOptions { durable: true })?)
}

impl Database {
    /// Makes the table and fills it with the first rows of the sequence.
    pub(crate) async fn fill(&self, rows: u64) -> Result<()> {
        self.create().await?;
        self.insert(0..rows).await?;
        self.execute(if matches!(self, Self::Sqlite(_)) { "ANALYZE" } else { "VACUUM ANALYZE" }).await
    }

    /// Makes the table.
    pub(crate) async fn create(&self) -> Result<()> {
        self.execute(if matches!(self, Self::Sqlite(_)) { SQLITE_SCHEMA } else { POSTGRES_SCHEMA }).await
    }

    /// Inserts rows of the sequence, in one transaction.
    pub(crate) async fn insert(&self, numbers: Range<u64>) -> Result<()> {
        match self {
            Self::Sqlite(path) => insert_sqlite(path, &numbers),
            Self::Postgres(url) => insert_postgres(url, &numbers).await,
        }
    }

    /// Runs a statement as the application would.
    pub(crate) async fn execute(&self, statement: &str) -> Result<()> {
        match self {
            Self::Sqlite(path) => Ok(open(path)?.execute_batch(statement)?),
            Self::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await?;
                sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
                Ok(connection.close().await?)
            }
        }
    }

    /// Changes every `nth` row, beginning with the one whose number is `first`, in one transaction. Answers how many.
    pub(crate) async fn change(&self, nth: u64, first: u64) -> Result<u64> {
        let first = first % nth;
        let update = format!("UPDATE {TABLE} SET quantity = quantity + 1 WHERE number % {nth} = {first}");
        match self {
            Self::Sqlite(path) => Ok(open(path)?.execute(&update, [])? as u64),
            Self::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await?;
                let done = sqlx::raw_sql(AssertSqlSafe(update)).execute(&mut connection).await?;
                connection.close().await?;
                Ok(done.rows_affected())
            }
        }
    }

    /// The keys of the rows that [`change`](Self::change) changes.
    pub(crate) async fn keys(&self, nth: u64, first: u64) -> Result<Vec<String>> {
        let query = format!(
            "SELECT CAST(id AS text) FROM {TABLE} WHERE number % {nth} = {} ORDER BY id",
            first % nth
        );
        match self {
            Self::Sqlite(path) => {
                let connection = open(path)?;
                let mut statement = connection.prepare(&query)?;
                let keys = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
                Ok(keys)
            }
            Self::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await?;
                Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut connection).await?)
            }
        }
    }

    /// Fails unless the other database holds the same rows.
    pub(crate) async fn expect_same(&self, other: &Self) -> Result<()> {
        let (ours, others) = (self.sum(TABLE).await?, other.sum(TABLE).await?);
        ensure!(ours == others, "the databases differ: {ours:?}, {others:?}");
        Ok(())
    }

    /// What a table holds.
    pub(crate) async fn sum(&self, table: &str) -> Result<Sum> {
        let query = format!(
            "SELECT count(*), CAST(sum(number) AS bigint), CAST(sum(quantity) AS bigint), \
             CAST(sum(length(name) + length(note)) AS bigint) FROM {table}"
        );
        let (rows, numbers, quantities, text) = match self {
            Self::Sqlite(path) => {
                let columns =
                    |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                open(path)?.query_row(&query, [], columns)?
            }
            Self::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await?;
                sqlx::query_as(AssertSqlSafe(query)).fetch_one(&mut connection).await?
            }
        };
        Ok(Sum { rows, numbers, quantities, text })
    }

    /// Brings to the disk what earlier work has left behind, so that it is not paid for by what is measured next.
    pub(crate) async fn settle(&self) -> Result<()> {
        match self {
            Self::Sqlite(_) => self.execute("PRAGMA wal_checkpoint(TRUNCATE)").await,
            Self::Postgres(_) => {
                self.execute("VACUUM ANALYZE").await?;
                self.execute("CHECKPOINT").await
            }
        }
    }

    /// Makes a table for what a limit writes down of each row that it changes: as much as a hub does.
    pub(crate) async fn create_records(&self) -> Result<()> {
        let (id, options) =
            if matches!(self, Self::Sqlite(_)) { ("text", " WITHOUT ROWID") } else { ("uuid", "") };
        self.execute(&format!(
            "CREATE TABLE {RECORDS} (id {id} NOT NULL PRIMARY KEY, peer bigint NOT NULL, tick bigint NOT NULL, \
             via bigint NOT NULL, origin bigint NOT NULL, changed_at bigint NOT NULL, seq bigint NOT NULL){options}; \
             CREATE INDEX {RECORDS}_version ON {RECORDS} (peer, tick)"
        ))
        .await
    }

    /// Gives back the room that it takes.
    pub(crate) async fn remove(self) -> Result<()> {
        match self {
            // Each file has a directory of its own.
            Self::Sqlite(path) => Ok(path.parent().map_or(Ok(()), std::fs::remove_dir_all)?),
            Self::Postgres(url) => {
                let (server, name) = url.rsplit_once('/').context("the URL names no database")?;
                let mut connection = PgConnection::connect(&format!("{server}/postgres")).await?;
                let drop = format!("DROP DATABASE {name} WITH (FORCE)");
                sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await?;
                Ok(connection.close().await?)
            }
        }
    }

    /// A copy of the table's rows beside it, with the same key and nothing else.
    pub(crate) async fn copy_table(&self, name: &str) -> Result<()> {
        self.execute(&format!(
            "CREATE TABLE {name} (LIKE {TABLE} INCLUDING ALL); INSERT INTO {name} SELECT * FROM {TABLE} ORDER BY id"
        ))
        .await
    }
}

/// Writes the rows that [`Database::change`] has changed, and no others, into a SQLite file of their own.
pub(crate) fn extract(from: &Path, to: &Path, nth: u64, first: u64) -> Result<()> {
    let first = first % nth;
    let connection = open(to)?;
    connection.execute_batch(SQLITE_SCHEMA)?;
    connection.execute("ATTACH ?1 AS source", [from.to_string_lossy()])?;
    connection.execute_batch(&format!(
        "INSERT INTO {TABLE} SELECT {COLUMNS} FROM source.{TABLE} WHERE number % {nth} = {first} ORDER BY id"
    ))?;
    Ok(())
}

/// Opens a SQLite file as the application does.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(60))?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
    Ok(connection)
}

fn insert_sqlite(path: &Path, numbers: &Range<u64>) -> Result<()> {
    let connection = open(path)?;
    connection.execute_batch("BEGIN")?;
    let mut insert = connection
        .prepare(&format!("INSERT INTO {TABLE} ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"))?;
    let (mut id, mut changed_at) = (Vec::new(), Vec::new());
    for row in Rows::numbered(numbers) {
        id.clear();
        changed_at.clear();
        write_uuid(&row.id, &mut id);
        write_time(row.changed_at, &mut changed_at);
        let (id, changed_at) = (std::str::from_utf8(&id)?, std::str::from_utf8(&changed_at)?);
        insert.execute(rusqlite::params![
            id,
            row.number,
            row.quantity,
            row.price,
            row.active,
            changed_at,
            row.name,
            row.note
        ])?;
    }
    drop(insert);
    connection.execute_batch("COMMIT")?;
    Ok(())
}

async fn insert_postgres(url: &str, numbers: &Range<u64>) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let mut copy_in =
        connection.copy_in_raw(&format!("COPY {TABLE} ({COLUMNS}) FROM STDIN (FORMAT binary)")).await?;
    let mut bytes = Vec::with_capacity(2 * COPY_BYTES);
    copy::write_header(&mut bytes);
    for row in Rows::numbered(numbers) {
        copy::write_row(&(&row).into(), &mut bytes)?;
        if bytes.len() >= COPY_BYTES {
            copy_in.send(bytes.as_slice()).await?;
            bytes.clear();
        }
    }
    copy::write_trailer(&mut bytes);
    copy_in.send(bytes.as_slice()).await?;
    copy_in.finish().await?;
    connection.close().await?;
    Ok(())
}
