//! BeginSession: opens a session, or takes up one that was broken off.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use syncline::batch::Codec;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::limits;
use syncline::pb;
use syncline::value::CanonicalType;
use syncline_engine::replica::{BatchStatus, BeginRequest, Begun, ResumeState};

use super::fields::{Fields, at_most};
use super::{duration_message, mark_bytes, unsupported};
use crate::ServedHub;
use crate::call::Call;

/// Elements of each list of capabilities.
const CAPABILITIES_MAX: usize = 64;

pub(super) async fn serve(
    hub: &dyn ServedHub,
    call: &Call,
    lease: Duration,
    message: pb::BeginSessionRequest,
) -> Result<pb::BeginSessionResponse> {
    let (request, types) = check(message)?;
    call.note_session(request.session);
    call.note_replica(request.replica, &request.scope);
    call.refuse_while_draining()?;
    if let Some(types) = types {
        require_types(hub, &request, &types).await?;
    }
    let client_name = request.client_name.clone();
    let begun = hub.begin(request).await?;
    tracing::info!(
        client_name,
        resumed = begun.resume.resumed,
        reinitialize = begun.reinitialize,
        "session begun"
    );
    Ok(answer(&begun, lease))
}

/// The request, and the canonical types that the client listed (`None`: all).
fn check(message: pb::BeginSessionRequest) -> Result<(BeginRequest, Option<Vec<CanonicalType>>)> {
    let mut fields = Fields::new();
    let session = fields.session_id(&message.session_id);
    let replica = fields.replica(&message.replica_id);
    check_kind(&mut fields, message.replica_kind);
    let scope = fields.scope(&message.scope);
    let parameters = fields.parameters(message.parameters);
    let knowledge = fields.knowledge("knowledge", message.knowledge);
    let answered = fields.optional_mark("upload_mark_answered", &message.upload_mark_answered);
    let drawn = fields.optional_mark("upload_mark_drawn", &message.upload_mark_drawn);
    let download_mark = fields.optional_mark("download_mark", &message.download_mark);
    let capabilities = fields.within("capabilities", |fields| {
        check_capabilities(fields, message.capabilities.unwrap_or_default())
    });
    let fingerprint = fields.fingerprint(&message.schema_fingerprint);
    if let Some(time) = message.client_time {
        check_client_time(&mut fields, time);
    }
    let client_name = check_client_name(&mut fields, message.client_name);
    let (
        session,
        replica,
        scope,
        parameters,
        knowledge,
        answered,
        drawn,
        download_mark,
        capabilities,
        fingerprint,
        name,
    ) = fields.finish((
        session,
        replica,
        scope,
        parameters,
        knowledge,
        answered,
        drawn,
        download_mark,
        capabilities,
        fingerprint,
        client_name,
    ))?;
    let request = BeginRequest {
        session,
        replica,
        scope,
        parameters,
        knowledge,
        upload_mark_answered: answered,
        upload_mark_drawn: drawn,
        download_mark,
        codecs: capabilities.codecs,
        batch_bytes_max: capabilities.batch_bytes_max,
        row_bytes_max: capabilities.row_bytes_max,
        schema_fingerprint: fingerprint,
        client_name: name,
        ahead: message.ahead,
    };
    Ok((request, capabilities.types))
}

fn check_kind(fields: &mut Fields, kind: i32) {
    match pb::ReplicaKind::try_from(kind) {
        Ok(pb::ReplicaKind::Leaf) => {}
        Ok(pb::ReplicaKind::Peer) => fields.refuse(unsupported(
            "peers",
            "this service synchronises with leaves only; begin the session as a leaf",
        )),
        Ok(pb::ReplicaKind::Unspecified) | Err(_) => {
            fields.wrong("replica_kind", format!("must be LEAF (1), not {kind}"));
        }
    }
}

struct Capabilities {
    codecs: Vec<Codec>,
    /// `None`: all.
    types: Option<Vec<CanonicalType>>,
    batch_bytes_max: Option<u64>,
    row_bytes_max: Option<u64>,
}

