//! Telling watchers that a scope has something new: one task looks for commits, for all of them.
//!
//! **Invariant:** after a commit that downloads would carry, every watcher of the scope is told, unless it was told of
//! another one that it has not looked at yet. A watcher registers before its first poll, so what is committed after that
//! poll is found by the task; and what the task takes for told was committed before it told of it. It may tell in vain,
//! and it never tells what: that is what the session is for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ReplicaId, ScopeName};
use syncline::knowledge::Knowledge;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Hub, lock};
use crate::dialect::meta::Commits;
use crate::limits::{
    WATCH_BUSY, WATCH_INTERVAL_DEFAULT, WATCH_LOOK_INTERVAL, WATCH_LOOK_INTERVAL_BUSY, WATCH_PACE,
    WATCH_SHARE,
};
use crate::replica::{Pending, PollRequest};
use crate::store::KnownScope;

/// Who watches what.
#[derive(Default)]
pub(super) struct Watches {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Whether the task runs.
    running: bool,
    /// What is new, by scope. Entries without receivers go.
    scopes: HashMap<ScopeName, watch::Sender<News>>,
    /// The newest call of each replica.
    calls: HashMap<(ScopeName, ReplicaId), CancellationToken>,
}

/// Something new was seen.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    /// How many heard of it.
    watchers: u32,
}

impl Watches {
    /// Registers a watcher of the scope. Also says whether the task has to be started.
    fn register(&self, scope: &ScopeName) -> (watch::Receiver<News>, bool) {
        let mut inner = lock(&self.inner);
        let news = inner
            .scopes
            .entry(scope.clone())
            .or_insert_with(|| watch::Sender::new(News::default()))
            .subscribe();
        (news, !std::mem::replace(&mut inner.running, true))
    }

    /// The replica's older call ends; the returned token ends the new one.
    fn replace_call(&self, scope: &ScopeName, replica: ReplicaId) -> CancellationToken {
        let call = CancellationToken::new();
        let mut inner = lock(&self.inner);
        inner.calls.retain(|_, call| !call.is_cancelled());
        if let Some(older) = inner.calls.insert((scope.clone(), replica), call.clone()) {
            older.cancel();
        }
        call
    }

    #[cfg(test)]
    pub(super) fn calls(&self) -> usize {
        lock(&self.inner).calls.values().filter(|call| !call.is_cancelled()).count()
    }

    fn tell(&self, scope: &ScopeName) {
        if let Some(news) = lock(&self.inner).scopes.get(scope) {
            let watchers = u32::try_from(news.receiver_count()).unwrap_or(u32::MAX);
            news.send_replace(News { watchers });
        }
    }

    /// The scopes that are watched. If there is none, the task must end: the next watcher starts another.
    fn watched(&self) -> Vec<ScopeName> {
        let mut inner = lock(&self.inner);
        inner.scopes.retain(|_, news| news.receiver_count() > 0);
        inner.running = !inner.scopes.is_empty();
        inner.scopes.keys().cloned().collect()
    }

    /// The task has failed: watchers find their channel closed.
    fn close(&self) {
        let mut inner = lock(&self.inner);
        inner.running = false;
        inner.scopes.clear();
    }
}

impl Hub {
    /// What a replica is told about a scope: at once whether there is something new, and again whenever there may be,
    /// at most once in `interval_min`, and less often where many watch. Ends only with an error.
    pub(super) async fn watch_scope(
        &self,
        request: PollRequest,
        interval_min: Duration,
    ) -> Result<BoxStream<'static, Result<Pending>>> {
        // The scope first: a name that does not exist must not leave anything behind.
        self.stored_scope(&request.scope).await?;
        // Ended with the call, also if the first poll fails.
        let ends = CallEnds(self.watches().replace_call(&request.scope, request.replica));
        let (news, start) = self.watches().register(&request.scope);
        if start {
            self.start_watching();
        }
        let first = self.poll_knowledge(request).await?;
        let watcher = Watcher { news, ends, first: Some(first), told: None, interval_min };
        Ok(stream::unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(pending) => Some((Ok(pending), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }

    fn start_watching(&self) {
        // Weak: a hub that nobody holds any more ends, watched or not.
        let inner = Arc::downgrade(&self.inner);
        let stop = self.tasks().stop.clone();
        self.tasks().spawn(async move {
            let mut looker = match inner.upgrade() {
                Some(inner) => Looker::open(&Self { inner }).await,
                None => return,
            };
            loop {
                let Some(hub) = inner.upgrade().map(|inner| Self { inner }) else { return };
                let pause = match &mut looker {
                    Ok(looker) => looker.look(&hub).await,
                    Err(error) => Err(error.clone()),
                };
                let pause = match pause {
                    Ok(Some(pause)) => pause,
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(%error, detail = error.detail(), "watchers can't be told of news; they come again");
                        return hub.watches().close();
                    }
                };
                drop(hub);
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
            }
        });
    }
}

/// A watcher's end of it.
struct Watcher {
    news: watch::Receiver<News>,
    ends: CallEnds,
    first: Option<Pending>,
    told: Option<Instant>,
    interval_min: Duration,
}

/// Cancels the call's token when it is dropped, so that the registry knows.
struct CallEnds(CancellationToken);

impl Drop for CallEnds {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Watcher {
    async fn next(&mut self) -> Result<Pending> {
        let pending = match self.first.take() {
            Some(first) => first,
            None => self.wait().await?,
        };
        self.told = Some(Instant::now());
        Ok(pending)
    }

