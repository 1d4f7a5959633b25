//! The end of a session: what the client acknowledges, and the spool that becomes free.

use syncline::error::{ErrorReason, Result, SyncError};
use syncline::limits::KNOWLEDGE_BYTES_MAX;

use super::{Hub, now_micros, view};
use crate::dialect::meta::{applies, batches, leaves, row_errors, sessions};
use crate::replica::{EndRequest, SessionRef};

impl Hub {
    /// Idempotent: a session that has ended is fine.
    pub(super) async fn end_session(&self, session: SessionRef, request: EndRequest) -> Result<()> {
        let checked = match self.checked(session).await {
            Ok(checked) => checked,
            Err(error) if error.reason() == ErrorReason::SessionNotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if request.knowledge.len() > KNOWLEDGE_BYTES_MAX {
            return Err(SyncError::invalid(
                "knowledge",
                format!("must be at most {KNOWLEDGE_BYTES_MAX} bytes"),
            ));
        }
        // Checked, though it is stored as it came: clean-up will rely on it.
        view::known_of_view(&request.knowledge, &checked.scope)?;
        let row = &checked.row;
        // First, so that what the transaction below removes is not in use: an apply holds the session's row.
        self.tasks().stop(row.id).await;
        let now = now_micros();
        // Durable: a session that came back after a crash of the database would supersede the one that follows it.
        let mut transaction = self.store().begin().await?;
        if !request.knowledge.is_empty() && !request.abandoned {
            transaction.run(leaves::acknowledged(row.scope, row.replica, &request.knowledge, now)).await?;
        }
        transaction.run(applies::forget(row.id, row.scope, row.replica)).await?;
        transaction.run(row_errors::forget(row.id, &row.document.scope, row.replica)).await?;
        transaction.run(batches::delete_of_session(row.id)).await?;
        transaction.run(sessions::delete(row.id)).await?;
        transaction.commit().await?;
        tracing::info!(
            session = %row.id, replica = %row.replica, scope = %row.document.scope, abandoned = request.abandoned,
            rows_downloaded = request.rows_downloaded, bytes_downloaded = request.bytes_downloaded,
            conflicts = request.conflicts, row_errors = request.row_errors, "session ended"
        );
        // A call that came in between may have begun something; it finds that the session has ended.
        self.tasks().stop(row.id).await;
        self.spool().delete_session(row.id).await
    }
}