/// What the service does not know among the capabilities is passed over.
fn check_capabilities(fields: &mut Fields, message: pb::Capabilities) -> Option<Capabilities> {
    let lengths = [
        ("codecs", message.codecs.len()),
        ("types", message.types.len()),
        ("features", message.features.len()),
    ];
    for (field, found) in lengths {
        if found > CAPABILITIES_MAX {
            fields.wrong(field, at_most(CAPABILITIES_MAX, found));
            return None;
        }
    }
    let mut codecs: Vec<Codec> = Vec::new();
    for codec in message.codecs.into_iter().filter_map(Codec::from_wire).chain([Codec::Identity]) {
        if !codecs.contains(&codec) {
            codecs.push(codec);
        }
    }
    let batch_bytes_max = match message.batch_bytes_max {
        0 => None,
        size if (limits::BATCH_BYTES_MIN..=limits::BATCH_BYTES_MAX).contains(&size) => Some(size),
        size => {
            let (least, most) = (limits::BATCH_BYTES_MIN, limits::BATCH_BYTES_MAX);
            fields.wrong("batch_bytes_max", format!("must be 0 or {least} to {most}, not {size}"));
            return None;
        }
    };
    // A list of types that are all unknown here is still a list: it must not turn into "all types".
    let known = || message.types.iter().filter_map(|number| CanonicalType::from_wire(*number)).collect();
    let types = (!message.types.is_empty()).then(known);
    let row_bytes_max = (message.row_bytes_max > 0).then(|| message.row_bytes_max.min(limits::ROW_BYTES_MAX));
    Some(Capabilities { codecs, types, batch_bytes_max, row_bytes_max })
}

fn check_client_time(fields: &mut Fields, time: prost_types::Timestamp) {
    match SystemTime::try_from(time) {
        Ok(_) if (0..1_000_000_000).contains(&time.nanos) => {}
        _ => fields.wrong("client_time", "is no time"),
    }
}

fn check_client_name(fields: &mut Fields, name: String) -> Option<String> {
    if name.len() > limits::CLIENT_NAME_BYTES_MAX {
        let bound = limits::CLIENT_NAME_BYTES_MAX;
        fields.wrong("client_name", format!("must have at most {bound} bytes, not {}", name.len()));
        return None;
    }
    if name.chars().any(char::is_control) {
        fields.wrong("client_name", "must not hold control characters");
        return None;
    }
    Some(name)
}

/// A scope must not send what the client did not list.
async fn require_types(hub: &dyn ServedHub, request: &BeginRequest, types: &[CanonicalType]) -> Result<()> {
    let served = hub.scope(&request.scope).await?;
    for table in &served.schema.tables {
        if let Some(column) = table.columns.iter().find(|column| !types.contains(&column.ty)) {
            let needed = column.ty.wire().as_str_name();
            let message = format!(
                "column {}.{} has the type {needed}, which the client does not list; update the client",
                table.name, column.name
            );
            return Err(SyncError::new(ErrorReason::CapabilityRequired, message)
                .with("table", &table.name)
                .with("column", &column.name)
                .with("capability", needed));
        }
    }
    Ok(())
}

fn answer(begun: &Begun, lease: Duration) -> pb::BeginSessionResponse {
    let hint = if begun.reinitialize { pb::SessionHint::Reinitialize } else { pb::SessionHint::Synchronise };
    pb::BeginSessionResponse {
        session_token: Bytes::copy_from_slice(begun.session.token.as_bytes()),
        agreement: Some(pb::Agreement {
            codec: begun.agreement.codec.wire() as i32,
            batch_bytes_max: begun.agreement.batch_bytes_max,
            row_bytes_max: begun.agreement.row_bytes_max,
            batches_in_flight_max: begun.agreement.batches_in_flight_max,
            features: Vec::new(),
        }),
        resume: Some(resume(&begun.resume)),
        hint: hint as i32,
        upload_mark: mark_bytes(begun.upload_mark),
        hub_replica_id: Bytes::copy_from_slice(begun.hub.as_bytes()),
        lease: Some(duration_message(lease)),
        service_time: Some(begun.hub_time.into()),
    }
}

fn resume(state: &ResumeState) -> pb::ResumeState {
    let uploads = state.uploads.iter().map(|(id, status)| {
        let (committed_size, complete) = match status {
            BatchStatus::Absent => (0, false),
            BatchStatus::Partial { committed_size } => (*committed_size, false),
            BatchStatus::Complete | BatchStatus::Released => (0, true),
        };
        pb::UploadedBatch { batch_id: Bytes::copy_from_slice(id.as_bytes()), committed_size, complete }
    });
    pb::ResumeState {
        resumed: state.resumed,
        uploads: uploads.collect(),
        apply_started: state.apply_started,
        applied: state.applied,
        download_started: state.download_started,
    }
}
