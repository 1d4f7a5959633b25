//! Turns a hub's events into a response stream: bounded, alive, and never cut short without a word.
//!
//! ```text
//!  hub's stream --> pump (a task) --channel of 4--> Reply --> HTTP/2
//!                     | signs of life                 ^
//!                     +---- how it ended -------------+
//! ```

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::limits::CHUNK_CHANNEL_MAX;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tonic::{Response, Status};
use tracing::Instrument as _;

use crate::call::Call;
use crate::drain::draining;
use crate::limits::KEEPALIVE_INTERVAL;

/// Says how events become messages.
pub(super) trait Translate: Send + 'static {
    /// What the hub tells.
    type Event: Send + 'static;
    /// What travels.
    type Message: Send + 'static;

    /// The messages that an event becomes.
    fn messages(&mut self, event: Self::Event) -> Vec<Self::Message>;

    /// What is sent when nothing has happened for [`KEEPALIVE_INTERVAL`]; `None` where silence is allowed.
    fn sign_of_life(&self) -> Option<Self::Message>;

    /// Whether the stream may end here. A hub that stops in the middle is a fault, never a short answer.
    fn is_complete(&self) -> bool;
}

/// A hub's answer to a streaming call, before it has been awaited: opening it may take as long as the rest.
pub(super) type Opening<E> = BoxFuture<'static, Result<BoxStream<'static, Result<E>>>>;

/// Answers a call with what the hub tells. The call's place is held until the last message was taken.
pub(super) fn reply<T: Translate>(
    call: Call,
    opening: Opening<T::Event>,
    translate: T,
) -> Response<Reply<T::Message>> {
    let (sender, receiver) = mpsc::channel(CHUNK_CHANNEL_MAX);
    let ending = Arc::new(OnceLock::new());
    let response = call.response(Reply { receiver, ending: Arc::clone(&ending), ended: false });
    let span = call.span();
    tokio::spawn(
        async move {
            let end = match pump(&call, opening, translate, &sender).await {
                Ok(End::Complete) => {
                    call.succeeded();
                    None
                }
                Ok(End::Left) => {
                    call.left();
                    return;
                }
                Err(error) => Some(call.failed(&error)),
            };
            // Set before the channel closes, and by nobody else.
            let _ = ending.set(end);
        }
        .instrument(span),
    );
    response
}

enum End {
    Complete,
    /// The client went away.
    Left,
}

async fn pump<T: Translate>(
    call: &Call,
    opening: Opening<T::Event>,
    mut translate: T,
    sender: &mpsc::Sender<T::Message>,
) -> Result<End> {
    let mut source = Source::Opening(opening);
    let mut silent_until = Instant::now() + KEEPALIVE_INTERVAL;
    loop {
        let messages = tokio::select! {
            biased;
            () = call.aborted() => return Err(draining()),
            () = sender.closed() => return Ok(End::Left),
            event = source.next() => match event.transpose()? {
                Some(event) => translate.messages(event),
                None if translate.is_complete() => return all_taken(call, sender).await,
                None => return Err(SyncError::internal("the hub's stream ended before its last event")),
            },
            () = sleep_until(silent_until) => translate.sign_of_life().into_iter().collect(),
        };
        for message in messages {
            tokio::select! {
                biased;
                () = call.aborted() => return Err(draining()),
                sent = sender.send(message) => if sent.is_err() { return Ok(End::Left) },
            }
        }
        silent_until = Instant::now() + KEEPALIVE_INTERVAL;
    }
}

/// Waits until the transport has taken every message: only then is the call over.
async fn all_taken<M>(call: &Call, sender: &mpsc::Sender<M>) -> Result<End> {
    tokio::select! {
        biased;
        () = call.aborted() => Err(draining()),
        room = sender.reserve_many(CHUNK_CHANNEL_MAX) => Ok(if room.is_ok() { End::Complete } else { End::Left }),
    }
}

/// A hub's events, from the moment they were asked for.
enum Source<E> {
    Opening(Opening<E>),
    Open(BoxStream<'static, Result<E>>),
    Failed,
}

impl<E> Source<E> {
    /// The next event. May be dropped and called again without losing one.
    async fn next(&mut self) -> Option<Result<E>> {
        if let Self::Opening(opening) = self {
            match opening.await {
                Ok(stream) => *self = Self::Open(stream),
                Err(error) => {
                    *self = Self::Failed;
                    return Some(Err(error));
                }
            }
        }
        match self {
            Self::Open(stream) => stream.next().await,
            Self::Opening(_) | Self::Failed => None,
        }
    }
}

/// The response stream. Unlike a bare channel it tells the end from a task that died.
pub(crate) struct Reply<M> {
    receiver: mpsc::Receiver<M>,
    /// `None` inside: all was sent.
    ending: Arc<OnceLock<Option<Status>>>,
    ended: bool,
}

impl<M> Stream for Reply<M> {
    type Item = std::result::Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(message) = ready!(self.receiver.poll_recv(context)) {
            return Poll::Ready(Some(Ok(message)));
        }
        self.ended = true;
        let died = || {
            let error = SyncError::new(ErrorReason::Internal, "the call ended in the middle; repeat it");
            Some(crate::status::from_error(&error, "", false))
        };
        Poll::Ready(self.ending.get().cloned().unwrap_or_else(died).map(Err))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::stream;
    use tonic::{Code, Request};

