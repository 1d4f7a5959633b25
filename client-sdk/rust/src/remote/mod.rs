//! A hub across the network: the protocol's calls, asked as the questions of [`HubReplica`].
//!
//! ```text
//!  question -> request (requests.rs) -> call with deadline (mod.rs, streams.rs) -> checked answer (answers.rs)
//!                                                          \-> status -> SyncError (status.rs)
//! ```
//!
//! Nothing is retried here; every failure says whether a retry may help.

mod answers;
mod connect;
mod requests;
mod status;
mod streams;
#[cfg(test)]
mod tests;
mod token;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use syncline::batch::BatchInfo;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchId, ScopeName};
use syncline::limits::MESSAGE_BYTES_MAX;
use syncline::pb;
use syncline::pb::sync_service_client::SyncServiceClient;
use syncline_engine::replica::{
    ApplyEvent, ApplyRequest, BatchStatus, BeginRequest, Begun, ChangesEvent, ChangesRequest, EndRequest,
    HubReplica, Pending, PollRequest, ServedScope, SessionRef,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::limits;
pub use connect::{RemoteOptions, TlsOptions};
use token::Token;

/// A hub across the network. Connects with the first call, and again whenever the connection was lost; cheap to clone.
#[derive(Debug, Clone)]
pub struct RemoteHub {
    client: SyncServiceClient<Channel>,
    token: Option<Arc<Token>>,
    address: Arc<str>,
    /// Whether the service was ever heard: until then, a broken connection may be one that it expects to be encrypted.
    heard: Arc<AtomicBool>,
}

impl RemoteHub {
    /// Prepares the connection; nothing is sent yet. Reads the files that the options name.
    ///
    /// # Errors
    /// REQUEST_INVALID if the address is none, or a file can't be read or does not hold what it should.
    pub fn new(options: &RemoteOptions) -> Result<Self> {
        let channel = options.channel()?;
        let client = SyncServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let token = options.token_file.as_deref().map(Token::read).transpose()?.map(Arc::new);
        Ok(Self { client, token, address: options.address.as_str().into(), heard: Arc::default() })
    }

    fn client(&self) -> SyncServiceClient<Channel> {
        // A clone shares the connection.
        self.client.clone()
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.authorization());
        }
        request
    }

    /// What a failed call means.
    async fn failed(&self, failure: &tonic::Status) -> SyncError {
        let error = status::to_error(failure, &self.address);
        if !self.heard.load(Ordering::Relaxed) && expects_tls(failure, &error, &self.address).await {
            return status::wants_tls(&self.address);
        }
        error
    }

    /// Waits for an answer, or for the first sign of a stream, at most until the deadline.
    async fn answer<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send,
    ) -> Result<T> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => {
                self.heard.store(true, Ordering::Relaxed);
                Ok(response.into_inner())
            }
            Ok(Err(failure)) => Err(self.failed(&failure).await),
            Err(_) => Err(too_slow(&self.address, deadline)),
        }
    }
}

/// What the status of a service's first call says of the connection to it, if it is no answer of the service.
///
/// DATABASE_UNAVAILABLE, if the connection did not come about or broke: repeating the call may help. REQUEST_INVALID, if
/// it can't come about as it is asked for (a certificate that is refused, TLS on one side alone): the violation names the
/// option, `ca` or `server`, and repeating does not help.
pub async fn connection_failure(failure: &tonic::Status, address: &str) -> Option<SyncError> {
    let error = status::connection_failure(failure, address)?;
    Some(if expects_tls(failure, &error, address).await { status::wants_tls(address) } else { error })
}

/// Whether a call without TLS was cut off because TLS was expected. A TLS port hangs up on plain text, and whether its
/// alert arrives is a matter of chance: so it is asked whether it speaks TLS.
async fn expects_tls(failure: &tonic::Status, error: &SyncError, address: &str) -> bool {
    // Unavailable: there was no connection to begin with.
    let cut = error.reason() == ErrorReason::DatabaseUnavailable && failure.code() != Code::Unavailable;
    cut && address.starts_with("http://") && connect::speaks_tls(address).await
}

fn too_slow(address: &str, deadline: Duration) -> SyncError {
    let seconds = deadline.as_secs();
    SyncError::new(
        ErrorReason::DatabaseUnavailable,
        format!("the service at {address} did not answer within {seconds} s"),
    )
}

