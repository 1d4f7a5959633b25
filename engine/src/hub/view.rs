//! Which view some knowledge is of.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::knowledge::{Knowledge, ViewId, ViewKnowledge};

use crate::store::StoredScope;

/// The view of a scope without parameters: named by the scope's incarnation, not by its version, so that knowledge
/// outlives changes of the scope.
pub(super) fn view_id(scope: &StoredScope) -> ViewId {
    let digest = Sha256::digest(scope.schema.incarnation.as_bytes());
    ViewId(Bytes::copy_from_slice(&digest[..16]))
}

/// What the leaf knows of this view: nothing, if its knowledge is of another one.
pub(super) fn known_of_view(bytes: &Bytes, scope: &StoredScope) -> Result<Knowledge> {
    let stored = ViewKnowledge::decode(bytes)?;
    Ok(if stored.view == view_id(scope) { stored.knowledge } else { Knowledge::new() })
}

/// The bytes that a leaf stores.
pub(super) fn encode(knowledge: &Knowledge, scope: &StoredScope) -> Result<Bytes> {
    Ok(ViewKnowledge { view: view_id(scope), knowledge: knowledge.clone() }.encode()?)
}

/// Parameters come with filters, which this version does not have: none is silently ignored.
pub(super) fn check_parameters(parameters: &[(String, String)]) -> Result<()> {
    match parameters.first() {
        None => Ok(()),
        Some((name, _)) => Err(SyncError::new(
            ErrorReason::ParameterInvalid,
            format!("the scope has no parameter \"{name}\"; leave it out"),
        )
        .with("parameter", name)),
    }
}
