//! Goal: whatever is wrong with a request is said, by field, all at once, before the hub hears of it.
//! Method: valid requests, changed one way at a time.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use syncline::limits;
use syncline::pb;
use tonic::{Code, Status};

use crate::harness::{Client, Refused, Service, Session, batch, begin_request, mark, refused, stream_error};

fn short() -> Bytes {
    Bytes::from_static(&[1; 15])
}

fn zero() -> Bytes {
    Bytes::from_static(&[0; 16])
}

fn oversize_knowledge() -> Bytes {
    Bytes::from(vec![1; limits::KNOWLEDGE_BYTES_MAX + 1])
}

fn request_invalid(fields: &[&str]) -> Refused {
    Refused {
        code: Code::InvalidArgument,
        reason: "REQUEST_INVALID".into(),
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
    }
}

fn reason(code: Code, reason: &str) -> Refused {
    Refused { code, reason: reason.to_owned(), fields: Vec::new() }
}

fn parameter(name: &str, value: &str) -> pb::Parameter {
    pb::Parameter { name: name.into(), value: value.into() }
}

#[tokio::test]
async fn begin_session_refuses_each_wrong_field_by_name() {
    type Change = fn(&mut pb::BeginSessionRequest);
    let cases: Vec<(Change, Refused)> = vec![
        (|r| r.session_id = short(), request_invalid(&["session_id"])),
        (|r| r.session_id = zero(), request_invalid(&["session_id"])),
        (|r| r.replica_id = Bytes::new(), request_invalid(&["replica_id"])),
        (|r| r.replica_kind = 0, request_invalid(&["replica_kind"])),
        (|r| r.replica_kind = 77, request_invalid(&["replica_kind"])),
        (|r| r.replica_kind = 2, reason(Code::Unimplemented, "FEATURE_UNSUPPORTED")),
        (|r| r.scope = String::new(), request_invalid(&["scope"])),
        (|r| r.scope = "../etc".into(), request_invalid(&["scope"])),
        (|r| r.scope = "x".repeat(64), request_invalid(&["scope"])),
        (|r| r.parameters = vec![parameter("", "x")], request_invalid(&["parameters[0].name"])),
        (
            |r| r.parameters = vec![parameter("a", "1"), parameter("a", "2")],
            request_invalid(&["parameters[1].name"]),
        ),
        (
            |r| r.parameters = vec![parameter("a", &"x".repeat(4_097))],
            request_invalid(&["parameters[0].value"]),
        ),
        (|r| r.parameters = vec![parameter("a", "x"); 33], request_invalid(&["parameters"])),
        (|r| r.knowledge = oversize_knowledge(), reason(Code::ResourceExhausted, "KNOWLEDGE_TOO_LARGE")),
        (|r| r.upload_mark_answered = short(), request_invalid(&["upload_mark_answered"])),
        (|r| r.upload_mark_drawn = zero(), request_invalid(&["upload_mark_drawn"])),
        (|r| r.download_mark = short(), request_invalid(&["download_mark"])),
        (
            |r| r.capabilities = Some(pb::Capabilities { batch_bytes_max: 1, ..Default::default() }),
            request_invalid(&["capabilities.batch_bytes_max"]),
        ),
        (
            |r| r.capabilities = Some(pb::Capabilities { codecs: vec![1; 65], ..Default::default() }),
            request_invalid(&["capabilities.codecs"]),
        ),
        (|r| r.schema_fingerprint = short(), request_invalid(&["schema_fingerprint"])),
        (
            |r| r.client_time = Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
            request_invalid(&["client_time"]),
        ),
        (|r| r.client_name = "x".repeat(201), request_invalid(&["client_name"])),
        (|r| r.client_name = "two\nlines".into(), request_invalid(&["client_name"])),
        // All at once; a wrong field goes before a refusal for another reason.
        (
            |r| {
                r.session_id = short();
                r.replica_kind = 2;
                r.scope = String::new();
                r.knowledge = oversize_knowledge();
            },
            request_invalid(&["session_id", "scope"]),
        ),
    ];
    let service = Service::start().await;
    let mut client = service.client().await;
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let mut request = begin_request();
        change(&mut request);
        let status = client.begin_session(request).await.unwrap_err();
        assert_eq!(refused(&status), expected, "case {number}: {status:?}");
    }
    assert_eq!(service.hub.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn every_call_of_a_session_refuses_ids_that_are_none() {
    let service = Service::start().await;
    let mut client = service.client().await;
    for session_id in [short(), zero(), Bytes::new()] {
        let mut statuses = unary_calls(&mut client, &session_id).await;
        statuses.extend(streaming_calls(&mut client, &session_id).await);
        for (number, (status, fields)) in statuses.into_iter().enumerate() {
            let fields = [&["session_id", "session_token"], &fields[..]].concat();
            assert_eq!(refused(&status), request_invalid(&fields), "call {number}: {status:?}");
        }
    }
    assert_eq!(service.hub.calls.load(Ordering::SeqCst), 0);
}

/// Calls with this session id, a token and other ids that are none: how they fail, and what else is wrong with them.
async fn unary_calls(client: &mut Client, session_id: &Bytes) -> Vec<(Status, Vec<&'static str>)> {
    let session_id = session_id.clone();
    let session_token = short();
    let release = pb::ReleaseBatchesRequest {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        batch_ids: vec![mark(), short(), zero()],
    };
    let query = pb::QueryBatchRequest {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        batch_id: short(),
    };
    let end = pb::EndSessionRequest { session_id, session_token, outcome: 9, ..Default::default() };
    vec![
        (client.release_batches(release).await.unwrap_err(), vec!["batch_ids[1]", "batch_ids[2]"]),
        (client.query_batch(query).await.unwrap_err(), vec!["batch_id"]),
        (client.end_session(end).await.unwrap_err(), vec!["outcome"]),
    ]
}

async fn streaming_calls(client: &mut Client, session_id: &Bytes) -> Vec<(Status, Vec<&'static str>)> {
    let session_id = session_id.clone();
    let session_token = short();
    let changes = pb::GetChangesRequest {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        ..Default::default()
    };
    let download = pb::DownloadBatchRequest {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        batch_id: short(),
        read_offset: 0,
    };
    let apply = pb::ApplyChangesRequest { session_id, session_token, ..Default::default() };
    vec![
        (stream_error(client.get_changes(changes).await).await, vec![]),
        (stream_error(client.download_batch(download).await).await, vec!["batch_id"]),
        (stream_error(client.apply_changes(apply).await).await, vec!["leaf_clock", "upload_mark"]),
    ]
}

#[tokio::test]
async fn foreign_sessions_tokens_and_batches_are_refused_by_reason() {
    let service = Service::start().await;
    let mut session = service.session().await;
    let query = |session_id: &Bytes, session_token: &Bytes| pb::QueryBatchRequest {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        batch_id: mark(),
    };
    let status = session.client.query_batch(query(&mark(), &session.token)).await.unwrap_err();
    assert_eq!(refused(&status), reason(Code::NotFound, "SESSION_NOT_FOUND"));
    let status = session.client.query_batch(query(&session.id, &mark())).await.unwrap_err();
    assert_eq!(refused(&status), reason(Code::FailedPrecondition, "SESSION_SUPERSEDED"));
    let download = |batch_id: Bytes, read_offset| pb::DownloadBatchRequest {
        session_id: session.id.clone(),
        session_token: session.token.clone(),
        batch_id,
        read_offset,
    };
    let unknown = download(mark(), 0);
    let known = batch(1, 10);
    *service.hub.downloads.lock().unwrap() = vec![known.clone()];
    let beyond = download(crate::harness::id_bytes(known.info.id), 11);
    let status = stream_error(session.client.download_batch(unknown).await).await;
    assert_eq!(refused(&status), reason(Code::NotFound, "BATCH_NOT_FOUND"));
    let status = stream_error(session.client.download_batch(beyond).await).await;
    assert_eq!(refused(&status), reason(Code::OutOfRange, "OFFSET_MISMATCH"));
}

#[tokio::test]
async fn get_changes_refuses_wrong_keys_and_places() {
    type Change = fn(&mut pb::GetChangesRequest);
    let excepted = |key: &'static [u8], knowledge_before| pb::ExceptedKey {
        table_id: 1,
        key: Bytes::from_static(key),
        knowledge_before,
    };
    let cases: Vec<(Change, Refused)> = vec![
        (|r| r.knowledge = oversize_knowledge(), reason(Code::ResourceExhausted, "KNOWLEDGE_TOO_LARGE")),
        (|r| r.first_sequence = u32::MAX, request_invalid(&["first_sequence"])),
        (|r| r.excepted_keys = vec![pb::ExceptedKey::default(); 10_001], request_invalid(&["excepted_keys"])),
        (|r| r.excepted_keys[1].key = Bytes::new(), request_invalid(&["excepted_keys[1].key"])),
        (
            |r| r.excepted_keys[0].knowledge_before = oversize_knowledge(),
            reason(Code::ResourceExhausted, "KNOWLEDGE_TOO_LARGE"),
        ),
    ];
    let service = Service::start().await;
    let mut session = service.session().await;
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let mut request = session.changes_request();
        request.excepted_keys = vec![excepted(b"a", Bytes::new()), excepted(b"b", Bytes::new())];
        change(&mut request);
        let status = stream_error(session.client.get_changes(request).await).await;
        assert_eq!(refused(&status), expected, "case {number}: {status:?}");
    }
    assert!(service.hub.asked.lock().unwrap().is_none());
}

