//! ReleaseBatches: the client holds these batches durably.

use syncline::error::Result;
use syncline::ids::BatchId;
use syncline::limits::RELEASE_BATCHES_MAX;
use syncline::pb;
use syncline_engine::replica::SessionRef;

use super::fields::{Fields, at_most};
use crate::ServedHub;
use crate::call::Call;

pub(super) async fn serve(
    hub: &dyn ServedHub,
    call: &Call,
    message: pb::ReleaseBatchesRequest,
) -> Result<pb::ReleaseBatchesResponse> {
    let (session, batches) = check(&message)?;
    call.note_session(session.id);
    hub.release(session, &batches).await?;
    Ok(pb::ReleaseBatchesResponse {})
}

fn check(message: &pb::ReleaseBatchesRequest) -> Result<(SessionRef, Vec<BatchId>)> {
    let mut fields = Fields::new();
    let session = fields.session(&message.session_id, &message.session_token);
    let batches = if message.batch_ids.len() > RELEASE_BATCHES_MAX {
        fields.wrong("batch_ids", at_most(RELEASE_BATCHES_MAX, message.batch_ids.len()));
        None
    } else {
        let ids = message.batch_ids.iter().enumerate();
        // Every id is looked at, also after a wrong one.
        let ids: Vec<_> = ids.map(|(index, id)| fields.batch(&format!("batch_ids[{index}]"), id)).collect();
        ids.into_iter().collect::<Option<Vec<_>>>()
    };
    fields.finish((session, batches))
}
