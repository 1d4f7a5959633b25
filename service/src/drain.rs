//! Who is being served, and how to stop: draining (no new sessions), then abort (calls end where they are).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use syncline::error::{ErrorReason, SyncError};
use syncline::ids::SessionId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The state that all calls share.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    draining: CancellationToken,
    abort: CancellationToken,
    calls: Mutex<BTreeMap<u64, Running>>,
    next: AtomicU64,
    /// Told whenever the last call has ended.
    idle: Notify,
}

/// A call that is being served.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) rpc: &'static str,
    pub(crate) request_id: Arc<str>,
    pub(crate) session: Option<SessionId>,
    pub(crate) since: Instant,
}

impl Drain {
    /// Begins to drain: no new sessions.
    pub(crate) fn start(&self) {
        self.draining.cancel();
    }

    /// Whether new sessions are refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Comes when draining begins.
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + Send + 'static {
        self.draining.clone().cancelled_owned()
    }

    /// Ends all calls where they are.
    pub(crate) fn abort(&self) {
        self.abort.cancel();
    }

    /// Comes when calls must end.
    pub(crate) async fn aborted(&self) {
        self.abort.cancelled().await;
    }

    /// Comes when no call runs.
    pub(crate) async fn idle(&self) {
        loop {
            let told = self.idle.notified();
            if self.calls().is_empty() {
                return;
            }
            told.await;
        }
    }

    /// The calls that run now, oldest first.
    pub(crate) fn running(&self) -> Vec<Running> {
        self.calls().values().cloned().collect()
    }

    /// Registers a call until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, rpc: &'static str, request_id: Arc<str>) -> CallGuard {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let running = Running { rpc, request_id, session: None, since: Instant::now() };
        self.calls().insert(number, running);
        CallGuard { drain: Arc::clone(self), number }
    }

    fn calls(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        // The map is changed by single operations: whoever panicked, it is whole.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a call registered.
#[derive(Debug)]
pub(crate) struct CallGuard {
    drain: Arc<Drain>,
    number: u64,
}

impl CallGuard {
    /// Says which session the call belongs to.
    pub(crate) fn note_session(&self, session: SessionId) {
        if let Some(running) = self.drain.calls().get_mut(&self.number) {
            running.session = Some(session);
        }
    }

    /// The state that all calls share.
    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut calls = self.drain.calls();
        calls.remove(&self.number);
        if calls.is_empty() {
            drop(calls);
            self.drain.idle.notify_waiters();
        }
    }
}

/// What a caller hears while the service stops.
pub(crate) fn draining() -> SyncError {
    SyncError::new(
        ErrorReason::Draining,
        "the service is about to stop; repeat the call, and another instance answers",
    )
}