#[tokio::test]
async fn apply_changes_refuses_wrong_lists_of_batches() {
    type Change = fn(&mut pb::ApplyChangesRequest);
    let cases: Vec<(Change, Refused)> = vec![
        (|r| r.upload_mark = short(), request_invalid(&["upload_mark"])),
        (|r| r.leaf_clock = None, request_invalid(&["leaf_clock"])),
        (|r| clock(r).replica_id = short(), request_invalid(&["leaf_clock.replica_id"])),
        (
            |r| clock(r).missing = vec![pb::TickRange { first: 10, last: 11 }],
            reason(Code::InvalidArgument, "KNOWLEDGE_INVALID"),
        ),
        (
            |r| clock(r).missing = vec![pb::TickRange { first: 3, last: 2 }],
            reason(Code::InvalidArgument, "KNOWLEDGE_INVALID"),
        ),
        (|r| r.made_with = oversize_knowledge(), reason(Code::ResourceExhausted, "KNOWLEDGE_TOO_LARGE")),
        (|r| r.batches[0].batch_id = short(), request_invalid(&["batches[0].batch_id"])),
        (|r| r.batches[1].sha256 = short(), request_invalid(&["batches[1].sha256"])),
        (|r| r.batches[1].codec = 77, request_invalid(&["batches[1].codec"])),
        (|r| r.batches[1].codec = 0, request_invalid(&["batches[1].codec"])),
        (|r| r.batches[1].sequence = 3, request_invalid(&["batches[1].sequence"])),
        (|r| r.batches[1].sequence = 0, request_invalid(&["batches[1].sequence"])),
        (|r| r.batches.swap(0, 1), request_invalid(&["batches[0].sequence", "batches[1].sequence"])),
        (
            |r| r.batches[1].batch_id = r.batches[0].batch_id.clone(),
            request_invalid(&["batches[1].batch_id"]),
        ),
        (|r| r.batches[1].stored_bytes = u64::MAX, request_invalid(&["batches[1].stored_bytes"])),
        (|r| r.batches[1].decoded_bytes = u64::MAX, reason(Code::InvalidArgument, "BATCH_TOO_LARGE")),
        (|r| r.batches[1].rows = u32::MAX, reason(Code::InvalidArgument, "BATCH_TOO_LARGE")),
        (
            |r| r.batches[0].inline_data = Bytes::from_static(b"x"),
            request_invalid(&["batches[0].inline_data"]),
        ),
        (
            |r| {
                let bytes = vec![1; limits::INLINE_BATCH_BYTES_MAX + 1];
                r.batches[0].stored_bytes = bytes.len() as u64;
                r.batches[0].decoded_bytes = bytes.len() as u64;
                r.batches[0].inline_data = bytes.into();
            },
            request_invalid(&["batches[0].inline_data"]),
        ),
        (
            |r| r.batches = vec![pb::BatchInfo::default(); limits::UPLOAD_BATCHES_MAX + 1],
            request_invalid(&["batches"]),
        ),
    ];
    let service = Service::start().await;
    let mut session = service.session().await;
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let mut request =
            session.apply_request(vec![batch(1, 100).info.to_wire(), batch(2, 50).info.to_wire()]);
        change(&mut request);
        let status = stream_error(session.client.apply_changes(request).await).await;
        assert_eq!(refused(&status), expected, "case {number}: {status:?}");
    }
    assert!(service.hub.applied.lock().unwrap().is_none());
}

