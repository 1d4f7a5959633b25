//! A session in the hub's database: gone on with, or begun in place of the one that the replica holds.

use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{SessionId, SessionToken};

use super::session::SessionDocument;
use super::{Hub, micros, now_micros};
use crate::dialect::meta::sessions::{self, SessionRow};
use crate::dialect::meta::{MetaRow, MetaTx, batches, leaves};
use crate::replica::BeginRequest;
use crate::store::StoredScope;

impl Hub {
    /// **Invariant:** a token that was superseded does not come back: what takes the place of another session, or of an
    /// older token, is committed durably. What takes the place of none need not be: a crash of the database that loses it
    /// loses all that was done in it as well, and whoever holds it is told that there is no such session.
    pub(super) async fn open_in_database(
        &self,
        request: &BeginRequest,
        scope: &StoredScope,
        older: Older,
    ) -> Result<Opened> {
        if older == Older::None {
            let mut transaction = self.store().begin_losable().await?;
            if let Some(opened) = self.open_first(&mut *transaction, request, scope).await? {
                transaction.commit().await?;
                return Ok(opened);
            }
            // Another call came in between: rolled back.
        }
        let mut transaction = self.store().begin().await?;
        // First without holding the leaf's row: an apply of this very session may hold it for long.
        let taken_up = match older {
            Older::Itself => self.take_up(&mut *transaction, request, scope).await?,
            Older::Another | Older::None => None,
        };
        let opened = match taken_up {
            Some(opened) => opened,
            None => self.open_anew(&mut *transaction, request, scope).await?,
        };
        transaction.commit().await?;
        Ok(opened)
    }

    /// Goes on with the session, if it is there.
    async fn take_up(
        &self,
        transaction: &mut dyn MetaTx,
        request: &BeginRequest,
        scope: &StoredScope,
    ) -> Result<Option<Opened>> {
        let found = transaction.run(sessions::load(request.session)).await?;
        let Some(row) = Found::among(&found, request, scope)?.requested else { return Ok(None) };
        let found = transaction.run(leaves::load(scope.id, request.replica)).await?;
        let leaf = found.first().map(leaves::from_row).transpose()?.unwrap_or_default();
        check_marks(request, &leaf)?;
        self.go_on_with(transaction, row, leaf).await
    }

    /// Nothing of a session that is taken up changes but token and lease, so its apply and this need not follow each other.
    /// `None` if it has ended since it was read.
    async fn go_on_with(
        &self,
        transaction: &mut dyn MetaTx,
        mut row: SessionRow,
        leaf: leaves::LeafRow,
    ) -> Result<Option<Opened>> {
        row.token = SessionToken::fresh();
        row.lease_until = self.lease_from(now_micros());
        let taken_up = !transaction.run(sessions::take_up(&row)).await?.is_empty();
        let resume = Resume::TakenUp;
        Ok(taken_up.then_some(Opened { row, leaf, resume, discarded: None }))
    }

    /// Begins the session if the replica holds none.
    async fn open_first(
        &self,
        transaction: &mut dyn MetaTx,
        request: &BeginRequest,
        scope: &StoredScope,
    ) -> Result<Option<Opened>> {
        let before = self.hold_leaf(transaction, request, scope).await?;
        if before.found.requested.is_some() || before.found.held.is_some() {
            return Ok(None);
        }
        self.insert(transaction, request, scope, before).await.map(Some)
    }

    /// Begins the session in place of the one that the replica holds.
    async fn open_anew(
        &self,
        transaction: &mut dyn MetaTx,
        request: &BeginRequest,
        scope: &StoredScope,
    ) -> Result<Opened> {
        let mut before = self.hold_leaf(transaction, request, scope).await?;
        // The same call may have been made twice.
        if let Some(row) = before.found.requested.take()
            && let Some(opened) = self.go_on_with(transaction, row, before.leaf.clone()).await?
        {
            return Ok(opened);
        }
        self.insert(transaction, request, scope, before).await
    }

    /// **Invariant:** sessions of one replica begin one after the other, and after the applies of those before: the
    /// leaf's row is held before marks and sessions are looked at. So the mark that is answered, and noted for the
    /// session's apply, is that of the last upload that was applied, and none comes in between.
    async fn hold_leaf(
        &self,
        transaction: &mut dyn MetaTx,
        request: &BeginRequest,
        scope: &StoredScope,
    ) -> Result<Before> {
        let now = now_micros();
        let statements = vec![
            leaves::hold(scope.id, request.replica, now),
            sessions::load_for(request.session, scope.id, request.replica),
            sessions::count_and_applied(request.session),
        ];
        let [held, found, counted] = <[_; 3]>::try_from(transaction.run_all(statements).await?)
            .map_err(|_| SyncError::internal("a statement has no answer"))?;
        let leaf = held.first().map(leaves::from_row).transpose()?.unwrap_or_default();
        check_marks(request, &leaf)?;
        let counted = counted.first().ok_or_else(|| SyncError::internal("sessions can't be counted"))?;
        Ok(Before {
            now,
            leaf,
            found: Found::among(&found, request, scope)?,
            open: counted.int(0)?,
            applied: counted.int(1)? != 0,
        })
    }

