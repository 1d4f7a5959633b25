//! GetScope: a scope's schema.

use bytes::Bytes;
use syncline::error::Result;
use syncline::ids::ScopeName;
use syncline::pb;

use super::fields::Fields;
use super::unsupported;
use crate::ServedHub;
use crate::call::Call;

pub(super) async fn serve(
    hub: &dyn ServedHub,
    call: &Call,
    message: pb::GetScopeRequest,
) -> Result<pb::GetScopeResponse> {
    let name = check(&message)?;
    call.note_scope(&name);
    let served = hub.scope(&name).await?;
    Ok(pb::GetScopeResponse {
        schema: Some((&served.schema).into()),
        hub_replica_id: Bytes::copy_from_slice(served.hub.as_bytes()),
        local_sql: Vec::new(),
    })
}

fn check(message: &pb::GetScopeRequest) -> Result<ScopeName> {
    let mut fields = Fields::new();
    let name = fields.scope(&message.scope);
    if message.with_local_sql {
        fields.refuse(unsupported(
            "local_sql",
            "this service does not hand out the SQL of local stores; ask without with_local_sql",
        ));
    }
    fields.finish((name,)).map(|(name,)| name)
}
