//! What every rpc has in common: request id, span, deadline, how it ends, and the one line that is logged of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::FutureExt as _;
use syncline::error::{ErrorReason, Result, StatusCode, SyncError};
use syncline::ids::{BatchId, ReplicaId, ScopeName, SessionId};
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span, field};

use crate::admission::Admitted;
use crate::drain::{CallGuard, Drain, draining};
use crate::status;

/// The span of an rpc. Fields that the request names are recorded once they are checked.
macro_rules! rpc_span {
    ($name:literal) => {
        tracing::info_span!(
            $name,
            request_id = tracing::field::Empty,
            client = tracing::field::Empty,
            session = tracing::field::Empty,
            replica = tracing::field::Empty,
            scope = tracing::field::Empty,
            batch = tracing::field::Empty,
        )
    };
}
pub(crate) use rpc_span;

/// One rpc from its first byte to its last; holds its place in the service until it is dropped.
pub(crate) struct Call {
    rpc: &'static str,
    request_id: Arc<str>,
    verbose_errors: bool,
    started: Instant,
    span: Span,
    guard: CallGuard,
    _admitted: Option<Admitted>,
}

impl Call {
    /// Begins a call; takes what the admission left in the request.
    pub(crate) fn begin<T>(
        rpc: &'static str,
        span: Span,
        request: &mut Request<T>,
        drain: &Arc<Drain>,
        verbose_errors: bool,
    ) -> Self {
        let admitted = request.extensions_mut().remove::<Admitted>();
        let request_id = admitted.as_ref().map_or_else(|| Arc::from(""), Admitted::request_id);
        span.record("request_id", &*request_id);
        if let Some(client) = request.remote_addr() {
            span.record("client", field::display(client));
        }
        let guard = drain.enter(rpc, Arc::clone(&request_id));
        let started = Instant::now();
        Self { rpc, request_id, verbose_errors, started, span, guard, _admitted: admitted }
    }

    /// Names the session in the span and among the running calls.
    pub(crate) fn note_session(&self, session: SessionId) {
        self.span.record("session", field::display(session));
        self.guard.note_session(session);
    }

    /// Names the replica and the scope in the span.
    pub(crate) fn note_replica(&self, replica: ReplicaId, scope: &ScopeName) {
        self.span.record("replica", field::display(replica));
        self.note_scope(scope);
    }

    /// Names the scope in the span.
    pub(crate) fn note_scope(&self, scope: &ScopeName) {
        self.span.record("scope", scope.as_str());
    }

    /// Names the batch in the span.
    pub(crate) fn note_batch(&self, batch: BatchId) {
        self.span.record("batch", field::display(batch));
    }

    /// The span, for work that is done elsewhere.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Comes when the call must end because the service stops.
    pub(crate) async fn aborted(&self) {
        self.guard.drain().aborted().await;
    }

    /// Comes when the service begins to stop; outlives the call.
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + Send + 'static {
        self.guard.drain().draining()
    }

    /// # Errors
    /// DRAINING, if the service is about to stop.
    pub(crate) fn refuse_while_draining(&self) -> Result<()> {
        if self.guard.drain().is_draining() { Err(draining()) } else { Ok(()) }
    }

    /// Runs a call that has one answer, within its deadline (`None`: it watches its own progress). A panic is answered
    /// with INTERNAL: dropped, the stream would be reset, and look like a broken connection.
    pub(crate) async fn unary<T>(
        self,
        deadline: Option<Duration>,
        work: impl AsyncFnOnce(&Self) -> Result<T>,
    ) -> std::result::Result<Response<T>, Status> {
        let bounded = async {
            match deadline {
                Some(deadline) => tokio::time::timeout(deadline, work(&self))
                    .await
                    .unwrap_or_else(|_| Err(too_slow(deadline))),
                None => work(&self).await,
            }
        };
        let result = tokio::select! {
            biased;
            () = self.aborted() => Err(draining()),
            // Nothing of what the work held is looked at again.
            result = AssertUnwindSafe(bounded.instrument(self.span())).catch_unwind() => {
                result.unwrap_or_else(|_| Err(SyncError::internal("the call panicked; the log says where")))
            }
        };
        match result {
            Ok(answer) => {
                self.succeeded();
                Ok(self.response(answer))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// An answer that names the request.
    pub(crate) fn response<T>(&self, answer: T) -> Response<T> {
        let mut response = Response::new(answer);
        if let Some(value) = status::request_id_value(&self.request_id) {
            response.metadata_mut().insert(status::REQUEST_ID_HEADER, value);
        }
        response
    }

    /// The call went well: logs it.
    pub(crate) fn succeeded(&self) {
        let _entered = self.span.enter();
        tracing::debug!(rpc = self.rpc, elapsed_ms = self.elapsed_ms(), "done");
    }

    /// The caller went away before the end: logs it.
    pub(crate) fn left(&self) {
        let _entered = self.span.enter();
        tracing::debug!(rpc = self.rpc, elapsed_ms = self.elapsed_ms(), "the caller went away");
    }

    /// The call failed: logs it, once, and makes the status that the caller gets.
    pub(crate) fn failed(&self, error: &SyncError) -> Status {
        let _entered = self.span.enter();
        let (rpc, elapsed_ms) = (self.rpc, self.elapsed_ms());
        let (reason, detail) = (error.reason().as_str(), error.detail());
        // A fault of ours is for the operator; the caller's own are its own business.
        match error.reason().status() {
            StatusCode::Internal => tracing::error!(rpc, elapsed_ms, reason, %error, detail, "failed"),
            // Expected of a service that stops: its callers find another.
            _ if error.reason() == ErrorReason::Draining => {
                tracing::info!(rpc, elapsed_ms, reason, %error, detail, "refused")
            }
            StatusCode::Unavailable | StatusCode::ResourceExhausted | StatusCode::DataLoss => {
                tracing::warn!(rpc, elapsed_ms, reason, %error, detail, "failed");
            }
            _ => tracing::info!(rpc, elapsed_ms, reason, %error, detail, "refused"),
        }
        status::from_error(error, &self.request_id, self.verbose_errors)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn too_slow(deadline: Duration) -> SyncError {
    SyncError::new(
        ErrorReason::DatabaseUnavailable,
        format!("there was no answer within {} s; repeat the call later", deadline.as_secs()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered() {
        let drain = Arc::default();
        let call = Call::begin("Broken", Span::none(), &mut Request::new(()), &drain, false);
        let answer = call.unary(None, async |_| -> Result<()> { panic!("a fault") }).await;
        assert!(matches!(answer, Err(status) if status.code() == tonic::Code::Internal));
        assert!(drain.running().is_empty());
    }
}
