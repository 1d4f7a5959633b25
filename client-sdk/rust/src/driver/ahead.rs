//! A session that is opened before it is needed. News rarely come alone: after a run that news made due, the next
//! session is opened at once, so that the next news find it open. If none come in time it is given up.
//!
//! **Invariant:** it is used only while what is stored here is what it was begun with, to the byte: so what the hub has
//! checked of it (who we are, the marks, what we know) is as if it had been begun this moment. That time passes between
//! BeginSession and what follows is nothing new: every session may be as slow. If the hub has given it up for another one, it
//! says that there is no such session, and the run begins one as it would have without.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use syncline::ids::SessionId;
use syncline_engine::replica::{Begun, EndRequest, HubReplica, SessionRef};
use syncline_engine::store::Subscription;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::Run;
use crate::limits::{AHEAD_DEADLINE, AHEAD_KEPT};

/// A session that nothing was done in.
pub(super) struct OpenedAhead {
    /// What it was begun with.
    subscription: Subscription,
    /// What the hub answered.
    pub(super) begun: Begun,
    /// The hub's clock less ours.
    pub(super) clock_offset_us: i64,
    /// When it is given up.
    until: Instant,
}

/// Keeps the session that was opened ahead, if there is one.
pub(super) struct Ahead {
    hub: Arc<dyn HubReplica>,
    opened: Mutex<Option<OpenedAhead>>,
    /// Another one is kept.
    changed: Notify,
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").finish_non_exhaustive()
    }
}

impl Ahead {
    pub(super) fn new(hub: Arc<dyn HubReplica>) -> Self {
        Self { hub, opened: Mutex::default(), changed: Notify::new() }
    }

    fn keep(&self, opened: OpenedAhead) {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        self.changed.notify_one();
    }

    fn remove(&self) -> Option<OpenedAhead> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes it, for a session of what is stored. One that was begun with something else is left to the hub, which gives
    /// it up for the session that is begun instead.
    pub(super) fn take(&self, stored: &Subscription) -> Option<OpenedAhead> {
        self.remove().filter(|opened| opened.subscription == *stored && Instant::now() < opened.until)
    }

    /// Gives up what is not used in time. Never ends; may be dropped and called again.
    pub(super) async fn expire(&self) -> Infallible {
        loop {
            let until =
                self.opened.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|it| it.until);
            match until {
                Some(until) => {
                    sleep_until(until).await;
                    self.give_up().await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Tells the hub that it is not needed. The hub gives it up by itself in the end, if it does not hear of it.
    pub(super) async fn give_up(&self) {
        if let Some(opened) = self.remove() {
            self.end(opened.begun.session).await;
        }
    }

    async fn end(&self, session: SessionRef) {
        let ended = timeout(AHEAD_DEADLINE, self.hub.end(session, EndRequest::abandoned())).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::debug!(?ended, "the hub could not be told that a session is not needed");
        }
    }
}

impl Run<'_> {
    /// Opens the next session. It may fail: then the next run opens one.
    pub(super) async fn open_ahead(&self, subscription: Subscription) {
        let asked = self.ask_once(SessionId::fresh(), &subscription, true);
        match timeout(AHEAD_DEADLINE, asked).await {
            Ok(Ok((begun, clock_offset_us))) if !begun.reinitialize => {
                let until = Instant::now() + AHEAD_KEPT;
                self.ahead.keep(OpenedAhead { subscription, begun, clock_offset_us, until });
            }
            // The next run compares everything, in a session that it begins for that.
            Ok(Ok((begun, _))) => self.ahead.end(begun.session).await,
            other => tracing::debug!(?other, "no session was opened ahead"),
        }
    }
}
