//! GetChanges, DownloadBatch, ReleaseBatches and QueryBatch.

use bytes::Bytes;
use syncline::pb;
use syncline::pb::get_changes_response::Event;
use syncline_tests::database::Kind;
use tonic::{Code, Status};

use super::cases::{Case, assert_refused, check_table, session_cases, unknown_session};
use super::kit::{Bare, Client, Open, bytes};

pub(super) fn download_request(
    session: &Open,
    batch_id: Bytes,
    read_offset: u64,
) -> pb::DownloadBatchRequest {
    let (session_id, session_token) = (session.id.clone(), session.token.clone());
    pb::DownloadBatchRequest { session_id, session_token, batch_id, read_offset }
}

pub(super) fn release_request(session: &Open, batch_id: Bytes) -> pb::ReleaseBatchesRequest {
    let (session_id, session_token) = (session.id.clone(), session.token.clone());
    pb::ReleaseBatchesRequest { session_id, session_token, batch_ids: vec![batch_id] }
}

pub(super) fn query_request(session: &Open, batch_id: Bytes) -> pb::QueryBatchRequest {
    pb::QueryBatchRequest { session_id: session.id.clone(), session_token: session.token.clone(), batch_id }
}

pub(super) async fn download(client: &mut Client, request: pb::DownloadBatchRequest) -> Result<(), Status> {
    let mut chunks = client.download_batch(request).await?.into_inner();
    while chunks.message().await?.is_some() {}
    Ok(())
}

async fn changes(client: &mut Client, request: pb::GetChangesRequest) -> Result<Vec<Event>, Status> {
    let mut events = Vec::new();
    let mut messages = client.get_changes(request).await?.into_inner();
    while let Some(message) = messages.message().await? {
        events.extend(message.event);
    }
    Ok(events)
}

