//! The reading half of a limit: rows in key order, block by block.

use std::path::Path;

use anyhow::Result;
use futures_util::TryStreamExt as _;
use rusqlite::OpenFlags;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::mpsc;

use super::block::{RowBlock, Stored};
use crate::copy;
use crate::rows::{COLUMNS, TABLE};

/// Where the blocks go; closed when the other half has failed.
pub(super) type Sender = mpsc::Sender<RowBlock>;

/// Reads a SQLite file.
pub(super) fn read_sqlite(path: &Path, blocks: &Sender) -> Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(path, flags)?;
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM {TABLE} ORDER BY id"))?;
    let mut rows = statement.query([])?;
    let mut block = RowBlock::with_room();
    while let Some(row) = rows.next()? {
        block.push(&Stored {
            id: row.get_ref(0)?.as_str()?,
            number: row.get_ref(1)?.as_i64()?,
            quantity: row.get_ref(2)?.as_i64()?,
            price: row.get_ref(3)?.as_f64()?,
            active: row.get_ref(4)?.as_i64()? != 0,
            changed_at: row.get_ref(5)?.as_str()?,
            name: row.get_ref(6)?.as_str()?,
            note: row.get_ref(7)?.as_str()?,
        });
        if block.is_full()
            && blocks.blocking_send(std::mem::replace(&mut block, RowBlock::with_room())).is_err()
        {
            return Ok(());
        }
    }
    let _ = blocks.blocking_send(block);
    Ok(())
}

/// Reads a PostgreSQL database: all rows, or those of these keys.
pub(super) async fn read_postgres(url: &str, keys: Option<&[String]>, blocks: &Sender) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let condition =
        keys.map_or_else(String::new, |keys| format!(" WHERE id = ANY ('{{{}}}')", keys.join(",")));
    let statement =
        format!("COPY (SELECT {COLUMNS} FROM {TABLE}{condition} ORDER BY id) TO STDOUT (FORMAT binary)");
    let mut stream = connection.copy_out_raw(&statement).await?;
    let mut reader = copy::Reader::default();
    let (mut block, mut scratch) = (RowBlock::with_room(), Vec::new());
    while let Some(bytes) = stream.try_next().await? {
        let mut rest = &*bytes;
        while let Some(cells) = reader.row(&mut rest)? {
            block.push_cells(&cells, &mut scratch)?;
            if block.is_full()
                && blocks.send(std::mem::replace(&mut block, RowBlock::with_room())).await.is_err()
            {
                return Ok(());
            }
        }
    }
    let _ = blocks.send(block).await;
    Ok(())
}
