//! GetDigests: not in this version. A field that is wrong is said all the same.

use syncline::error::SyncError;
use syncline::pb;

use super::fields::Fields;
use super::unsupported;

pub(super) fn serve(message: &pb::GetDigestsRequest) -> SyncError {
    let mut fields = Fields::new();
    let scope = fields.scope(&message.scope);
    match fields.finish((scope,)) {
        Err(error) => error,
        Ok(_) => unsupported("digests", "this service does not compare by digests"),
    }
}
