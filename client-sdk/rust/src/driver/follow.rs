//! Following a hub: being told when a run would bring something, at either side.
//!
//! **Invariant:** no change waits for longer than it takes to tell of it, or, while the hub can't be watched, than
//! [`WATCH_POLL_INTERVAL`]. News that come while a run is under way are kept, so the worst is a run in vain.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline_engine::dialect::meta::Commits;
use syncline_engine::replica::{HubReplica, Pending, PollRequest};
use syncline_engine::store::LeafStore;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::ahead::Ahead;
use super::options::SyncOptions;
use super::report::SyncReport;
use super::{Synchronizer, retry};
use crate::limits::{
    FAILED_PAUSE, LEFT_BEHIND_INTERVAL, LOCAL_LOOK_INTERVAL, WATCH_FAILURES_MAX, WATCH_PAUSE_MAX,
    WATCH_POLL_INTERVAL,
};

/// Why a run is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Something may be new, or not: the run asks the hub first.
    Perhaps,
    /// The hub has just told of news that this leaf did not make: the run begins a session without asking.
    News,
}

/// Says when the next run is due. Watches the hub in the background until it is dropped.
pub struct Follower {
    store: Arc<dyn LeafStore>,
    options: SyncOptions,
    told: Arc<Told>,
    commits: Option<Box<dyn Commits>>,
    ahead: Arc<Ahead>,
    _listening: Option<AbortOnDropHandle<()>>,
}

/// What the listener tells.
#[derive(Default)]
struct Told {
    /// The hub has news.
    news: Notify,
    /// The hub can't be watched; it is time to ask it.
    poll: Notify,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Synchronizer {
    /// Begins to watch the hub; it may tell of news once in `interval_min`. To be called within a Tokio runtime.
    #[must_use]
    pub fn follow(&self, interval_min: Duration) -> Follower {
        let told = Arc::<Told>::default();
        let listener = Listener {
            store: Arc::clone(&self.store),
            hub: Arc::clone(&self.hub),
            options: self.options.clone(),
            told: Arc::clone(&told),
            interval_min,
        };
        let listens = self.options.direction.downloads();
        Follower {
            store: Arc::clone(&self.store),
            options: self.options.clone(),
            told,
            commits: None,
            ahead: Arc::clone(&self.ahead),
            _listening: listens.then(|| AbortOnDropHandle::new(tokio::spawn(listener.run()))),
        }
    }
}

impl Follower {
    /// Waits until a run may bring something: the hub has news, or rows here wait to be uploaded. `last` is what the run
    /// before did; `None` if it failed, and then a while is waited, or a shorter one for news. May be dropped and called again.
    pub async fn next(&mut self, last: Option<&SyncReport>) -> Due {
        let (told, ahead) = (Arc::clone(&self.told), Arc::clone(&self.ahead));
        let Some(last) = last else {
            let until = Instant::now() + WATCH_POLL_INTERVAL;
            // Not all that failed together at once.
            sleep(FAILED_PAUSE + retry::jitter(FAILED_PAUSE)).await;
            tokio::select! {
                // They may be what mends it.
                () = told.news.notified() => {}
                () = sleep_until(until) => {}
            }
            return Due::Perhaps;
        };
        if told.news.notified().now_or_never().is_some() {
            // They came during the run, which may have brought them already.
            return Due::Perhaps;
        }
        tokio::select! {
            // What the last run uploaded comes back as news.
            () = told.news.notified() => if last.uploaded.is_nothing() { Due::News } else { Due::Perhaps },
            () = told.poll.notified() => Due::Perhaps,
            () = self.local_changes(last.left_behind()) => Due::Perhaps,
            // What could not be applied may be possible by now, for reasons that nobody tells of.
            () = sleep(LEFT_BEHIND_INTERVAL), if last.row_errors > 0 => Due::Perhaps,
            never = ahead.expire() => match never {},
        }
    }

    /// Waits until rows here wait to be uploaded, beside those that the last run left behind.
    async fn local_changes(&mut self, left_behind: u64) {
        if !self.options.direction.uploads() {
            return std::future::pending().await;
        }
        // The first look sees the commits of the last run, and what was edited during it.
        let mut after_run = true;
        loop {
            match self.look(if after_run { left_behind } else { 0 }, after_run).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(?error, "the local database can't be looked at for changes");
                    self.commits = None;
                }
            }
            after_run = false;
            sleep(LOCAL_LOOK_INTERVAL).await;
        }
    }

    /// Whether something was committed since the last look (or `anyway`), and more than so many changes wait.
    async fn look(&mut self, left_behind: u64, anyway: bool) -> Result<bool> {
        let commits = match &mut self.commits {
            Some(commits) => commits,
            none => none.insert(self.store.commits().await?),
        };
        if !commits.look().await? && !anyway {
            return Ok(false);
        }
        match self.store.subscription(&self.options.scope).await? {
            Some(subscription) => Ok(self.store.pending_changes(&subscription).await? > left_behind),
            None => Ok(false),
        }
    }
}

/// Listens to the hub, and connects again when it is cut off.
struct Listener {
    store: Arc<dyn LeafStore>,
    hub: Arc<dyn HubReplica>,
    options: SyncOptions,
    told: Arc<Told>,
    interval_min: Duration,
}

impl Listener {
    async fn run(self) {
        let mut failures = 0;
        let mut polled = Instant::now();
        loop {
            let error = self.listen(&mut failures).await;
            failures += 1;
            tracing::info!(failures, reason = error.reason().as_str(), "the hub can't be watched: {error}");
            let replaced = error.reason() == ErrorReason::CallReplaced;
            if replaced {
                // Another process watches with this database. To come back at once would drive out that one, and so on.
                sleep(WATCH_POLL_INTERVAL).await;
            } else {
                // From the first failure on the pause is random: a service that was restarted finds us one by one.
                sleep(retry::jitter(retry::ceiling(failures).min(WATCH_PAUSE_MAX))).await;
            }
            if replaced || (failures >= WATCH_FAILURES_MAX && polled.elapsed() >= WATCH_POLL_INTERVAL) {
                polled = Instant::now();
                self.told.poll.notify_one();
            }
        }
    }

    /// Tells of news until it is cut off. With the first sign of life there are no failures any more.
    async fn listen(&self, failures: &mut u32) -> SyncError {
        let told = match self.request().await {
            Ok(request) => self.hub.watch(request, self.interval_min).await,
            Err(error) => return error,
        };
        let mut told = match told {
            Ok(told) => told,
            Err(error) => return error,
        };
        while let Some(pending) = told.next().await {
            match pending {
                Ok(pending) => {
                    *failures = 0;
                    if pending != Pending::None {
                        self.told.news.notify_one();
                    }
                }
                Err(error) => return error,
            }
        }
        SyncError::new(ErrorReason::DatabaseUnavailable, "the service ended the stream")
    }

    /// With the knowledge of now: what was missed while nobody listened is told at once.
    async fn request(&self) -> Result<PollRequest> {
        let subscription = self.store.subscription(&self.options.scope).await?.ok_or_else(|| {
            SyncError::new(ErrorReason::ScopeNotFound, "the scope has not been synchronised yet")
        })?;
        Ok(PollRequest {
            replica: subscription.replica,
            scope: self.options.scope.clone(),
            parameters: self.options.parameters.clone(),
            knowledge: subscription.knowledge,
            schema_fingerprint: subscription.schema.fingerprint(),
        })
    }
}
