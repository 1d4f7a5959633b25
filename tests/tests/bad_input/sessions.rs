//! BeginSession and EndSession.

use bytes::Bytes;
use syncline::knowledge::{ViewId, ViewKnowledge};
use syncline::pb;
use syncline_tests::database::Kind;
use tonic::Code;

use super::cases::{Case, check_table, session_cases};
use super::kit::{Bare, bytes};

type Begin = pb::BeginSessionRequest;
type End = pb::EndSessionRequest;

#[rustfmt::skip] // A case a line.
const BEGIN: &[Case<Begin>] = &[
    ("short session id", |r| r.session_id = bytes(b"short"), Code::InvalidArgument, "REQUEST_INVALID", "session_id: must be 16 bytes"),
    ("no session id", |r| r.session_id = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID", "session_id: must be 16 bytes"),
    ("zero session id", |r| r.session_id = bytes(&[0; 16]), Code::InvalidArgument, "REQUEST_INVALID", "must not be all zeros"),
    ("zero replica id", |r| r.replica_id = bytes(&[0; 16]), Code::InvalidArgument, "REQUEST_INVALID", "replica_id: must not be all zeros"),
    ("long replica id", |r| r.replica_id = bytes(&[1; 17]), Code::InvalidArgument, "REQUEST_INVALID", "replica_id: must be 16 bytes, not 17"),
    ("no kind", |r| r.replica_kind = 0, Code::InvalidArgument, "REQUEST_INVALID", "replica_kind: must be LEAF (1)"),
    ("unknown kind", |r| r.replica_kind = 99, Code::InvalidArgument, "REQUEST_INVALID", "not 99"),
    ("negative kind", |r| r.replica_kind = -1, Code::InvalidArgument, "REQUEST_INVALID", "not -1"),
    ("a peer", |r| r.replica_kind = 2, Code::Unimplemented, "FEATURE_UNSUPPORTED", "begin the session as a leaf"),
    ("unknown scope", |r| r.scope = "nope".into(), Code::NotFound, "SCOPE_NOT_FOUND", "\"nope\""),
    ("no scope", |r| r.scope = String::new(), Code::InvalidArgument, "REQUEST_INVALID", "scope"),
    ("bad scope name", |r| r.scope = "no pe; DROP".into(), Code::InvalidArgument, "REQUEST_INVALID", "scope"),
    ("oversized scope name", |r| r.scope = "x".repeat(1_000_000), Code::InvalidArgument, "REQUEST_INVALID", "scope"),
    ("another schema", |r| r.schema_fingerprint = bytes(&[7; 32]), Code::FailedPrecondition, "SCOPE_VERSION_UNSUPPORTED", "fetch its schema"),
    ("half a fingerprint", |r| r.schema_fingerprint = bytes(&[7; 5]), Code::InvalidArgument, "REQUEST_INVALID", "schema_fingerprint: must be 32 bytes, not 5"),
    ("no fingerprint", |r| r.schema_fingerprint = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID", "schema_fingerprint"),
    ("random knowledge", |r| r.knowledge = bytes(&[0xff; 40]), Code::InvalidArgument, "KNOWLEDGE_INVALID", "knowledge"),
    ("truncated knowledge", |r| r.knowledge = some_knowledge().slice(..20), Code::InvalidArgument, "KNOWLEDGE_INVALID", "knowledge"),
    ("a clock twice", |r| r.knowledge = knowledge_of(&[(1, 5), (1, 6)]), Code::InvalidArgument, "KNOWLEDGE_INVALID", "twice"),
    ("too many clocks", |r| r.knowledge = too_many_clocks(), Code::ResourceExhausted, "KNOWLEDGE_TOO_LARGE", "clocks"),
    ("oversized knowledge", |r| r.knowledge = bytes(&vec![1; 600 << 10]), Code::ResourceExhausted, "KNOWLEDGE_TOO_LARGE", "at most 524288"),
    ("a mark of 3 bytes", |r| r.download_mark = bytes(b"abc"), Code::InvalidArgument, "REQUEST_INVALID", "download_mark: must be 16 bytes, not 3"),
    ("an upload mark of 3 bytes", |r| r.upload_mark_drawn = bytes(b"abc"), Code::InvalidArgument, "REQUEST_INVALID", "upload_mark_drawn"),
    ("a download mark that was never given", |r| r.download_mark = bytes(&[9; 16]), Code::FailedPrecondition, "REPLICA_DIVERGED", "take a new id"),
    ("an upload mark that was never given", |r| r.upload_mark_answered = bytes(&[9; 16]), Code::FailedPrecondition, "REPLICA_DIVERGED", "take a new id"),
    ("a parameter that is not there", |r| r.parameters = vec![parameter("region", 1)], Code::InvalidArgument, "PARAMETER_INVALID", "no parameter \"region\""),
    ("a parameter twice", |r| r.parameters = vec![parameter("region", 1); 2], Code::InvalidArgument, "REQUEST_INVALID", "parameters[1].name: was given before"),
    ("a parameter without a name", |r| r.parameters = vec![parameter("", 1)], Code::InvalidArgument, "REQUEST_INVALID", "parameters[0].name"),
    ("an oversized parameter", |r| r.parameters = vec![parameter("region", 5_000)], Code::InvalidArgument, "REQUEST_INVALID", "at most 4096 bytes"),
    ("too many parameters", |r| r.parameters = vec![parameter("region", 1); 33], Code::InvalidArgument, "REQUEST_INVALID", "at most 32 elements"),
    ("tiny batches", |r| r.capabilities = Some(sizes(5, 0)), Code::InvalidArgument, "REQUEST_INVALID", "capabilities.batch_bytes_max"),
    ("huge batches", |r| r.capabilities = Some(sizes(u64::MAX, 0)), Code::InvalidArgument, "REQUEST_INVALID", "capabilities.batch_bytes_max"),
    ("too many codecs", |r| r.capabilities = Some(pb::Capabilities { codecs: vec![1; 65], ..sizes(0, 0) }), Code::InvalidArgument, "REQUEST_INVALID", "at most 64"),
    ("too few types", |r| r.capabilities = Some(pb::Capabilities { types: vec![1], ..sizes(0, 0) }), Code::FailedPrecondition, "CAPABILITY_REQUIRED", "employee.id"),
    ("a time that is none", |r| r.client_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -5 }), Code::InvalidArgument, "REQUEST_INVALID", "client_time: is no time"),
    ("an oversized name", |r| r.client_name = "x".repeat(100_000), Code::InvalidArgument, "REQUEST_INVALID", "client_name: must have at most 200 bytes"),
    ("a name that would break the log", |r| r.client_name = "a\nb".into(), Code::InvalidArgument, "REQUEST_INVALID", "control characters"),
    ("everything wrong at once", |r| *r = Begin::default(), Code::InvalidArgument, "REQUEST_INVALID", "more)"),
];

