//! The session driver: brings a local database and a hub into step.
//!
//! ```text
//!  run -> round -> subscription   first contact, or what is stored
//!               -> poll           nothing pending, nothing new: done, nothing written
//!               -> subscribe      where the scope has another version                  leaving.rs
//!               -> begin          a new session, or the one that was broken off      begin.rs
//!               -> upload         dirty rows -> batches -> hub -> acknowledged       upload.rs, send.rs
//!               -> download       batches -> parts -> applied                        download.rs, transfer.rs
//!               -> end            acknowledged at the hub, forgotten here
//!               -> open_ahead     after news: the session of the next ones             ahead.rs
//! ```
//!
//! Whatever is decided is stored before it is acted upon, so that a run that was killed anywhere is gone on with by the
//! next one. `follow` says when the next run is due. Temporary failures are retried where they happen (retry.rs); what
//! remains of failures is decided in `Run::recover`.

mod ahead;
mod begin;
mod download;
mod first_contact;
mod follow;
mod leaving;
mod options;
mod progress;
mod report;
mod retry;
mod send;
#[cfg(test)]
mod tests;
mod transfer;
mod upload;

use std::fmt;
use std::sync::Arc;

use syncline::error::{ErrorReason, Result, SyncError};
use syncline::schema::ScopeSchema;
use syncline_engine::replica::{EndRequest, HubReplica, Pending, PollRequest, SessionRef};
use syncline_engine::store::{LeafStore, Subscription};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::limits::RESTARTS_MAX;
use crate::parts::PartsDirectory;
use ahead::Ahead;
use begin::Session;
pub use first_contact::find_scope;
pub use follow::{Due, Follower};
pub use options::{ApplyMode, SyncOptions};
pub use progress::{Phase, Progress, ProgressState};
pub use report::{Moved, RunError, SyncReport};
#[cfg(test)]
pub(crate) use retry::is_temporary as is_worth_repeating;
use retry::retry;

/// Synchronises one scope of a local database with a hub, as often as it is told to.
pub struct Synchronizer {
    store: Arc<dyn LeafStore>,
    hub: Arc<dyn HubReplica>,
    parts: Arc<PartsDirectory>,
    options: SyncOptions,
    ahead: Arc<Ahead>,
}

impl fmt::Debug for Synchronizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Synchronizer").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Synchronizer {
    /// A local database, a hub, the directory beside the database, and what is to be done.
    #[must_use]
    pub fn new(
        store: Arc<dyn LeafStore>,
        hub: Arc<dyn HubReplica>,
        parts: Arc<PartsDirectory>,
        options: SyncOptions,
    ) -> Self {
        let ahead = Arc::new(Ahead::new(Arc::clone(&hub)));
        Self { store, hub, parts, options, ahead }
    }

    /// Brings both sides into step once. Cancelled or dropped at any point it leaves everything so that the next run
    /// goes on from there.
    ///
    /// # Errors
    /// [`RunError::Interrupted`] if it was cancelled, [`RunError::Temporary`] if a temporary failure outlasted the
    /// retries, else [`RunError::Failed`].
    pub async fn run(
        &self,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> std::result::Result<SyncReport, RunError> {
        self.run_due(Due::Perhaps, progress, cancel).await
    }

    /// As [`run`](Self::run), where a [`Follower`] has said why it is due.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_due(
        &self,
        due: Due,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> std::result::Result<SyncReport, RunError> {
        let started = Instant::now();
        let mut run = Run::new(self, due, progress);
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(RunError::Interrupted),
            outcome = run.alone() => outcome.map_err(RunError::from),
        };
        if matches!(outcome, Err(RunError::Interrupted)) {
            // Bytes that have arrived are kept: their writes come to an end first.
            self.parts.settle().await;
        }
        progress.update(|state| state.phase = Phase::Done);
        outcome.map(|()| run.report.finish(started.elapsed()))
    }

    /// Gives up what is held open at the hub for the next run, if there is any: for who won't run again. Takes a second at
    /// most. Not called, the hub gives it up for the replica's next session, or at the end of its lease.
    pub async fn close(&self) {
        self.ahead.give_up().await;
    }
}

/// One run.
struct Run<'a> {
    store: &'a dyn LeafStore,
    hub: &'a dyn HubReplica,
    parts: &'a Arc<PartsDirectory>,
    options: &'a SyncOptions,
    /// Where the session is that an earlier run opened for this one.
    ahead: &'a Ahead,
    progress: &'a Progress,
    report: SyncReport,
    /// What is known of the hub already: good for the first round.
    due: Due,
    /// The session that is open at the hub, as far as this run knows.
    open: Option<SessionRef>,
}

/// What a round has come to.
enum Round {
    /// Both sides are in step.
    Done,
    /// A session of an earlier run was completed: what came since goes with a session of its own.
    TookUp,
}

