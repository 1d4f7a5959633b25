//! A client's stream that is read out even where nobody wants the rest of it.
//!
//! Over HTTP/2 a server that has answered and drops what still comes resets the stream, "no longer needed". Clients must
//! keep the answer that came before (RFC 9113, 8.1), but not all do, at least not always: a refusal became a broken
//! connection now and then, in the middle of an upload. So what still comes is read for a while and thrown away.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::limits::READ_OUT_MAX;

/// The stream inside; when it is dropped before its end, a task reads on, at most for [`READ_OUT_MAX`].
pub(super) struct ReadOut<S: Parts>(Option<S>);

impl<S: Parts> ReadOut<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self(Some(stream))
    }
}

impl<S: Parts> Stream for ReadOut<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let Some(stream) = &mut self.0 else { return Poll::Ready(None) };
        let next = stream.poll_next_unpin(context);
        if let Poll::Ready(None) = next {
            self.0 = None;
        }
        next
    }
}

impl<S: Parts> Drop for ReadOut<S> {
    fn drop(&mut self) {
        // Outside of the runtime the connection is gone too.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if let Some(stream) = self.0.take() {
            runtime.spawn(tokio::time::timeout(READ_OUT_MAX, read_out(stream)));
        }
    }
}

/// Reads to the end, or to the first failure: a stream that has failed may say so for ever.
async fn read_out(mut stream: impl Parts) {
    while let Some(Ok(_)) = stream.next().await {
        // The clock and others get their turn, however much is there.
        tokio::task::consume_budget().await;
    }
}

/// A stream of what comes from a client.
pub(super) trait Parts: Stream<Item = Result<Self::Part, Status>> + Send + Unpin + 'static {
    /// What comes.
    type Part: Send;
}

impl<P: Send, S: Stream<Item = Result<P, Status>> + Send + Unpin + 'static> Parts for S {
    type Part = P;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::stream;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_is_read_for_a_while() {
        let (sender, receiver) = mpsc::channel(1);
        drop(ReadOut::new(ReceiverStream::new(receiver)));
        for number in 0..10 {
            assert!(sender.send(Ok(number)).await.is_ok());
        }
        let started = tokio::time::Instant::now();
        sender.closed().await;
        assert_eq!(started.elapsed(), READ_OUT_MAX);
    }

    #[tokio::test]
    async fn a_stream_that_fails_for_ever_is_left() {
        read_out(stream::repeat_with(|| Err::<(), _>(Status::internal("broken")))).await;
    }

    #[tokio::test]
    async fn what_is_wanted_passes() {
        let all: Vec<_> = ReadOut::new(stream::iter([1, 2, 3].map(Ok))).map(Result::unwrap).collect().await;
        assert_eq!(all, [1, 2, 3]);
    }
}
