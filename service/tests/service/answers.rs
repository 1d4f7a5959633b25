//! Goal: each rpc hands the hub what the client said, and the client what the hub said; health and reflection answer.

use std::time::Duration;

use bytes::Bytes;
use syncline::batch::Codec;
use syncline::error::{ErrorReason, SyncError};
use syncline::ids::{Mark, TableId};
use syncline::pb;
use syncline::pb::apply_changes_response::Event as Applied;
use syncline::pb::get_changes_response::Event as Changed;
use tonic::Code;
use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::harness::{Service, all, batch, begin_request, id_bytes, mark, refused, replica, watch_request};

#[tokio::test]
async fn begin_session_hands_over_everything_and_answers_the_agreement() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let drawn = Mark::fresh();
    let request = pb::BeginSessionRequest {
        parameters: vec![pb::Parameter { name: "region".into(), value: "north".into() }],
        knowledge: Bytes::from_static(b"opaque"),
        upload_mark_drawn: Bytes::copy_from_slice(drawn.as_bytes()),
        // The service passes over what it does not know.
        capabilities: Some(pb::Capabilities {
            codecs: vec![pb::Codec::Zstd as i32, 99, pb::Codec::Zstd as i32],
            types: Vec::new(),
            features: vec!["from_the_future".into()],
            batch_bytes_max: 1 << 20,
            row_bytes_max: u64::MAX,
        }),
        client_time: Some(std::time::SystemTime::now().into()),
        ..begin_request()
    };
    let answer = client.begin_session(request.clone()).await.unwrap();
    assert!(answer.metadata().contains_key("x-request-id"));
    let answer = answer.into_inner();
    assert_eq!(answer.hub_replica_id, service.hub.replica.as_bytes());
    assert_eq!(answer.hint(), pb::SessionHint::Synchronise);
    assert_eq!(answer.lease.unwrap().seconds, 24 * 3_600);
    assert_eq!(answer.agreement.unwrap().codec(), pb::Codec::Zstd);
    assert!(!answer.resume.unwrap().resumed);
    {
        let begun = service.hub.begun.lock().unwrap();
        let begun = begun.as_ref().unwrap();
        assert_eq!(begun.parameters, [("region".to_owned(), "north".to_owned())]);
        assert_eq!(begun.knowledge, "opaque");
        assert_eq!((begun.upload_mark_answered, begun.upload_mark_drawn), (None, Some(drawn)));
        assert_eq!(begun.codecs, [Codec::Zstd, Codec::Identity]);
        assert_eq!(begun.batch_bytes_max, Some(1 << 20));
        assert_eq!(begun.row_bytes_max, Some(syncline::limits::ROW_BYTES_MAX));
        assert_eq!(begun.client_name, "test 1.0");
    }
    let again = client.begin_session(request).await.unwrap().into_inner();
    assert!(again.resume.unwrap().resumed);
    assert_ne!(again.session_token, answer.session_token);
}

#[tokio::test]
async fn a_scope_with_a_type_that_the_client_did_not_list_is_refused() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let with_types = |types: Vec<i32>| pb::BeginSessionRequest {
        capabilities: Some(pb::Capabilities { types, ..pb::Capabilities::default() }),
        ..begin_request()
    };
    let int_only = with_types(vec![pb::CanonicalType::Int64 as i32]);
    let status = client.begin_session(int_only).await.unwrap_err();
    assert_eq!(refused(&status).reason, "CAPABILITY_REQUIRED");
    assert!(status.message().contains("customer.data"));
    // A list of unknown types is not "all types".
    let status = client.begin_session(with_types(vec![99])).await.unwrap_err();
    assert_eq!(refused(&status).reason, "CAPABILITY_REQUIRED");
    let both = with_types(vec![pb::CanonicalType::Int64 as i32, pb::CanonicalType::Json as i32]);
    client.begin_session(both).await.unwrap();
}

#[tokio::test]
async fn the_poll_answers_what_the_probe_found() {
    let service = Service::start().await;
    let request = pb::GetKnowledgeRequest {
        replica_id: replica(),
        scope: "shop".into(),
        parameters: Vec::new(),
        knowledge: Bytes::from_static(b"opaque"),
        schema_fingerprint: Bytes::from_static(&[7; 32]),
    };
    let answer = service.client().await.get_knowledge(request).await.unwrap().into_inner();
    assert_eq!(answer.pending(), pb::Pending::Maybe);
    assert_eq!(answer.hub_replica_id, service.hub.replica.as_bytes());
    assert_eq!(service.hub.polled.lock().unwrap().as_ref().unwrap().knowledge, "opaque");
}

