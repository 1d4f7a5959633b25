//! Opening a session: the chain's marks, the lease, the agreement.

use std::time::SystemTime;

use syncline::batch::Codec;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{SessionId, SessionToken};
use syncline::knowledge::{Knowledge, Version};
use syncline::limits::{
    BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX, BATCH_BYTES_MIN, BATCHES_IN_FLIGHT, ROW_BYTES_MAX,
};

use super::session::SessionDocument;
use super::{Hub, micros, now_micros, view};
use crate::dialect::meta::batches::{self, Stored, Way};
use crate::dialect::meta::sessions::{self, SessionRow};
use crate::dialect::meta::{MetaRow, MetaTx, applies, leaves};
use crate::replica::{Agreement, BatchStatus, BeginRequest, Begun, ResumeState, SessionRef};
use crate::store::{Glance, StoredScope};

impl Hub {
    pub(super) async fn begin_session(&self, request: BeginRequest) -> Result<Begun> {
        self.tasks().check_taking_sessions()?;
        view::check_parameters(&request.parameters)?;
        let Glance { scope, knowledge, .. } = self.glance(&request.scope, &Knowledge::new()).await?;
        if scope.fingerprint != request.schema_fingerprint {
            return Err(SyncError::new(
                ErrorReason::ScopeVersionUnsupported,
                "the scope has another version than the replica knows; fetch its schema and register again",
            )
            .with("scope", &request.scope)
            .with("scope_version", scope.schema.version));
        }
        let known = view::known_of_view(&request.knowledge, &scope)?;
        let reinitialize = self.must_reinitialize(&scope, knowledge, &known).await?;
        let is_there = self.stop_older_session(&request, &scope).await?;
        let opened = self.open_in_database(&request, &scope, is_there).await?;
        if let Some(superseded) = opened.discarded {
            self.discard_spooled(superseded).await?;
        }
        let row = opened.row;
        self.tasks().set_token(row.id, row.token);
        let resume = self.resume_state(&row, opened.resume).await?;
        Ok(Begun {
            session: SessionRef { id: row.id, token: row.token },
            agreement: row.document.agreement,
            resume,
            reinitialize,
            upload_mark: opened.leaf.upload_mark,
            hub: self.id(),
            hub_time: SystemTime::now(),
        })
    }

    /// A leaf whose knowledge the hub does not cover must compare everything: one of the two was restored.
    async fn must_reinitialize(
        &self,
        scope: &StoredScope,
        mut own: Knowledge,
        known: &Knowledge,
    ) -> Result<bool> {
        if known.is_empty() {
            return Ok(false);
        }
        let claimed = known.clock(self.id()).map(syncline::knowledge::Clock::tick);
        let given = own.clock(self.id()).map(syncline::knowledge::Clock::tick);
        if let Some(tick) = claimed.filter(|claimed| Some(*claimed) > given) {
            // The caller has seen ticks that this database has not given out: it went back in time.
            let id = self.store().check_not_behind(Version { replica: self.id(), tick }).await?;
            self.set_id(id);
            own = self.store().snapshot(scope).await?.knowledge().clone();
        }
        Ok(!own.covers(&Knowledge::from_clocks(known.clocks().clone())))
    }

    /// What runs of the session that this one takes the place of ends before it does. Only for a replica that may
    /// begin: a copy whose marks don't fit must not stop the original's work. Answers whether the session itself is there.
    async fn stop_older_session(&self, request: &BeginRequest, scope: &StoredScope) -> Result<bool> {
        let statement = sessions::load_for(request.session, scope.id, request.replica);
        let Found { requested, held } = Found::among(&self.store().read(statement).await?, request, scope)?;
        if let Some(held) = held {
            let leaf = self.store().read(leaves::load(scope.id, request.replica)).await?;
            check_marks(request, &leaf.first().map(leaves::from_row).transpose()?.unwrap_or_default())?;
            self.tasks().stop(held.id).await;
        }
        Ok(requested.is_some())
    }