fn clock(request: &mut pb::ApplyChangesRequest) -> &mut pb::ReplicaClock {
    request.leaf_clock.as_mut().unwrap()
}

#[tokio::test]
async fn inline_bytes_of_a_call_are_bounded_in_all() {
    let service = Service::start().await;
    let mut session = service.session().await;
    let each = limits::INLINE_BATCH_BYTES_MAX;
    let count = limits::INLINE_CALL_BYTES_MAX / each + 1;
    let inline = |number| {
        let batch = batch(number, each);
        pb::BatchInfo { inline_data: batch.stored.clone(), ..batch.info.to_wire() }
    };
    let mut request = session.apply_request((1..=count as u32).map(inline).collect());
    let status = stream_error(session.client.apply_changes(request.clone()).await).await;
    assert_eq!(refused(&status), request_invalid(&["batches"]));
    request.batches.pop();
    session.client.apply_changes(request).await.unwrap();
}

#[tokio::test]
async fn more_faults_than_a_status_holds_are_counted() {
    let service = Service::start().await;
    let Session { mut client, id, token } = service.session().await;
    let release = |count| pb::ReleaseBatchesRequest {
        session_id: id.clone(),
        session_token: token.clone(),
        batch_ids: vec![short(); count],
    };
    let status = client.release_batches(release(100)).await.unwrap_err();
    assert_eq!(refused(&status).fields.len(), limits::FIELD_VIOLATIONS_MAX);
    assert!(status.message().ends_with("(and 99 more)"), "{}", status.message());
    let status = client.release_batches(release(4_097)).await.unwrap_err();
    assert_eq!(refused(&status), request_invalid(&["batch_ids"]));
}

