//! What the hub's database keeps of an open session, and the check that every call of it begins with.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{Mark, ScopeName, SessionId, TableId};
use syncline::knowledge::{Knowledge, RowKey};

use super::{Hub, micros, now_micros};
use crate::dialect::meta::sessions::{self, SessionRow};
use crate::dialect::meta::{MetaRow, Statement};
use crate::replica::{Agreement, ChangesBegin, ChangesEnd, SessionRef};
use crate::store::{Position, StoredScope, session_has_ended};

/// Everything of a session that must survive the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionDocument {
    pub(super) scope: ScopeName,
    pub(super) scope_version: u32,
    pub(super) agreement: Agreement,
    pub(super) client_name: String,
    /// The upload mark that BeginSession found: what the session uploads is applied after that one, or not at all.
    pub(super) upload_mark_begun: Option<Mark>,
    /// The download mark that the leaf presented in BeginSession.
    pub(super) download_mark_presented: Option<Mark>,
    /// SHA-256 of the list of batches that ApplyChanges was called with.
    pub(super) apply: Option<[u8; 32]>,
    pub(super) enumeration: Option<EnumerationState>,
}

/// How far an enumeration is: written together with each batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct EnumerationState {
    /// SHA-256 of what GetChanges was asked with.
    pub(super) asked: [u8; 32],
    /// Whether it is in the database that the enumeration has begun.
    #[serde(default = "stored")]
    pub(super) noted: bool,
    /// What the leaf knows.
    pub(super) known: Knowledge,
    /// Rows that are answered by their present state.
    pub(super) excepted: Vec<RowKey>,
    /// What GetChanges answers first.
    pub(super) begin: ChangesBegin,
    /// Whether the leaf's own rows are left out: not for a first download and its like.
    pub(super) echo_rule: bool,
    /// In a later pass than the first, the knowledge of the first snapshot of the pass before: only what changed since
    /// then is enumerated.
    pub(super) since: Option<Knowledge>,
    /// The knowledge of this pass's first snapshot. What changed since then is enumerated in another pass, if this one
    /// goes on under a later snapshot.
    pub(super) first_snapshot: Knowledge,
    /// Where the pass goes on; `None`: at the beginning.
    pub(super) position: Option<Position>,
    /// Batches made so far.
    pub(super) batches: u32,
    /// Rows in them.
    pub(super) rows: u64,
    /// Set once everything is enumerated and the mark is committed.
    pub(super) end: Option<ChangesEnd>,
}

/// What is read from the database is there.
const fn stored() -> bool {
    true
}

/// The session has a newer token.
pub(super) fn superseded() -> SyncError {
    SyncError::new(
        ErrorReason::SessionSuperseded,
        "another holder has gone on with this session; this one must stop",
    )
}

impl EnumerationState {
    /// What this pass leaves out: what the leaf knows, and what the passes before it have seen through.
    pub(super) fn known_in_pass(&self) -> Knowledge {
        self.since.as_ref().map_or_else(|| self.known.clone(), |since| self.known.merge(since))
    }

    /// Begins another pass, under a snapshot with this knowledge.
    pub(super) fn begin_pass(&mut self, snapshot: Knowledge) {
        self.since = Some(std::mem::replace(&mut self.first_snapshot, snapshot));
        self.position = None;
    }

    pub(super) fn is_whole(&self, table: TableId) -> bool {
        self.begin.mode.is_whole(table)
    }
}

/// A session that was checked, with its scope.
pub(super) struct CheckedSession {
    pub(super) row: SessionRow,
    pub(super) scope: Arc<StoredScope>,
}

impl Hub {
    /// Every call of a session begins here: it is there, its lease runs, the token is the newest.
    pub(super) async fn checked(&self, session: SessionRef) -> Result<CheckedSession> {
        let found = self.read_session(sessions::load_with_scope(session.id)).await?;
        let found = found.first().ok_or_else(|| session_has_ended(session.id))?;
        let row = sessions::from_row(found)?;
        if row.token != session.token {
            return Err(superseded());
        }
        let now = now_micros();
        if row.lease_until < now {
            return Err(SyncError::new(
                ErrorReason::SessionExpired,
                "the session's lease has run out; begin a new one",
            ));
        }
        let Some(scope) = sessions::scope_from_row(found)? else {
            // It was dropped, or dropped and defined anew.
            self.stored_scope(&row.document.scope).await?;
            return Err(session_has_ended(session.id));
        };
        self.refresh_lease(&row, now).await?;
        Ok(CheckedSession { row, scope: Arc::new(scope) })
    }

    /// Why a statement that names session and token found no such row: the session is gone (also one that was open a
    /// moment ago: a crash of the database may lose an opening), or it has a newer token.
    pub(super) async fn gone_or_superseded(&self, session: SessionId) -> SyncError {
        match self.read_session(sessions::load(session)).await {
            Ok(found) if found.is_empty() => session_has_ended(session),
            Ok(_) => superseded(),
            Err(error) => error,
        }
    }

    async fn read_session(&self, statement: Statement) -> Result<Vec<MetaRow>> {
        match self.store().read(statement).await {
            // With the last scope our tables were dropped, sessions among them.
            Err(error) if error.reason() == ErrorReason::Internal => match self.store().scope_names().await {
                Ok(names) if names.is_empty() => Ok(Vec::new()),
                _ => Err(error),
            },
            read => read,
        }
    }

    /// Use refreshes the lease, but not every call writes: only when a quarter of it is gone.
    async fn refresh_lease(&self, row: &SessionRow, now: i64) -> Result<()> {
        let lease = micros(self.config().lease);
        if row.lease_until - now > lease / 4 * 3 {
            return Ok(());
        }
        let mut transaction = self.store().begin().await?;
        transaction.run(sessions::refresh(row.id, now + lease)).await?;
        transaction.commit().await
    }
}