/// How often a run may start over, by cause.
#[derive(Default)]
struct StartedOver {
    other_schema: bool,
    diverged: bool,
    sessions: u32,
}

impl<'a> Run<'a> {
    fn new(sync: &'a Synchronizer, due: Due, progress: &'a Progress) -> Self {
        Self {
            store: &*sync.store,
            hub: &*sync.hub,
            parts: &sync.parts,
            options: &sync.options,
            ahead: &sync.ahead,
            progress,
            report: SyncReport::new(sync.options.scope.clone()),
            due,
            open: None,
        }
    }

    /// Nobody else synchronises this scope of the local database meanwhile.
    async fn alone(&mut self) -> Result<()> {
        let _held = self.store.hold(&self.options.scope).await?;
        self.synchronise().await
    }

    async fn synchronise(&mut self) -> Result<()> {
        self.progress.update(|state| *state = ProgressState::default());
        self.parts.settle().await;
        self.retry(|| self.store.recognise()).await?;
        let mut started_over = StartedOver::default();
        loop {
            match self.round().await {
                Ok(Round::Done) => return Ok(()),
                Ok(Round::TookUp) => {}
                Err(error) => self.recover(error, &mut started_over).await?,
            }
        }
    }

    /// The story.
    async fn round(&mut self) -> Result<Round> {
        let subscription = self.subscription().await?;
        let has_news = std::mem::replace(&mut self.due, Due::Perhaps) == Due::News;
        if !has_news {
            // With news, the run before has just ended well.
            self.sweep().await?;
        }
        if subscription.session.is_none() && !has_news && self.is_up_to_date(&subscription).await? {
            return Ok(Round::Done);
        }
        let Some(mut session) = self.begin(subscription).await? else { return Ok(Round::TookUp) };
        if !session.subscription.applied {
            self.upload(&mut session).await?;
            self.download(&mut session).await?;
        }
        let taken_up = session.taken_up;
        let ended = self.end(session).await?;
        if taken_up {
            return Ok(Round::TookUp);
        }
        if has_news {
            self.open_ahead(ended).await;
        }
        Ok(Round::Done)
    }

    /// What is stored of the scope; at first contact the hub is asked, and the tables are made.
    async fn subscription(&mut self) -> Result<Subscription> {
        match self.store.subscription(&self.options.scope).await? {
            Some(subscription) => Ok(subscription),
            None => self.subscribe().await,
        }
    }

    async fn subscribe(&mut self) -> Result<Subscription> {
        let served = self.retry(|| self.hub.scope(&self.options.scope)).await?;
        self.check_scope(&served.schema)?;
        if let Some(known) = self.store.subscription(&self.options.scope).await? {
            self.keep_what_leaves(&known, &served.schema).await?;
        }
        self.store.subscribe(&served.schema, served.hub).await
    }

