//! What comes from the service, checked once into strict types.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use syncline::batch::{BatchInfo, Codec, Operation, content_bytes_max};
use syncline::conflict::{ConflictKind, ConflictSummary, Outcome, RowError, Side};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchId, ConflictId, Mark, ReplicaId, SessionId, SessionToken, TableId};
use syncline::limits as protocol;
use syncline::pb;
use syncline::schema::{ConflictPolicy, ScopeSchema};
use syncline_engine::replica::{
    Agreement, ApplyEvent, ApplyResult, BatchStatus, Begun, ChangesBegin, ChangesEnd, ChangesEvent,
    ChangesMode, Pending, ResumeState, ServedScope, SessionRef,
};

use crate::limits;

/// A batch can't be larger than this whatever is agreed; the session checks what was.
const CONTENT_BYTES_MAX: u64 = content_bytes_max(protocol::BATCH_BYTES_MAX, protocol::ROW_BYTES_MAX);

/// The service sent what the protocol does not allow.
fn malformed(problem: &str) -> SyncError {
    SyncError::new(ErrorReason::Internal, format!("the service's answer is not well-formed: {problem}"))
}

/// An id in an answer that is none is a fault of the service, not of the request.
fn id<T>(parsed: Result<T, syncline::ids::IdError>) -> Result<T> {
    parsed.map_err(|error| malformed(&error.to_string()))
}

fn mark_or_none(bytes: &[u8]) -> Result<Option<Mark>> {
    if bytes.is_empty() { Ok(None) } else { id(Mark::from_slice(bytes)).map(Some) }
}

fn knowledge(bytes: Bytes) -> Result<Bytes> {
    if bytes.len() > protocol::KNOWLEDGE_BYTES_MAX {
        return Err(malformed("its knowledge is beyond the bound"));
    }
    Ok(bytes)
}

fn batch_info(message: &pb::BatchInfo) -> Result<BatchInfo> {
    BatchInfo::from_wire(message, CONTENT_BYTES_MAX).map_err(|error| match error.reason() {
        ErrorReason::RequestInvalid => malformed(error.message()),
        _ => error,
    })
}

pub(super) fn scope(message: pb::GetScopeResponse) -> Result<ServedScope> {
    let schema = message.schema.ok_or_else(|| malformed("it has no schema"))?;
    Ok(ServedScope {
        schema: ScopeSchema::try_from(schema)?,
        hub: id(ReplicaId::from_slice(&message.hub_replica_id))?,
    })
}

pub(super) fn begun(session: SessionId, message: pb::BeginSessionResponse) -> Result<Begun> {
    let token = id(SessionToken::from_slice(&message.session_token))?;
    let agreement = message.agreement.ok_or_else(|| malformed("it has no agreement"))?;
    let time = message.service_time.ok_or_else(|| malformed("it has no service_time"))?;
    Ok(Begun {
        session: SessionRef { id: session, token },
        agreement: self::agreement(&agreement)?,
        resume: resume(message.resume.unwrap_or_default())?,
        reinitialize: message.hint == pb::SessionHint::Reinitialize as i32,
        upload_mark: mark_or_none(&message.upload_mark)?,
        hub: id(ReplicaId::from_slice(&message.hub_replica_id))?,
        hub_time: system_time(&time).ok_or_else(|| malformed("its service_time can't be"))?,
    })
}

fn agreement(message: &pb::Agreement) -> Result<Agreement> {
    let batch_bytes = protocol::BATCH_BYTES_MIN..=protocol::BATCH_BYTES_MAX;
    if !batch_bytes.contains(&message.batch_bytes_max) {
        return Err(malformed("the agreed batch size is out of its bounds"));
    }
    if message.row_bytes_max == 0 || message.row_bytes_max > protocol::ROW_BYTES_MAX {
        return Err(malformed("the agreed row size is out of its bounds"));
    }
    let codec = Codec::from_wire(message.codec).ok_or_else(|| {
        SyncError::new(
            ErrorReason::CapabilityRequired,
            "the service wants a codec that this version does not know",
        )
    })?;
    Ok(Agreement {
        codec,
        batch_bytes_max: message.batch_bytes_max,
        row_bytes_max: message.row_bytes_max,
        batches_in_flight_max: message.batches_in_flight_max.clamp(1, limits::BATCHES_IN_FLIGHT_MAX),
    })
}

