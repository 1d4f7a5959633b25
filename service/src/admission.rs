//! Refuses what is too much before a byte of it is read, and gives every call its id.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use syncline::error::{ErrorReason, SyncError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};
use uuid::Uuid;

use crate::limits::REQUEST_ID_BYTES_MAX;
use crate::status;

const SYNC_SERVICE_PATH: &str = "/syncline.v1.SyncService/";
const WATCH_PATH: &str = "/syncline.v1.SyncService/WatchScope";
const UPLOAD_PATHS: [&str; 2] =
    ["/syncline.v1.SyncService/UploadBatch", "/syncline.v1.SyncService/UploadChunk"];

/// How much is served at once. Health and reflection are always answered.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    calls: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    /// Those who watch stay for as long as they live. They leave half of the places to those who have something to do; who
    /// is refused asks from time to time instead.
    watches: Arc<Semaphore>,
}

/// A call that was let in: its id, and its places until it is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    request_id: Arc<str>,
    // Shared because a request's extensions must be clonable; nobody clones it.
    _places: Arc<Vec<OwnedSemaphorePermit>>,
}

impl Admitted {
    /// The call's id.
    pub(crate) fn request_id(&self) -> Arc<str> {
        Arc::clone(&self.request_id)
    }
}

impl Admission {
    /// Bounds the calls, and among them the uploads, that are served at once.
    pub(crate) fn new(calls_max: usize, uploads_max: usize) -> Self {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Self {
            calls: semaphore(calls_max),
            uploads: semaphore(uploads_max),
            watches: semaphore(calls_max.div_ceil(2)),
        }
    }

    fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Option<Admitted>, tonic::Status> {
        if !path.starts_with(SYNC_SERVICE_PATH) {
            return Ok(None);
        }
        let request_id = request_id(headers);
        let refuse = |what: &'static str| {
            let error = overloaded(what);
            tracing::warn!(request_id = &*request_id, path, reason = error.reason().as_str(), %error, "refused");
            status::from_error(&error, &request_id, false)
        };
        let mut places = Vec::with_capacity(2);
        let call = Arc::clone(&self.calls).try_acquire_owned();
        places.push(call.map_err(|_| refuse("calls"))?);
        if UPLOAD_PATHS.contains(&path) {
            let upload = Arc::clone(&self.uploads).try_acquire_owned();
            places.push(upload.map_err(|_| refuse("uploads"))?);
        }
        if path == WATCH_PATH {
            let watch = Arc::clone(&self.watches).try_acquire_owned();
            places.push(watch.map_err(|_| refuse("watchers"))?);
        }
        Ok(Some(Admitted { request_id, _places: Arc::new(places) }))
    }
}

fn overloaded(what: &'static str) -> SyncError {
    SyncError::new(ErrorReason::Overloaded, format!("too many {what} at once; repeat the call later"))
}

/// The client's own id if it has one that can be logged, else a new one.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get(status::REQUEST_ID_HEADER).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if is_loggable(id) => Arc::from(id),
        _ => Arc::from(Uuid::now_v7().to_string()),
    }
}

fn is_loggable(id: &str) -> bool {
    !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic())
}

impl<S> Layer<S> for Admission {
    type Service = AdmissionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AdmissionService { admission: self.clone(), inner }
    }
}

/// A service behind the admission.
#[derive(Debug, Clone)]
pub(crate) struct AdmissionService<S> {
    admission: Admission,
    inner: S,
}

impl<S, B> Service<Request<B>> for AdmissionService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.admission.admit(request.uri().path(), request.headers()) {
            Ok(admitted) => {
                if let Some(admitted) = admitted {
                    request.extensions_mut().insert(admitted);
                }
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_place_is_taken_until_the_call_ends() {
        let admission = Admission::new(2, 1);
        let headers = HeaderMap::new();
        let first = admission.admit(UPLOAD_PATHS[0], &headers).unwrap();
        assert!(admission.admit(UPLOAD_PATHS[1], &headers).is_err());
        let second = admission.admit("/syncline.v1.SyncService/GetKnowledge", &headers).unwrap();
        assert!(admission.admit("/syncline.v1.SyncService/GetKnowledge", &headers).is_err());
        drop((first, second));
        assert!(admission.admit(UPLOAD_PATHS[1], &headers).unwrap().is_some());
    }

    #[test]
    fn those_who_watch_leave_half_of_the_places_to_others() {
        let admission = Admission::new(4, 1);
        let headers = HeaderMap::new();
        let watching: Vec<_> =
            (0..2).map(|_| admission.admit(WATCH_PATH, &headers).unwrap().unwrap()).collect();
        assert!(admission.admit(WATCH_PATH, &headers).is_err());
        let call = admission.admit("/syncline.v1.SyncService/BeginSession", &headers).unwrap();
        assert!(call.is_some());
        drop(watching);
        assert!(admission.admit(WATCH_PATH, &headers).unwrap().is_some());
    }

    #[test]
    fn health_is_answered_however_much_there_is_to_do() {
        let admission = Admission::new(0, 0);
        assert!(admission.admit("/grpc.health.v1.Health/Check", &HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn a_request_id_is_taken_over_only_if_it_can_be_logged() {
        for (given, taken) in [("abc-1", true), ("", false), ("two words", false), (&"x".repeat(65), false)] {
            let mut headers = HeaderMap::new();
            headers.insert(status::REQUEST_ID_HEADER, given.parse().unwrap());
            assert_eq!(&*request_id(&headers) == given, taken, "{given:?}");
        }
    }
}