#[tokio::test]
async fn whoever_watches_is_told_of_everything_the_hub_tells() {
    let service = Service::start().await;
    let mut told = service.client().await.watch_scope(watch_request()).await.unwrap().into_inner();
    for expected in [pb::Pending::None, pb::Pending::Some] {
        assert_eq!(told.message().await.unwrap().unwrap().pending(), expected);
    }
    assert_eq!(service.hub.polled.lock().unwrap().as_ref().unwrap().knowledge, "opaque");
    assert_eq!(*service.hub.watched.lock().unwrap(), Some(std::time::Duration::from_millis(10)));
}

#[tokio::test]
async fn changes_come_in_order_with_small_batches_inline() {
    let service = Service::start().await;
    *service.hub.downloads.lock().unwrap() = vec![batch(1, 1_000), batch(2, 100_000)];
    let mut session = service.session().await;
    let request = pb::GetChangesRequest {
        excepted_keys: vec![pb::ExceptedKey {
            table_id: 1,
            key: Bytes::from_static(b"key"),
            knowledge_before: Bytes::new(),
        }],
        ..session.changes_request()
    };
    let messages = all(session.client.get_changes(request).await.unwrap().into_inner()).await;
    let events: Vec<_> = messages.into_iter().map(|message| message.event.unwrap()).collect();
    let [Changed::Begin(begin), Changed::Batch(small), Changed::Batch(large), Changed::End(end)] =
        &events[..]
    else {
        panic!("other events: {events:?}");
    };
    assert_eq!((begin.mode(), &begin.whole_table_ids[..]), (pb::ChangesMode::Delta, &[1][..]));
    assert_eq!((small.inline_data.len(), large.inline_data.len()), (1_000, 0));
    assert_eq!((end.batches, &end.learned_knowledge[..]), (2, &b"learned"[..]));
    let asked = service.hub.asked.lock().unwrap().clone().unwrap();
    assert_eq!(asked.first_sequence, 1);
    assert_eq!(asked.excepted_keys[0].row.table, TableId(1));
}

#[tokio::test]
async fn a_batch_is_downloaded_from_any_offset_in_bounded_chunks() {
    let service = Service::start().await;
    let stored = batch(1, 700_000);
    *service.hub.downloads.lock().unwrap() = vec![stored.clone()];
    let mut session = service.session().await;
    for read_offset in [0, 1, 650_000, 700_000] {
        let request = pb::DownloadBatchRequest {
            session_id: session.id.clone(),
            session_token: session.token.clone(),
            batch_id: id_bytes(stored.info.id),
            read_offset,
        };
        let chunks = all(session.client.download_batch(request).await.unwrap().into_inner()).await;
        let mut bytes = Vec::new();
        for chunk in chunks {
            assert_eq!(chunk.offset, read_offset + bytes.len() as u64);
            assert!(chunk.data.len() <= syncline::limits::CHUNK_BYTES_MAX);
            bytes.extend_from_slice(&chunk.data);
        }
        assert_eq!(bytes, stored.stored[read_offset as usize..]);
    }
}

#[tokio::test]
async fn released_batches_are_told_apart_from_absent_ones() {
    let service = Service::start().await;
    let mut session = service.session().await;
    let (held, other) = (mark(), mark());
    let release = pb::ReleaseBatchesRequest {
        session_id: session.id.clone(),
        session_token: session.token.clone(),
        batch_ids: vec![held.clone()],
    };
    session.client.release_batches(release).await.unwrap();
    for (batch_id, state) in [(held, pb::BatchState::Released), (other, pb::BatchState::Absent)] {
        let query = pb::QueryBatchRequest {
            session_id: session.id.clone(),
            session_token: session.token.clone(),
            batch_id,
        };
        assert_eq!(session.client.query_batch(query).await.unwrap().into_inner().state(), state);
    }
}

