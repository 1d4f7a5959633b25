//! UploadBatch and UploadChunk.

use bytes::Bytes;
use syncline::pb;
use syncline::pb::upload_batch_request::Part;
use syncline_tests::database::Kind;
use tonic::{Code, Status};

use super::cases::{Case, assert_refused, check_table, session_cases, unknown_session};
use super::downloads::{download, download_request, query_request, release_request};
use super::kit::{Bare, Client, FRAMING, Open, ROW_BYTES_MAX, bytes};

type Chunk = pb::UploadChunkRequest;
/// A stream of messages.
type Stream = Vec<pb::UploadBatchRequest>;

fn header(chunk: &mut Chunk) -> &mut pb::UploadBatchHeader {
    chunk.header.as_mut().unwrap()
}

fn info(chunk: &mut Chunk) -> &mut pb::BatchInfo {
    header(chunk).batch.as_mut().unwrap()
}

fn stream_header(stream: &mut Stream) -> &mut pb::UploadBatchHeader {
    match stream[0].part.as_mut() {
        Some(Part::Header(header)) => header,
        other => panic!("{other:?}"),
    }
}

fn chunk_part(data: Vec<u8>) -> pb::UploadBatchRequest {
    pb::UploadBatchRequest { part: Some(Part::Chunk(data.into())) }
}

