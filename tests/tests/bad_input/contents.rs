//! What is wrong within a batch: bytes that are none, vectors that do not fit, tables and columns of another schema.

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use syncline::batch::EncodedBatch;
use syncline::pb;
use syncline_tests::database::Kind;
use tonic::Code;

use super::cases::{Case, check_table};
use super::kit::{Bare, Open, apply, bytes, row};

/// The content of a batch, and what its info says of the rows if that is not what the blocks say.
pub(super) struct Content {
    pub(super) message: pb::BatchContent,
    rows: Option<u32>,
}

fn block(content: &mut Content) -> &mut pb::Block {
    &mut content.message.blocks[0]
}

fn column(content: &mut Content, index: usize) -> &mut pb::ColumnVector {
    &mut block(content).columns[index]
}

#[rustfmt::skip] // A case a line.
const CONTENTS: &[Case<Content>] = &[
    ("no blocks", |c| c.message.blocks.clear(), Code::InvalidArgument, "REQUEST_INVALID", "batches[0].rows: must be 1"),
    ("an empty block", |c| c.message.blocks.push(pb::Block::default()), Code::DataLoss, "BATCH_CORRUPT", "a block without rows or columns"),
    ("no rows", |c| { block(c).rows = 0; c.rows = Some(2) }, Code::DataLoss, "BATCH_CORRUPT", "rows are not as many"),
    ("more rows than cells", |c| block(c).rows = 3, Code::DataLoss, "BATCH_CORRUPT", "length"),
    ("rows without end", |c| { block(c).rows = u32::MAX; c.rows = Some(2) }, Code::DataLoss, "BATCH_CORRUPT", "rows are not as many"),
    ("an unknown table", |c| block(c).table_id = 9_999, Code::InvalidArgument, "ROW_INVALID", "is not a table of the scope"),
    ("no table", |c| block(c).table_id = 0, Code::InvalidArgument, "ROW_INVALID", "is not a table of the scope"),
    ("no operation", |c| block(c).operation = 0, Code::DataLoss, "BATCH_CORRUPT", "an unknown operation"),
    ("an unknown operation", |c| block(c).operation = 77, Code::DataLoss, "BATCH_CORRUPT", "an unknown operation"),
    ("a row that leaves", |c| block(c).operation = pb::Operation::Leave as i32, Code::InvalidArgument, "ROW_INVALID", "delete it"),
    ("an unknown column", |c| column(c, 1).column_id = 9_999, Code::InvalidArgument, "ROW_INVALID", "column 9999 is not in the scope"),
    ("a column twice", |c| { let twice = column(c, 1).clone(); block(c).columns.push(twice) }, Code::DataLoss, "BATCH_CORRUPT", "a column twice"),
    ("a column too few", |c| { block(c).columns.pop(); }, Code::InvalidArgument, "ROW_INVALID", "\"price\" is missing"),
    ("no key", |c| { block(c).columns.remove(0); }, Code::InvalidArgument, "ROW_INVALID", "\"id\" is missing"),
    ("a delete without its key", |c| { block(c).operation = pb::Operation::Delete as i32; block(c).columns.remove(0); }, Code::InvalidArgument, "ROW_INVALID", "\"id\" is missing"),
    ("an unknown type", |c| column(c, 1).r#type = 99, Code::DataLoss, "BATCH_CORRUPT", "an unknown column type"),
    ("another type", |c| column(c, 1).r#type = pb::CanonicalType::Json as i32, Code::InvalidArgument, "ROW_INVALID", "has the type CANONICAL_TYPE_TEXT, not CANONICAL_TYPE_JSON"),
    ("a type of another size", |c| column(c, 0).r#type = pb::CanonicalType::Uuid as i32, Code::DataLoss, "BATCH_CORRUPT", "length"),
    ("a short vector", |c| column(c, 0).data.truncate(9), Code::DataLoss, "BATCH_CORRUPT", "length"),
    ("a long vector", |c| column(c, 0).data = vec![0; 1 << 10].into(), Code::DataLoss, "BATCH_CORRUPT", "length"),
    ("lengths that lie", |c| column(c, 1).lengths[0] = u32::MAX, Code::DataLoss, "BATCH_CORRUPT", "length"),
    ("lengths that wrap around", |c| column(c, 1).lengths = vec![u32::MAX, 12], Code::DataLoss, "BATCH_CORRUPT", "length"),
    ("no lengths", |c| column(c, 1).lengths.clear(), Code::DataLoss, "BATCH_CORRUPT", "length"),
    ("a length within a character", |c| { column(c, 1).data = "ää".into(); column(c, 1).lengths = vec![1, 3] }, Code::DataLoss, "BATCH_CORRUPT", "not UTF-8"),
    ("text that is none", |c| { let length = column(c, 1).data.len(); column(c, 1).data = vec![0xff; length].into() }, Code::DataLoss, "BATCH_CORRUPT", "not UTF-8"),
    ("a bitmap too long", |c| column(c, 1).nulls = vec![1; 9].into(), Code::DataLoss, "BATCH_CORRUPT", "bitmap"),
    ("a bitmap beyond the rows", |c| column(c, 1).nulls = vec![0x80].into(), Code::DataLoss, "BATCH_CORRUPT", "bitmap"),
    ("any without cells", |c| column(c, 1).r#type = pb::CanonicalType::Any as i32, Code::DataLoss, "BATCH_CORRUPT", "missing vector"),
    ("any with an unknown tag", |c| { column(c, 1).r#type = pb::CanonicalType::Any as i32; column(c, 1).any = Some(pb::AnyVector { tags: bytes(&[9, 9]), ..Default::default() }) }, Code::DataLoss, "BATCH_CORRUPT", "unknown tag"),
    ("any with fewer cells than tags", |c| { column(c, 1).r#type = pb::CanonicalType::Any as i32; column(c, 1).any = Some(pb::AnyVector { tags: bytes(&[2, 2]), integers: bytes(&[0; 8]), ..Default::default() }) }, Code::DataLoss, "BATCH_CORRUPT", "length"),
    ("no ticks", |c| block(c).ticks = Bytes::new(), Code::InvalidArgument, "ROW_INVALID", "need ticks"),
    ("no times", |c| block(c).changed_at = Bytes::new(), Code::InvalidArgument, "ROW_INVALID", "changed_at"),
    ("ticks of fewer rows", |c| block(c).ticks.truncate(8), Code::DataLoss, "BATCH_CORRUPT", "length"),
    ("a key twice", |c| column(c, 0).data = bytes(&[50, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Code::InvalidArgument, "ROW_INVALID", "twice"),
    ("a key twice, in two blocks", |c| { let twice = block(c).clone(); c.message.blocks.push(twice) }, Code::InvalidArgument, "ROW_INVALID", "twice"),
    ("a key upserted and deleted", upserted_and_deleted, Code::InvalidArgument, "ROW_INVALID", "twice"),
    ("a NULL key", |c| { column(c, 0).nulls = bytes(&[1]); column(c, 0).data = bytes(&[51, 0, 0, 0, 0, 0, 0, 0]) }, Code::InvalidArgument, "ROW_INVALID", "NULL"),
    ("good rows before a bad table", |c| { let mut bad = block(c).clone(); bad.table_id = 9_999; c.message.blocks.push(bad) }, Code::InvalidArgument, "ROW_INVALID", "is not a table of the scope"),
];

fn upserted_and_deleted(content: &mut Content) {
    let mut delete = block(content).clone();
    delete.operation = pb::Operation::Delete as i32;
    delete.columns.truncate(1);
    content.message.blocks.push(delete);
}

/// The content of a good batch.
pub(super) fn good_content(bare: &Bare) -> Content {
    let message = pb::BatchContent::decode(bare.good().stored).unwrap();
    Content { message, rows: None }
}

/// A batch of these bytes, not compressed, with a digest that is right.
pub(super) fn batch_of(bare: &Bare, content: Vec<u8>, rows: u32) -> EncodedBatch {
    let mut batch = bare.good();
    batch.info.stored_bytes = content.len() as u64;
    batch.info.decoded_bytes = content.len() as u64;
    batch.info.rows = rows;
    batch.info.sha256 = Sha256::digest(&content).into();
    batch.stored = content.into();
    batch
}

fn encoded(bare: &Bare, content: &Content) -> EncodedBatch {
    let rows = content.rows.unwrap_or_else(|| content.message.blocks.iter().map(|block| block.rows).sum());
    batch_of(bare, content.message.encode_to_vec(), rows)
}

#[tokio::test]
async fn batches_are_checked_before_a_row_is_touched() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        // The request is made of the content once it is changed, so the session travels beside it.
        for (what, change, code, reason, says) in CONTENTS.iter().copied() {
            let request = |bare: &Bare, session: &Open| {
                let mut content = good_content(bare);
                change(&mut content);
                bare.apply_request(session, &encoded(bare, &content))
            };
            let single: Case<pb::ApplyChangesRequest> = (what, |_| {}, code, reason, says);
            check_table(
                &mut bare,
                "ApplyChanges",
                request,
                async |c, r| apply(c, r).await.map(drop),
                &[single],
            )
            .await;
        }
    }
}

/// Numbers at the ends of their range: taken or refused, but no fault of the service, and none that another upload feels.
#[tokio::test]
async fn extreme_ticks_and_times_do_no_harm() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        for end in [0_u64, 1 << 63, u64::MAX] {
            let mut bare = Bare::start(kind).await;
            let session = bare.open().await;
            let mut content = good_content(&bare);
            // Two numbers by byte planes.
            let planes: Vec<u8> = end.to_le_bytes().iter().flat_map(|byte| [*byte, *byte]).collect();
            block(&mut content).ticks = bytes(&planes);
            block(&mut content).changed_at = bytes(&planes);
            let mut request = bare.apply_request(&session, &encoded(&bare, &content));
            request.clock_offset_us = end.cast_signed();
            request.leaf_clock.as_mut().unwrap().tick = end;
            if let Err(status) = apply(&mut bare.client, request).await {
                assert!(
                    ![Code::Internal, Code::Unknown].contains(&status.code()),
                    "{kind:?} {end}: {status:?}"
                );
            }
            let mut poll = bare.begin_request();
            poll.replica_id = bytes(syncline::ids::ReplicaId::fresh().as_bytes());
            poll.knowledge = super::sessions::some_knowledge();
            bare.client.begin_session(poll).await.unwrap();
            bare.process.assert_sound();
        }
    }
}

#[tokio::test]
async fn a_value_that_the_column_can_not_hold_is_an_error_of_its_row() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let session = bare.open().await;
        let negative = bare.products(&[row(60, "owed", "-1.00"), row(61, "fine", "1.00")]);
        let request = bare.apply_request(&session, &negative);
        let result = apply(&mut bare.client, request).await.unwrap();
        assert_eq!((result.upserts, result.row_errors), (1, 1), "{kind:?}");
        bare.process.assert_sound();
    }
}
