//! Bytes without sense, from fixed seeds: to every rpc, within good requests, and within batches. Goal: whatever comes,
//! it is refused for a reason (or is good), nothing of the user's changes, and nothing panics or is a fault of the service.

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use syncline::batch::Codec as BatchCodec;
use syncline::pb;
use syncline_tests::database::Kind;
use syncline_tests::shop;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::contents::{batch_of, good_content};
use super::kit::{Bare, Open, apply, bytes};

/// Rounds of random bytes for each rpc.
const RANDOM_ROUNDS: u64 = 40;
/// Rounds of good requests with a few bytes changed, for each rpc.
const CHANGED_ROUNDS: u64 = 40;
/// Rounds of batches with a few bytes changed.
const CONTENT_ROUNDS: u64 = 200;

/// SplitMix64: the same noise in every run.
struct Noise(u64);

impl Noise {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number() as u8).collect()
    }

    /// Changes a few bytes, or cuts some off.
    fn spoil(&mut self, mut good: Vec<u8>) -> Vec<u8> {
        if self.below(4) == 0 {
            good.truncate(self.below(good.len()));
            return good;
        }
        for _ in 0..=self.below(4) {
            let place = self.below(good.len());
            good[place] = self.number() as u8;
        }
        good
    }
}

/// Messages as bytes, whatever they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Calls an rpc of whatever shape with one message, to its end.
async fn call(channel: &Channel, rpc: &str, message: Vec<u8>) -> Result<(), Status> {
    let path: PathAndQuery = format!("/syncline.v1.SyncService/{rpc}").parse().unwrap();
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let messages = tonic::Request::new(tokio_stream::iter([Bytes::from(message)]));
    let mut answers = client.streaming(messages, path, Raw).await?.into_inner();
    // A watch that is good never ends.
    while answers.message().await?.is_some() && rpc != "WatchScope" {}
    Ok(())
}

/// Refusals have a reason, and none is a fault of the service.
#[track_caller]
fn assert_judged(what: &str, answer: Result<(), Status>) {
    let Err(status) = answer else { return };
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str()).unwrap_or_default();
    let fault = matches!(status.code(), Code::Internal | Code::Unknown | Code::Unavailable);
    assert!(!fault && !reason.is_empty() && reason != "INTERNAL", "{what}: {status:?}");
    assert!(!status.message().is_empty(), "{what}");
}

/// A good message of each rpc. The upload's batch holds a table that is not there, so that it never applies.
fn good_messages(bare: &Bare, session: &Open) -> Vec<(&'static str, Vec<u8>)> {
    let (session_id, session_token) = (session.id.clone(), session.token.clone());
    let batch = poisoned(bare, |content| content);
    let batch_id = bytes(batch.info.id.as_bytes());
    let fingerprint = bytes(&bare.schema.fingerprint());
    let header = pb::UploadBatchHeader {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        batch: Some(batch.info.to_wire()),
        write_offset: 0,
    };
    let part = Some(pb::upload_batch_request::Part::Header(header.clone()));
    let poll = pb::GetKnowledgeRequest {
        replica_id: bare.replica.clone(),
        scope: "shop".into(),
        knowledge: super::sessions::some_knowledge(),
        schema_fingerprint: fingerprint.clone(),
        ..Default::default()
    };
    let changes = pb::GetChangesRequest {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        knowledge: super::sessions::some_knowledge(),
        ..Default::default()
    };
    let download = pb::DownloadBatchRequest {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        batch_id: batch_id.clone(),
        read_offset: 0,
    };
    let release = pb::ReleaseBatchesRequest {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        batch_ids: vec![batch_id.clone()],
    };
    let end = pb::EndSessionRequest {
        session_id: session_id.clone(),
        session_token: session_token.clone(),
        outcome: pb::SessionOutcome::Completed as i32,
        knowledge: super::sessions::some_knowledge(),
        ..Default::default()
    };
    let watch = pb::WatchScopeRequest {
        replica_id: bare.replica.clone(),
        scope: "shop".into(),
        schema_fingerprint: fingerprint.clone(),
        ..Default::default()
    };
    vec![
        ("GetKnowledge", poll.encode_to_vec()),
        ("UploadBatch", pb::UploadBatchRequest { part }.encode_to_vec()),
        (
            "UploadChunk",
            pb::UploadChunkRequest { header: Some(header), data: batch.stored.clone() }.encode_to_vec(),
        ),
        ("QueryBatch", pb::QueryBatchRequest { session_id, session_token, batch_id }.encode_to_vec()),
        ("ApplyChanges", bare.apply_request(session, &batch).encode_to_vec()),
        ("DownloadBatch", download.encode_to_vec()),
        ("ReleaseBatches", release.encode_to_vec()),
        ("GetChanges", changes.encode_to_vec()),
        ("ListScopes", pb::ListScopesRequest { page_size: 5, page_token: "a".into() }.encode_to_vec()),
        ("GetScope", pb::GetScopeRequest { scope: "shop".into(), with_local_sql: false }.encode_to_vec()),
        ("WatchScope", watch.encode_to_vec()),
        ("GetDigests", pb::GetDigestsRequest { scope: "shop".into(), ..Default::default() }.encode_to_vec()),
        ("BeginSession", bare.begin_request().encode_to_vec()),
        ("EndSession", end.encode_to_vec()),
    ]
}

