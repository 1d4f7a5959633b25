//! Bad input of any kind gets the right status and reason, and changes nothing.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use syncline::batch::{Block, Codec, EncodedBatch, Operation, encode};
use syncline::column::Column;
use syncline::ids::{BatchSequence, Mark, ReplicaId, SessionId, TableId, Tick};
use syncline::pb::sync_service_client::SyncServiceClient;
use syncline::pb::{self, apply_changes_response::Event as ApplyEvent};
use syncline::schema::ScopeSchema;
use syncline::value::{CanonicalType, Value};
use syncline_tests::database::{Database, Kind};
use syncline_tests::service::Service;
use syncline_tests::shop;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

type Client = SyncServiceClient<Channel>;

/// A service, and a client that speaks the bare protocol.
struct Bare {
    _directory: tempfile::TempDir,
    _service: Service,
    hub: Database,
    client: Client,
    schema: ScopeSchema,
}

/// An open session.
#[derive(Clone)]
struct Open {
    id: Bytes,
    token: Bytes,
}

impl Bare {
    async fn start(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(kind, directory.path(), "hub").await;
        shop::fill(&hub, 3).await;
        let service = Service::start(&hub, shop::SCOPE, directory.path()).await;
        let mut client = SyncServiceClient::connect(service.url()).await.unwrap();
        let request = pb::GetScopeRequest { scope: "shop".into(), with_local_sql: false };
        let answer = client.get_scope(request).await.unwrap().into_inner();
        let schema = ScopeSchema::try_from(answer.schema.unwrap()).unwrap();
        Self { _directory: directory, _service: service, hub, client, schema }
    }

    fn begin_request(&self) -> pb::BeginSessionRequest {
        pb::BeginSessionRequest {
            session_id: bytes(SessionId::fresh().as_bytes()),
            replica_id: bytes(ReplicaId::fresh().as_bytes()),
            replica_kind: pb::ReplicaKind::Leaf as i32,
            scope: "shop".into(),
            schema_fingerprint: bytes(&self.schema.fingerprint()),
            ..Default::default()
        }
    }

    async fn open(&mut self) -> Open {
        let request = self.begin_request();
        let id = request.session_id.clone();
        let begun = self.client.begin_session(request).await.unwrap().into_inner();
        Open { id, token: begun.session_token }
    }

    fn table(&self, name: &str) -> &syncline::schema::TableSchema {
        self.schema.tables.iter().find(|table| table.name == name).unwrap()
    }

    /// A batch of rows of `product`.
    fn products(&self, rows: &[(Value, Value, Value)]) -> EncodedBatch {
        let table = self.table("product");
        let mut columns: Vec<_> =
            table.columns.iter().map(|column| Column::new(column.id, column.ty)).collect();
        for (id, name, price) in rows {
            columns[0].push(id.cell()).unwrap();
            columns[1].push(name.cell()).unwrap();
            columns[2].push(price.cell()).unwrap();
        }
        let mut block = Block::new(table.id, Operation::Upsert, columns);
        block.ticks = (1..=rows.len() as u64).map(Tick).collect();
        block.changed_at = vec![1; rows.len()];
        block.births = block.ticks.clone();
        encode(&[block], BatchSequence::FIRST, Codec::Identity, self.schema.version).unwrap()
    }

    fn apply_request(&self, session: &Open, batch: &EncodedBatch) -> pb::ApplyChangesRequest {
        pb::ApplyChangesRequest {
            session_id: session.id.clone(),
            session_token: session.token.clone(),
            batches: vec![pb::BatchInfo { inline_data: batch.stored.clone(), ..batch.info.to_wire() }],
            leaf_clock: Some(pb::ReplicaClock {
                replica_id: bytes(ReplicaId::fresh().as_bytes()),
                tick: 10,
                missing: Vec::new(),
            }),
            upload_mark: bytes(Mark::fresh().as_bytes()),
            ..Default::default()
        }
    }

    async fn apply(&mut self, request: pb::ApplyChangesRequest) -> Result<pb::ApplyResult, Status> {
        let mut events = self.client.apply_changes(request).await?.into_inner();
        while let Some(message) = events.message().await? {
            if let Some(ApplyEvent::Result(result)) = message.event {
                return Ok(result);
            }
        }
        Err(Status::internal("no result"))
    }
}

fn bytes(slice: &[u8]) -> Bytes {
    Bytes::copy_from_slice(slice)
}

fn row(id: i64, name: &str, price: &str) -> (Value, Value, Value) {
    (Value::Int64(id), Value::Text(name.into()), Value::Decimal(price.into()))
}

