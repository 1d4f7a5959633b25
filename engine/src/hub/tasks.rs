//! Who works on a session right now, in this process. Nothing here must survive it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::FutureExt as _;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchId, SessionId, SessionToken};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::apply::ApplyTask;
use super::enumeration::EnumerationTask;
use super::lock;

/// The tasks of all sessions.
#[derive(Default)]
pub(super) struct Tasks {
    draining: AtomicBool,
    tracker: TaskTracker,
    /// Cancelled by [`drain`](Self::drain): what the hub does by itself ends.
    pub(super) stop: CancellationToken,
    /// Cancelled by [`abort`](Self::abort): the parent of all applies' stops.
    cut: CancellationToken,
    sessions: Mutex<HashMap<SessionId, SessionTasks>>,
}

/// The tasks of one session.
#[derive(Default)]
struct SessionTasks {
    enumeration: Option<Arc<EnumerationTask>>,
    apply: Option<Arc<ApplyTask>>,
    /// The GetChanges call that is being answered: a newer one ends it.
    changes_call: Option<CancellationToken>,
    /// Uploads that are being received: a newer call of the same batch ends the older.
    uploads: HashMap<BatchId, UploadCall>,
}

/// The right to receive a batch.
#[derive(Clone)]
pub(super) struct UploadCall {
    /// Cancelled when a newer call takes over.
    pub(super) replaced: CancellationToken,
    /// Held while bytes are received.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

impl Tasks {
    /// # Errors
    /// DRAINING, once [`drain`](Self::drain) was called.
    pub(super) fn check_taking_sessions(&self) -> Result<()> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(SyncError::new(
                ErrorReason::Draining,
                "the service is about to stop; try again, another instance answers",
            )
            .retry_after(std::time::Duration::from_secs(1)));
        }
        Ok(())
    }

    /// Waits until what runs has ended. Enumerations park: they go on from where they are when they are asked again.
    pub(super) async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.stop.cancel();
        for tasks in lock(&self.sessions).values() {
            if let Some(enumeration) = &tasks.enumeration {
                enumeration.stop.cancel();
            }
        }
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Gives up the applies that [`drain`](Self::drain) waited for too long. Their sessions stay, and go on elsewhere.
    pub(super) async fn abort(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.cut.cancel();
        self.drain().await;
    }

    /// What a new apply is to be given up by.
    pub(super) fn apply_stop(&self) -> CancellationToken {
        self.cut.child_token()
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// The session was taken up: what runs goes on under the new token.
    pub(super) fn set_token(&self, session: SessionId, token: SessionToken) {
        if let Some(enumeration) =
            lock(&self.sessions).get(&session).and_then(|tasks| tasks.enumeration.clone())
        {
            enumeration.set_token(token);
        }
    }

    /// Ends the GetChanges call that is being answered; the returned token ends the new one.
    pub(super) fn replace_changes_call(&self, session: SessionId) -> CancellationToken {
        let call = CancellationToken::new();
        let older = lock(&self.sessions).entry(session).or_default().changes_call.replace(call.clone());
        if let Some(older) = older {
            older.cancel();
        }
        call
    }

    pub(super) fn enumeration(&self, session: SessionId) -> Option<Arc<EnumerationTask>> {
        lock(&self.sessions).get(&session).and_then(|tasks| tasks.enumeration.clone())
    }

    /// Whether an enumeration of the session runs, or has run, here.
    pub(super) fn enumerates(&self, session: SessionId) -> bool {
        self.enumeration(session).is_some_and(|task| !task.has_failed())
    }

    /// Keeps the task, unless another call of the session was quicker: then answers that call's.
    pub(super) fn keep_enumeration(
        &self,
        session: SessionId,
        task: Arc<EnumerationTask>,
    ) -> Arc<EnumerationTask> {
        let mut sessions = lock(&self.sessions);
        let tasks = sessions.entry(session).or_default();
        match &tasks.enumeration {
            Some(running) if !running.has_failed() => running.clone(),
            _ => {
                tasks.enumeration = Some(task.clone());
                task
            }
        }
    }

    pub(super) fn apply(&self, session: SessionId) -> Option<Arc<ApplyTask>> {
        lock(&self.sessions).get(&session).and_then(|tasks| tasks.apply.clone())
    }

    /// Keeps the task, unless another call of the session was quicker: then answers that call's.
    pub(super) fn keep_apply(&self, session: SessionId, task: Arc<ApplyTask>) -> Arc<ApplyTask> {
        let mut sessions = lock(&self.sessions);
        let tasks = sessions.entry(session).or_default();
        match &tasks.apply {
            Some(running) if !running.has_failed() => running.clone(),
            _ => {
                tasks.apply = Some(task.clone());
                task
            }
        }
    }

    /// Ends the call that receives this batch; the new one waits for its turn.
    pub(super) fn replace_upload_call(&self, session: SessionId, batch: BatchId) -> UploadCall {
        let mut sessions = lock(&self.sessions);
        let uploads = &mut sessions.entry(session).or_default().uploads;
        let turn = match uploads.get(&batch) {
            Some(older) => {
                older.replaced.cancel();
                older.turn.clone()
            }
            None => Arc::default(),
        };
        let call = UploadCall { replaced: CancellationToken::new(), turn };
        uploads.insert(batch, call.clone());
        call
    }

    /// The batch is whole: nobody waits for it any more.
    pub(super) fn forget_upload(&self, session: SessionId, batch: BatchId) {
        if let Some(tasks) = lock(&self.sessions).get_mut(&session) {
            tasks.uploads.remove(&batch);
        }
    }

    /// Stops everything of a session that ends, and answers when nothing of it runs any more. An apply is given up; if
    /// its commit was quicker, it has been applied.
    pub(super) async fn stop(&self, session: SessionId) {
        let stopped = lock(&self.sessions).remove(&session);
        let Some(stopped) = stopped else { return };
        if let Some(call) = stopped.changes_call {
            call.cancel();
        }
        for upload in stopped.uploads.values() {
            upload.replaced.cancel();
        }
        if let Some(enumeration) = stopped.enumeration {
            enumeration.stop.cancel();
            enumeration.stopped().await;
        }
        if let Some(apply) = stopped.apply {
            apply.stop().await;
        }
    }
}

/// Runs the work of a task. A panic is a failure like others: who waits for the outcome hears of it, and the session can
/// go on, instead of waiting for ever.
pub(super) async fn settled<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // What the work has changed, and others still see, are numbers and lists that are changed by single assignments; its
    // transaction is rolled back as it is dropped.
    let unwound = AssertUnwindSafe(work).catch_unwind().await;
    unwound.unwrap_or_else(|_| Err(SyncError::internal("a task of the session panicked; the log says where")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_that_others_hear_of() {
        assert!(matches!(settled(async { Ok(1) }).await, Ok(1)));
        let panicked = settled::<u32>(async { panic!("a fault") }).await;
        assert!(matches!(panicked, Err(error) if error.reason() == ErrorReason::Internal));
    }
}