#[async_trait]
impl HubReplica for RemoteHub {
    async fn scope(&self, name: &ScopeName) -> Result<ServedScope> {
        let request = pb::GetScopeRequest { scope: name.to_string(), with_local_sql: false };
        let mut client = self.client();
        let call = client.get_scope(self.request(request));
        answers::scope(self.answer(limits::UNARY_DEADLINE, call).await?)
    }

    async fn begin(&self, request: BeginRequest) -> Result<Begun> {
        let session = request.session;
        let mut client = self.client();
        let call = client.begin_session(self.request(requests::begin(request)));
        answers::begun(session, self.answer(limits::BEGIN_DEADLINE, call).await?)
    }

    async fn poll(&self, request: PollRequest) -> Result<Pending> {
        let mut client = self.client();
        let call = client.get_knowledge(self.request(requests::poll(request)));
        Ok(answers::pending(self.answer(limits::UNARY_DEADLINE, call).await?.pending))
    }

    async fn watch(
        &self,
        request: PollRequest,
        interval_min: Duration,
    ) -> Result<BoxStream<'static, Result<Pending>>> {
        let mut client = self.client();
        let call = client.watch_scope(self.request(requests::watch(request, interval_min)));
        let messages = self.answer(limits::SILENCE_MAX, call).await?;
        // Heartbeats too: whoever listens knows that the line is alive.
        let check = |message: pb::WatchScopeResponse| Ok(Some(answers::pending(message.pending)));
        Ok(streams::events(messages, self.address.clone(), limits::SILENCE_MAX, check))
    }

    async fn changes(
        &self,
        session: SessionRef,
        request: ChangesRequest,
    ) -> Result<BoxStream<'static, Result<ChangesEvent>>> {
        let mut client = self.client();
        let call = client.get_changes(self.request(requests::changes(session, request)));
        let messages = self.answer(limits::SILENCE_MAX, call).await?;
        Ok(streams::events(messages, self.address.clone(), limits::SILENCE_MAX, answers::changes_event))
    }

    async fn read_batch(
        &self,
        session: SessionRef,
        batch: BatchId,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let mut client = self.client();
        let call = client.download_batch(self.request(requests::download(session, batch, offset)));
        let messages = self.answer(limits::CHUNK_DEADLINE, call).await?;
        let mut expected = offset;
        let check = move |message| answers::chunk(message, &mut expected);
        Ok(streams::events(messages, self.address.clone(), limits::CHUNK_DEADLINE, check))
    }

    async fn release(&self, session: SessionRef, batches: &[BatchId]) -> Result<()> {
        let mut client = self.client();
        let call = client.release_batches(self.request(requests::release(session, batches)));
        self.answer(limits::UNARY_DEADLINE, call).await.map(|_| ())
    }

    async fn write_batch(
        &self,
        session: SessionRef,
        info: BatchInfo,
        offset: u64,
        bytes: BoxStream<'static, Result<Bytes>>,
    ) -> Result<BatchStatus> {
        let header = requests::upload_header(session, &info, offset);
        let upload = streams::Upload::new(header, bytes);
        let watch = upload.watch();
        let mut client = self.client();
        let call = client.upload_batch(self.request(upload.into_messages()));
        let answer = tokio::select! {
            answer = call => answer.map_err(|failure| status::to_error(&failure, &self.address)),
            () = watch.stalled(limits::CHUNK_DEADLINE) => Err(too_slow(&self.address, limits::CHUNK_DEADLINE)),
        };
        // What went wrong here, while the bytes were read, says more than what the service made of it.
        if let Some(error) = watch.take_error() {
            return Err(error);
        }
        Ok(answers::upload_status(&answer?.into_inner()))
    }

    async fn query_batch(&self, session: SessionRef, batch: BatchId) -> Result<BatchStatus> {
        let mut client = self.client();
        let call = client.query_batch(self.request(requests::query(session, batch)));
        Ok(answers::batch_status(&self.answer(limits::UNARY_DEADLINE, call).await?))
    }

    async fn apply(
        &self,
        session: SessionRef,
        request: ApplyRequest,
    ) -> Result<BoxStream<'static, Result<ApplyEvent>>> {
        let mut client = self.client();
        let call = client.apply_changes(self.request(requests::apply(session, request)));
        let messages = self.answer(limits::SILENCE_MAX, call).await?;
        Ok(streams::events(messages, self.address.clone(), limits::SILENCE_MAX, answers::apply_event))
    }

    async fn end(&self, session: SessionRef, request: EndRequest) -> Result<()> {
        let mut client = self.client();
        let call = client.end_session(self.request(requests::end(session, request)));
        self.answer(limits::UNARY_DEADLINE, call).await.map(|_| ())
    }
}
