//! Opening a session: the chain's marks, the lease, the agreement.

use std::time::SystemTime;

use syncline::batch::Codec;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::SessionId;
use syncline::knowledge::{Knowledge, Version};
use syncline::limits::{
    BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX, BATCH_BYTES_MIN, BATCHES_IN_FLIGHT, ROW_BYTES_MAX,
};

use super::open::{Found, Older, Resume, check_marks};
use super::{Hub, view};
use crate::dialect::meta::batches::{self, Stored, Way};
use crate::dialect::meta::sessions::{self, SessionRow};
use crate::dialect::meta::{applies, leaves};
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
        let older = self.stop_older_session(&request, &scope).await?;
        let opened = self.open_in_database(&request, &scope, older).await?;
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
    /// begin: a copy whose marks don't fit must not stop the original's work. Answers what there is.
    async fn stop_older_session(&self, request: &BeginRequest, scope: &StoredScope) -> Result<Older> {
        let statement = sessions::load_for(request.session, scope.id, request.replica);
        let Found { requested, held } = Found::among(&self.store().read(statement).await?, request, scope)?;
        if let Some(held) = &held {
            let leaf = self.store().read(leaves::load(scope.id, request.replica)).await?;
            check_marks(request, &leaf.first().map(leaves::from_row).transpose()?.unwrap_or_default())?;
            self.tasks().stop(held.id).await;
        }
        Ok(match (requested, held) {
            (Some(_), _) => Older::Itself,
            (None, Some(_)) => Older::Another,
            (None, None) => Older::None,
        })
    }

    /// The smaller of both sides' sizes, and the best codec that the client decodes.
    pub(super) fn agree(&self, request: &BeginRequest) -> Result<Agreement> {
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

/// Invariant: what is under way when a side dies is less than a batch of the agreed size. Of batches that travel one by one
/// that is so by itself; several at once share the windows of a connection, which are smaller than a batch of the default
/// size.
const fn batches_in_flight(batch_bytes_max: u64) -> u32 {
    if batch_bytes_max < BATCH_BYTES_DEFAULT { 1 } else { BATCHES_IN_FLIGHT }
}