#[tokio::test]
async fn reads_without_a_session_are_checked_too() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let status = client.get_knowledge(pb::GetKnowledgeRequest::default()).await.unwrap_err();
    assert_eq!(refused(&status), request_invalid(&["replica_id", "scope", "schema_fingerprint"]));
    let status = client.get_scope(pb::GetScopeRequest::default()).await.unwrap_err();
    assert_eq!(refused(&status), request_invalid(&["scope"]));
    let list = pb::ListScopesRequest { page_size: -1, page_token: "/".into() };
    let status = client.list_scopes(list).await.unwrap_err();
    assert_eq!(refused(&status), request_invalid(&["page_size", "page_token"]));
    assert_eq!(service.hub.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_this_version_lacks_is_said_by_its_name() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let unsupported = reason(Code::Unimplemented, "FEATURE_UNSUPPORTED");
    let scope = pb::GetScopeRequest { scope: "shop".into(), with_local_sql: true };
    assert_eq!(refused(&client.get_scope(scope).await.unwrap_err()), unsupported);
    let digests = pb::GetDigestsRequest { scope: "shop".into(), ..Default::default() };
    assert_eq!(refused(&stream_error(client.get_digests(digests).await).await), unsupported);
    let watch = pb::WatchScopeRequest {
        interval_min: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        ..Default::default()
    };
    let status = stream_error(client.watch_scope(watch).await).await;
    let wrong = ["replica_id", "scope", "schema_fingerprint", "interval_min"];
    assert_eq!(refused(&status), request_invalid(&wrong));
}
