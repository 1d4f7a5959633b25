//! A gRPC status as an error of ours: by its reason where it has one, else by its code.

use std::error::Error as _;

use syncline::error::{ERROR_DOMAIN, ErrorReason, SyncError};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What the metadata of reasons can name ([`SyncError::metadata`] has static keys).
const METADATA_KEYS: &[&str] = &[
    "scope",
    "table",
    "column",
    "capability",
    "parameter",
    "feature",
    "batch_id",
    "committed_size",
    "key",
    "row",
    "row_bytes_max",
];

/// What a failed call means.
pub(super) fn to_error(status: &Status, address: &str) -> SyncError {
    let info = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
    let Some(info) = info else { return without_reason(status, address) };
    let reason = ErrorReason::from_name(&info.reason).unwrap_or_else(|| nearest(status));
    let mut error = SyncError::new(reason, status.message().to_owned());
    for key in METADATA_KEYS {
        if let Some(value) = info.metadata.get(*key) {
            error = error.with(key, value);
        }
    }
    for violation in status.get_details_bad_request().into_iter().flat_map(|bad| bad.field_violations) {
        error = error.violation(violation.field, violation.description);
    }
    with_retry_info(error, status)
}

/// A status that no handler of ours made: the connection broke, or something between the two sides answered.
fn without_reason(status: &Status, address: &str) -> SyncError {
    // Only what was made on this side, out of a failed connection, has a source.
    let broken =
        status.source().is_some() || matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded);
    let error = if broken || status.code() == Code::Unavailable {
        SyncError::new(
            ErrorReason::DatabaseUnavailable,
            format!("the service at {address} can't be reached: {}", cause(status)),
        )
    } else {
        let text = match status.message() {
            "" => format!("the service at {address} answered {:?} and nothing more", status.code()),
            message => message.to_owned(),
        };
        SyncError::new(nearest(status), text)
    };
    with_retry_info(error, status).with_detail(format!("{status:?}"))
}

/// The innermost cause: "connection refused" says more than "transport error".
fn cause(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    cause.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

/// How an unknown reason is handled: by its status, as the protocol says.
fn nearest(status: &Status) -> ErrorReason {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ErrorReason::DatabaseUnavailable,
        Code::Aborted => ErrorReason::CallReplaced,
        Code::ResourceExhausted if status.get_details_retry_info().is_some() => ErrorReason::Overloaded,
        Code::InvalidArgument => ErrorReason::RequestInvalid,
        Code::NotFound => ErrorReason::ScopeNotFound,
        // A precondition that this version does not know: never repeated unchanged.
        Code::FailedPrecondition => ErrorReason::CapabilityRequired,
        Code::OutOfRange => ErrorReason::OffsetMismatch,
        Code::DataLoss => ErrorReason::BatchCorrupt,
        Code::Unimplemented => ErrorReason::FeatureUnsupported,
        Code::PermissionDenied => ErrorReason::PermissionDenied,
        Code::Unauthenticated => ErrorReason::Unauthenticated,
        _ => ErrorReason::Internal,
    }
}

fn with_retry_info(error: SyncError, status: &Status) -> SyncError {
    match status.get_details_retry_info().and_then(|info| info.retry_delay) {
        Some(pause) => error.retry_after(pause),
        None => error,
    }
}