    fn check_scope(&self, schema: &ScopeSchema) -> Result<()> {
        if schema.name != self.options.scope {
            return Err(SyncError::internal("the service answered another scope than was asked for"));
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<()> {
        let subscriptions = self.store.subscriptions().await?;
        let needed: Vec<_> = subscriptions.iter().filter_map(|subscription| subscription.session).collect();
        self.parts.sweep(&needed).await
    }

    /// Whether no session is needed. Writes nothing, at either side.
    async fn is_up_to_date(&self, subscription: &Subscription) -> Result<bool> {
        let direction = self.options.direction;
        if direction.uploads() && self.store.pending_changes(subscription).await? > 0 {
            return Ok(false);
        }
        if !direction.downloads() {
            return Ok(true);
        }
        let all_known = !subscription.knowledge.is_empty()
            && !subscription.reinitialize
            && subscription.excepted_keys.is_empty();
        if !all_known {
            return Ok(false);
        }
        let request = || PollRequest {
            replica: subscription.replica,
            scope: self.options.scope.clone(),
            parameters: self.options.parameters.clone(),
            knowledge: subscription.knowledge.clone(),
            schema_fingerprint: subscription.schema.fingerprint(),
        };
        let pending = self.retry(|| self.hub.poll(request())).await?;
        Ok(pending == Pending::None)
    }

    /// Acknowledges at the hub what is stored here, and forgets the session. Answers what is stored then.
    async fn end(&mut self, session: Session) -> Result<Subscription> {
        self.progress.phase(Phase::Ending);
        let downloaded = session.subscription.applied;
        let request = EndRequest {
            abandoned: false,
            knowledge: if downloaded { session.subscription.knowledge.clone() } else { bytes::Bytes::new() },
            download_mark: session.subscription.download_mark.filter(|_| downloaded),
            rows_downloaded: self.report.downloaded.upserts + self.report.downloaded.deletes,
            bytes_downloaded: self.report.downloaded.bytes,
            conflicts: session.conflicts_here,
            row_errors: session.row_errors_here,
        };
        let ended = self.retry(|| self.hub.end(session.reference, request.clone())).await;
        match ended {
            Err(error) if is_gone(error.reason()) => {}
            other => other?,
        }
        self.open = None;
        let mut subscription = session.subscription;
        forget_session(&mut subscription);
        subscription.completed_at = Some(begin::now_us());
        // Lost, the session is ended once more.
        self.save_losable(&subscription).await?;
        session.parts.remove().await?;
        Ok(subscription)
    }

    /// Starts over where that helps; else answers the error, and leaves the next run what it needs.
    async fn recover(&mut self, error: SyncError, started_over: &mut StartedOver) -> Result<()> {
        use ErrorReason as R;
        let reason = error.reason();
        tracing::debug!(?error, "the session was broken off");
        // What was dropped with it may still be writing into its folder.
        self.parts.settle().await;
        match reason {
            R::ScopeVersionUnsupported if !started_over.other_schema => {
                started_over.other_schema = true;
                self.give_up_session().await?;
                self.subscribe().await?;
            }
            R::ReplicaDiverged if !started_over.diverged => {
                started_over.diverged = true;
                self.open = None;
                self.store.diverge(&self.options.scope).await?;
            }
            R::SessionNotFound | R::SessionExpired | R::SessionState | R::BatchNotFound
                if started_over.sessions < RESTARTS_MAX =>
            {
                started_over.sessions += 1;
                self.give_up_session().await?;
            }
            _ => {
                if spoils_session(reason) {
                    self.give_up_session().await?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Forgets the session: rows that are not acknowledged are still dirty, and marks stay as they are, so the next
    /// session finds out what became of this one. The hub is told, if it can be reached.
    async fn give_up_session(&mut self) -> Result<()> {
        if let Some(open) = self.open.take()
            && let Err(error) = self.hub.end(open, EndRequest::abandoned()).await
        {
            tracing::debug!(?error, "the hub could not be told that the session is given up");
        }
        match self.store.subscription(&self.options.scope).await? {
            Some(mut subscription) => self.forget(&mut subscription).await,
            None => Ok(()),
        }
    }

    async fn forget(&self, subscription: &mut Subscription) -> Result<()> {
        forget_session(subscription);
        self.save(subscription).await?;
        self.sweep().await
    }

    async fn save(&self, subscription: &Subscription) -> Result<()> {
        self.retry(|| self.store.save(subscription)).await
    }

    /// Saves what survives this process, and may be lost if the machine fails: the next run then goes on from a state
    /// that is older, and that a run which was killed in time would have left.
    async fn save_losable(&self, subscription: &Subscription) -> Result<()> {
        self.retry(|| self.store.save_losable(subscription)).await
    }

    /// Repeats a call for as long as the options say.
    async fn retry<T, F>(&self, call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        retry(self.options.retry_for, self.progress, call).await
    }
}

/// Nothing of the session is left; marks and knowledge are not of the session.
fn forget_session(subscription: &mut Subscription) {
    subscription.session = None;
    subscription.upload = None;
    subscription.download_started = false;
    subscription.batches_applied = 0;
    subscription.applied = false;
}

/// The hub no longer has the session.
const fn is_gone(reason: ErrorReason) -> bool {
    matches!(reason, ErrorReason::SessionNotFound | ErrorReason::SessionExpired)
}

/// Whether the session would fail in the same way if the next run took it up: its content is at fault, so the next run
/// enumerates anew. All others are kept: what was transferred is not to be moved again.
const fn spoils_session(reason: ErrorReason) -> bool {
    use ErrorReason as R;
    match reason {
        R::SessionNotFound
        | R::SessionExpired
        | R::SessionState
        | R::BatchNotFound
        | R::BatchIncomplete
        | R::BatchTooLarge
        | R::BatchCorrupt
        | R::OffsetMismatch
        | R::RowTooLarge
        | R::RowInvalid
        | R::RowErrors
        | R::SchemaMismatch
        | R::ScopeVersionUnsupported
        | R::CapabilityRequired
        | R::ReinitializeRequired
        | R::TrackingBroken
        | R::KnowledgeInvalid
        | R::KnowledgeTooLarge
        | R::RequestInvalid => true,
        R::ScopeNotFound
        | R::SessionSuperseded
        | R::ReplicaDiverged
        | R::ParameterInvalid
        | R::FeatureUnsupported
        | R::SpoolFull
        | R::Overloaded
        | R::CallReplaced
        | R::DatabaseUnavailable
        | R::LockTimeout
        | R::Draining
        | R::PermissionDenied
        | R::Unauthenticated
        | R::Internal => false,
    }
}
