//! Open sessions of a hub: at most one per (scope, replica). What an enumeration needs to go on after a crash stands in
//! the document.

use syncline::error::{Result, SyncError};
use syncline::ids::{ReplicaId, SessionId, SessionToken};

use super::{MetaRow, Statement};
use crate::hub::SessionDocument;
use crate::store::StoredScope;

/// A session's row.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// The scope.
    pub scope: i64,
    /// The replica that holds it.
    pub replica: ReplicaId,
    /// The newest token.
    pub token: SessionToken,
    /// The end of the lease, in microseconds since 1970 UTC.
    pub lease_until: i64,
    /// Everything else.
    pub document: SessionDocument,
}

/// Reads a session.
#[must_use]
pub fn load(session: SessionId) -> Statement {
    Statement::new(
        "SELECT id, scope, replica, token, lease_until, document FROM syncline_sessions WHERE id = $1",
        [session.as_bytes().into()],
    )
}

/// As [`load`], with one column more: the document of the session's scope, NULL if that is not there any more.
#[must_use]
pub fn load_with_scope(session: SessionId) -> Statement {
    Statement::new(
        "SELECT o.id, o.scope, o.replica, o.token, o.lease_until, o.document, s.document \
         FROM syncline_sessions o LEFT JOIN syncline_scopes s ON s.id = o.scope WHERE o.id = $1",
        [session.as_bytes().into()],
    )
}

/// The scope of a row of [`load_with_scope`].
///
/// # Errors
/// INTERNAL if the row is not as it should be.
pub fn scope_from_row(row: &MetaRow) -> Result<Option<StoredScope>> {
    let document = row.text_or_null(6)?;
    document.map(|document| serde_json::from_str(document).map_err(SyncError::internal)).transpose()
}

/// Whether the session is there. In SQLite the caller's write transaction keeps it so.
#[must_use]
pub fn is_open(session: SessionId) -> Statement {
    Statement::new("SELECT id FROM syncline_sessions WHERE id = $1", [session.as_bytes().into()])
}

/// Reads the session of this id, whoever holds it, and the one that the replica holds in the scope: one row or two, or none.
#[must_use]
pub fn load_for(session: SessionId, scope: i64, replica: ReplicaId) -> Statement {
    Statement::new(
        "SELECT id, scope, replica, token, lease_until, document FROM syncline_sessions \
         WHERE id = $1 OR (scope = $2 AND replica = $3)",
        [session.as_bytes().into(), scope.into(), replica.as_bytes().into()],
    )
}

/// Reads sessions whose lease ended before `now`.
#[must_use]
pub fn expired(now: i64) -> Statement {
    Statement::new(
        "SELECT id, scope, replica, token, lease_until, document FROM syncline_sessions WHERE lease_until < $1",
        [now.into()],
    )
}

/// Reads all sessions, newest lease first.
#[must_use]
pub fn list() -> Statement {
    Statement::new(
        "SELECT id, scope, replica, token, lease_until, document FROM syncline_sessions ORDER BY lease_until DESC",
        [],
    )
}

/// The number of open sessions, and whether this one, open or not, has applied its upload.
#[must_use]
pub fn count_and_applied(session: SessionId) -> Statement {
    Statement::new(
        "SELECT count(*), EXISTS (SELECT 1 FROM syncline_applies WHERE session = $1 AND result IS NOT NULL) \
         FROM syncline_sessions",
        [session.as_bytes().into()],
    )
}

/// A row of the statements above (of [`count_and_applied`] aside).
///
/// # Errors
/// INTERNAL if the row is not as it should be.
pub fn from_row(row: &MetaRow) -> Result<SessionRow> {
    Ok(SessionRow {
        id: SessionId::from_slice(row.bytes(0)?)?,
        scope: row.int(1)?,
        replica: ReplicaId::from_slice(row.bytes(2)?)?,
        token: SessionToken::from_slice(row.bytes(3)?)?,
        lease_until: row.int(4)?,
        document: serde_json::from_str(row.text(5)?).map_err(SyncError::internal)?,
    })
}