#[rustfmt::skip] // A case a line.
const DOWNLOAD: &[Case<pb::DownloadBatchRequest>] = &[
    unknown_session!(std::convert::identity),
    ("no batch id", |r| r.batch_id = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID", "batch_id"),
    ("a batch that is not there", |r| r.batch_id = bytes(&[5; 16]), Code::NotFound, "BATCH_NOT_FOUND", "ask GetChanges for the list"),
];

#[rustfmt::skip] // A case a line.
const RELEASE: &[Case<pb::ReleaseBatchesRequest>] = &[
    unknown_session!(std::convert::identity),
    ("a batch id of 3 bytes", |r| r.batch_ids.push(bytes(b"abc")), Code::InvalidArgument, "REQUEST_INVALID", "batch_ids[1]"),
    ("too many", |r| r.batch_ids = vec![bytes(&[5; 16]); 4_097], Code::InvalidArgument, "REQUEST_INVALID", "at most 4096"),
    ("a batch that is not there", |_| {}, Code::NotFound, "BATCH_NOT_FOUND", "no such batch"),
];

#[rustfmt::skip] // A case a line.
const QUERY: &[Case<pb::QueryBatchRequest>] = &[
    unknown_session!(std::convert::identity),
    ("no batch id", |r| r.batch_id = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID", "batch_id"),
];

#[rustfmt::skip] // A case a line.
const GET_CHANGES: &[Case<pb::GetChangesRequest>] = &[
    unknown_session!(std::convert::identity),
    ("random knowledge", |r| r.knowledge = bytes(&[0xff; 40]), Code::InvalidArgument, "KNOWLEDGE_INVALID", "knowledge"),
    ("oversized knowledge", |r| r.knowledge = bytes(&vec![1; 600 << 10]), Code::ResourceExhausted, "KNOWLEDGE_TOO_LARGE", "at most"),
    ("a huge sequence", |r| r.first_sequence = u32::MAX, Code::InvalidArgument, "REQUEST_INVALID", "first_sequence"),
    ("an excepted key without a key", |r| r.excepted_keys = vec![excepted(1, b"")], Code::InvalidArgument, "REQUEST_INVALID", "excepted_keys[0].key"),
    ("an excepted key of no table", |r| r.excepted_keys = vec![excepted(9_999, b"abc")], Code::InvalidArgument, "REQUEST_INVALID", "excepted_keys"),
    ("an excepted key that is none", |r| r.excepted_keys = vec![excepted(1, &[0xff; 9])], Code::InvalidArgument, "REQUEST_INVALID", "excepted_keys"),
    ("too many excepted keys", |r| r.excepted_keys = vec![excepted(1, b"abc"); 10_001], Code::InvalidArgument, "REQUEST_INVALID", "at most 10000"),
];

fn excepted(table_id: u32, key: &[u8]) -> pb::ExceptedKey {
    pb::ExceptedKey { table_id, key: bytes(key), knowledge_before: Bytes::new() }
}

#[tokio::test]
async fn downloads_refuse_what_is_not_theirs() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let mut cases = session_cases!(pb::DownloadBatchRequest, std::convert::identity);
        cases.extend_from_slice(DOWNLOAD);
        let request = |_: &Bare, s: &Open| download_request(s, bytes(&[5; 16]), 0);
        check_table(&mut bare, "DownloadBatch", request, async |c, r| download(c, r).await, &cases).await;
        let mut cases = session_cases!(pb::ReleaseBatchesRequest, std::convert::identity);
        cases.extend_from_slice(RELEASE);
        let request = |_: &Bare, s: &Open| release_request(s, bytes(&[5; 16]));
        check_table(
            &mut bare,
            "ReleaseBatches",
            request,
            async |c, r| c.release_batches(r).await.map(drop),
            &cases,
        )
        .await;
        let mut cases = session_cases!(pb::QueryBatchRequest, std::convert::identity);
        cases.extend_from_slice(QUERY);
        let request = |_: &Bare, s: &Open| query_request(s, bytes(&[5; 16]));
        check_table(&mut bare, "QueryBatch", request, async |c, r| c.query_batch(r).await.map(drop), &cases)
            .await;
        let mut cases = session_cases!(pb::GetChangesRequest, std::convert::identity);
        cases.extend_from_slice(GET_CHANGES);
        let request = |_: &Bare, s: &Open| pb::GetChangesRequest {
            session_id: s.id.clone(),
            session_token: s.token.clone(),
            ..Default::default()
        };
        check_table(&mut bare, "GetChanges", request, async |c, r| changes(c, r).await.map(drop), &cases)
            .await;
    }
}

#[tokio::test]
async fn a_download_is_read_within_its_bounds_until_it_is_released() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let session = bare.open().await;
    let request = pb::GetChangesRequest {
        session_id: session.id.clone(),
        session_token: session.token.clone(),
        ..Default::default()
    };
    let listed = changes(&mut bare.client, request).await.unwrap();
    let batch = listed.iter().find_map(|event| match event {
        Event::Batch(info) => Some(info.clone()),
        _ => None,
    });
    let batch = batch.unwrap();
    let (id, size) = (batch.batch_id, batch.stored_bytes);
    download(&mut bare.client, download_request(&session, id.clone(), size)).await.unwrap();
    for beyond in [size + 1, u64::MAX] {
        let answer = download(&mut bare.client, download_request(&session, id.clone(), beyond)).await;
        assert_refused(
            "beyond the end",
            answer,
            Code::OutOfRange,
            "OFFSET_MISMATCH",
            "read from there at most",
        );
    }
    bare.client.release_batches(release_request(&session, id.clone())).await.unwrap();
    bare.client.release_batches(release_request(&session, id.clone())).await.unwrap();
    let answer = download(&mut bare.client, download_request(&session, id, 0)).await;
    assert_refused("released", answer, Code::NotFound, "BATCH_NOT_FOUND", "no such batch");
    bare.process.assert_sound();
}