    async fn wait(&mut self) -> Result<Pending> {
        let news = async {
            self.news.changed().await.ok()?;
            if let Some(told) = self.told {
                let crowd = WATCH_PACE.saturating_mul(self.news.borrow().watchers);
                tokio::time::sleep_until(told + self.interval_min.max(crowd)).await;
            }
            // What has come meanwhile is told along.
            self.news.borrow_and_update();
            Some(Pending::Maybe)
        };
        let replaced =
            || SyncError::new(ErrorReason::CallReplaced, "a newer WatchScope of the replica took over");
        let failed = || {
            SyncError::new(
                ErrorReason::DatabaseUnavailable,
                "the hub can't look for news at the moment; watch again",
            )
        };
        tokio::select! {
            biased;
            () = self.ends.0.cancelled() => Err(replaced()),
            told = news => told.ok_or_else(failed),
        }
    }
}

/// Looks for commits, and finds out which scopes they are news for.
struct Looker {
    commits: Box<dyn Commits>,
    /// By scope: what its watchers were told of at least.
    told: HashMap<ScopeName, Told>,
    /// When a look found that something was committed.
    committed: Option<Instant>,
    /// The last fold of what was told of.
    folding: Option<JoinHandle<()>>,
}

struct Told {
    fingerprint: [u8; 32],
    knowledge: Knowledge,
}

impl Looker {
    async fn open(hub: &Hub) -> Result<Self> {
        let commits = hub.store().commits().await?;
        Ok(Self { commits, told: HashMap::new(), committed: None, folding: None })
    }

    /// Looks once. Answers the pause before the next look, or nothing if nobody watches any more.
    async fn look(&mut self, hub: &Hub) -> Result<Option<Duration>> {
        let scopes = hub.watches().watched();
        if scopes.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        self.told.retain(|name, _| scopes.contains(name));
        let committed = self.commits.look().await?;
        if committed {
            self.committed = Some(started);
        }
        let mut news = false;
        for name in scopes {
            if committed || !self.told.contains_key(&name) {
                news |= self.look_at(hub, &name).await?;
            }
        }
        Ok(Some(self.interval(news).max(started.elapsed() * WATCH_SHARE)))
    }

    fn interval(&self, news: bool) -> Duration {
        if news {
            // Who was told just now is not told again before, if it does not ask for it; and its session wants the processor.
            return WATCH_INTERVAL_DEFAULT;
        }
        let busy = self.committed.is_some_and(|committed| committed.elapsed() < WATCH_BUSY);
        if busy { WATCH_LOOK_INTERVAL_BUSY } else { WATCH_LOOK_INTERVAL }
    }

    /// Answers whether the scope's watchers were told of news.
    async fn look_at(&mut self, hub: &Hub, name: &ScopeName) -> Result<bool> {
        let nothing = Knowledge::new();
        let told = self.told.get(name);
        let floor = told.map_or(&nothing, |told| &told.knowledge);
        let glance = match hub.store().glance(name, floor).await {
            Err(error) if error.reason() == ErrorReason::TrackingBroken => None,
            glance => glance?,
        };
        let Some(glance) = glance else {
            // It was dropped, or its tables are not tracked as they were: the session says so. Watchers of other scopes have
            // nothing to do with that, and those of this one hear it again with the next commit.
            self.told.insert(name.clone(), Told { fingerprint: [0; 32], knowledge: nothing });
            hub.watches().tell(name);
            return Ok(true);
        };
        let scope = glance.scope;
        let fingerprint = scope.fingerprint;
        if glance.quiet && told.is_some_and(|told| told.fingerprint == fingerprint) {
            return Ok(false);
        }
        // Before they are told: whoever is told begins a session after this snapshot, and learns at least what is in it.
        self.told.insert(name.clone(), Told { fingerprint, knowledge: glance.knowledge });
        hub.watches().tell(name);
        self.fold(hub, scope);
        Ok(true)
    }

    /// Folds what was told of, if it is much, while those who were told are on their way: the first thing that a session does
    /// is done by then. One fold at a time; what it misses is folded by the sessions.
    fn fold(&mut self, hub: &Hub, scope: Arc<KnownScope>) {
        if self.folding.as_ref().is_some_and(|folding| !folding.is_finished()) {
            return;
        }
        let (store, stop) = (Arc::clone(hub.store()), hub.tasks().stop.clone());
        self.folding = Some(tokio::spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled(store.fold_long(&scope)).await {
                tracing::debug!(%error, detail = error.detail(), "news could not be folded; the sessions do it");
            }
        }));
    }
}