    use super::*;
    use crate::drain::Drain;

    /// Events are numbers; 0 is the last one.
    #[derive(Default)]
    struct Numbers {
        ended: bool,
    }

    impl Translate for Numbers {
        type Event = u32;
        type Message = String;
        fn messages(&mut self, event: u32) -> Vec<String> {
            self.ended = event == 0;
            vec![event.to_string()]
        }
        fn sign_of_life(&self) -> Option<String> {
            Some("alive".to_owned())
        }
        fn is_complete(&self) -> bool {
            self.ended
        }
    }

    fn call(drain: &Arc<Drain>) -> Call {
        Call::begin("Numbers", tracing::Span::none(), &mut Request::new(()), drain, false)
    }

    fn opened(events: impl Stream<Item = Result<u32>> + Send + 'static) -> Opening<u32> {
        Box::pin(async move { Ok(events.boxed()) })
    }

    async fn told(opening: Opening<u32>) -> Vec<std::result::Result<String, Code>> {
        let reply = reply(call(&Arc::default()), opening, Numbers::default()).into_inner();
        reply.map(|message| message.map_err(|status| status.code())).collect().await
    }

    #[tokio::test]
    async fn a_stream_ends_well_only_after_its_last_event() {
        let whole = stream::iter([Ok(2), Ok(1), Ok(0)]);
        assert_eq!(told(opened(whole)).await, [Ok("2".into()), Ok("1".into()), Ok("0".into())]);
        let short = stream::iter([Ok(2)]);
        assert_eq!(told(opened(short)).await, [Ok("2".into()), Err(Code::Internal)]);
        let failed = stream::iter([Ok(2), Err(SyncError::new(ErrorReason::SessionState, "no"))]);
        assert_eq!(told(opened(failed)).await, [Ok("2".into()), Err(Code::FailedPrecondition)]);
        let refused = Box::pin(async { Err(SyncError::new(ErrorReason::SessionNotFound, "no")) });
        assert_eq!(told(refused).await, [Err(Code::NotFound)]);
        let panicked: Opening<u32> = Box::pin(async { panic!("a fault of the hub") });
        assert_eq!(told(panicked).await, [Err(Code::Internal)]);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_with_signs_of_life_from_the_first_second() {
        let opening: Opening<u32> = Box::pin(std::future::pending());
        let mut reply = reply(call(&Arc::default()), opening, Numbers::default()).into_inner();
        let before = Instant::now();
        for _ in 0..3 {
            assert_eq!(reply.next().await.unwrap().unwrap(), "alive");
        }
        assert_eq!(Instant::now() - before, 3 * KEEPALIVE_INTERVAL);
    }

    #[tokio::test]
    async fn an_abort_reaches_a_caller_that_does_not_read() {
        let drain = Arc::new(Drain::default());
        let endless = stream::repeat_with(|| Ok(1));
        let reply = reply(call(&drain), opened(endless), Numbers::default()).into_inner();
        assert_eq!(drain.running().len(), 1);
        drain.abort();
        drain.idle().await;
        let told: Vec<_> = reply.collect().await;
        assert_eq!(told.last().unwrap().as_ref().unwrap_err().code(), Code::Unavailable);
        assert!(told.len() <= CHUNK_CHANNEL_MAX + 1);
    }

    #[tokio::test]
    async fn a_call_is_over_only_when_its_last_message_was_taken() {
        let drain = Arc::new(Drain::default());
        let whole = stream::iter([Ok(1), Ok(0)]);
        let mut reply = reply(call(&drain), opened(whole), Numbers::default()).into_inner();
        assert_eq!(reply.next().await.unwrap().unwrap(), "1");
        assert!(futures_util::FutureExt::now_or_never(drain.idle()).is_none());
        assert_eq!(reply.next().await.unwrap().unwrap(), "0");
        assert!(reply.next().await.is_none());
        drain.idle().await;
    }

    #[tokio::test]
    async fn a_caller_that_leaves_ends_the_call() {
        let drain = Arc::new(Drain::default());
        let reply = reply(call(&drain), opened(stream::pending()), Numbers::default());
        drop(reply);
        drain.idle().await;
    }
}
