//! Goal: a batch arrives byte for byte in one stream, in pieces, over unary calls; what is no upload is refused.

use bytes::Bytes;
use syncline::limits;
use syncline::pb;
use syncline::pb::upload_batch_request::Part;
use tonic::{Code, Status};

use crate::harness::{Refused, Service, Session, batch, id_bytes, refused};

fn part(part: Part) -> pb::UploadBatchRequest {
    pb::UploadBatchRequest { part: Some(part) }
}

fn chunks(bytes: &Bytes, size: usize) -> impl Iterator<Item = pb::UploadBatchRequest> {
    bytes
        .chunks(size)
        .map(|chunk| part(Part::Chunk(Bytes::copy_from_slice(chunk))))
        .collect::<Vec<_>>()
        .into_iter()
}

async fn upload(
    session: &mut Session,
    parts: Vec<pb::UploadBatchRequest>,
) -> Result<pb::UploadBatchResponse, Status> {
    session.client.upload_batch(tokio_stream::iter(parts)).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_batch_arrives_whole_and_in_parts() {
    let service = Service::start().await;
    let mut session = service.session().await;
    let whole = batch(1, 1_000_000);
    let mut parts = vec![part(Part::Header(session.header(&whole, 0)))];
    parts.extend(chunks(&whole.stored, limits::CHUNK_BYTES_MAX));
    let answer = upload(&mut session, parts).await.unwrap();
    assert_eq!((answer.committed_size, answer.complete), (1_000_000, true));
    assert_eq!(service.hub.uploaded(whole.info.id).unwrap(), whole.stored);

    // The first half, then from before its end: the overlap is passed over.
    let halves = batch(2, 1_000);
    let first = halves.stored.slice(..500);
    let mut parts = vec![part(Part::Header(session.header(&halves, 0)))];
    parts.extend(chunks(&first, 100));
    let answer = upload(&mut session, parts).await.unwrap();
    assert_eq!((answer.committed_size, answer.complete), (500, false));
    let query = pb::QueryBatchRequest {
        session_id: session.id.clone(),
        session_token: session.token.clone(),
        batch_id: id_bytes(halves.info.id),
    };
    let have = session.client.query_batch(query).await.unwrap().into_inner();
    assert_eq!((have.state(), have.committed_size), (pb::BatchState::Partial, 500));
    let mut parts = vec![part(Part::Header(session.header(&halves, 400)))];
    parts.extend(chunks(&halves.stored.slice(400..), 64));
    assert!(upload(&mut session, parts).await.unwrap().complete);
    assert_eq!(service.hub.uploaded(halves.info.id).unwrap(), halves.stored);
}

#[tokio::test]
async fn a_batch_arrives_over_unary_calls() {
    let service = Service::start().await;
    let mut session = service.session().await;
    let whole = batch(1, limits::UNARY_CHUNK_BYTES_MAX + 10);
    let first = pb::UploadChunkRequest {
        header: Some(session.header(&whole, 0)),
        data: whole.stored.slice(..limits::UNARY_CHUNK_BYTES_MAX),
    };
    let answer = session.client.upload_chunk(first).await.unwrap().into_inner();
    assert_eq!((answer.committed_size, answer.complete), (limits::UNARY_CHUNK_BYTES_MAX as u64, false));
    let rest = pb::UploadChunkRequest {
        header: Some(session.header(&whole, answer.committed_size)),
        data: whole.stored.slice(limits::UNARY_CHUNK_BYTES_MAX..),
    };
    assert!(session.client.upload_chunk(rest).await.unwrap().into_inner().complete);
    assert_eq!(service.hub.uploaded(whole.info.id).unwrap(), whole.stored);
}

#[tokio::test]
async fn what_is_no_upload_is_refused_by_field() {
    let service = Service::start().await;
    let mut session = service.session().await;
    let sample = batch(1, 600_000);
    let header = session.header(&sample, 0);
    let changed = |change: fn(&mut pb::UploadBatchHeader)| {
        let mut header = header.clone();
        change(&mut header);
        vec![part(Part::Header(header))]
    };
    let chunk = |size: usize| part(Part::Chunk(Bytes::from(vec![1; size])));
    let first = || part(Part::Header(header.clone()));
    let cases: Vec<(Vec<pb::UploadBatchRequest>, &[&str])> = vec![
        (vec![], &["header"]),
        (vec![chunk(1)], &["header"]),
        (vec![pb::UploadBatchRequest { part: None }], &["part"]),
        (vec![first(), first()], &["header"]),
        (vec![first(), chunk(limits::CHUNK_BYTES_MAX + 1)], &["chunk"]),
        (vec![first(), chunk(0)], &["chunk"]),
        (vec![first(), chunk(250_000), chunk(250_000), chunk(100_001)], &["chunk"]),
        (vec![first(), chunk(limits::MESSAGE_BYTES_MAX)], &["part"]),
        (changed(|h| h.batch = None), &["header.batch"]),
        (changed(|h| h.write_offset = 600_001), &["header.write_offset"]),
        (changed(|h| h.batch.as_mut().unwrap().sha256 = Bytes::new()), &["header.batch.sha256"]),
        (
            changed(|h| {
                h.session_id = Bytes::new();
                h.batch.as_mut().unwrap().batch_id = Bytes::new();
            }),
            &["header.session_id", "header.batch.batch_id"],
        ),
    ];
    for (number, (parts, fields)) in cases.into_iter().enumerate() {
        let status = upload(&mut session, parts).await.unwrap_err();
        let expected = Refused {
            code: Code::InvalidArgument,
            reason: "REQUEST_INVALID".into(),
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        };
        assert_eq!(refused(&status), expected, "case {number}: {status:?}");
    }
    let too_large = changed(|h| h.batch.as_mut().unwrap().decoded_bytes = 1 << 40);
    assert_eq!(refused(&upload(&mut session, too_large).await.unwrap_err()).reason, "BATCH_TOO_LARGE");
}

#[tokio::test]
async fn an_offset_beyond_what_is_stored_says_where_to_go_on() {
    use tonic_types::StatusExt as _;
    let service = Service::start().await;
    let mut session = service.session().await;
    let sample = batch(1, 100);
    let parts = vec![part(Part::Header(session.header(&sample, 50)))];
    let status = upload(&mut session, parts).await.unwrap_err();
    assert_eq!((status.code(), refused(&status).reason.as_str()), (Code::OutOfRange, "OFFSET_MISMATCH"));
    assert_eq!(status.get_error_details().error_info().unwrap().metadata["committed_size"], "0");
}

#[tokio::test]
async fn bytes_with_another_digest_are_data_loss() {
    let service = Service::start().await;
    let mut session = service.session().await;
    let sample = batch(1, 100);
    let request =
        pb::UploadChunkRequest { header: Some(session.header(&sample, 0)), data: Bytes::from(vec![9; 100]) };
    let status = session.client.upload_chunk(request).await.unwrap_err();
    assert_eq!((status.code(), refused(&status).reason.as_str()), (Code::DataLoss, "BATCH_CORRUPT"));
}

#[tokio::test]
async fn a_unary_piece_is_bounded_by_the_call_and_by_the_batch() {
    let service = Service::start().await;
    let mut session = service.session().await;
    let large = batch(1, 3 << 20);
    let small = batch(2, 10);
    for (sample, bytes) in [(&large, limits::UNARY_CHUNK_BYTES_MAX + 1), (&small, 11)] {
        let request = pb::UploadChunkRequest {
            header: Some(session.header(sample, 0)),
            data: Bytes::from(vec![1; bytes]),
        };
        let status = session.client.upload_chunk(request).await.unwrap_err();
        assert_eq!(refused(&status).fields, ["data"]);
    }
    let status = session.client.upload_chunk(pb::UploadChunkRequest::default()).await.unwrap_err();
    assert_eq!(refused(&status).fields, ["header"]);
}

/// HTTP/2 lets a server that has answered reset what the client still sends; the answer must not get lost over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let service = Service::start().await;
    let mut session = service.session().await;
    for number in 1..=100 {
        let sample = batch(number, 2_000_000);
        // Nothing of it is there: the hub refuses at once, while two megabytes are on their way.
        let mut parts = vec![part(Part::Header(session.header(&sample, 50)))];
        parts.extend(chunks(&sample.stored.slice(50..), 16 << 10));
        let status = upload(&mut session, parts).await.unwrap_err();
        assert_eq!(refused(&status).reason, "OFFSET_MISMATCH", "upload {number}: {status:?}");
    }
}
