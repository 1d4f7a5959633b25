//! What a hub keeps of each leaf, per scope: the chain's marks, the leaf's clock, what it acknowledged.

use bytes::Bytes;
use syncline::error::Result;
use syncline::ids::{Mark, ReplicaId};
use syncline::knowledge::{Knowledge, ViewId, ViewKnowledge};

use super::{MetaRow, Statement};

/// A leaf in a scope.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeafRow {
    /// What the hub knows of the leaf's own ticks: its clock, keys that failed excepted.
    pub clock: Knowledge,
    /// The mark of the last upload that was applied.
    pub upload_mark: Option<Mark>,
    /// The download mark that the leaf presented in the session's BeginSession.
    pub download_mark_presented: Option<Mark>,
    /// The newest download mark that the hub drew since.
    pub download_mark_drawn: Option<Mark>,
    /// What the leaf acknowledged last.
    pub acknowledged: Bytes,
    /// When it was last seen, in microseconds since 1970 UTC.
    pub last_seen: i64,
}

/// Reads a leaf's row.
#[must_use]
pub fn load(scope: i64, leaf: ReplicaId) -> Statement {
    Statement::new(
        "SELECT clock, upload_mark, download_mark_presented, download_mark_drawn, acknowledged, last_seen \
         FROM syncline_leaves WHERE scope = $1 AND replica = $2",
        [scope.into(), leaf.as_bytes().into()],
    )
}

/// The row of [`load`] or [`hold`].
///
/// # Errors
/// INTERNAL or KNOWLEDGE_INVALID if the row is not as it should be.
pub fn from_row(row: &MetaRow) -> Result<LeafRow> {
    let mark = |column| -> Result<Option<Mark>> {
        Ok(row.bytes_or_null(column)?.map(Mark::from_slice).transpose()?)
    };
    let clock = row.bytes_or_null(0)?.map(Bytes::copy_from_slice).unwrap_or_default();
    Ok(LeafRow {
        clock: ViewKnowledge::decode(&clock)?.knowledge,
        upload_mark: mark(1)?,
        download_mark_presented: mark(2)?,
        download_mark_drawn: mark(3)?,
        acknowledged: row.bytes_or_null(4)?.map(Bytes::copy_from_slice).unwrap_or_default(),
        last_seen: row.int(5)?,
    })
}

/// Holds the leaf's row to the end of the transaction, notes that the leaf was seen, and answers the row as it is by
/// then. A leaf that has none yet gets one.
///
/// **Invariant:** whatever moves a leaf's chain holds its row first, and only then looks at marks and sessions: so the
/// sessions that begin and the uploads that are applied of one replica, by however many copies of it, follow each other.
/// Whoever needs the session's row as well takes it after this one, never before. (In SQLite a write transaction holds
/// the file anyway.)
#[must_use]
pub fn hold(scope: i64, leaf: ReplicaId, now: i64) -> Statement {
    Statement::new(
        "INSERT INTO syncline_leaves (scope, replica, last_seen) VALUES ($1, $2, $3) \
         ON CONFLICT (scope, replica) DO UPDATE SET last_seen = excluded.last_seen \
         RETURNING clock, upload_mark, download_mark_presented, download_mark_drawn, acknowledged, last_seen",
        [scope.into(), leaf.as_bytes().into(), now.into()],
    )
}

/// Stores clock and upload mark, in the apply's transaction.
///
/// # Errors
/// KNOWLEDGE_TOO_LARGE.
pub fn applied(scope: i64, leaf: ReplicaId, clock: &Knowledge, upload_mark: Mark) -> Result<Statement> {
    let clock = ViewKnowledge { view: ViewId::default(), knowledge: clock.clone() }.encode()?;
    Ok(Statement::new(
        "UPDATE syncline_leaves SET clock = $1, upload_mark = $2 WHERE scope = $3 AND replica = $4",
        [clock[..].into(), upload_mark.as_bytes().into(), scope.into(), leaf.as_bytes().into()],
    ))
}

/// Stores the download marks.
#[must_use]
pub fn download_marks(
    scope: i64,
    leaf: ReplicaId,
    presented: Option<Mark>,
    drawn: Option<Mark>,
) -> Statement {
    Statement::new(
        "UPDATE syncline_leaves SET download_mark_presented = $1, download_mark_drawn = $2 \
         WHERE scope = $3 AND replica = $4",
        [
            presented.as_ref().map(Mark::as_bytes).into(),
            drawn.as_ref().map(Mark::as_bytes).into(),
            scope.into(),
            leaf.as_bytes().into(),
        ],
    )
}

/// Stores what the leaf acknowledged.
#[must_use]
pub fn acknowledged(scope: i64, leaf: ReplicaId, knowledge: &[u8], now: i64) -> Statement {
    Statement::new(
        "UPDATE syncline_leaves SET acknowledged = $1, last_seen = $2 WHERE scope = $3 AND replica = $4",
        [knowledge.into(), now.into(), scope.into(), leaf.as_bytes().into()],
    )
}

/// All leaves of a scope: replica, last_seen, whether it acknowledged anything.
#[must_use]
pub fn list(scope: i64) -> Statement {
    Statement::new(
        "SELECT replica, last_seen, acknowledged FROM syncline_leaves WHERE scope = $1 ORDER BY last_seen DESC",
        [scope.into()],
    )
}