#[rustfmt::skip] // A case a line.
const UPLOAD_CHUNK: &[Case<Chunk>] = &[
    unknown_session!(header),
    ("no header", |r| r.header = None, Code::InvalidArgument, "REQUEST_INVALID", "header"),
    ("no batch", |r| header(r).batch = None, Code::InvalidArgument, "REQUEST_INVALID", "header.batch"),
    ("no batch id", |r| info(r).batch_id = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID", "batch_id"),
    ("long batch id", |r| info(r).batch_id = bytes(&[3; 32]), Code::InvalidArgument, "REQUEST_INVALID", "16 bytes, not 32"),
    ("sequence 0", |r| info(r).sequence = 0, Code::InvalidArgument, "REQUEST_INVALID", "sequence"),
    ("a huge sequence", |r| info(r).sequence = u32::MAX, Code::InvalidArgument, "REQUEST_INVALID", "sequence"),
    ("no codec", |r| info(r).codec = 0, Code::InvalidArgument, "REQUEST_INVALID", "codec"),
    ("an unknown codec", |r| info(r).codec = 42, Code::InvalidArgument, "REQUEST_INVALID", "codec"),
    ("a short digest", |r| info(r).sha256 = bytes(&[1; 20]), Code::InvalidArgument, "REQUEST_INVALID", "sha256"),
    ("another scope version", |r| info(r).scope_version = 77, Code::InvalidArgument, "REQUEST_INVALID", "scope_version"),
    ("stored more than decoded", |r| info(r).stored_bytes = info(r).decoded_bytes + 1, Code::InvalidArgument, "REQUEST_INVALID", "stored_bytes"),
    ("more content than may be", |r| info(r).decoded_bytes = ROW_BYTES_MAX + FRAMING + 1, Code::InvalidArgument, "BATCH_TOO_LARGE", "at most"),
    ("content of an exabyte", |r| info(r).decoded_bytes = 1 << 60, Code::InvalidArgument, "BATCH_TOO_LARGE", "at most"),
    ("too many rows", |r| info(r).rows = u32::MAX, Code::InvalidArgument, "BATCH_TOO_LARGE", "rows"),
    ("an offset beyond the batch", |r| header(r).write_offset = u64::MAX, Code::InvalidArgument, "REQUEST_INVALID", "write_offset"),
    ("a gap", |r| { header(r).write_offset = 5; r.data = r.data.slice(5..) }, Code::OutOfRange, "OFFSET_MISMATCH", "0 bytes of the batch; go on from there"),
    ("more bytes than there are", |r| r.data = vec![0; 4_000].into(), Code::InvalidArgument, "REQUEST_INVALID", "data"),
    ("an oversized chunk", |r| r.data = vec![0; 1_100_000].into(), Code::InvalidArgument, "REQUEST_INVALID", "at most 1048576 bytes"),
    ("an oversized message", |r| r.data = vec![0; 3 << 20].into(), Code::InvalidArgument, "REQUEST_INVALID", "2097152"),
    ("wrong bytes", |r| r.data = vec![0; r.data.len()].into(), Code::DataLoss, "BATCH_CORRUPT", "send them again from 0"),
    ("another digest", |r| info(r).sha256 = bytes(&[1; 32]), Code::DataLoss, "BATCH_CORRUPT", "do not have its digest"),
];

#[rustfmt::skip] // A case a line.
const UPLOAD_BATCH: &[Case<Stream>] = &[
    unknown_session!(stream_header),
    ("nothing", |r| r.clear(), Code::InvalidArgument, "REQUEST_INVALID", "header"),
    ("an empty message", |r| r[0].part = None, Code::InvalidArgument, "REQUEST_INVALID", "part"),
    ("bytes before the header", |r| r.reverse(), Code::InvalidArgument, "REQUEST_INVALID", "before the first chunk"),
    ("the header twice", |r| r.insert(1, r[0].clone()), Code::InvalidArgument, "REQUEST_INVALID", "only once"),
    ("an empty chunk", |r| r[1] = chunk_part(Vec::new()), Code::InvalidArgument, "REQUEST_INVALID", "must not be empty"),
    ("a chunk too large", |r| r[1] = chunk_part(vec![0; 300 << 10]), Code::InvalidArgument, "REQUEST_INVALID", "at most 262144 bytes"),
    ("a message too large", |r| r[1] = chunk_part(vec![0; 3 << 20]), Code::InvalidArgument, "REQUEST_INVALID", "larger than a message may be"),
    ("more bytes than there are", |r| r.push(r[1].clone()), Code::InvalidArgument, "REQUEST_INVALID", "beyond batch.stored_bytes"),
    ("no batch", |r| stream_header(r).batch = None, Code::InvalidArgument, "REQUEST_INVALID", "header.batch"),
    ("a gap", |r| stream_header(r).write_offset = 5, Code::OutOfRange, "OFFSET_MISMATCH", "go on from there"),
    ("wrong bytes", |r| r[1] = chunk_part(vec![0; stream_header(r).batch.as_ref().unwrap().stored_bytes as usize]), Code::DataLoss, "BATCH_CORRUPT", "send them again from 0"),
];

async fn upload(client: &mut Client, messages: Stream) -> Result<(), Status> {
    client.upload_batch(tokio_stream::iter(messages)).await.map(drop)
}

fn whole_chunk(bare: &Bare, session: &Open) -> Chunk {
    let batch = bare.good();
    let header = pb::UploadBatchHeader {
        session_id: session.id.clone(),
        session_token: session.token.clone(),
        batch: Some(batch.info.to_wire()),
        write_offset: 0,
    };
    Chunk { header: Some(header), data: batch.stored }
}

fn whole_stream(bare: &Bare, session: &Open) -> Stream {
    let chunk = whole_chunk(bare, session);
    let header = pb::UploadBatchRequest { part: chunk.header.map(Part::Header) };
    vec![header, chunk_part(chunk.data.to_vec())]
}

#[tokio::test]
async fn uploads_refuse_what_is_no_batch() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let mut cases = session_cases!(Chunk, header);
        cases.extend_from_slice(UPLOAD_CHUNK);
        check_table(
            &mut bare,
            "UploadChunk",
            whole_chunk,
            async |c, r| c.upload_chunk(r).await.map(drop),
            &cases,
        )
        .await;
        let mut cases = session_cases!(Stream, stream_header);
        cases.extend_from_slice(UPLOAD_BATCH);
        check_table(&mut bare, "UploadBatch", whole_stream, async |c, r| upload(c, r).await, &cases).await;
    }
}