#[tokio::test]
async fn an_apply_reports_progress_conflicts_row_errors_and_its_result() {
    let service = Service::start().await;
    let mut session = service.session().await;
    let (inline, uploaded) = (batch(1, 500), batch(2, 5_000));
    let with_bytes = pb::BatchInfo { inline_data: inline.stored.clone(), ..inline.info.to_wire() };
    let request = session.apply_request(vec![with_bytes, uploaded.info.to_wire()]);
    let answer = session.client.apply_changes(request.clone()).await.unwrap();
    let events: Vec<_> =
        all(answer.into_inner()).await.into_iter().map(|message| message.event.unwrap()).collect();
    let [
        Applied::Progress(_),
        Applied::Conflict(conflict),
        Applied::RowError(error),
        Applied::Result(result),
    ] = &events[..]
    else {
        panic!("other events: {events:?}");
    };
    assert_eq!((conflict.table.as_str(), conflict.outcome()), ("customer", pb::ConflictOutcome::Local));
    assert_eq!(error.reason(), pb::RowErrorReason::Unique);
    assert_eq!((result.upserts, result.deletes, result.unchanged), (1, 2, 3));
    assert_eq!(result.upload_mark, request.upload_mark);
    // A microsecond before 1970.
    let committed_at = result.committed_at.unwrap();
    assert_eq!((committed_at.seconds, committed_at.nanos), (-1, 999_999_000));
    let applied = service.hub.applied.lock().unwrap().clone().unwrap();
    assert_eq!(applied.batches[0].1.as_ref().unwrap(), &inline.stored);
    assert_eq!((&applied.batches[1].0, &applied.batches[1].1), (&uploaded.info, &None));
    assert_eq!((applied.leaf_clock.tick().0, applied.clock_offset_us), (9, -5));
}

#[tokio::test]
async fn end_session_hands_over_what_the_client_has_done() {
    let service = Service::start().await;
    let mut session = service.session().await;
    let request = pb::EndSessionRequest {
        session_id: session.id.clone(),
        session_token: session.token.clone(),
        outcome: pb::SessionOutcome::Abandoned as i32,
        knowledge: Bytes::from_static(b"learned"),
        download_mark: mark(),
        statistics: Some(pb::SessionStatistics { rows_downloaded: 5, ..pb::SessionStatistics::default() }),
    };
    session.client.end_session(request).await.unwrap();
    let ended = service.hub.ended.lock().unwrap().clone().unwrap();
    assert!(ended.abandoned && ended.download_mark.is_some());
    assert_eq!(ended.rows_downloaded, 5);
}

#[tokio::test]
async fn scopes_are_listed_by_name_in_pages() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListScopesRequest { page_size: 2, page_token };
        let page = client.list_scopes(request).await.unwrap().into_inner();
        names.push(page.scopes.into_iter().map(|scope| scope.name).collect::<Vec<_>>());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, [vec!["audit", "shop"], vec!["stock"]]);
    let all = client.list_scopes(pb::ListScopesRequest::default()).await.unwrap().into_inner();
    assert_eq!((all.scopes.len(), all.next_page_token.as_str()), (3, ""));
}

#[tokio::test]
async fn a_scope_comes_with_its_schema_and_fingerprint() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let request = pb::GetScopeRequest { scope: "shop".into(), with_local_sql: false };
    let answer = client.get_scope(request).await.unwrap().into_inner();
    let schema: syncline::schema::ScopeSchema = answer.schema.unwrap().try_into().unwrap();
    assert_eq!(schema, service.hub.schema);
    let request = pb::GetScopeRequest { scope: "other".into(), with_local_sql: false };
    let status = client.get_scope(request).await.unwrap_err();
    assert_eq!((status.code(), refused(&status).reason.as_str()), (Code::NotFound, "SCOPE_NOT_FOUND"));
}

#[tokio::test]
async fn a_hubs_error_arrives_with_its_reason_and_without_its_detail() {
    let service = Service::start().await;
    let error = SyncError::new(ErrorReason::TrackingBroken, "apply the scope again")
        .with("table", "customer")
        .with_detail("SELECT secret")
        .retry_after(Duration::from_secs(7));
    *service.hub.failure.lock().unwrap() = Some(error);
    let mut request = Request::new(begin_request());
    request.metadata_mut().insert("x-request-id", "mine-1".parse().unwrap());
    let status = service.client().await.begin_session(request).await.unwrap_err();
    assert_eq!(refused(&status).reason, "TRACKING_BROKEN");
    assert_eq!(status.metadata().get("x-request-id").unwrap(), "mine-1");
    assert!(!format!("{status:?}").contains("secret"));
}

#[tokio::test]
async fn health_answers_for_the_whole_and_for_each_service() {
    let service = Service::start().await;
    let mut health = HealthClient::new(service.channel().await);
    for name in ["", "syncline.v1.SyncService"] {
        let request = HealthCheckRequest { service: name.into() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status().as_str_name(), "SERVING");
    }
    let other = HealthCheckRequest { service: "other".into() };
    assert_eq!(health.check(other).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_what_is_served_and_nothing_else() {
    let service = Service::start().await;
    let mut client = ServerReflectionClient::new(service.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answer.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("another answer: {answer:?}");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    names.retain(|name| !name.starts_with("grpc.reflection."));
    assert_eq!(names, ["grpc.health.v1.Health", "syncline.v1.SyncService"]);
}
