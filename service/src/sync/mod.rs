//! SyncService: one file per rpc. Here stands only what gRPC wants of each: its span, its deadline, its shape.

mod apply_changes;
mod begin_session;
mod download_batch;
mod end_session;
mod fields;
mod get_changes;
mod get_digests;
mod get_knowledge;
mod get_scope;
mod list_scopes;
mod query_batch;
mod release_batches;
mod stream;
mod upload_batch;
mod upload_chunk;
mod watch_scope;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use syncline::error::{ErrorReason, SyncError};
use syncline::pb;
use syncline::pb::sync_service_server::SyncService;
use syncline_engine::replica::Pending;
use tonic::{Request, Response, Status, Streaming};

use crate::ServedHub;
use crate::call::{Call, rpc_span};
use crate::drain::Drain;
use crate::limits::{BEGIN_DEADLINE, CHUNK_DEADLINE, UNARY_DEADLINE};
use stream::Reply;

/// What the rpcs need to know of the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// How long a session is kept without a call.
    pub(crate) lease: Duration,
    /// The decoded content of the largest batch that any session may agree on.
    pub(crate) content_bytes_max: u64,
    /// Whether callers may see what otherwise only the log says.
    pub(crate) verbose_errors: bool,
}

/// The service in front of a hub.
pub(crate) struct SyncApi {
    hub: Arc<dyn ServedHub>,
    drain: Arc<Drain>,
    settings: Settings,
}

impl SyncApi {
    pub(crate) fn new(hub: Arc<dyn ServedHub>, drain: Arc<Drain>, settings: Settings) -> Self {
        Self { hub, drain, settings }
    }