#[track_caller]
fn assert_status(what: &str, status: &Status, code: Code, reason: &str) {
    let details = status.get_error_details();
    let found = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    assert_eq!((status.code(), found.as_str()), (code, reason), "{what}: {status:?}");
    assert!(!status.message().is_empty(), "{what}");
    for inside in ["SELECT", "INSERT", "syncline_", "/tmp", "panicked"] {
        assert!(!status.message().contains(inside), "{what} leaks {inside}: {}", status.message());
    }
}

type Call = Pin<Box<dyn Future<Output = Status>>>;

/// Awaits a call that must fail.
macro_rules! failing {
    ($call:expr) => {
        $call.await.err().expect("the call fails")
    };
}

#[tokio::test]
async fn begin_session_refuses_what_it_can_not_use() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    type Change = fn(&mut pb::BeginSessionRequest);
    let cases: &[(&str, Change, Code, &str)] = &[
        ("short session id", |r| r.session_id = bytes(b"short"), Code::InvalidArgument, "REQUEST_INVALID"),
        ("no session id", |r| r.session_id = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID"),
        ("zero replica id", |r| r.replica_id = bytes(&[0; 16]), Code::InvalidArgument, "REQUEST_INVALID"),
        ("no kind", |r| r.replica_kind = 0, Code::InvalidArgument, "REQUEST_INVALID"),
        ("unknown kind", |r| r.replica_kind = 99, Code::InvalidArgument, "REQUEST_INVALID"),
        ("a peer", |r| r.replica_kind = 2, Code::Unimplemented, "FEATURE_UNSUPPORTED"),
        ("unknown scope", |r| r.scope = "nope".into(), Code::NotFound, "SCOPE_NOT_FOUND"),
        ("bad scope name", |r| r.scope = "no pe; DROP".into(), Code::InvalidArgument, "REQUEST_INVALID"),
        ("oversized scope name", |r| r.scope = "x".repeat(10_000), Code::InvalidArgument, "REQUEST_INVALID"),
        (
            "another schema",
            |r| r.schema_fingerprint = bytes(&[7; 32]),
            Code::FailedPrecondition,
            "SCOPE_VERSION_UNSUPPORTED",
        ),
        (
            "half a fingerprint",
            |r| r.schema_fingerprint = bytes(&[7; 5]),
            Code::InvalidArgument,
            "REQUEST_INVALID",
        ),
        (
            "random knowledge",
            |r| r.knowledge = bytes(&[0xff; 40]),
            Code::InvalidArgument,
            "KNOWLEDGE_INVALID",
        ),
        (
            "oversized knowledge",
            |r| r.knowledge = bytes(&vec![1; 600 << 10]),
            Code::ResourceExhausted,
            "KNOWLEDGE_TOO_LARGE",
        ),
        ("a mark of 3 bytes", |r| r.download_mark = bytes(b"abc"), Code::InvalidArgument, "REQUEST_INVALID"),
        (
            "a mark that was never given",
            |r| r.download_mark = bytes(&[9; 16]),
            Code::FailedPrecondition,
            "REPLICA_DIVERGED",
        ),
        (
            "a parameter that is not there",
            |r| r.parameters = vec![pb::Parameter { name: "region".into(), value: "x".into() }],
            Code::InvalidArgument,
            "PARAMETER_INVALID",
        ),
        (
            "tiny batches",
            |r| r.capabilities = Some(pb::Capabilities { batch_bytes_max: 5, ..Default::default() }),
            Code::InvalidArgument,
            "REQUEST_INVALID",
        ),
    ];
    for (what, change, code, reason) in cases {
        let mut request = bare.begin_request();
        change(&mut request);
        let status = failing!(bare.client.begin_session(request));
        assert_status(what, &status, *code, reason);
    }
    // None of them opened a session.
    let prefix = "syncline_sessions";
    assert_eq!(bare.hub.count(&format!("SELECT count(*) FROM {prefix}")).await, 0);
}

#[tokio::test]
async fn calls_of_a_session_need_its_newest_token() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let request = bare.begin_request();
    let older = bare.client.begin_session(request.clone()).await.unwrap().into_inner();
    let newer = bare.client.begin_session(request.clone()).await.unwrap().into_inner();
    assert_ne!(older.session_token, newer.session_token);
    assert!(newer.resume.unwrap().resumed);
    let calls: Vec<(&str, Call)> = vec![
        (
            "GetChanges",
            Box::pin(changes(bare.client.clone(), request.session_id.clone(), older.session_token.clone())),
        ),
        (
            "QueryBatch",
            Box::pin(query(bare.client.clone(), request.session_id.clone(), older.session_token.clone())),
        ),
    ];
    for (what, call) in calls {
        assert_status(what, &call.await, Code::FailedPrecondition, "SESSION_SUPERSEDED");
    }
    let unknown =
        changes(bare.client.clone(), bytes(SessionId::fresh().as_bytes()), newer.session_token.clone()).await;
    assert_status("unknown session", &unknown, Code::NotFound, "SESSION_NOT_FOUND");
}

