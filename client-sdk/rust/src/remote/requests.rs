//! Strict types as the messages that go out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use syncline::batch::BatchInfo;
use syncline::ids::{BatchId, Mark};
use syncline::knowledge::clock_to_wire;
use syncline::limits::CLIENT_NAME_BYTES_MAX;
use syncline::pb;
use syncline_engine::replica::{
    ApplyRequest, BeginRequest, ChangesRequest, EndRequest, ExceptedKey, PollRequest, SessionRef,
};

/// The ids that every call of a session carries.
fn ids(session: SessionRef) -> (Bytes, Bytes) {
    (Bytes::copy_from_slice(session.id.as_bytes()), Bytes::copy_from_slice(session.token.as_bytes()))
}

fn mark(mark: Option<Mark>) -> Bytes {
    mark.map(|mark| Bytes::copy_from_slice(mark.as_bytes())).unwrap_or_default()
}

fn parameters(parameters: Vec<(String, String)>) -> Vec<pb::Parameter> {
    parameters.into_iter().map(|(name, value)| pb::Parameter { name, value }).collect()
}

/// The name as far as the protocol takes it.
fn client_name(name: &str) -> String {
    name[..name.floor_char_boundary(CLIENT_NAME_BYTES_MAX)].to_owned()
}

fn now() -> prost_types::Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: since.as_secs().cast_signed(),
        nanos: since.subsec_nanos().cast_signed(),
    }
}

pub(super) fn begin(request: BeginRequest) -> pb::BeginSessionRequest {
    pb::BeginSessionRequest {
        session_id: Bytes::copy_from_slice(request.session.as_bytes()),
        replica_id: Bytes::copy_from_slice(request.replica.as_bytes()),
        replica_kind: pb::ReplicaKind::Leaf as i32,
        scope: request.scope.to_string(),
        parameters: parameters(request.parameters),
        knowledge: request.knowledge,
        upload_mark_answered: mark(request.upload_mark_answered),
        upload_mark_drawn: mark(request.upload_mark_drawn),
        download_mark: mark(request.download_mark),
        capabilities: Some(pb::Capabilities {
            codecs: request.codecs.iter().map(|codec| codec.wire() as i32).collect(),
            types: Vec::new(),
            features: Vec::new(),
            batch_bytes_max: request.batch_bytes_max.unwrap_or(0),
            row_bytes_max: request.row_bytes_max.unwrap_or(0),
        }),
        schema_fingerprint: Bytes::copy_from_slice(&request.schema_fingerprint),
        client_time: Some(now()),
        client_name: client_name(&request.client_name),
        ahead: request.ahead,
    }
}

pub(super) fn poll(request: PollRequest) -> pb::GetKnowledgeRequest {
    pb::GetKnowledgeRequest {
        replica_id: Bytes::copy_from_slice(request.replica.as_bytes()),
        scope: request.scope.to_string(),
        parameters: parameters(request.parameters),
        knowledge: request.knowledge,
        schema_fingerprint: Bytes::copy_from_slice(&request.schema_fingerprint),
    }
}

pub(super) fn watch(request: PollRequest, interval_min: Duration) -> pb::WatchScopeRequest {
    pb::WatchScopeRequest {
        replica_id: Bytes::copy_from_slice(request.replica.as_bytes()),
        scope: request.scope.to_string(),
        parameters: parameters(request.parameters),
        knowledge: request.knowledge,
        // What no message can hold is longer than any service permits; it says so.
        interval_min: prost_types::Duration::try_from(interval_min).ok(),
        schema_fingerprint: Bytes::copy_from_slice(&request.schema_fingerprint),
    }
}

fn excepted_key(excepted: ExceptedKey) -> pb::ExceptedKey {
    pb::ExceptedKey {
        table_id: excepted.row.table.0,
        key: excepted.row.key,
        knowledge_before: excepted.knowledge_before,
    }
}

pub(super) fn changes(session: SessionRef, request: ChangesRequest) -> pb::GetChangesRequest {
    let (session_id, session_token) = ids(session);
    pb::GetChangesRequest {
        session_id,
        session_token,
        knowledge: request.knowledge,
        excepted_keys: request.excepted_keys.into_iter().map(excepted_key).collect(),
        first_sequence: request.first_sequence,
    }
}

pub(super) fn download(session: SessionRef, batch: BatchId, read_offset: u64) -> pb::DownloadBatchRequest {
    let (session_id, session_token) = ids(session);
    let batch_id = Bytes::copy_from_slice(batch.as_bytes());
    pb::DownloadBatchRequest { session_id, session_token, batch_id, read_offset }
}

pub(super) fn release(session: SessionRef, batches: &[BatchId]) -> pb::ReleaseBatchesRequest {
    let (session_id, session_token) = ids(session);
    let batch_ids = batches.iter().map(|batch| Bytes::copy_from_slice(batch.as_bytes())).collect();
    pb::ReleaseBatchesRequest { session_id, session_token, batch_ids }
}

pub(super) fn upload_header(
    session: SessionRef,
    info: &BatchInfo,
    write_offset: u64,
) -> pb::UploadBatchHeader {
    let (session_id, session_token) = ids(session);
    pb::UploadBatchHeader { session_id, session_token, batch: Some(info.to_wire()), write_offset }
}

pub(super) fn query(session: SessionRef, batch: BatchId) -> pb::QueryBatchRequest {
    let (session_id, session_token) = ids(session);
    pb::QueryBatchRequest { session_id, session_token, batch_id: Bytes::copy_from_slice(batch.as_bytes()) }
}

pub(super) fn apply(session: SessionRef, request: ApplyRequest) -> pb::ApplyChangesRequest {
    let (session_id, session_token) = ids(session);
    let batch = |(info, inline): (BatchInfo, Option<Bytes>)| pb::BatchInfo {
        inline_data: inline.unwrap_or_default(),
        ..info.to_wire()
    };
    pb::ApplyChangesRequest {
        session_id,
        session_token,
        batches: request.batches.into_iter().map(batch).collect(),
        made_with: request.made_with,
        excepted_keys: request.excepted_keys.into_iter().map(excepted_key).collect(),
        leaf_clock: Some(clock_to_wire(request.leaf, &request.leaf_clock)),
        upload_mark: mark(Some(request.upload_mark)),
        clock_offset_us: request.clock_offset_us,
    }
}

pub(super) fn end(session: SessionRef, request: EndRequest) -> pb::EndSessionRequest {
    let (session_id, session_token) = ids(session);
    let outcome =
        if request.abandoned { pb::SessionOutcome::Abandoned } else { pb::SessionOutcome::Completed };
    pb::EndSessionRequest {
        session_id,
        session_token,
        outcome: outcome as i32,
        knowledge: request.knowledge,
        download_mark: mark(request.download_mark),
        statistics: Some(pb::SessionStatistics {
            rows_downloaded: request.rows_downloaded,
            bytes_downloaded: request.bytes_downloaded,
            conflicts: request.conflicts,
            row_errors: request.row_errors,
        }),
    }
}
