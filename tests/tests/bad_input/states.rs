//! Calls at the wrong time: with an older token, after the session's end or its lease, uploads after the download began.

use bytes::Bytes;
use syncline::pb;
use syncline_tests::database::Kind;
use tonic::{Code, Status};

use super::cases::assert_refused;
use super::kit::{Bare, Client, Open, apply, bytes};

const CALLS: [&str; 8] = [
    "UploadChunk",
    "UploadBatch",
    "QueryBatch",
    "ApplyChanges",
    "GetChanges",
    "DownloadBatch",
    "ReleaseBatches",
    "EndSession",
];
/// Those that belong to an upload.
const UPLOADS: [&str; 3] = ["UploadChunk", "UploadBatch", "ApplyChanges"];

/// A call of the session that would be good at the right time, or fail for want of a batch.
async fn call(bare: &mut Bare, rpc: &str, session: &Open) -> Result<(), Status> {
    let (session_id, session_token) = (session.id.clone(), session.token.clone());
    let good = bare.good();
    let batch_id = bytes(good.info.id.as_bytes());
    let request = bare.apply_request(session, &good);
    let batch = Some(good.info.to_wire());
    let header = pb::UploadBatchHeader {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        batch,
        write_offset: 0,
    };
    let client: &mut Client = &mut bare.client;
    match rpc {
        "UploadChunk" => {
            let request = pb::UploadChunkRequest { header: Some(header), data: good.stored };
            client.upload_chunk(request).await.map(drop)
        }
        "UploadBatch" => {
            let part = Some(pb::upload_batch_request::Part::Header(header));
            let messages = tokio_stream::iter([pb::UploadBatchRequest { part }]);
            client.upload_batch(messages).await.map(drop)
        }
        "QueryBatch" => {
            client.query_batch(pb::QueryBatchRequest { session_id, session_token, batch_id }).await.map(drop)
        }
        "ApplyChanges" => apply(client, request).await.map(drop),
        "GetChanges" => changes(client, session, Bytes::new()).await,
        "DownloadBatch" => {
            let request = pb::DownloadBatchRequest { session_id, session_token, batch_id, read_offset: 0 };
            let mut chunks = client.download_batch(request).await?.into_inner();
            chunks.message().await.map(drop)
        }
        "ReleaseBatches" => {
            let request = pb::ReleaseBatchesRequest { session_id, session_token, batch_ids: vec![batch_id] };
            client.release_batches(request).await.map(drop)
        }
        "EndSession" => {
            let outcome = pb::SessionOutcome::Completed as i32;
            let request = pb::EndSessionRequest { session_id, session_token, outcome, ..Default::default() };
            client.end_session(request).await.map(drop)
        }
        other => panic!("{other}"),
    }
}

async fn changes(client: &mut Client, session: &Open, knowledge: Bytes) -> Result<(), Status> {
    let (session_id, session_token) = (session.id.clone(), session.token.clone());
    let request = pb::GetChangesRequest { session_id, session_token, knowledge, ..Default::default() };
    let mut events = client.get_changes(request).await?.into_inner();
    while events.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn an_older_token_is_superseded_in_every_call() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let request = bare.begin_request();
    let id = request.session_id.clone();
    let older = bare.client.begin_session(request.clone()).await.unwrap().into_inner();
    let newer = bare.client.begin_session(request).await.unwrap().into_inner();
    assert_ne!(older.session_token, newer.session_token);
    assert!(newer.resume.unwrap().resumed);
    let before = bare.standing().await;
    let session = Open { id, token: older.session_token };
    for rpc in CALLS {
        let answer = call(&mut bare, rpc, &session).await;
        assert_refused(rpc, answer, Code::FailedPrecondition, "SESSION_SUPERSEDED", "this one must stop");
    }
    assert_eq!(bare.standing().await, before);
}

#[tokio::test]
async fn a_session_that_has_ended_is_not_found() {
    for completed in [true, false] {
        let mut bare = Bare::start(Kind::Sqlite).await;
        let session = bare.open().await;
        if completed {
            changes(&mut bare.client, &session, Bytes::new()).await.unwrap();
            call(&mut bare, "EndSession", &session).await.unwrap();
        } else {
            bare.abandon(&session).await;
        }
        let before = bare.standing().await;
        for rpc in CALLS.into_iter().filter(|rpc| *rpc != "EndSession") {
            let answer = call(&mut bare, rpc, &session).await;
            assert_refused(rpc, answer, Code::NotFound, "SESSION_NOT_FOUND", "begin a new");
        }
        call(&mut bare, "EndSession", &session).await.unwrap();
        assert_eq!(bare.standing().await, before);
    }
}

#[tokio::test]
async fn a_session_whose_lease_has_run_out_is_expired() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let session = bare.open().await;
        let prefix = if kind == Kind::Sqlite { "syncline_" } else { "syncline." };
        bare.hub.execute(&format!("UPDATE {prefix}sessions SET lease_until = 1")).await;
        let before = bare.standing().await;
        for rpc in CALLS {
            let answer = call(&mut bare, rpc, &session).await;
            assert_refused(rpc, answer, Code::FailedPrecondition, "SESSION_EXPIRED", "begin a new one");
        }
        assert_eq!(bare.standing().await, before);
    }
}

#[tokio::test]
async fn nothing_is_uploaded_once_the_download_has_begun() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let session = bare.open().await;
        changes(&mut bare.client, &session, Bytes::new()).await.unwrap();
        let before = bare.standing().await;
        for rpc in UPLOADS {
            let answer = call(&mut bare, rpc, &session).await;
            assert_refused(
                rpc,
                answer,
                Code::FailedPrecondition,
                "SESSION_STATE",
                "once GetChanges was called",
            );
        }
        // Nor is it asked again for something else.
        let other = super::sessions::some_knowledge();
        let answer = changes(&mut bare.client, &session, other).await;
        assert_refused(
            "other knowledge",
            answer,
            Code::FailedPrecondition,
            "SESSION_STATE",
            "for other knowledge",
        );
        assert_eq!(bare.standing().await, before);
        changes(&mut bare.client, &session, Bytes::new()).await.unwrap();
        bare.process.assert_sound();
    }
}