/// Adds a session.
///
/// # Errors
/// INTERNAL; never in practice.
pub fn insert(row: &SessionRow) -> Result<Statement> {
    Ok(Statement::new(
        "INSERT INTO syncline_sessions (id, scope, replica, token, lease_until, document) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        [
            row.id.as_bytes().into(),
            row.scope.into(),
            row.replica.as_bytes().into(),
            row.token.as_bytes().into(),
            row.lease_until.into(),
            document(&row.document)?.into(),
        ],
    ))
}

/// Gives the session a new token and lease: from now on the older token is superseded. The document stays as it is:
/// whoever works on the session may be writing it. Answers no row if the session has ended meanwhile.
#[must_use]
pub fn take_up(row: &SessionRow) -> Statement {
    Statement::new(
        "UPDATE syncline_sessions SET token = $1, lease_until = $2 WHERE id = $3 RETURNING id",
        [row.token.as_bytes().into(), row.lease_until.into(), row.id.as_bytes().into()],
    )
}

/// Stores the document, if the token is still the newest: answers no row if it is not.
///
/// # Errors
/// INTERNAL; never in practice.
pub fn save(session: SessionId, token: SessionToken, new: &SessionDocument) -> Result<Statement> {
    Ok(Statement::new(
        "UPDATE syncline_sessions SET document = $1 WHERE id = $2 AND token = $3 RETURNING id",
        [document(new)?.into(), session.as_bytes().into(), token.as_bytes().into()],
    ))
}

/// As [`save`], for a document that no other call may have changed since it was read as `old`: answers no row if one has.
///
/// # Errors
/// INTERNAL; never in practice.
pub fn save_over(
    session: SessionId,
    token: SessionToken,
    old: &SessionDocument,
    new: &SessionDocument,
) -> Result<Statement> {
    Ok(Statement::new(
        "UPDATE syncline_sessions SET document = $1 WHERE id = $2 AND token = $3 AND document = $4 RETURNING id",
        [document(new)?.into(), session.as_bytes().into(), token.as_bytes().into(), document(old)?.into()],
    ))
}

/// Refreshes the lease.
#[must_use]
pub fn refresh(session: SessionId, lease_until: i64) -> Statement {
    Statement::new(
        "UPDATE syncline_sessions SET lease_until = $1 WHERE id = $2",
        [lease_until.into(), session.as_bytes().into()],
    )
}

/// Removes a session.
#[must_use]
pub fn delete(session: SessionId) -> Statement {
    Statement::new("DELETE FROM syncline_sessions WHERE id = $1", [session.as_bytes().into()])
}

/// Removes a session whose lease ended before `now`. Answers no row if it has been taken up since it was found so.
#[must_use]
pub fn delete_expired(session: SessionId, now: i64) -> Statement {
    Statement::new(
        "DELETE FROM syncline_sessions WHERE id = $1 AND lease_until < $2 RETURNING id",
        [session.as_bytes().into(), now.into()],
    )
}

fn document(document: &SessionDocument) -> Result<String> {
    serde_json::to_string(document).map_err(SyncError::internal)
}

/// For tests of a store alone: as if the replica had begun this session, and no other. Answers the upload mark that the
/// hub holds, as BeginSession does.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) async fn open_for_test(
    store: &dyn super::MetaStore,
    scope: i64,
    session: SessionId,
    leaf: ReplicaId,
) -> Option<syncline::ids::Mark> {
    let held = store.read(super::leaves::load(scope, leaf)).await.unwrap();
    let held = held.first().map(|row| super::leaves::from_row(row).unwrap()).unwrap_or_default();
    let [scope, replica]: [super::MetaValue; 2] = [scope.into(), leaf.as_bytes().into()];
    let mut transaction = store.begin().await.unwrap();
    let others = "DELETE FROM syncline_sessions WHERE scope = $1 AND replica = $2 AND id <> $3";
    let statement = Statement::new(others, [scope.clone(), replica.clone(), session.as_bytes().into()]);
    transaction.run(statement).await.unwrap();
    let insert = "INSERT INTO syncline_sessions (id, scope, replica, token, lease_until, document) \
                  VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let token = SessionToken::fresh().as_bytes().into();
    let row = [session.as_bytes().into(), scope, replica, token, i64::MAX.into(), "{}".into()];
    transaction.run(Statement::new(insert, row)).await.unwrap();
    transaction.commit().await.unwrap();
    held.upload_mark
}