/// A batch whose last block is of no table: nothing of it is ever applied. `change` is made to the blocks before it.
fn poisoned(bare: &Bare, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> syncline::batch::EncodedBatch {
    let content = good_content(bare).message;
    let mut poison = content.blocks[0].clone();
    poison.table_id = 9_999;
    let rows = content.blocks[0].rows + poison.rows;
    let mut bytes = change(content.encode_to_vec());
    bytes.extend(pb::BatchContent { blocks: vec![poison] }.encode_to_vec());
    batch_of(bare, bytes, rows)
}

async fn channel(bare: &Bare) -> Channel {
    Channel::from_shared(bare.process.url()).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn random_bytes_are_refused_by_every_rpc() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let session = bare.open().await;
    let before = bare.standing().await;
    let channel = channel(&bare).await;
    let mut noise = Noise(1);
    for (rpc, _) in good_messages(&bare, &session) {
        for round in 0..RANDOM_ROUNDS {
            let length = noise.below(2_000);
            let answer = call(&channel, rpc, noise.bytes(length)).await;
            assert_judged(&format!("{rpc}, round {round}"), answer);
        }
    }
    assert_eq!(bare.standing().await, before);
    bare.process.assert_sound();
}

#[tokio::test]
async fn good_requests_with_a_few_bytes_changed_change_nothing() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let before = shop::contents(&bare.hub).await;
        let channel = channel(&bare).await;
        let mut noise = Noise(2);
        for round in 0..CHANGED_ROUNDS {
            let session = bare.open().await;
            for (rpc, good) in good_messages(&bare, &session) {
                let answer = call(&channel, rpc, noise.spoil(good)).await;
                assert_judged(&format!("{rpc}, round {round}"), answer);
            }
        }
        assert_eq!(shop::contents(&bare.hub).await, before);
        bare.process.assert_sound();
    }
}

#[tokio::test]
async fn batches_with_a_few_bytes_changed_change_nothing() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let before = shop::contents(&bare.hub).await;
        let mut noise = Noise(3);
        for round in 0..CONTENT_ROUNDS {
            let session = bare.open().await;
            let mut batch = poisoned(&bare, |content| noise.spoil(content));
            match round % 8 {
                // What is no compressed form at all, and what is one up to a point.
                0 => (batch.info.codec, batch.info.decoded_bytes) = (BatchCodec::Zstd, 1 << 20),
                1 => (batch.info.codec, batch.info.decoded_bytes) = (BatchCodec::Gzip, 1 << 20),
                2 => {
                    let zipped = noise.spoil(zipped(&batch.stored));
                    batch.info.codec = BatchCodec::Gzip;
                    batch.info.stored_bytes = zipped.len() as u64;
                    batch.info.decoded_bytes = batch.info.decoded_bytes.max(zipped.len() as u64);
                    batch.info.sha256 = Sha256::digest(&zipped).into();
                    batch.stored = zipped.into();
                }
                _ => {}
            }
            let request = bare.apply_request(&session, &batch);
            let answer = apply(&mut bare.client, request).await.map(drop);
            assert!(answer.is_err(), "round {round}");
            assert_judged(&format!("round {round}"), answer);
        }
        assert_eq!(shop::contents(&bare.hub).await, before);
        bare.process.assert_sound();
    }
}

fn zipped(content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}