async fn changes(mut client: Client, session_id: Bytes, session_token: Bytes) -> Status {
    let request = pb::GetChangesRequest { session_id, session_token, ..Default::default() };
    match client.get_changes(request).await {
        Err(status) => status,
        Ok(stream) => stream.into_inner().message().await.err().unwrap_or_else(|| Status::ok("")),
    }
}

async fn query(mut client: Client, session_id: Bytes, session_token: Bytes) -> Status {
    let request = pb::QueryBatchRequest { session_id, session_token, batch_id: bytes(&[5; 16]) };
    client.query_batch(request).await.err().unwrap_or_else(|| Status::ok(""))
}

#[tokio::test]
async fn uploads_are_checked_before_a_row_is_touched() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let before = shop::contents(&bare.hub).await;
        let good = bare.products(&[row(50, "new", "1.25")]);

        let session = bare.open().await;
        let mut twice =
            bare.apply_request(&session, &bare.products(&[row(60, "a", "1.25"), row(60, "b", "1.25")]));
        assert_status(
            "a key twice",
            &failing!(bare.apply(twice.clone())),
            Code::InvalidArgument,
            "ROW_INVALID",
        );
        let session = bare.open().await;
        (twice.session_id, twice.session_token) = (session.id.clone(), session.token.clone());
        twice.batches[0].sha256 = bytes(&[1; 32]);
        assert_status("a digest", &failing!(bare.apply(twice)), Code::DataLoss, "BATCH_CORRUPT");

        let session = bare.open().await;
        let null_key =
            bare.products(&[(Value::Null, Value::Text("x".into()), Value::Decimal("1.25".into()))]);
        let request = bare.apply_request(&session, &null_key);
        assert_status("a NULL key", &failing!(bare.apply(request)), Code::InvalidArgument, "ROW_INVALID");

        let session = bare.open().await;
        let mut foreign = Block::new(TableId(9_999), Operation::Upsert, Vec::new());
        let mut column = Column::new(syncline::ids::ColumnId(1), CanonicalType::Int64);
        column.push(Value::Int64(1).cell()).unwrap();
        foreign.columns.push(column);
        foreign.ticks = vec![Tick(1)];
        foreign.changed_at = vec![1];
        foreign.births = foreign.ticks.clone();
        let foreign = encode(&[foreign], BatchSequence::FIRST, Codec::Identity, bare.schema.version).unwrap();
        let request = bare.apply_request(&session, &foreign);
        assert_status(
            "an unknown table",
            &failing!(bare.apply(request)),
            Code::InvalidArgument,
            "ROW_INVALID",
        );

        let session = bare.open().await;
        let mut request = bare.apply_request(&session, &good);
        request.batches[0].inline_data = Bytes::new();
        let status = failing!(bare.apply(request));
        assert_status("bytes that have not arrived", &status, Code::FailedPrecondition, "BATCH_INCOMPLETE");

        let mut request = bare.apply_request(&session, &good);
        request.made_with = bytes(&[0xfe; 30]);
        assert_status(
            "random made-with",
            &failing!(bare.apply(request)),
            Code::InvalidArgument,
            "KNOWLEDGE_INVALID",
        );
        let mut request = bare.apply_request(&session, &good);
        request.upload_mark = Bytes::new();
        assert_status("no mark", &failing!(bare.apply(request)), Code::InvalidArgument, "REQUEST_INVALID");
        let mut request = bare.apply_request(&session, &good);
        request.leaf_clock = None;
        assert_status("no clock", &failing!(bare.apply(request)), Code::InvalidArgument, "REQUEST_INVALID");
        let mut request = bare.apply_request(&session, &good);
        request.batches[0].decoded_bytes = 1 << 40;
        assert_status("a bomb", &failing!(bare.apply(request)), Code::InvalidArgument, "BATCH_TOO_LARGE");

        assert_eq!(shop::contents(&bare.hub).await, before, "something was changed");
        // The session is still good for what is right.
        let session = bare.open().await;
        let request = bare.apply_request(&session, &good);
        assert_eq!(bare.apply(request.clone()).await.unwrap().upserts, 1);
        // Repeated, it answers the same and applies nothing; another list is refused.
        assert_eq!(bare.apply(request).await.unwrap().upserts, 1);
        let other = bare.apply_request(&session, &bare.products(&[row(51, "other", "1.25")]));
        assert_status(
            "another list",
            &failing!(bare.apply(other)),
            Code::FailedPrecondition,
            "REPLICA_DIVERGED",
        );
    }
}