#[tokio::test]
async fn a_batch_never_changes_and_belongs_to_one_session() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let before = bare.standing().await;
    let session = bare.open().await;
    let whole = whole_chunk(&bare, &session);
    let half = whole.data.len() / 2;
    let first = Chunk { data: whole.data.slice(..half), ..whole.clone() };
    let answer = bare.client.upload_chunk(first).await.unwrap().into_inner();
    assert_eq!((answer.committed_size, answer.complete), (half as u64, false));
    // What is there already is passed over unread, also if it is sent with other bytes.
    let overlap = Chunk { data: vec![0; half].into(), ..whole.clone() };
    let answer = bare.client.upload_chunk(overlap).await.unwrap().into_inner();
    assert_eq!(answer.committed_size, half as u64);

    type Change = fn(&mut pb::BatchInfo);
    let changes: [(&str, Change); 5] = [
        ("rows", |info| info.rows = 7),
        ("sequence", |info| info.sequence = 2),
        ("size", |info| info.stored_bytes -= 1),
        ("digest", |info| info.sha256 = bytes(&[1; 32])),
        ("codec", |info| info.codec = pb::Codec::Gzip as i32),
    ];
    for (what, change) in changes {
        let mut changed = Chunk { data: Bytes::new(), ..whole.clone() };
        change(info(&mut changed));
        let answer = bare.client.upload_chunk(changed).await.map(drop);
        assert_refused(what, answer, Code::InvalidArgument, "REQUEST_INVALID", "a batch never changes");
    }
    // Another batch in the same place.
    let mut second = whole.clone();
    info(&mut second).batch_id = bytes(&[8; 16]);
    let answer = bare.client.upload_chunk(second).await.map(drop);
    assert_refused(
        "the same sequence",
        answer,
        Code::InvalidArgument,
        "REQUEST_INVALID",
        "taken by another batch",
    );

    // Another replica's session can neither read nor write nor release it, and does not hear that it is there.
    let mut other = bare.begin_request();
    other.replica_id = bytes(syncline::ids::ReplicaId::fresh().as_bytes());
    let id = other.session_id.clone();
    let token = bare.client.begin_session(other).await.unwrap().into_inner().session_token;
    let other = Open { id, token };
    let mut foreign = whole.clone();
    (header(&mut foreign).session_id, header(&mut foreign).session_token) =
        (other.id.clone(), other.token.clone());
    let answer = bare.client.upload_chunk(foreign).await.map(drop);
    assert_refused(
        "a foreign upload",
        answer,
        Code::InvalidArgument,
        "REQUEST_INVALID",
        "taken by another batch",
    );
    let batch_id = info(&mut whole.clone()).batch_id.clone();
    let answer = download(&mut bare.client, download_request(&other, batch_id.clone(), 0)).await;
    assert_refused(
        "a foreign download",
        answer,
        Code::NotFound,
        "BATCH_NOT_FOUND",
        "the session has no such batch",
    );
    let answer = bare.client.release_batches(release_request(&other, batch_id.clone())).await.map(drop);
    assert_refused(
        "a foreign release",
        answer,
        Code::NotFound,
        "BATCH_NOT_FOUND",
        "the session has no such batch",
    );
    let status = bare.client.query_batch(query_request(&other, batch_id.clone())).await.unwrap().into_inner();
    assert_eq!(status.state(), pb::BatchState::Absent);
    // In its own session an upload is no download.
    let answer = download(&mut bare.client, download_request(&session, batch_id.clone(), 0)).await;
    assert_refused("an upload that is asked for", answer, Code::NotFound, "BATCH_NOT_FOUND", "no such batch");
    let answer = bare.client.release_batches(release_request(&session, batch_id)).await.map(drop);
    assert_refused("an upload that is released", answer, Code::NotFound, "BATCH_NOT_FOUND", "no such batch");

    bare.abandon(&other).await;
    bare.abandon(&session).await;
    let after = bare.standing().await;
    // One more replica was registered; nothing else.
    assert_ne!(after, before);
    bare.process.assert_sound();
}
