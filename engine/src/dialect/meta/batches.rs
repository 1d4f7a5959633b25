//! The manifest: batches of open sessions, both ways. Their bytes are in the spool; those of small downloads, which
//! travel inline, stand in their row: one commit makes both durable.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use syncline::batch::BatchInfo;
use syncline::error::{Result, SyncError};
use syncline::ids::{BatchId, SessionId};

use super::{MetaRow, Statement};

/// Which way a batch travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the leaf to the hub.
    Up = 0,
    /// From the hub to the leaf.
    Down = 1,
}

/// How much of a batch the spool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// A part, or nothing.
    Partial = 0,
    /// All of it, verified.
    Complete = 1,
    /// Nothing any more: the client holds it.
    Released = 2,
}

/// A batch's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRow {
    /// The session.
    pub session: SessionId,
    /// Which way it travels.
    pub way: Way,
    /// The batch.
    pub info: BatchInfo,
    /// How much of it the spool has.
    pub stored: Stored,
    /// The bytes, where they are here and not in the spool; none once it is released.
    pub bytes: Option<Bytes>,
}

/// The document of a batch's row.
#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(flatten)]
    info: BatchInfo,
    /// In base64: JSON has no bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

impl Document {
    fn of(row: &BatchRow) -> Result<String> {
        let bytes = row.bytes.as_ref().filter(|_| row.stored != Stored::Released);
        let document = Self { info: row.info.clone(), bytes: bytes.map(|bytes| BASE64.encode(bytes)) };
        serde_json::to_string(&document).map_err(SyncError::internal)
    }
}

/// Adds a batch; nothing is answered if the id, or its place in the session, is taken.
///
/// # Errors
/// INTERNAL; never in practice.
pub fn insert(row: &BatchRow) -> Result<Statement> {
    let info = Document::of(row)?;
    Ok(Statement::new(
        "INSERT INTO syncline_batches (id, session, direction, sequence, info, state, stored_bytes) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING id",
        [
            row.info.id.as_bytes().into(),
            row.session.as_bytes().into(),
            (row.way as i64).into(),
            i64::from(row.info.sequence.0).into(),
            info.into(),
            (row.stored as i64).into(),
            // Bounded by ROW_BYTES_MAX.
            (row.info.stored_bytes as i64).into(),
        ],
    ))
}

/// Reads a batch.
#[must_use]
pub fn load(batch: BatchId) -> Statement {
    Statement::new(
        "SELECT session, direction, info, state FROM syncline_batches WHERE id = $1",
        [batch.as_bytes().into()],
    )
}

/// The batches of a session in one direction, in order.
#[must_use]
pub fn of_session(session: SessionId, way: Way) -> Statement {
    Statement::new(
        "SELECT session, direction, info, state FROM syncline_batches \
         WHERE session = $1 AND direction = $2 ORDER BY sequence",
        [session.as_bytes().into(), (way as i64).into()],
    )
}

/// A row of [`load`] or [`of_session`].
///
/// # Errors
/// INTERNAL if the row is not as it should be.
pub fn from_row(row: &MetaRow) -> Result<BatchRow> {
    let document: Document = serde_json::from_str(row.text(2)?).map_err(SyncError::internal)?;
    let bytes = document.bytes.map(|bytes| BASE64.decode(bytes).map(Bytes::from));
    Ok(BatchRow {
        session: SessionId::from_slice(row.bytes(0)?)?,
        way: if row.int(1)? == Way::Up as i64 { Way::Up } else { Way::Down },
        info: document.info,
        bytes: bytes.transpose().map_err(SyncError::internal)?,
        stored: match row.int(3)? {
            0 => Stored::Partial,
            1 => Stored::Complete,
            _ => Stored::Released,
        },
    })
}

/// Says how much of a batch the spool has.
#[must_use]
pub fn set_stored(batch: BatchId, stored: Stored) -> Statement {
    Statement::new(
        "UPDATE syncline_batches SET state = $1 WHERE id = $2",
        [(stored as i64).into(), batch.as_bytes().into()],
    )
}

/// The client holds the batch: its bytes are needed no more.
///
/// # Errors
/// INTERNAL; never in practice.
pub fn release(row: BatchRow) -> Result<Statement> {
    let released = BatchRow { stored: Stored::Released, ..row };
    Ok(Statement::new(
        "UPDATE syncline_batches SET state = $1, info = $2 WHERE id = $3",
        [
            (Stored::Released as i64).into(),
            Document::of(&released)?.into(),
            released.info.id.as_bytes().into(),
        ],
    ))
}

/// Bytes that a session's batches may take in the spool: all that are not released.
#[must_use]
pub fn session_bytes(session: SessionId) -> Statement {
    Statement::new(
        "SELECT CAST(coalesce(sum(stored_bytes), 0) AS BIGINT) FROM syncline_batches \
         WHERE session = $1 AND state <> 2",
        [session.as_bytes().into()],
    )
}

/// Bytes that all batches may take in the spool.
#[must_use]
pub fn all_bytes() -> Statement {
    Statement::new(
        "SELECT CAST(coalesce(sum(stored_bytes), 0) AS BIGINT) FROM syncline_batches WHERE state <> 2",
        [],
    )
}

/// Removes a session's batches.
#[must_use]
pub fn delete_of_session(session: SessionId) -> Statement {
    Statement::new("DELETE FROM syncline_batches WHERE session = $1", [session.as_bytes().into()])
}
