//! A service that answers as it is told, over a real socket.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use syncline::pb;
use syncline::pb::sync_service_server::{SyncService, SyncServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// What the service has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) authorization: Vec<String>,
    pub(super) uploaded: Vec<u8>,
    pub(super) leaf_clock: Option<pb::ReplicaClock>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Service {
    pub(super) seen: Arc<Mutex<Seen>>,
}

impl Service {
    pub(super) async fn listen(&self) -> String {
        format!("http://127.0.0.1:{}", self.listen_with(tonic::transport::Server::builder()).await)
    }

    /// With TLS, as "localhost"; answers the port.
    pub(super) async fn listen_with_tls(&self) -> u16 {
        let read = |name: &str| std::fs::read(super::tls::fixture(name)).unwrap();
        let identity = tonic::transport::Identity::from_pem(read("cert.pem"), read("key.pem"));
        let tls = tonic::transport::ServerTlsConfig::new().identity(identity);
        self.listen_with(tonic::transport::Server::builder().tls_config(tls).unwrap()).await
    }

    async fn listen_with(&self, mut server: tonic::transport::Server) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(server.add_service(SyncServiceServer::new(self.clone())).serve_with_incoming(incoming));
        port
    }

    fn note<T>(&self, request: &Request<T>) {
        let header = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.seen.lock().unwrap().authorization.extend(header);
    }
}

pub(super) fn begun() -> pb::BeginSessionResponse {
    pb::BeginSessionResponse {
        session_token: Bytes::from_static(&[7; 16]),
        agreement: Some(pb::Agreement {
            codec: pb::Codec::Zstd as i32,
            batch_bytes_max: 4 << 20,
            row_bytes_max: 64 << 20,
            batches_in_flight_max: 4,
            features: Vec::new(),
        }),
        resume: None,
        hint: pb::SessionHint::Synchronise as i32,
        upload_mark: Bytes::new(),
        hub_replica_id: Bytes::from_static(&[9; 16]),
        lease: None,
        service_time: Some(prost_types::Timestamp { seconds: 1_000, nanos: 5 }),
    }
}

/// A stream that says this, and then is silent.
fn hanging<T: Send + 'static>(first: Vec<T>) -> Answer<Answers<T>> {
    Ok(Response::new(stream::iter(first.into_iter().map(Ok)).chain(stream::pending()).boxed()))
}

#[tonic::async_trait]
impl SyncService for Service {
    async fn begin_session(
        &self,
        request: Request<pb::BeginSessionRequest>,
    ) -> Answer<pb::BeginSessionResponse> {
        self.note(&request);
        Ok(Response::new(begun()))
    }

    async fn get_knowledge(
        &self,
        request: Request<pb::GetKnowledgeRequest>,
    ) -> Answer<pb::GetKnowledgeResponse> {
        self.note(&request);
        Ok(Response::new(pb::GetKnowledgeResponse { pending: 1, hub_replica_id: Bytes::new() }))
    }

    type GetChangesStream = Answers<pb::GetChangesResponse>;
    async fn get_changes(&self, _: Request<pb::GetChangesRequest>) -> Answer<Self::GetChangesStream> {
        let begin = pb::ChangesBegin { mode: 1, ..Default::default() };
        let event = Some(pb::get_changes_response::Event::Begin(begin));
        hanging(vec![pb::GetChangesResponse { event }])
    }

    type DownloadBatchStream = Answers<pb::DownloadBatchResponse>;
    async fn download_batch(
        &self,
        request: Request<pb::DownloadBatchRequest>,
    ) -> Answer<Self::DownloadBatchStream> {
        let offset = request.into_inner().read_offset;
        let chunk = |offset| Ok(pb::DownloadBatchResponse { offset, data: Bytes::from_static(b"ab") });
        Ok(Response::new(stream::iter([chunk(offset), chunk(offset + 2)]).boxed()))
    }

    async fn release_batches(
        &self,
        _: Request<pb::ReleaseBatchesRequest>,
    ) -> Answer<pb::ReleaseBatchesResponse> {
        Ok(Response::new(pb::ReleaseBatchesResponse {}))
    }

    async fn upload_batch(
        &self,
        request: Request<Streaming<pb::UploadBatchRequest>>,
    ) -> Answer<pb::UploadBatchResponse> {
        let mut messages = request.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = messages.message().await? {
            if let Some(pb::upload_batch_request::Part::Chunk(chunk)) = message.part {
                bytes.extend_from_slice(&chunk);
            }
        }
        let committed_size = bytes.len() as u64;
        self.seen.lock().unwrap().uploaded = bytes;
        Ok(Response::new(pb::UploadBatchResponse { committed_size, complete: false }))
    }

    async fn upload_chunk(&self, _: Request<pb::UploadChunkRequest>) -> Answer<pb::UploadChunkResponse> {
        Err(Status::unimplemented("not here"))
    }

    async fn query_batch(&self, _: Request<pb::QueryBatchRequest>) -> Answer<pb::QueryBatchResponse> {
        Ok(Response::new(pb::QueryBatchResponse { state: 2, committed_size: 5 }))
    }

    type ApplyChangesStream = Answers<pb::ApplyChangesResponse>;
    async fn apply_changes(
        &self,
        request: Request<pb::ApplyChangesRequest>,
    ) -> Answer<Self::ApplyChangesStream> {
        self.seen.lock().unwrap().leaf_clock = request.into_inner().leaf_clock;
        hanging(Vec::new())
    }

    async fn end_session(&self, _: Request<pb::EndSessionRequest>) -> Answer<pb::EndSessionResponse> {
        Ok(Response::new(pb::EndSessionResponse {}))
    }

    async fn list_scopes(&self, _: Request<pb::ListScopesRequest>) -> Answer<pb::ListScopesResponse> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_scope(&self, _: Request<pb::GetScopeRequest>) -> Answer<pb::GetScopeResponse> {
        Err(Status::not_found("no such scope"))
    }

    type WatchScopeStream = Answers<pb::WatchScopeResponse>;
    async fn watch_scope(&self, _: Request<pb::WatchScopeRequest>) -> Answer<Self::WatchScopeStream> {
        Err(Status::unimplemented("not here"))
    }

    type GetDigestsStream = Answers<pb::GetDigestsResponse>;
    async fn get_digests(&self, _: Request<pb::GetDigestsRequest>) -> Answer<Self::GetDigestsStream> {
        Err(Status::unimplemented("not here"))
    }
}
