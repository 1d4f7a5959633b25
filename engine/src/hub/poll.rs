//! The cheap poll: has anything changed for this knowledge? Writes nothing.

use syncline::error::Result;

use super::{Hub, view};
use crate::replica::{Pending, PollRequest};

impl Hub {
    pub(super) async fn poll_knowledge(&self, request: PollRequest) -> Result<Pending> {
        view::check_parameters(&request.parameters)?;
        let scope = self.stored_scope(&request.scope).await?;
        let known = view::known_of_view(&request.knowledge, &scope)?;
        if known.is_empty() || scope.schema.fingerprint() != request.schema_fingerprint {
            return Ok(Pending::Some);
        }
        let since_known = scope.tables.iter().all(|table| known.contains_version(table.since));
        if !since_known {
            return Ok(Pending::Some);
        }
        self.store().probe(&scope, request.replica, &known).await
    }
}
