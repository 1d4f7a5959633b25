//! EndSession: acknowledges what the client has committed, and frees the spool.

use syncline::error::Result;
use syncline::pb;
use syncline_engine::replica::{EndRequest, SessionRef};

use super::fields::Fields;
use crate::ServedHub;
use crate::call::Call;

pub(super) async fn serve(
    hub: &dyn ServedHub,
    call: &Call,
    message: pb::EndSessionRequest,
) -> Result<pb::EndSessionResponse> {
    let (session, request) = check(message)?;
    call.note_session(session.id);
    // The hub logs the end, once: a repeated call ends nothing.
    hub.end(session, request).await?;
    Ok(pb::EndSessionResponse {})
}

fn check(message: pb::EndSessionRequest) -> Result<(SessionRef, EndRequest)> {
    let mut fields = Fields::new();
    let session = fields.session(&message.session_id, &message.session_token);
    let abandoned = match pb::SessionOutcome::try_from(message.outcome) {
        Ok(pb::SessionOutcome::Completed) => Some(false),
        Ok(pb::SessionOutcome::Abandoned) => Some(true),
        Ok(pb::SessionOutcome::Unspecified) | Err(_) => {
            fields
                .wrong("outcome", format!("must be COMPLETED (1) or ABANDONED (2), not {}", message.outcome));
            None
        }
    };
    let knowledge = fields.knowledge("knowledge", message.knowledge);
    let download_mark = fields.optional_mark("download_mark", &message.download_mark);
    let statistics = message.statistics.unwrap_or_default();
    let (session, abandoned, knowledge, download_mark) =
        fields.finish((session, abandoned, knowledge, download_mark))?;
    let request = EndRequest {
        abandoned,
        knowledge,
        download_mark,
        rows_downloaded: statistics.rows_downloaded,
        bytes_downloaded: statistics.bytes_downloaded,
        conflicts: statistics.conflicts,
        row_errors: statistics.row_errors,
    };
    Ok((session, request))
}