    /// Begins a call, and takes the message out of its request.
    fn begin<T>(&self, rpc: &'static str, span: tracing::Span, mut request: Request<T>) -> (Call, T) {
        let call = Call::begin(rpc, span, &mut request, &self.drain, self.settings.verbose_errors);
        (call, request.into_inner())
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl SyncService for SyncApi {
    async fn begin_session(
        &self,
        request: Request<pb::BeginSessionRequest>,
    ) -> Answer<pb::BeginSessionResponse> {
        let (call, message) = self.begin("BeginSession", rpc_span!("sync.begin_session"), request);
        let (hub, lease) = (&*self.hub, self.settings.lease);
        call.unary(Some(BEGIN_DEADLINE), async |call| begin_session::serve(hub, call, lease, message).await)
            .await
    }

    async fn get_knowledge(
        &self,
        request: Request<pb::GetKnowledgeRequest>,
    ) -> Answer<pb::GetKnowledgeResponse> {
        let (call, message) = self.begin("GetKnowledge", rpc_span!("sync.get_knowledge"), request);
        let hub = &*self.hub;
        call.unary(Some(UNARY_DEADLINE), async |call| get_knowledge::serve(hub, call, message).await).await
    }

    type GetChangesStream = Reply<pb::GetChangesResponse>;

    async fn get_changes(&self, request: Request<pb::GetChangesRequest>) -> Answer<Self::GetChangesStream> {
        let (call, message) = self.begin("GetChanges", rpc_span!("sync.get_changes"), request);
        get_changes::serve(Arc::clone(&self.hub), call, message)
    }

    type DownloadBatchStream = Reply<pb::DownloadBatchResponse>;

    async fn download_batch(
        &self,
        request: Request<pb::DownloadBatchRequest>,
    ) -> Answer<Self::DownloadBatchStream> {
        let (call, message) = self.begin("DownloadBatch", rpc_span!("sync.download_batch"), request);
        download_batch::serve(Arc::clone(&self.hub), call, message)
    }

    async fn release_batches(
        &self,
        request: Request<pb::ReleaseBatchesRequest>,
    ) -> Answer<pb::ReleaseBatchesResponse> {
        let (call, message) = self.begin("ReleaseBatches", rpc_span!("sync.release_batches"), request);
        let hub = &*self.hub;
        call.unary(Some(UNARY_DEADLINE), async |call| release_batches::serve(hub, call, message).await).await
    }

    async fn upload_batch(
        &self,
        request: Request<Streaming<pb::UploadBatchRequest>>,
    ) -> Answer<pb::UploadBatchResponse> {
        let (call, messages) = self.begin("UploadBatch", rpc_span!("sync.upload_batch"), request);
        let (hub, bound) = (&*self.hub, self.settings.content_bytes_max);
        // No deadline as a whole: every chunk has one.
        call.unary(None, async |call| upload_batch::serve(hub, call, bound, messages).await).await
    }

    async fn upload_chunk(
        &self,
        request: Request<pb::UploadChunkRequest>,
    ) -> Answer<pb::UploadChunkResponse> {
        let (call, message) = self.begin("UploadChunk", rpc_span!("sync.upload_chunk"), request);
        let (hub, bound) = (&*self.hub, self.settings.content_bytes_max);
        call.unary(Some(CHUNK_DEADLINE), async |call| upload_chunk::serve(hub, call, bound, message).await)
            .await
    }

    async fn query_batch(&self, request: Request<pb::QueryBatchRequest>) -> Answer<pb::QueryBatchResponse> {
        let (call, message) = self.begin("QueryBatch", rpc_span!("sync.query_batch"), request);
        let hub = &*self.hub;
        call.unary(Some(UNARY_DEADLINE), async |call| query_batch::serve(hub, call, message).await).await
    }

    type ApplyChangesStream = Reply<pb::ApplyChangesResponse>;

    async fn apply_changes(
        &self,
        request: Request<pb::ApplyChangesRequest>,
    ) -> Answer<Self::ApplyChangesStream> {
        let (call, message) = self.begin("ApplyChanges", rpc_span!("sync.apply_changes"), request);
        apply_changes::serve(Arc::clone(&self.hub), call, self.settings.content_bytes_max, message)
    }

    async fn end_session(&self, request: Request<pb::EndSessionRequest>) -> Answer<pb::EndSessionResponse> {
        let (call, message) = self.begin("EndSession", rpc_span!("sync.end_session"), request);
        let hub = &*self.hub;
        call.unary(Some(UNARY_DEADLINE), async |call| end_session::serve(hub, call, message).await).await
    }

    async fn list_scopes(&self, request: Request<pb::ListScopesRequest>) -> Answer<pb::ListScopesResponse> {
        let (call, message) = self.begin("ListScopes", rpc_span!("sync.list_scopes"), request);
        let hub = &*self.hub;
        call.unary(Some(UNARY_DEADLINE), async |_| list_scopes::serve(hub, &message).await).await
    }

    async fn get_scope(&self, request: Request<pb::GetScopeRequest>) -> Answer<pb::GetScopeResponse> {
        let (call, message) = self.begin("GetScope", rpc_span!("sync.get_scope"), request);
        let hub = &*self.hub;
        call.unary(Some(UNARY_DEADLINE), async |call| get_scope::serve(hub, call, message).await).await
    }

    type WatchScopeStream = Reply<pb::WatchScopeResponse>;

    async fn watch_scope(&self, request: Request<pb::WatchScopeRequest>) -> Answer<Self::WatchScopeStream> {
        let (call, message) = self.begin("WatchScope", rpc_span!("sync.watch_scope"), request);
        watch_scope::serve(Arc::clone(&self.hub), call, message)
    }

    type GetDigestsStream = Reply<pb::GetDigestsResponse>;

    async fn get_digests(&self, request: Request<pb::GetDigestsRequest>) -> Answer<Self::GetDigestsStream> {
        let (call, message) = self.begin("GetDigests", rpc_span!("sync.get_digests"), request);
        Err(call.failed(&get_digests::serve(&message)))
    }
}

/// This version can't do that.
fn unsupported(feature: &'static str, remedy: &'static str) -> SyncError {
    SyncError::new(ErrorReason::FeatureUnsupported, remedy).with("feature", feature)
}

/// Whether there is something new, as a message.
const fn pending_message(pending: Pending) -> pb::Pending {
    match pending {
        Pending::None => pb::Pending::None,
        Pending::Some => pb::Pending::Some,
        Pending::Maybe => pb::Pending::Maybe,
    }
}

/// The 16 bytes of a mark, or none.
fn mark_bytes(mark: Option<syncline::ids::Mark>) -> Bytes {
    mark.map_or_else(Bytes::new, |mark| Bytes::copy_from_slice(mark.as_bytes()))
}

/// A length of time as a message; what no message can hold is as good as for ever.
fn duration_message(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}
