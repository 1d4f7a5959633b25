//! ApplyChanges: what is wrong with the request itself. What is wrong within batches stands in `contents`.

use bytes::Bytes;
use syncline::pb;
use syncline_tests::database::Kind;
use tonic::Code;

use super::cases::{Case, assert_refused, check_table, session_cases, unknown_session};
use super::kit::{Bare, FRAMING, ROW_BYTES_MAX, apply, bytes, row};
use super::sessions::some_knowledge;

type Apply = pb::ApplyChangesRequest;

fn clock(request: &mut Apply) -> &mut pb::ReplicaClock {
    request.leaf_clock.as_mut().unwrap()
}

#[rustfmt::skip] // A case a line.
const APPLY: &[Case<Apply>] = &[
    unknown_session!(std::convert::identity),
    ("no batches", |r| r.batches.clear(), Code::InvalidArgument, "REQUEST_INVALID", "batches"),
    ("too many batches", |r| r.batches = vec![pb::BatchInfo { inline_data: Bytes::new(), ..r.batches[0].clone() }; 8_193], Code::InvalidArgument, "REQUEST_INVALID", "at most 8192 elements"),
    ("a batch twice", |r| r.batches.push(pb::BatchInfo { sequence: 2, ..r.batches[0].clone() }), Code::InvalidArgument, "REQUEST_INVALID", "batches[1].batch_id"),
    ("a gap in the sequence", |r| r.batches[0].sequence = 2, Code::InvalidArgument, "REQUEST_INVALID", "batches[0].sequence: must be 1"),
    ("no batch id", |r| r.batches[0].batch_id = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID", "batches[0].batch_id"),
    ("an unknown codec", |r| r.batches[0].codec = 42, Code::InvalidArgument, "REQUEST_INVALID", "batches[0].codec"),
    ("another scope version", |r| r.batches[0].scope_version = 77, Code::InvalidArgument, "REQUEST_INVALID", "scope_version"),
    ("a short digest", |r| r.batches[0].sha256 = bytes(&[1; 20]), Code::InvalidArgument, "REQUEST_INVALID", "batches[0].sha256"),
    ("another digest", |r| r.batches[0].sha256 = bytes(&[1; 32]), Code::DataLoss, "BATCH_CORRUPT", "do not have its digest"),
    ("truncated bytes", |r| r.batches[0].inline_data.truncate(20), Code::InvalidArgument, "REQUEST_INVALID", "inline_data"),
    ("more inline than may be", |r| r.batches[0].inline_data = vec![0; 65 << 10].into(), Code::InvalidArgument, "REQUEST_INVALID", "at most 65536 bytes"),
    ("more inline in all than may be", many_inline, Code::InvalidArgument, "REQUEST_INVALID", "1048576 inline bytes"),
    ("bytes that have not arrived", |r| r.batches[0].inline_data = Bytes::new(), Code::FailedPrecondition, "BATCH_INCOMPLETE", "upload the rest first"),
    ("content of a terabyte", |r| r.batches[0].decoded_bytes = 1 << 40, Code::InvalidArgument, "BATCH_TOO_LARGE", "at most"),
    ("one byte more than may be", |r| r.batches[0].decoded_bytes = ROW_BYTES_MAX + FRAMING + 1, Code::InvalidArgument, "BATCH_TOO_LARGE", "at most"),
    ("too many rows", |r| r.batches[0].rows = u32::MAX, Code::InvalidArgument, "BATCH_TOO_LARGE", "rows"),
    ("other rows than it says", |r| r.batches[0].rows = 7, Code::DataLoss, "BATCH_CORRUPT", "rows are not as many"),
    ("random made-with", |r| r.made_with = bytes(&[0xfe; 30]), Code::InvalidArgument, "KNOWLEDGE_INVALID", "knowledge"),
    ("truncated made-with", |r| r.made_with = some_knowledge().slice(..20), Code::InvalidArgument, "KNOWLEDGE_INVALID", "knowledge"),
    ("oversized made-with", |r| r.made_with = bytes(&vec![1; 600 << 10]), Code::ResourceExhausted, "KNOWLEDGE_TOO_LARGE", "at most"),
    ("no mark", |r| r.upload_mark = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID", "upload_mark"),
    ("no clock", |r| r.leaf_clock = None, Code::InvalidArgument, "REQUEST_INVALID", "leaf_clock: must be there"),
    ("a clock of nobody", |r| clock(r).replica_id = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID", "leaf_clock.replica_id"),
    ("a clock of another replica", |r| clock(r).replica_id = bytes(&[4; 16]), Code::InvalidArgument, "REQUEST_INVALID", "leaf_clock.replica_id"),
    ("a clock whose ranges overlap", |r| clock(r).missing = vec![pb::TickRange { first: 1, last: 5 }, pb::TickRange { first: 4, last: 6 }], Code::InvalidArgument, "KNOWLEDGE_INVALID", "overlap"),
    ("a range that ends before it begins", |r| clock(r).missing = vec![pb::TickRange { first: 5, last: 1 }], Code::InvalidArgument, "KNOWLEDGE_INVALID", "not sorted"),
    ("everything wrong at once", |r| *r = Apply { batches: vec![pb::BatchInfo::default(); 100], ..Apply::default() }, Code::InvalidArgument, "REQUEST_INVALID", "more)"),
];

fn many_inline(request: &mut Apply) {
    let one = &request.batches[0];
    let more = (1..=20_u8).map(|number| pb::BatchInfo {
        batch_id: bytes(&[number; 16]),
        sequence: number.into(),
        stored_bytes: 64 << 10,
        decoded_bytes: 64 << 10,
        inline_data: vec![0; 64 << 10].into(),
        ..one.clone()
    });
    request.batches = more.collect();
}

#[tokio::test]
async fn applies_refuse_what_they_can_not_use() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let mut cases = session_cases!(Apply, std::convert::identity);
        cases.extend_from_slice(APPLY);
        let request = |bare: &Bare, session: &_| bare.apply_request(session, &bare.good());
        check_table(&mut bare, "ApplyChanges", request, async |c, r| apply(c, r).await.map(drop), &cases)
            .await;
    }
}

#[tokio::test]
async fn an_upload_is_applied_once_and_no_other_in_its_place() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let session = bare.open().await;
        let good = bare.good();
        let request = bare.apply_request(&session, &good);
        assert_eq!(apply(&mut bare.client, request.clone()).await.unwrap().upserts, 2);
        let applied = bare.standing().await;
        // Repeated, it answers the same and applies nothing.
        assert_eq!(apply(&mut bare.client, request.clone()).await.unwrap().upserts, 2);
        type Change = fn(&mut Apply);
        let others: [(&str, Change); 3] = [
            ("another mark", |r| r.upload_mark = bytes(&[6; 16])),
            ("other knowledge", |r| r.made_with = some_knowledge()),
            ("a list without bytes, of another batch", |r| {
                r.batches[0].batch_id = bytes(&[6; 16]);
                r.batches[0].inline_data = Bytes::new();
            }),
        ];
        for (what, change) in others {
            let mut other = request.clone();
            change(&mut other);
            let answer = apply(&mut bare.client, other).await.map(drop);
            assert_refused(
                what,
                answer,
                Code::FailedPrecondition,
                "REPLICA_DIVERGED",
                "another list of batches",
            );
        }
        let other = bare.apply_request(&session, &bare.products(&[row(52, "other", "1.25")]));
        let answer = apply(&mut bare.client, other).await.map(drop);
        assert_refused(
            "another list",
            answer,
            Code::FailedPrecondition,
            "REPLICA_DIVERGED",
            "another list of batches",
        );
        assert_eq!(bare.standing().await, applied, "{kind:?}");
        bare.process.assert_sound();
    }
}
