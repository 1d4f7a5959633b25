//! A service on a port of its own, and valid requests to begin with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use syncline::batch::{Block, Codec, EncodedBatch, encode};
use syncline::ids::{BatchId, BatchSequence, Mark, ReplicaId, SessionId};
use syncline::pb;
use syncline::pb::sync_service_client::SyncServiceClient;
use syncline::pb::upload_batch_request::Part;
use syncline_service::{ServeConfig, ServeError, serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::fake_hub::FakeHub;

pub(crate) type Client = SyncServiceClient<Channel>;

/// Nothing in these tests takes longer, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) hub: Arc<FakeHub>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_with(ServeConfig::default()).await
    }

    pub(crate) async fn start_with(config: ServeConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hub = Arc::new(FakeHub::new());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve(config, Arc::<FakeHub>::clone(&hub), listener, async {
            // A dropped sender stops it too.
            let _ = stopped.await;
        });
        Self { address, hub, stop: Some(stop), running: tokio::spawn(serving) }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        SyncServiceClient::new(self.channel().await)
    }

    /// Tells the service to stop.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(self) -> Result<(), ServeError> {
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap()
    }

    /// A client with an open session.
    pub(crate) async fn session(&self) -> Session {
        let mut client = self.client().await;
        let request = begin_request();
        let begun = client.begin_session(request.clone()).await.unwrap().into_inner();
        Session { client, id: request.session_id, token: begun.session_token }
    }
}

pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) id: Bytes,
    pub(crate) token: Bytes,
}

impl Session {
    pub(crate) fn header(&self, batch: &EncodedBatch, write_offset: u64) -> pb::UploadBatchHeader {
        pb::UploadBatchHeader {
            session_id: self.id.clone(),
            session_token: self.token.clone(),
            batch: Some(batch.info.to_wire()),
            write_offset,
        }
    }

    pub(crate) fn apply_request(&self, batches: Vec<pb::BatchInfo>) -> pb::ApplyChangesRequest {
        pb::ApplyChangesRequest {
            session_id: self.id.clone(),
            session_token: self.token.clone(),
            batches,
            excepted_keys: Vec::new(),
            made_with: Bytes::new(),
            leaf_clock: Some(pb::ReplicaClock { replica_id: replica(), tick: 9, missing: Vec::new() }),
            upload_mark: mark(),
            clock_offset_us: -5,
        }
    }

    pub(crate) fn changes_request(&self) -> pb::GetChangesRequest {
        pb::GetChangesRequest {
            session_id: self.id.clone(),
            session_token: self.token.clone(),
            knowledge: Bytes::new(),
            excepted_keys: Vec::new(),
            first_sequence: 0,
        }
    }
}

pub(crate) fn replica() -> Bytes {
    Bytes::copy_from_slice(ReplicaId::fresh().as_bytes())
}

pub(crate) fn mark() -> Bytes {
    Bytes::copy_from_slice(Mark::fresh().as_bytes())
}

pub(crate) fn id_bytes(id: BatchId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(crate) fn begin_request() -> pb::BeginSessionRequest {
    pb::BeginSessionRequest {
        session_id: Bytes::copy_from_slice(SessionId::fresh().as_bytes()),
        replica_id: replica(),
        replica_kind: pb::ReplicaKind::Leaf as i32,
        scope: "shop".into(),
        schema_fingerprint: Bytes::from_static(&[7; 32]),
        client_name: "test 1.0".into(),
        ..pb::BeginSessionRequest::default()
    }
}

/// A batch whose stored bytes are as many as asked for (nearly), and do not compress.
pub(crate) fn batch(sequence: u32, bytes: usize) -> EncodedBatch {
    let blocks: [Block; 0] = [];
    let mut batch = encode(&blocks, BatchSequence(sequence), Codec::Identity, 1).unwrap();
    // The fake hub does not decode, so any bytes do.
    let stored: Vec<u8> = (0..bytes).map(|index| (index * 31 % 251) as u8).collect();
    batch.info.stored_bytes = bytes as u64;
    batch.info.decoded_bytes = bytes as u64;
    batch.info.rows = 1;
    batch.info.sha256 = crate::fake_hub::digest(&stored);
    batch.stored = stored.into();
    batch
}

/// What a caller reads in a status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) fields: Vec<String>,
}

pub(crate) fn refused(status: &Status) -> Refused {
    let details = status.get_error_details();
    let reason = details.error_info().map_or_else(String::new, |info| info.reason.clone());
    let fields = details.bad_request().map_or_else(Vec::new, |request| {
        request.field_violations.iter().map(|violation| violation.field.clone()).collect()
    });
    assert!(status.details().len() <= syncline::limits::STATUS_DETAILS_BYTES_MAX);
    Refused { code: status.code(), reason, fields }
}

/// The status of a stream that must fail, whether at once or later.
pub(crate) async fn stream_error<M>(answer: Result<tonic::Response<tonic::Streaming<M>>, Status>) -> Status {
    let mut stream = match answer {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended well"),
            Err(status) => return status,
        }
    }
}

/// All messages of a stream that must end well.
pub(crate) async fn all<M>(stream: tonic::Streaming<M>) -> Vec<M> {
    let mut stream = stream;
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    messages
}

/// An upload that was let in and waits for its bytes; it ends when the sender is dropped.
pub(crate) async fn waiting_upload(
    service: &Service,
) -> (oneshot::Sender<()>, JoinHandle<Result<tonic::Response<pb::UploadBatchResponse>, Status>>) {
    let mut session = service.session().await;
    let header = Part::Header(session.header(&batch(1, 100), 0));
    let (end, ended) = oneshot::channel::<()>();
    let rest = futures_util::stream::once(async {
        // A dropped sender ends it too.
        let _ = ended.await;
    });
    let parts = futures_util::stream::iter([pb::UploadBatchRequest { part: Some(header) }])
        .chain(rest.filter_map(|()| async { None }));
    let calls = service.hub.calls.load(Ordering::SeqCst);
    let upload = tokio::spawn(async move { session.client.upload_batch(parts).await });
    while service.hub.calls.load(Ordering::SeqCst) == calls {
        tokio::task::yield_now().await;
    }
    (end, upload)
}

/// A watch of the hub's scope.
pub(crate) fn watch_request() -> pb::WatchScopeRequest {
    pb::WatchScopeRequest {
        replica_id: replica(),
        scope: "shop".into(),
        parameters: Vec::new(),
        knowledge: Bytes::from_static(b"opaque"),
        interval_min: None,
        schema_fingerprint: Bytes::from_static(&[7; 32]),
    }
}
