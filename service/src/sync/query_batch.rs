//! QueryBatch: what the service has of a batch.

use syncline::error::Result;
use syncline::ids::BatchId;
use syncline::pb;
use syncline_engine::replica::{BatchStatus, SessionRef};

use super::fields::Fields;
use crate::ServedHub;
use crate::call::Call;

pub(super) async fn serve(
    hub: &dyn ServedHub,
    call: &Call,
    message: pb::QueryBatchRequest,
) -> Result<pb::QueryBatchResponse> {
    let (session, batch) = check(&message)?;
    call.note_session(session.id);
    call.note_batch(batch);
    // The size of what is whole or gone stands in its BatchInfo: only a part has one of its own.
    let (state, committed_size) = match hub.query_batch(session, batch).await? {
        BatchStatus::Absent => (pb::BatchState::Absent, 0),
        BatchStatus::Partial { committed_size } => (pb::BatchState::Partial, committed_size),
        BatchStatus::Complete => (pb::BatchState::Complete, 0),
        BatchStatus::Released => (pb::BatchState::Released, 0),
    };
    Ok(pb::QueryBatchResponse { state: state as i32, committed_size })
}

fn check(message: &pb::QueryBatchRequest) -> Result<(SessionRef, BatchId)> {
    let mut fields = Fields::new();
    let session = fields.session(&message.session_id, &message.session_token);
    let batch = fields.batch("batch_id", &message.batch_id);
    fields.finish((session, batch))
}
