//! Bytes that claim, or become, far more than they are. Goal: each is refused, and all of them together cost the service
//! less memory than [`GROWTH_BYTES_MAX`], though they stand for gigabytes. Method: the peak of the real process's memory,
//! before and after.

use std::io::Write as _;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use syncline::batch::{Codec, EncodedBatch};
use syncline::pb;
use syncline_tests::database::Kind;
use tonic::Code;

use super::cases::assert_refused;
use super::contents::{batch_of, good_content};
use super::kit::{Bare, FRAMING, Open, ROW_BYTES_MAX, apply};

/// What all bombs together may add to the peak of memory.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// The largest content that a batch may say to have.
const CONTENT_BYTES_MAX: u64 = ROW_BYTES_MAX + FRAMING;
const GIB: u64 = 1 << 30;

/// A zstd frame of zeros that says to hold `claimed` bytes and holds `blocks` times 128 KiB, four bytes each.
fn zstd_zeros(claimed: u64, window_log: u8, blocks: u64) -> Vec<u8> {
    // Magic; a frame header with a window and a content size of eight bytes.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1100_0000, (window_log - 10) << 3];
    frame.extend(claimed.to_le_bytes());
    for block in 1..=blocks {
        // A block that repeats one byte: last or not, its kind, its size.
        let header = u32::from(block == blocks) | 1 << 1 | (128 << 10) << 3;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

fn gzip_of(content: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for piece in content {
        encoder.write_all(&piece).unwrap();
    }
    encoder.finish().unwrap()
}

fn gzip_zeros(bytes: u64) -> Vec<u8> {
    gzip_of((0..bytes >> 20).map(|_| vec![0; 1 << 20]))
}

/// A batch of these stored bytes, that says to decode to so many.
fn stored(bare: &Bare, codec: Codec, stored: Vec<u8>, decoded_bytes: u64) -> EncodedBatch {
    let mut batch = bare.good();
    batch.info.codec = codec;
    batch.info.decoded_bytes = decoded_bytes;
    batch.info.stored_bytes = stored.len() as u64;
    batch.info.sha256 = Sha256::digest(&stored).into();
    batch.stored = stored.into();
    batch
}

/// Small bytes of a large content that is what it says: only what it would become is too much.
fn compressed(bare: &Bare, content: &[u8], rows: u32) -> EncodedBatch {
    let zipped = gzip_of(std::iter::once(content.to_vec()));
    let mut batch = stored(bare, Codec::Gzip, zipped, content.len() as u64);
    batch.info.rows = rows;
    batch
}

/// Blocks without content: two bytes each here, hundreds once they are decoded.
fn empty_blocks() -> Vec<u8> {
    [0x0a, 0].repeat(2 << 20)
}

fn empty_columns(bare: &Bare) -> Vec<u8> {
    let mut content = good_content(bare).message;
    content.blocks[0].columns = vec![pb::ColumnVector::default(); 2_000_000];
    content.encode_to_vec()
}

/// Columns of NULLs: a bit a cell here, sixteen bytes once they are decoded.
fn nulls(bare: &Bare) -> Vec<u8> {
    const ROWS: usize = 1 << 20;
    let mut content = good_content(bare).message;
    let column = |id| pb::ColumnVector {
        column_id: id,
        r#type: pb::CanonicalType::Uuid as i32,
        nulls: vec![0xff; ROWS / 8].into(),
        ..Default::default()
    };
    content.blocks[0].rows = ROWS as u32;
    content.blocks[0].columns = (1..=36).map(column).collect();
    content.encode_to_vec()
}

/// Lengths of nothing: a byte each here, four once they are decoded, beside nothing that they are lengths of.
fn lengths(bare: &Bare) -> Vec<u8> {
    let mut content = good_content(bare).message;
    content.blocks[0].columns[1].lengths = vec![0; 4 << 20];
    content.encode_to_vec()
}

/// Sends a batch as its size allows, inline or in chunks, and applies it.
async fn refused(bare: &mut Bare, what: &str, batch: &EncodedBatch, code: Code, reason: &str, says: &str) {
    let session = bare.open().await;
    let inline = batch.stored.len() <= syncline::limits::INLINE_BATCH_BYTES_MAX;
    let uploaded = if inline { Ok(()) } else { upload(bare, &session, batch).await };
    let answer = match uploaded {
        Ok(()) => {
            let mut request = bare.apply_request(&session, batch);
            if !inline {
                request.batches[0].inline_data.clear();
            }
            apply(&mut bare.client, request).await.map(drop)
        }
        refused => refused,
    };
    assert_refused(what, answer, code, reason, says);
    bare.abandon(&session).await;
}

async fn upload(bare: &mut Bare, session: &Open, batch: &EncodedBatch) -> Result<(), tonic::Status> {
    for (index, data) in batch.stored.chunks(1 << 20).enumerate() {
        let header = pb::UploadBatchHeader {
            session_id: session.id.clone(),
            session_token: session.token.clone(),
            batch: Some(batch.info.to_wire()),
            write_offset: (index as u64) << 20,
        };
        let request = pb::UploadChunkRequest { header: Some(header), data: data.to_vec().into() };
        bare.client.upload_chunk(request).await?;
    }
    Ok(())
}

#[tokio::test]
async fn bombs_are_refused_and_cost_no_memory() {
    use Code::{DataLoss, InvalidArgument};
    let mut bare = Bare::start(Kind::Sqlite).await;
    // What a good upload takes is not counted.
    let warm = bare.open().await;
    let request = bare.apply_request(&warm, &bare.products(&[]));
    apply(&mut bare.client, request).await.unwrap_err();
    bare.abandon(&warm).await;
    let before = bare.standing().await;
    let memory_before = bare.process.memory_peak_bytes();

    let zstd = |claimed, window, blocks| zstd_zeros(claimed, window, blocks);
    let gib = GIB >> 17;
    let cases = [
        // What it says of itself is more than may be.
        (
            "a gibibyte, said so",
            stored(&bare, Codec::Zstd, zstd(GIB, 23, gib), GIB),
            InvalidArgument,
            "BATCH_TOO_LARGE",
            "at most",
        ),
        (
            "an exabyte",
            stored(&bare, Codec::Zstd, zstd(1 << 60, 23, 1), 1 << 60),
            InvalidArgument,
            "BATCH_TOO_LARGE",
            "at most",
        ),
        (
            "a gibibyte by gzip",
            stored(&bare, Codec::Gzip, gzip_zeros(64 << 20), GIB),
            InvalidArgument,
            "BATCH_TOO_LARGE",
            "at most",
        ),
        // It becomes more than it says.
        (
            "zstd, more than is said",
            stored(&bare, Codec::Zstd, zstd(GIB, 23, gib), CONTENT_BYTES_MAX),
            DataLoss,
            "BATCH_CORRUPT",
            "not as long as it says",
        ),
        (
            "zstd, whose frame lies too",
            stored(&bare, Codec::Zstd, zstd(CONTENT_BYTES_MAX, 23, gib), CONTENT_BYTES_MAX),
            DataLoss,
            "BATCH_CORRUPT",
            "",
        ),
        (
            "zstd, whose frame says nothing",
            stored(&bare, Codec::Zstd, zstd(0, 23, gib), CONTENT_BYTES_MAX),
            DataLoss,
            "BATCH_CORRUPT",
            "not as long as it says",
        ),
        (
            "gzip, more than is said",
            stored(&bare, Codec::Gzip, gzip_zeros(512 << 20), CONTENT_BYTES_MAX),
            DataLoss,
            "BATCH_CORRUPT",
            "not as long as it says",
        ),
        // It becomes less than it says.
        (
            "zstd, less than is said",
            stored(&bare, Codec::Zstd, zstd(CONTENT_BYTES_MAX, 23, 1), CONTENT_BYTES_MAX),
            DataLoss,
            "BATCH_CORRUPT",
            "",
        ),
        (
            "gzip, less than is said",
            stored(&bare, Codec::Gzip, gzip_zeros(1 << 20), CONTENT_BYTES_MAX),
            DataLoss,
            "BATCH_CORRUPT",
            "not as long as it says",
        ),
        // It is more than one, or needs more than may be.
        (
            "two frames",
            stored(&bare, Codec::Zstd, [zstd(128 << 10, 17, 1), zstd(128 << 10, 17, 1)].concat(), 128 << 10),
            DataLoss,
            "BATCH_CORRUPT",
            "not one zstd frame",
        ),
        (
            "two members",
            stored(&bare, Codec::Gzip, [gzip_zeros(1 << 20), gzip_zeros(1 << 20)].concat(), 1 << 20),
            DataLoss,
            "BATCH_CORRUPT",
            "not one gzip member",
        ),
        (
            "a window of two gibibytes",
            stored(&bare, Codec::Zstd, zstd(128 << 10, 31, 1), 128 << 10),
            DataLoss,
            "BATCH_CORRUPT",
            "compressed form",
        ),
        (
            "no frame",
            stored(&bare, Codec::Zstd, vec![7; 1_000], 4_000),
            DataLoss,
            "BATCH_CORRUPT",
            "not as long as it says",
        ),
        (
            "no member",
            stored(&bare, Codec::Gzip, vec![7; 1_000], 4_000),
            DataLoss,
            "BATCH_CORRUPT",
            "compressed form",
        ),
        // Its content is as long as it says, and would decode to gigabytes.
        ("blocks", compressed(&bare, &empty_blocks(), 1), InvalidArgument, "BATCH_TOO_LARGE", "blocks"),
        (
            "columns",
            compressed(&bare, &empty_columns(&bare), 2),
            InvalidArgument,
            "BATCH_TOO_LARGE",
            "columns",
        ),
        ("NULLs", compressed(&bare, &nulls(&bare), 1 << 20), InvalidArgument, "BATCH_TOO_LARGE", "cells"),
        ("lengths", compressed(&bare, &lengths(&bare), 2), InvalidArgument, "BATCH_TOO_LARGE", "cells"),
        ("zeros", compressed(&bare, &vec![0; 4 << 20], 2), DataLoss, "BATCH_CORRUPT", "does not decode"),
        (
            "the same, not compressed",
            batch_of(&bare, empty_blocks(), 1),
            InvalidArgument,
            "BATCH_TOO_LARGE",
            "blocks",
        ),
    ];
    for (what, batch, code, reason, says) in &cases {
        refused(&mut bare, what, batch, *code, reason, says).await;
    }

    let grown = bare.process.memory_peak_bytes() - memory_before;
    assert!(grown < GROWTH_BYTES_MAX, "the peak grew by {} MiB", grown >> 20);
    assert_eq!(bare.standing().await, before);
    bare.process.assert_sound();
}
