//! Errors as gRPC statuses with google.rpc details: bounded, and with nothing internal in them.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use syncline::error::{ERROR_DOMAIN, ErrorReason, SyncError};
use syncline::limits::{FIELD_VIOLATIONS_MAX, STATUS_DETAILS_BYTES_MAX};
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::limits::{RETRY_PAUSE, STATUS_MESSAGE_BYTES_MAX, STATUS_TEXT_BYTES_MAX};

/// The header that names a call in the logs of both sides.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Metadata key: how many field violations were left out.
pub const OMITTED_VIOLATIONS: &str = "violations_omitted";

/// The status that tells a caller of an error. `verbose` adds what otherwise only the log says.
///
/// Details take at most [`STATUS_DETAILS_BYTES_MAX`]: a client that can't hold them loses the whole status.
#[must_use]
pub fn from_error(error: &SyncError, request_id: &str, verbose: bool) -> Status {
    let message = match error.detail() {
        Some(detail) if verbose => format!("{} ({detail})", error.message()),
        _ => error.message().to_owned(),
    };
    let message = shortened(&message, STATUS_MESSAGE_BYTES_MAX);
    let code = Code::from_i32(error.reason().status() as i32);
    let mut listed = error.violations().len().min(FIELD_VIOLATIONS_MAX);
    let mut with_metadata = true;
    loop {
        let details = details(error, request_id, listed, with_metadata);
        let mut status = Status::with_error_details(code, message.clone(), details);
        if status.details().len() <= STATUS_DETAILS_BYTES_MAX {
            if let Some(value) = request_id_value(request_id) {
                status.metadata_mut().insert(REQUEST_ID_HEADER, value);
            }
            return status;
        }
        // Violations go first, from the end; then the metadata. What is left then is the bounded message.
        if listed > 0 {
            listed -= 1;
        } else if with_metadata {
            with_metadata = false;
        } else {
            return Status::new(code, message);
        }
    }
}

/// The value of the header that names the request.
pub(crate) fn request_id_value(request_id: &str) -> Option<AsciiMetadataValue> {
    let mut value: AsciiMetadataValue = request_id.parse().ok()?;
    // It is no secret, but this is how HTTP/2 is told to keep it out of the connection's table of headers: no other
    // answer has the same, and each would be compared with all that are there and push out what does repeat.
    value.set_sensitive(true);
    Some(value)
}

fn details(error: &SyncError, request_id: &str, listed: usize, with_metadata: bool) -> ErrorDetails {
    let mut metadata = HashMap::new();
    if with_metadata {
        let pairs = error.metadata().iter();
        metadata
            .extend(pairs.map(|(key, value)| ((*key).to_owned(), shortened(value, STATUS_TEXT_BYTES_MAX))));
    }
    let omitted = error.violations().len() - listed;
    if omitted > 0 {
        metadata.insert(OMITTED_VIOLATIONS.to_owned(), omitted.to_string());
    }
    let mut details = ErrorDetails::with_error_info(error.reason().as_str(), ERROR_DOMAIN, metadata);
    details.set_request_info(request_id, "");
    if let Some(pause) = retry_pause(error) {
        details.set_retry_info(Some(pause));
    }
    if listed > 0 {
        let violations = error.violations()[..listed].iter().map(|violation| {
            FieldViolation::new(
                shortened(&violation.field, STATUS_TEXT_BYTES_MAX),
                shortened(&violation.description, STATUS_TEXT_BYTES_MAX),
            )
        });
        details.set_bad_request(violations.collect::<Vec<_>>());
    }
    details
}

/// When the same call may be repeated; `None` where repeating it does not help.
fn retry_pause(error: &SyncError) -> Option<Duration> {
    // A newer call took over: the older one has nothing to repeat.
    let helps = error.reason().is_temporary() && error.reason() != ErrorReason::CallReplaced;
    error.retry_pause().or_else(|| helps.then_some(RETRY_PAUSE))
}

/// The text, cut at a character's boundary so that it takes at most `bytes_max`.
fn shortened(text: &str, bytes_max: usize) -> String {
    const CUT: &str = "…";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max - CUT.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", &text[..end])
}