    /// Adds the session, and removes the one whose place it takes.
    async fn insert(
        &self,
        transaction: &mut dyn MetaTx,
        request: &BeginRequest,
        scope: &StoredScope,
        before: Before,
    ) -> Result<Opened> {
        let discarded = before.found.held.map(|row| row.id);
        let mut statements = Vec::new();
        match discarded {
            Some(older) => statements.extend([batches::delete_of_session(older), sessions::delete(older)]),
            None => self.admit(before.open, request.ahead)?,
        }
        let row = SessionRow {
            id: request.session,
            scope: scope.id,
            replica: request.replica,
            token: SessionToken::fresh(),
            lease_until: self.lease_from(before.now),
            document: self.new_document(request, scope, &before.leaf)?,
        };
        statements.push(sessions::insert(&row)?);
        transaction.run_all(statements).await?;
        let resume = Resume::Anew { applied: before.applied };
        Ok(Opened { row, leaf: before.leaf, resume, discarded })
    }

    fn lease_from(&self, now: i64) -> i64 {
        now + micros(self.config().lease)
    }

    /// Sessions that wait for something to do leave room for those that have it.
    fn admit(&self, open: i64, ahead: bool) -> Result<()> {
        let bound = self.config().sessions_max / if ahead { 2 } else { 1 };
        if open < i64::from(bound) {
            return Ok(());
        }
        Err(SyncError::new(ErrorReason::Overloaded, "too many sessions are open; try again later")
            .retry_after(std::time::Duration::from_secs(5)))
    }

    fn new_document(
        &self,
        request: &BeginRequest,
        scope: &StoredScope,
        leaf: &leaves::LeafRow,
    ) -> Result<SessionDocument> {
        Ok(SessionDocument {
            scope: request.scope.clone(),
            scope_version: scope.schema.version,
            agreement: self.agree(request)?,
            client_name: request.client_name.clone(),
            upload_mark_begun: leaf.upload_mark,
            download_mark_presented: request.download_mark,
            apply: None,
            enumeration: None,
        })
    }
}

/// What a BeginSession finds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Older {
    /// The session itself.
    Itself,
    /// Another one that the replica holds.
    Another,
    /// Neither.
    None,
}

/// What a session that begins finds while it holds the leaf's row.
struct Before {
    now: i64,
    leaf: leaves::LeafRow,
    found: Found,
    /// Sessions that are open, of all replicas.
    open: i64,
    /// Whether the session, open or not, has applied its upload.
    applied: bool,
}

pub(super) struct Opened {
    pub(super) row: SessionRow,
    pub(super) leaf: leaves::LeafRow,
    pub(super) resume: Resume,
    pub(super) discarded: Option<SessionId>,
}

/// Whether a session was there before.
#[derive(Clone, Copy)]
pub(super) enum Resume {
    TakenUp,
    /// Its id may be that of a session that ended, and is known by its upload.
    Anew {
        applied: bool,
    },
}

/// The sessions that a BeginSession has to do with.
pub(super) struct Found {
    /// The one of its id.
    pub(super) requested: Option<SessionRow>,
    /// Another one that the replica holds.
    pub(super) held: Option<SessionRow>,
}

impl Found {
    /// # Errors
    /// REQUEST_INVALID if the id is that of somebody else's session.
    pub(super) fn among(rows: &[MetaRow], request: &BeginRequest, scope: &StoredScope) -> Result<Self> {
        let mut found = Self { requested: None, held: None };
        for row in rows {
            let row = sessions::from_row(row)?;
            if row.id != request.session {
                found.held = Some(row);
            } else if row.scope == scope.id && row.replica == request.replica {
                found.requested = Some(row);
            } else {
                return Err(SyncError::invalid(
                    "session_id",
                    "is that of another replica's session; make a new one",
                ));
            }
        }
        Ok(found)
    }
}

/// The chain: the hub's upload mark must be one that the leaf drew or was answered, the leaf's download mark one that it
/// presented before or that was drawn since. A lost answer breaks neither; a restored or copied database does.
pub(super) fn check_marks(request: &BeginRequest, leaf: &leaves::LeafRow) -> Result<()> {
    let upload_fits = leaf.upload_mark == request.upload_mark_answered
        || (leaf.upload_mark.is_some() && leaf.upload_mark == request.upload_mark_drawn);
    let download_fits =
        [leaf.download_mark_presented, leaf.download_mark_drawn].contains(&request.download_mark);
    if upload_fits && download_fits {
        return Ok(());
    }
    Err(SyncError::new(
        ErrorReason::ReplicaDiverged,
        "the replica or the hub was restored or copied; the replica must take a new id and compare everything",
    )
    .with("replica_id", request.replica)
    .with("mark", if upload_fits { "download" } else { "upload" }))
}