#[rustfmt::skip] // A case a line.
const END: &[Case<End>] = &[
    ("no outcome", |r| r.outcome = 0, Code::InvalidArgument, "REQUEST_INVALID", "outcome: must be COMPLETED (1) or ABANDONED (2), not 0"),
    ("unknown outcome", |r| r.outcome = 77, Code::InvalidArgument, "REQUEST_INVALID", "not 77"),
    ("random knowledge", |r| r.knowledge = bytes(&[0xfe; 30]), Code::InvalidArgument, "KNOWLEDGE_INVALID", "knowledge"),
    ("oversized knowledge", |r| r.knowledge = bytes(&vec![1; 600 << 10]), Code::ResourceExhausted, "KNOWLEDGE_TOO_LARGE", "at most 524288"),
    ("a mark of 3 bytes", |r| r.download_mark = bytes(b"abc"), Code::InvalidArgument, "REQUEST_INVALID", "download_mark"),
];

#[tokio::test]
async fn begin_session_refuses_what_it_can_not_use() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let request = |bare: &Bare, _: &_| bare.begin_request();
        check_table(
            &mut bare,
            "BeginSession",
            request,
            async |client, r| client.begin_session(r).await.map(drop),
            BEGIN,
        )
        .await;
    }
}

#[tokio::test]
async fn end_session_refuses_what_it_can_not_use() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let mut cases = session_cases!(End, std::convert::identity);
    cases.extend_from_slice(END);
    let request = |_: &Bare, session: &super::kit::Open| End {
        session_id: session.id.clone(),
        session_token: session.token.clone(),
        outcome: pb::SessionOutcome::Completed as i32,
        ..Default::default()
    };
    check_table(
        &mut bare,
        "EndSession",
        request,
        async |client, r| client.end_session(r).await.map(drop),
        &cases,
    )
    .await;
    // Ended once, it may be ended again: an answer that was lost is no failure.
    let session = bare.open().await;
    bare.abandon(&session).await;
    bare.abandon(&session).await;
}

#[tokio::test]
async fn a_session_of_another_replica_or_scope_is_not_taken_over() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let theirs = bare.open().await;
    let before = bare.standing().await;
    let mut request = bare.begin_request();
    request.session_id = theirs.id.clone();
    request.replica_id = bytes(syncline::ids::ReplicaId::fresh().as_bytes());
    let answer = bare.client.begin_session(request).await.map(drop);
    super::cases::assert_refused(
        "a foreign session",
        answer,
        Code::InvalidArgument,
        "REQUEST_INVALID",
        "another replica's session",
    );
    assert_eq!(bare.standing().await, before);
    // Theirs goes on: its token is still the newest.
    bare.abandon(&theirs).await;
}

pub(super) fn parameter(name: &str, length: usize) -> pb::Parameter {
    pb::Parameter { name: name.into(), value: "x".repeat(length) }
}

fn sizes(batch_bytes_max: u64, row_bytes_max: u64) -> pb::Capabilities {
    pb::Capabilities { batch_bytes_max, row_bytes_max, ..Default::default() }
}

pub(super) fn some_knowledge() -> Bytes {
    let knowledge = syncline::knowledge::Knowledge::from_clocks(
        [(syncline::ids::ReplicaId::fresh(), syncline::knowledge::Clock::up_to(syncline::ids::Tick(5)))]
            .into_iter()
            .collect(),
    );
    ViewKnowledge { view: ViewId(bytes(&[1; 16])), knowledge }.encode().unwrap()
}

/// Clocks by the first byte of their replica, as they are given.
fn knowledge_of(clocks: &[(u8, u64)]) -> Bytes {
    let clocks = clocks.iter().map(|(replica, tick)| pb::ReplicaClock {
        replica_id: bytes(&[*replica; 16]),
        tick: *tick,
        missing: Vec::new(),
    });
    encoded(clocks.collect())
}

fn too_many_clocks() -> Bytes {
    let clocks = (1..=5_000_u128).map(|replica| pb::ReplicaClock {
        replica_id: bytes(&replica.to_be_bytes()),
        tick: 1,
        missing: Vec::new(),
    });
    encoded(clocks.collect())
}

fn encoded(clocks: Vec<pb::ReplicaClock>) -> Bytes {
    let message = pb::Knowledge { view_id: bytes(&[1; 16]), clocks, exceptions: Vec::new() };
    prost::Message::encode_to_vec(&message).into()
}
