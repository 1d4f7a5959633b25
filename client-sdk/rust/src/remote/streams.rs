//! Streams of the protocol, with an eye on silence.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use syncline::error::{Result, SyncError};
use syncline::pb;
use tokio::time::Instant;
use tonic::Streaming;

use super::{status, too_slow};

/// The checked messages of an answer. Fails if none comes for `silence_max`; the time during which nobody asks for the
/// next one does not count. After a failure it is at its end.
pub(super) fn events<M: Send + 'static, E: Send + 'static>(
    messages: Streaming<M>,
    address: Arc<str>,
    silence_max: Duration,
    check: impl FnMut(M) -> Result<Option<E>> + Send + 'static,
) -> BoxStream<'static, Result<E>> {
    let reader = Reader { messages, address, silence_max, check };
    stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(event)) => Some((Ok(event), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Reader<M, C> {
    messages: Streaming<M>,
    address: Arc<str>,
    silence_max: Duration,
    check: C,
}

impl<M, E, C: FnMut(M) -> Result<Option<E>>> Reader<M, C> {
    async fn next(&mut self) -> Result<Option<E>> {
        loop {
            let message = match tokio::time::timeout(self.silence_max, self.messages.message()).await {
                Ok(Ok(message)) => message,
                Ok(Err(failure)) => return Err(status::to_error(&failure, &self.address)),
                Err(_) => return Err(too_slow(&self.address, self.silence_max)),
            };
            let Some(message) = message else { return Ok(None) };
            if let Some(event) = (self.check)(message)? {
                return Ok(Some(event));
            }
        }
    }
}

/// An upload: its header, then its bytes; watched from outside for progress and for errors of this side.
pub(super) struct Upload {
    header: Option<pb::UploadBatchHeader>,
    bytes: BoxStream<'static, Result<Bytes>>,
    watch: UploadWatch,
}

/// What is seen of an upload from outside.
#[derive(Clone)]
pub(super) struct UploadWatch(Arc<Mutex<Watched>>);

struct Watched {
    progress_at: Instant,
    error: Option<SyncError>,
}

impl Upload {
    pub(super) fn new(header: pb::UploadBatchHeader, bytes: BoxStream<'static, Result<Bytes>>) -> Self {
        let watched = Watched { progress_at: Instant::now(), error: None };
        Self { header: Some(header), bytes, watch: UploadWatch(Arc::new(Mutex::new(watched))) }
    }

    pub(super) fn watch(&self) -> UploadWatch {
        self.watch.clone()
    }

    pub(super) fn into_messages(self) -> impl Stream<Item = pb::UploadBatchRequest> + Send + 'static {
        self
    }
}

impl UploadWatch {
    fn with<T>(&self, change: impl FnOnce(&mut Watched) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What went wrong while the bytes were read here.
    pub(super) fn take_error(&self) -> Option<SyncError> {
        self.with(|watched| watched.error.take())
    }

    /// Answers once nothing was taken from the upload for that long.
    pub(super) async fn stalled(&self, silence_max: Duration) {
        loop {
            let deadline = self.with(|watched| watched.progress_at) + silence_max;
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

impl Stream for Upload {
    type Item = pb::UploadBatchRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        use pb::upload_batch_request::Part;
        let part = if let Some(header) = self.header.take() {
            Part::Header(header)
        } else {
            match self.bytes.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(chunk))) => Part::Chunk(chunk),
                Poll::Ready(Some(Err(error))) => {
                    // The stream ends here: the service keeps what it has, and the caller hears of the error.
                    self.watch.with(|watched| watched.error = Some(error));
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => return Poll::Ready(None),
            }
        };
        self.watch.with(|watched| watched.progress_at = Instant::now());
        Poll::Ready(Some(pb::UploadBatchRequest { part: Some(part) }))
    }
}