fn resume(message: pb::ResumeState) -> Result<ResumeState> {
    if message.uploads.len() > protocol::UPLOAD_BATCHES_MAX {
        return Err(malformed("it names too many batches"));
    }
    let upload = |upload: &pb::UploadedBatch| {
        let status = match (upload.complete, upload.committed_size) {
            (true, _) => BatchStatus::Complete,
            (false, 0) => BatchStatus::Absent,
            (false, committed_size) => BatchStatus::Partial { committed_size },
        };
        Ok((id(BatchId::from_slice(&upload.batch_id))?, status))
    };
    Ok(ResumeState {
        resumed: message.resumed,
        uploads: message.uploads.iter().map(upload).collect::<Result<_>>()?,
        apply_started: message.apply_started,
        applied: message.applied,
        download_started: message.download_started,
    })
}

fn system_time(time: &prost_types::Timestamp) -> Option<SystemTime> {
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    UNIX_EPOCH.checked_add(Duration::new(u64::try_from(time.seconds).ok()?, nanos))
}

/// Takes the number of a `pb::Pending`.
pub(super) fn pending(number: i32) -> Pending {
    match pb::Pending::try_from(number) {
        Ok(pb::Pending::None) => Pending::None,
        Ok(pb::Pending::Maybe) => Pending::Maybe,
        // The protocol says so: an unknown number is treated as some.
        _ => Pending::Some,
    }
}

/// `None` for an event that a newer service made up.
pub(super) fn changes_event(message: pb::GetChangesResponse) -> Result<Option<ChangesEvent>> {
    use pb::get_changes_response::Event;
    let Some(event) = message.event else { return Ok(None) };
    Ok(Some(match event {
        Event::Begin(begin) => ChangesEvent::Begin(changes_begin(begin)?),
        Event::Batch(batch) => {
            let info = batch_info(&batch)?;
            let inline = (!batch.inline_data.is_empty()).then_some(batch.inline_data);
            ChangesEvent::Batch(info, inline)
        }
        Event::Progress(progress) => ChangesEvent::Progress {
            rows: progress.rows,
            batches: progress.batches,
            waiting_for_release: progress.waiting_for_release,
        },
        Event::End(end) => ChangesEvent::End(ChangesEnd {
            learned: knowledge(end.learned_knowledge)?,
            download_mark: id(Mark::from_slice(&end.download_mark))?,
            batches: end.batches,
            rows: end.rows,
        }),
    }))
}

fn changes_begin(begin: pb::ChangesBegin) -> Result<ChangesBegin> {
    let mode = match pb::ChangesMode::try_from(begin.mode) {
        Ok(pb::ChangesMode::Delta) => {
            if begin.whole_table_ids.len() > protocol::SCOPE_TABLES_MAX {
                return Err(malformed("it names too many tables"));
            }
            ChangesMode::Delta { whole_tables: begin.whole_table_ids.into_iter().map(TableId).collect() }
        }
        Ok(pb::ChangesMode::WholeView) => ChangesMode::WholeView,
        _ => {
            return Err(SyncError::new(
                ErrorReason::CapabilityRequired,
                "the service sends changes in a mode that this version does not know; update the client",
            ));
        }
    };
    Ok(ChangesBegin { mode, made_with: knowledge(begin.made_with)?, resumed: begin.resumed })
}

