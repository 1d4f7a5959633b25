//! The writing half of a limit: one transaction, durable.

use std::path::Path;

use anyhow::Result;
use futures_util::TryStreamExt as _;
use rusqlite::{Connection, params};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::mpsc;

use super::block::{RowBlock, Stored};
use crate::cases::Change;
use crate::copy;
use crate::database::{RECORD_VALUES, RECORDS};
use crate::rows::{COLUMNS, POSTGRES_SCHEMA, SQLITE_SCHEMA, TABLE};

/// Bytes of a COPY that are passed on as one piece.
const PIECE_BYTES: usize = 256 << 10;

/// Where the blocks come from.
pub(super) type Receiver = mpsc::Receiver<RowBlock>;

/// How rows get into a SQLite file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SqliteWrite {
    /// A new table, and every row is new.
    Insert,
    /// A row may be there.
    Upsert,
    /// The same, and a record is written of each.
    UpsertWithRecord,
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
    let mut record = if how == SqliteWrite::UpsertWithRecord {
        Some(connection.prepare(&format!(
            "INSERT INTO {RECORDS} (id, peer, tick, via, origin, changed_at, seq) VALUES (?1, 1, 2, 3, 3, ?2, ?3) \
             ON CONFLICT (id) DO UPDATE SET {RECORD_VALUES}"
        ))?)
    } else {
        None
    };
    while let Some(block) = blocks.blocking_recv() {
        for row in block.rows() {
            let Stored { id, number, quantity, price, active, changed_at, name, note } = row;
            statement.execute(params![id, number, quantity, price, active, changed_at, name, note])?;
            if let Some(record) = &mut record {
                record.execute(params![id, quantity, number])?;
            }
        }
    }
    drop((statement, record));
    connection.execute_batch("COMMIT")?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// The statement for a row.
pub(super) fn statement(how: SqliteWrite) -> String {
    let set = "number = ?2, quantity = ?3, price = ?4, active = ?5, changed_at = ?6, name = ?7, note = ?8";
    let insert = format!("INSERT INTO {TABLE} ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    match how {
        SqliteWrite::Insert => insert,
        SqliteWrite::Upsert | SqliteWrite::UpsertWithRecord => {
            format!("{insert} ON CONFLICT (id) DO UPDATE SET {set}")
        }
    }
}

/// Copies the table of one PostgreSQL database into a new one of another: bytes as they come.
pub(super) async fn copy_postgres(from: &str, to: &str) -> Result<()> {
    let (mut source, mut target) = (PgConnection::connect(from).await?, PgConnection::connect(to).await?);
    let mut transaction = target.begin().await?;
    sqlx::raw_sql(POSTGRES_SCHEMA).execute(&mut *transaction).await?;
    let select = format!("COPY (SELECT {COLUMNS} FROM {TABLE} ORDER BY id) TO STDOUT (FORMAT binary)");
    let mut rows = source.copy_out_raw(&select).await?;
    let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(super::block::BLOCKS_WAITING);
    let read = async move {
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        while let Some(bytes) = rows.try_next().await? {
            piece.extend_from_slice(&bytes);
            if piece.len() >= PIECE_BYTES {
                let next = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
                sender.send(std::mem::replace(&mut piece, next)).await?;
            }
        }
        sender.send(piece).await?;
        anyhow::Ok(())
    };
    let insert = format!("COPY {TABLE} ({COLUMNS}) FROM STDIN (FORMAT binary)");
    let mut copy_in = transaction.copy_in_raw(&insert).await?;
    let write = async {
        while let Some(piece) = pieces.recv().await {
            copy_in.send(piece).await?;
        }
        copy_in.finish().await?;
        anyhow::Ok(())
    };
    tokio::try_join!(read, write)?;
    transaction.commit().await?;
    target.close().await?;
    Ok(())
}

/// Writes into a table of a PostgreSQL database: COPY into a staging table, then one statement for the rows and one for
/// the records of them: updates where they are there, which cost less than upserts.
pub(super) async fn upload_postgres(
    url: &str,
    table: &str,
    change: Change,
    mut blocks: Receiver,
) -> Result<()> {
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
    let set = |from: &str| {
        let columns = COLUMNS.split(", ").skip(1);
        columns.map(|column| format!("{column} = {from}.{column}")).collect::<Vec<_>>().join(", ")
    };
    let rows = match change {
        Change::Insert => format!(
            "INSERT INTO {table} ({COLUMNS}) SELECT {COLUMNS} FROM staging ON CONFLICT (id) DO UPDATE SET {}",
            set("excluded")
        ),
        Change::Update => {
            format!("UPDATE {table} t SET {} FROM staging WHERE t.id = staging.id", set("staging"))
        }
    };
    sqlx::query(AssertSqlSafe(rows)).execute(&mut *transaction).await?;
    // The newer tick moves a record in the index by version, as a change does.
    let update = format!(
        "UPDATE {RECORDS} r SET peer = 1, tick = r.tick + 1, via = 3, origin = 3, changed_at = s.quantity, \
         seq = s.number FROM staging s WHERE r.id = s.id"
    );
    let are_there = change == Change::Update
        && sqlx::query(AssertSqlSafe(update)).execute(&mut *transaction).await?.rows_affected() > 0;
    if !are_there {
        let insert = format!(
            "INSERT INTO {RECORDS} (id, peer, tick, via, origin, changed_at, seq) \
             SELECT id, 1, 2, 3, 3, quantity, number FROM staging ON CONFLICT (id) DO UPDATE SET {RECORD_VALUES}"
        );
        sqlx::query(AssertSqlSafe(insert)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}
