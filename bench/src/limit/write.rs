//! The writing half of a limit: one transaction, durable.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, params};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::mpsc;

use super::block::{RowBlock, Stored};
use crate::copy;
use crate::rows::{COLUMNS, SQLITE_SCHEMA, TABLE};

/// Where the blocks come from.
pub(super) type Receiver = mpsc::Receiver<RowBlock>;

/// How rows get into a SQLite file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SqliteWrite {
    /// A new table, and every row is new.
    Insert,
    /// Every row is there.
    Update,
    /// A row may be there.
    Upsert,
}

/// Writes into a SQLite file.
pub(super) fn write_sqlite(path: &Path, how: SqliteWrite, mut blocks: Receiver) -> Result<()> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    if how == SqliteWrite::Insert {
        connection.execute_batch(SQLITE_SCHEMA)?;
    }
    let mut statement = connection.prepare(&statement(how))?;
    while let Some(block) = blocks.blocking_recv() {
        for row in block.rows() {
            let Stored { id, number, quantity, price, active, changed_at, name, note } = row;
            statement.execute(params![id, number, quantity, price, active, changed_at, name, note])?;
        }
    }
    drop(statement);
    connection.execute_batch("COMMIT")?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn statement(how: SqliteWrite) -> String {
    let set = "number = ?2, quantity = ?3, price = ?4, active = ?5, changed_at = ?6, name = ?7, note = ?8";
    let insert = format!("INSERT INTO {TABLE} ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    match how {
        SqliteWrite::Insert => insert,
        SqliteWrite::Update => format!("UPDATE {TABLE} SET {set} WHERE id = ?1"),
        SqliteWrite::Upsert => format!("{insert} ON CONFLICT (id) DO UPDATE SET {set}"),
    }
}

/// Writes into a table of a PostgreSQL database whose rows are there: COPY into a staging table, then one upsert.
pub(super) async fn upsert_postgres(url: &str, table: &str, mut blocks: Receiver) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let mut transaction = connection.begin().await?;
    let staging =
        format!("CREATE TEMP TABLE staging ON COMMIT DROP AS SELECT {COLUMNS} FROM {table} WITH NO DATA");
    sqlx::query(AssertSqlSafe(staging)).execute(&mut *transaction).await?;
    let mut copy_in = transaction.copy_in_raw("COPY staging FROM STDIN (FORMAT binary)").await?;
    let mut bytes = Vec::new();
    copy::write_header(&mut bytes);
    while let Some(block) = blocks.recv().await {
        for row in block.rows() {
            copy::write_row(&row.cells()?, &mut bytes)?;
        }
        copy_in.send(bytes.as_slice()).await?;
        bytes.clear();
    }
    copy::write_trailer(&mut bytes);
    copy_in.send(bytes.as_slice()).await?;
    copy_in.finish().await?;
    let set: Vec<_> =
        COLUMNS.split(", ").skip(1).map(|column| format!("{column} = excluded.{column}")).collect();
    let upsert = format!(
        "INSERT INTO {table} ({COLUMNS}) SELECT {COLUMNS} FROM staging ON CONFLICT (id) DO UPDATE SET {}",
        set.join(", ")
    );
    sqlx::query(AssertSqlSafe(upsert)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}