#[tokio::test]
async fn bytes_of_a_batch_are_taken_at_the_right_offset_only() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let session = bare.open().await;
    let batch = bare.products(&[row(50, "new", "1.25"), row(51, "new too", "1.25")]);
    let header = |info: pb::BatchInfo, write_offset| pb::UploadBatchHeader {
        session_id: session.id.clone(),
        session_token: session.token.clone(),
        batch: Some(info),
        write_offset,
    };
    let chunk =
        |info, offset, data: Bytes| pb::UploadChunkRequest { header: Some(header(info, offset)), data };
    let half = batch.stored.len() / 2;

    let gap = chunk(batch.info.to_wire(), 5, batch.stored.slice(5..));
    let status = failing!(bare.client.upload_chunk(gap));
    assert_status("a gap", &status, Code::OutOfRange, "OFFSET_MISMATCH");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["committed_size"], "0");

    let first = chunk(batch.info.to_wire(), 0, batch.stored.slice(..half));
    let answer = bare.client.upload_chunk(first).await.unwrap().into_inner();
    assert_eq!((answer.committed_size, answer.complete), (half as u64, false));

    let changed = pb::BatchInfo { rows: 7, ..batch.info.to_wire() };
    let status = failing!(bare.client.upload_chunk(chunk(changed, 0, Bytes::new())));
    assert_status("a batch that changes", &status, Code::InvalidArgument, "REQUEST_INVALID");
    let status = failing!(bare.client.upload_chunk(chunk(batch.info.to_wire(), 0, bytes(&vec![0; 4_000]))));
    assert_status("more bytes than there are", &status, Code::InvalidArgument, "REQUEST_INVALID");
    let status =
        failing!(bare.client.upload_chunk(chunk(batch.info.to_wire(), 0, bytes(&vec![0; 1_100_000]))));
    assert_status("an oversized chunk", &status, Code::InvalidArgument, "REQUEST_INVALID");

    // An overlap is passed over unread; wrong bytes are found out and dropped.
    let mut wrong = batch.stored.slice(half..).to_vec();
    wrong[0] ^= 1;
    let status = failing!(bare.client.upload_chunk(chunk(batch.info.to_wire(), half as u64, wrong.into())));
    assert_status("wrong bytes", &status, Code::DataLoss, "BATCH_CORRUPT");
    let all = chunk(batch.info.to_wire(), 0, batch.stored.clone());
    assert!(bare.client.upload_chunk(all).await.unwrap().into_inner().complete);

    // A batch of another session is as if it were not there.
    let other = bare.open().await;
    let request = pb::DownloadBatchRequest {
        session_id: other.id.clone(),
        session_token: other.token.clone(),
        batch_id: bytes(batch.info.id.as_bytes()),
        read_offset: 0,
    };
    let status = match bare.client.download_batch(request).await {
        Err(status) => status,
        Ok(stream) => failing!(stream.into_inner().message()),
    };
    assert_status("a foreign batch", &status, Code::NotFound, "BATCH_NOT_FOUND");
}

#[tokio::test]
async fn nothing_is_uploaded_once_the_download_has_begun() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let session = bare.open().await;
    let request = pb::GetChangesRequest {
        session_id: session.id.clone(),
        session_token: session.token.clone(),
        ..Default::default()
    };
    let mut events = bare.client.get_changes(request.clone()).await.unwrap().into_inner();
    while events.message().await.unwrap().is_some() {}
    let good = bare.products(&[row(50, "late", "1.25")]);
    let apply = bare.apply_request(&session, &good);
    let status = failing!(bare.apply(apply));
    assert_status("a late upload", &status, Code::FailedPrecondition, "SESSION_STATE");
    let other = pb::GetChangesRequest {
        excepted_keys: vec![pb::ExceptedKey {
            table_id: bare.table("product").id.0,
            key: syncline::value::key_bytes([Value::Int64(1).cell()]).unwrap(),
            knowledge_before: Bytes::new(),
        }],
        ..request
    };
    let status = match bare.client.get_changes(other).await {
        Err(status) => status,
        Ok(stream) => failing!(stream.into_inner().message()),
    };
    assert_status("other knowledge", &status, Code::FailedPrecondition, "SESSION_STATE");
}

#[tokio::test]
async fn what_this_version_does_not_have_says_so() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let digests = pb::GetDigestsRequest { scope: "shop".into(), ..Default::default() };
    let status = failing!(bare.client.get_digests(digests));
    assert_status("GetDigests", &status, Code::Unimplemented, "FEATURE_UNSUPPORTED");
    let sql = pb::GetScopeRequest { scope: "shop".into(), with_local_sql: true };
    let status = failing!(bare.client.get_scope(sql));
    assert_status("local SQL", &status, Code::Unimplemented, "FEATURE_UNSUPPORTED");
}
