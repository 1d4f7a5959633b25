//! WatchScope: not in this version. A field that is wrong is said all the same.

use syncline::error::SyncError;
use syncline::pb;

use super::fields::Fields;
use super::unsupported;

pub(super) fn serve(message: &pb::WatchScopeRequest) -> SyncError {
    let mut fields = Fields::new();
    let replica = fields.replica(&message.replica_id);
    let scope = fields.scope(&message.scope);
    match fields.finish((replica, scope)) {
        Err(error) => error,
        Ok(_) => unsupported("watch", "this service does not push; poll with GetKnowledge"),
    }
}