    /// Durably, whether it takes the place of another or of none: a token that was superseded must not come back.
    async fn open_in_database(
        &self,
        request: &BeginRequest,
        scope: &StoredScope,
        is_there: bool,
    ) -> Result<Opened> {
        let mut transaction = self.store().begin().await?;
        // First without holding the leaf's row: an apply of this very session may hold it for long.
        let taken_up = if is_there { self.take_up(&mut *transaction, request, scope).await? } else { None };
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

    /// Begins the session in place of the one that the replica holds.
    ///
    /// **Invariant:** sessions of one replica begin one after the other, and after the applies of those before: the
    /// leaf's row is held before marks and sessions are looked at. So the mark that is answered, and noted for the
    /// session's apply, is that of the last upload that was applied, and none comes in between.
    async fn open_anew(
        &self,
        transaction: &mut dyn MetaTx,
        request: &BeginRequest,
        scope: &StoredScope,
    ) -> Result<Opened> {
        let now = now_micros();
        let held = transaction.run(leaves::hold(scope.id, request.replica, now)).await?;
        let leaf = held.first().map(leaves::from_row).transpose()?.unwrap_or_default();
        check_marks(request, &leaf)?;
        let found = sessions::load_for(request.session, scope.id, request.replica);
        let Found { requested, held } = Found::among(&transaction.run(found).await?, request, scope)?;
        // The same call may have been made twice.
        if let Some(row) = requested
            && let Some(opened) = self.go_on_with(transaction, row, leaf.clone()).await?
        {
            return Ok(opened);
        }
        let discarded = held.map(|row| row.id);
        if let Some(older) = discarded {
            transaction.run(batches::delete_of_session(older)).await?;
            transaction.run(sessions::delete(older)).await?;
        }
        let counted = transaction.run(sessions::count_and_applied(request.session)).await?;
        let counted = counted.first().ok_or_else(|| SyncError::internal("sessions can't be counted"))?;
        if discarded.is_none() {
            self.admit(counted.int(0)?)?;
        }
        let row = SessionRow {
            id: request.session,
            scope: scope.id,
            replica: request.replica,
            token: SessionToken::fresh(),
            lease_until: self.lease_from(now),
            document: self.new_document(request, scope, &leaf)?,
        };
        transaction.run(sessions::insert(&row)?).await?;
        let resume = Resume::Anew { applied: counted.int(1)? != 0 };
        Ok(Opened { row, leaf, resume, discarded })
    }

    fn lease_from(&self, now: i64) -> i64 {
        now + micros(self.config().lease)
    }

    fn admit(&self, open: i64) -> Result<()> {
        if open < i64::from(self.config().sessions_max) {
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

    /// The smaller of both sides' sizes, and the best codec that the client decodes.
    fn agree(&self, request: &BeginRequest) -> Result<Agreement> {
        let batch_bytes_max = request.batch_bytes_max.unwrap_or(self.config().batch_bytes_max);
        if !(BATCH_BYTES_MIN..=BATCH_BYTES_MAX).contains(&batch_bytes_max) {
            return Err(SyncError::invalid(
                "capabilities.batch_bytes_max",
                format!("must be {BATCH_BYTES_MIN} to {BATCH_BYTES_MAX}"),
            ));
        }
        let row_bytes_max = request.row_bytes_max.unwrap_or(self.config().row_bytes_max);
        if row_bytes_max == 0 || row_bytes_max > ROW_BYTES_MAX {
            return Err(SyncError::invalid(
                "capabilities.row_bytes_max",
                format!("must be 1 to {ROW_BYTES_MAX}"),
            ));
        }
        let preferred = [Codec::Zstd, Codec::Gzip];
        let codec =
            preferred.into_iter().find(|codec| request.codecs.contains(codec)).unwrap_or(Codec::Identity);
        let batch_bytes_max = batch_bytes_max.min(self.config().batch_bytes_max);
        Ok(Agreement {
            codec,
            batch_bytes_max,
            row_bytes_max: row_bytes_max.min(self.config().row_bytes_max),
            batches_in_flight_max: batches_in_flight(batch_bytes_max),
        })
    }

    async fn resume_state(&self, row: &SessionRow, resume: Resume) -> Result<ResumeState> {
        let (resumed, applied) = match resume {
            Resume::Anew { applied } => (false, applied),
            Resume::TakenUp => {
                let found = self.store().read(applies::load(row.id)).await?;
                let applied = found.first().map(applies::from_row).transpose()?;
                (true, applied.is_some_and(|(_, result)| result.is_some()))
            }
        };
        let mut uploads = Vec::new();
        // Of a session that was just made there are none.
        let held =
            if resumed { self.store().read(batches::of_session(row.id, Way::Up)).await? } else { Vec::new() };
        for found in held {
            let batch = batches::from_row(&found)?;
            let status = match batch.stored {
                Stored::Complete => BatchStatus::Complete,
                Stored::Released => BatchStatus::Released,
                Stored::Partial => BatchStatus::Partial {
                    committed_size: self.spool().committed_size(row.id, batch.info.id).await?,
                },
            };
            uploads.push((batch.info.id, status));
        }
        Ok(ResumeState {
            resumed,
            uploads,
            apply_started: row.document.apply.is_some() || applied,
            applied,
            download_started: row.document.enumeration.is_some(),
        })
    }

    /// A session that another has taken the place of: its tasks stop, its bytes are freed.
    async fn discard_spooled(&self, session: SessionId) -> Result<()> {
        self.tasks().stop(session).await;
        self.spool().delete_session(session).await
    }
}

struct Opened {
    row: SessionRow,
    leaf: leaves::LeafRow,
    resume: Resume,
    discarded: Option<SessionId>,
}

/// Whether a session was there before.
#[derive(Clone, Copy)]
enum Resume {
    TakenUp,
    /// Its id may be that of a session that ended, and is known by its upload.
    Anew {
        applied: bool,
    },
}

/// The sessions that a BeginSession has to do with.
struct Found {
    /// The one of its id.
    requested: Option<SessionRow>,
    /// Another one that the replica holds.
    held: Option<SessionRow>,
}

impl Found {
    /// # Errors
    /// REQUEST_INVALID if the id is that of somebody else's session.
    fn among(rows: &[MetaRow], request: &BeginRequest, scope: &StoredScope) -> Result<Self> {
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
fn check_marks(request: &BeginRequest, leaf: &leaves::LeafRow) -> Result<()> {
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

/// Invariant: what is under way when a side dies is less than a batch of the agreed size. Of batches that travel one by one
/// that is so by itself; several at once share the windows of a connection, which are smaller than a batch of the default
/// size.
const fn batches_in_flight(batch_bytes_max: u64) -> u32 {
    if batch_bytes_max < BATCH_BYTES_DEFAULT { 1 } else { BATCHES_IN_FLIGHT }
}
