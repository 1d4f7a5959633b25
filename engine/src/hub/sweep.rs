//! What a hub does by itself: folding, and removing what nobody asks for any more. And whose spool it is.

use std::collections::HashSet;
use std::sync::Arc;

use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::ScopeName;
use uuid::Uuid;

use super::{Hub, micros, now_micros};
use crate::dialect::meta::sessions::SessionRow;
use crate::dialect::meta::{applies, batches, row_errors, sessions, state};
use crate::limits::{MAINTENANCE_INTERVAL, RESULTS_KEPT};

impl Hub {
    /// Folds and sweeps from time to time, until the hub is drained: so that the first session after a quiet time finds
    /// short logs, and what nobody asks for any more goes.
    pub(super) fn start_maintenance(&self) {
        // Weak: a hub that nobody holds any more ends, drained or not.
        let inner = Arc::downgrade(&self.inner);
        let stop = self.tasks().stop.clone();
        self.tasks().spawn(async move {
            let mut rounds = tokio::time::interval(MAINTENANCE_INTERVAL);
            rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            rounds.tick().await;
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = rounds.tick() => {}
                }
                let Some(inner) = inner.upgrade() else { return };
                if let Err(error) = (Self { inner }).maintain().await {
                    tracing::warn!(%error, detail = error.detail(), "maintenance failed; it is tried again");
                }
            }
        });
    }

    pub(super) async fn maintain(&self) -> Result<()> {
        for name in self.store().scope_names().await? {
            // A scope whose table was dropped must not keep the others from being folded, nor anything from being swept.
            if let Err(error) = self.fold_scope(&name).await {
                tracing::warn!(scope = %name, %error, detail = error.detail(), "a scope could not be folded");
            }
        }
        self.sweep().await
    }

    async fn fold_scope(&self, name: &ScopeName) -> Result<()> {
        match self.store().scope(name).await? {
            Some(scope) => self.store().fold(&scope).await,
            None => Ok(()),
        }
    }

    /// Removes sessions whose lease has run out, spooled bytes of sessions that are not there, and results that nobody
    /// will ask for any more.
    ///
    /// # Errors
    /// If the database or the spool fails; what was removed stays removed.
    pub async fn sweep(&self) -> Result<()> {
        let now = now_micros();
        for row in self.store().read(sessions::expired(now)).await? {
            self.remove_expired(&sessions::from_row(&row)?, now).await?;
        }
        // Sessions are listed after files: a session that begins in between is not taken for gone.
        let spooled = self.spool().sessions().await?;
        let open: HashSet<_> = self
            .store()
            .read(sessions::list())
            .await?
            .iter()
            .map(|row| sessions::from_row(row).map(|session| session.id))
            .collect::<Result<_>>()?;
        for session in spooled.into_iter().filter(|session| !open.contains(session)) {
            self.spool().delete_session(session).await?;
        }
        self.expire_results(now).await
    }

    /// Here, and not whenever a session ends: it looks at those of all leaves.
    async fn expire_results(&self, now: i64) -> Result<()> {
        if self.store().scope_names().await?.is_empty() {
            // Without a scope our tables need not be there.
            return Ok(());
        }
        let kept_since = now - micros(RESULTS_KEPT);
        let mut transaction = self.store().begin().await?;
        transaction.run(applies::expire(kept_since)).await?;
        transaction.run(row_errors::expire(kept_since)).await?;
        transaction.commit().await
    }

    /// **Invariant:** a session that was taken up since it was found expired stays: whether it has expired is asked again
    /// by the statement that removes it.
    pub(super) async fn remove_expired(&self, session: &SessionRow, now: i64) -> Result<()> {
        // An apply holds the session's row. Given up, it is repeated by who has taken the session up.
        self.tasks().stop(session.id).await;
        let mut transaction = self.store().begin().await?;
        if transaction.run(sessions::delete_expired(session.id, now)).await?.is_empty() {
            return Ok(());
        }
        transaction.run(batches::delete_of_session(session.id)).await?;
        transaction.commit().await?;
        tracing::info!(session = %session.id, replica = %session.replica, "an expired session was removed");
        self.tasks().stop(session.id).await;
        Ok(())
    }

    /// The spool belongs to this hub alone: another's batches would be swept away as nobody's.
    pub(super) async fn claim_spool(&self) -> Result<()> {
        let rows = self.store().read(state::spool()).await?;
        let ours = rows.first().map(|row| row.bytes_or_null(0)).transpose()?.flatten();
        let ours = ours.map(Uuid::from_slice).transpose().map_err(SyncError::internal)?;
        match (ours, self.spool().id().await?) {
            (Some(ours), Some(found)) if ours == found => Ok(()),
            (_, Some(_)) => Err(SyncError::new(
                ErrorReason::Internal,
                "the spool belongs to another hub; give this one a directory of its own (`--spool`)",
            )),
            // A new directory: what was in the old one is gone, and sessions begin anew.
            (Some(ours), None) => {
                let mut transaction = self.store().begin().await?;
                transaction.run(state::forget_batches()).await?;
                transaction.run(state::forget_sessions()).await?;
                transaction.commit().await?;
                self.spool().set_id(ours).await
            }
            (None, None) => {
                // The database first: a process that dies in between finds an empty spool that is to be its own.
                let id = Uuid::new_v4();
                let mut transaction = self.store().begin().await?;
                transaction.run(state::set_spool(id.as_bytes())).await?;
                transaction.commit().await?;
                self.spool().set_id(id).await
            }
        }
    }
}
