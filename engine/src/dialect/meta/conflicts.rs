//! The conflict log, of a hub or of a leaf: both sides of every conflict, in the transaction that settled it.

use serde::{Deserialize, Serialize};
use syncline::batch::Operation;
use syncline::conflict::{ConflictKind, ConflictSummary, Outcome};
use syncline::error::{Result, SyncError};
use syncline::ids::{ConflictId, ScopeName, SessionId, TableId};
use syncline::schema::ConflictPolicy;

use super::{MetaRow, Statement};

/// An entry of the log. Local is the replica whose log it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictEntry {
    /// The entry, in short.
    pub summary: ConflictSummary,
    /// The session in which it was found. A row may have several entries in one: a download names it again when the hub
    /// changed it meanwhile.
    pub session: SessionId,
    /// The scope.
    pub scope: ScopeName,
    /// The row's canonical key bytes.
    pub row_key: bytes::Bytes,
    /// When it was found, in microseconds since 1970 UTC.
    pub detected_at: i64,
    /// What the local side had: the row as a JSON object, `None` if it was gone.
    pub local_row: Option<serde_json::Value>,
    /// What came in: the row as a JSON object, `None` if it was gone.
    pub remote_row: Option<serde_json::Value>,
    /// The knowledge that the incoming change was made with, for people.
    pub made_with: String,
}

macro_rules! insert {
    () => {
        "INSERT INTO syncline_conflicts (id, session, scope, table_id, table_name, row_key, key_json, kind, policy, \
         outcome, detected_at, local_operation, local_row, remote_operation, remote_row, made_with) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
    };
}

/// Adds an entry.
///
/// **Invariant:** each conflict that was settled has an entry of its own, which holds its loser. An entry commits with
/// what it tells of, and the apply of an upload or download happens once, so nothing has to keep one from coming twice.
#[must_use]
pub fn insert(entry: &ConflictEntry) -> Statement {
    statement(insert!(), entry)
}

/// Adds an entry whose id tells what it is of, unless it is there.
#[must_use]
pub fn insert_once(entry: &ConflictEntry) -> Statement {
    statement(concat!(insert!(), " ON CONFLICT (id) DO NOTHING"), entry)
}

fn statement(sql: &'static str, entry: &ConflictEntry) -> Statement {
    let name = |operation: Operation| if operation.removes() { "delete" } else { "upsert" };
    let json =
        |row: &Option<serde_json::Value>| super::MetaValue::Text(row.as_ref().map(ToString::to_string));
    let summary = &entry.summary;
    Statement::new(
        sql,
        [
            summary.id.as_bytes().into(),
            entry.session.as_bytes().into(),
            entry.scope.as_str().into(),
            i64::from(summary.table.0).into(),
            summary.table_name.as_str().into(),
            entry.row_key[..].into(),
            summary.key_json.as_str().into(),
            summary.kind.name().into(),
            summary.policy.as_str().into(),
            summary.outcome.as_str().into(),
            entry.detected_at.into(),
            name(summary.kind.local.operation()).into(),
            json(&entry.local_row),
            name(summary.kind.remote.operation()).into(),
            json(&entry.remote_row),
            entry.made_with.as_str().into(),
        ],
    )
}

/// The newest entries of a scope (all scopes if `None`), from the `offset`th on.
#[must_use]
pub fn list(scope: Option<&ScopeName>, limit: i64, offset: i64) -> Statement {
    Statement::new(
        "SELECT id, session, scope, table_id, table_name, row_key, key_json, kind, policy, outcome, detected_at, \
         local_row, remote_row, made_with FROM syncline_conflicts \
         WHERE ($1 = '' OR scope = $1) ORDER BY detected_at DESC, id DESC LIMIT $2 OFFSET $3",
        [scope.map_or("", ScopeName::as_str).into(), limit.into(), offset.into()],
    )
}

/// One entry.
#[must_use]
pub fn load(id: ConflictId) -> Statement {
    Statement::new(
        "SELECT id, session, scope, table_id, table_name, row_key, key_json, kind, policy, outcome, detected_at, \
         local_row, remote_row, made_with FROM syncline_conflicts WHERE id = $1",
        [id.as_bytes().into()],
    )
}

/// The entries of a session, oldest first, without the rows and what they were made with: a row may be large.
#[must_use]
pub fn of_session(session: SessionId, limit: i64) -> Statement {
    Statement::new(
        "SELECT id, session, scope, table_id, table_name, row_key, key_json, kind, policy, outcome, detected_at, \
         CAST(NULL AS TEXT), CAST(NULL AS TEXT), '' FROM syncline_conflicts WHERE session = $1 ORDER BY id LIMIT $2",
        [session.as_bytes().into(), limit.into()],
    )
}

/// A row of [`list`], [`load`] or [`of_session`].
///
/// # Errors
/// INTERNAL if the row is not as it should be.
pub fn from_row(row: &MetaRow) -> Result<ConflictEntry> {
    let known = |what: &str| SyncError::internal(format!("a conflict's {what} is not known"));
    let json = |column| -> Result<Option<serde_json::Value>> {
        row.text_or_null(column)?.map(serde_json::from_str).transpose().map_err(SyncError::internal)
    };
    let table = u32::try_from(row.int(3)?).map_err(SyncError::internal)?;
    Ok(ConflictEntry {
        summary: ConflictSummary {
            id: ConflictId::from_slice(row.bytes(0)?)?,
            table: TableId(table),
            table_name: row.text(4)?.to_owned(),
            key_json: row.text(6)?.to_owned(),
            kind: ConflictKind::from_name(row.text(7)?).ok_or_else(|| known("kind"))?,
            policy: ConflictPolicy::from_name(row.text(8)?).ok_or_else(|| known("policy"))?,
            outcome: Outcome::from_name(row.text(9)?).ok_or_else(|| known("outcome"))?,
        },
        session: SessionId::from_slice(row.bytes(1)?)?,
        scope: row.text(2)?.parse()?,
        row_key: bytes::Bytes::copy_from_slice(row.bytes(5)?),
        detected_at: row.int(10)?,
        local_row: json(11)?,
        remote_row: json(12)?,
        made_with: row.text(13)?.to_owned(),
    })
}
