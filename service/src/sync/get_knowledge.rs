//! GetKnowledge: the cheap poll, without a session.

use bytes::Bytes;
use syncline::error::Result;
use syncline::pb;
use syncline_engine::replica::PollRequest;

use super::fields::Fields;
use super::pending_message;
use crate::ServedHub;
use crate::call::Call;

pub(super) async fn serve(
    hub: &dyn ServedHub,
    call: &Call,
    message: pb::GetKnowledgeRequest,
) -> Result<pb::GetKnowledgeResponse> {
    let request = check(message)?;
    call.note_replica(request.replica, &request.scope);
    let pending = hub.poll(request).await?;
    Ok(pb::GetKnowledgeResponse {
        pending: pending_message(pending) as i32,
        hub_replica_id: Bytes::copy_from_slice(hub.replica().as_bytes()),
    })
}

fn check(message: pb::GetKnowledgeRequest) -> Result<PollRequest> {
    let mut fields = Fields::new();
    let replica = fields.replica(&message.replica_id);
    let scope = fields.scope(&message.scope);
    let parameters = fields.parameters(message.parameters);
    let knowledge = fields.knowledge("knowledge", message.knowledge);
    let fingerprint = fields.fingerprint(&message.schema_fingerprint);
    let (replica, scope, parameters, knowledge, schema_fingerprint) =
        fields.finish((replica, scope, parameters, knowledge, fingerprint))?;
    Ok(PollRequest { replica, scope, parameters, knowledge, schema_fingerprint })
}