/// The bytes of a chunk, which must begin where the one before ended.
pub(super) fn chunk(message: pb::DownloadBatchResponse, expected: &mut u64) -> Result<Option<Bytes>> {
    if message.offset != *expected {
        return Err(malformed("a chunk is not at the offset that was due"));
    }
    *expected += message.data.len() as u64;
    Ok(Some(message.data))
}

pub(super) fn upload_status(message: &pb::UploadBatchResponse) -> BatchStatus {
    match (message.complete, message.committed_size) {
        (true, _) => BatchStatus::Complete,
        (false, 0) => BatchStatus::Absent,
        (false, committed_size) => BatchStatus::Partial { committed_size },
    }
}

pub(super) fn batch_status(message: &pb::QueryBatchResponse) -> BatchStatus {
    match pb::BatchState::try_from(message.state) {
        Ok(pb::BatchState::Partial) => BatchStatus::Partial { committed_size: message.committed_size },
        Ok(pb::BatchState::Complete) => BatchStatus::Complete,
        Ok(pb::BatchState::Released) => BatchStatus::Released,
        // The protocol says so: an unknown number is treated as absent.
        _ => BatchStatus::Absent,
    }
}

/// `None` for an event that a newer service made up.
pub(super) fn apply_event(message: pb::ApplyChangesResponse) -> Result<Option<ApplyEvent>> {
    use pb::apply_changes_response::Event;
    let Some(event) = message.event else { return Ok(None) };
    Ok(Some(match event {
        Event::Progress(progress) => {
            ApplyEvent::Progress { rows: progress.rows, rows_total: progress.rows_total }
        }
        Event::Conflict(conflict) => ApplyEvent::Conflict(self::conflict(conflict)?),
        Event::RowError(error) => ApplyEvent::RowError(RowError::from(error)),
        Event::Result(result) => ApplyEvent::Result(apply_result(&result)?),
    }))
}

fn conflict(message: pb::Conflict) -> Result<ConflictSummary> {
    let side = |operation| match (Operation::from_wire(operation), message.both_born) {
        (Some(Operation::Upsert), true) => Ok(Side::Insert),
        (Some(Operation::Upsert), false) => Ok(Side::Update),
        (Some(Operation::Delete | Operation::Leave), _) => Ok(Side::Delete),
        (None, _) => Err(malformed("a conflict with an unknown operation")),
    };
    Ok(ConflictSummary {
        id: id(ConflictId::from_slice(&message.conflict_id))?,
        table: TableId(message.table_id),
        kind: ConflictKind { local: side(message.local_operation)?, remote: side(message.remote_operation)? },
        table_name: message.table,
        key_json: message.key_json,
        // The protocol says so: an unknown policy is treated as server_wins, an unknown outcome as merged.
        policy: match pb::ConflictPolicy::try_from(message.policy) {
            Ok(pb::ConflictPolicy::ClientWins) => ConflictPolicy::ClientWins,
            Ok(pb::ConflictPolicy::LastWriterWins) => ConflictPolicy::LastWriterWins,
            _ => ConflictPolicy::ServerWins,
        },
        outcome: match pb::ConflictOutcome::try_from(message.outcome) {
            Ok(pb::ConflictOutcome::Local) => Outcome::Local,
            Ok(pb::ConflictOutcome::Remote) => Outcome::Remote,
            _ => Outcome::Merged,
        },
    })
}

fn apply_result(message: &pb::ApplyResult) -> Result<ApplyResult> {
    let committed = message.committed_at.as_ref().ok_or_else(|| malformed("it has no committed_at"))?;
    let committed_at =
        committed.seconds.checked_mul(1_000_000).map(|us| us + i64::from(committed.nanos / 1_000));
    Ok(ApplyResult {
        upserts: message.upserts,
        deletes: message.deletes,
        unchanged: message.unchanged,
        conflicts: message.conflicts,
        row_errors: message.row_errors,
        upload_mark: id(Mark::from_slice(&message.upload_mark))?,
        committed_at: committed_at.ok_or_else(|| malformed("its committed_at can't be"))?,
    })
}
