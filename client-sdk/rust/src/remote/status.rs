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
    let error = connection_failure(status, address).unwrap_or_else(|| {
        let text = match status.message() {
            "" => format!("the service at {address} answered {:?} and nothing more", status.code()),
            message => message.to_owned(),
        };
        SyncError::new(nearest(status), text)
    });
    with_retry_info(error, status).with_detail(format!("{status:?}"))
}

/// What a status says of the connection, if it is no answer of the service at `address`: see
/// [`connection_failure`](super::connection_failure).
pub(super) fn connection_failure(status: &Status, address: &str) -> Option<SyncError> {
    if let Some((option, problem)) = refused_handshake(status, address) {
        let message = format!("{option}: no connection to {address}: {problem}");
        return Some(SyncError::new(ErrorReason::RequestInvalid, message).violation(option, problem));
    }
    // Only what was made on this side, out of a failed connection, has a source.
    let broken = status.source().is_some()
        || match status.code() {
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => true,
            // The service never answers Unknown: the stream was closed before it could say how the call ended.
            Code::Unknown => status.get_details_error_info().is_none(),
            // tonic's words for a stream that was closed within a message, or before the only one.
            Code::Internal => {
                ["Unexpected EOF decoding stream.", "Missing response message."].contains(&status.message())
            }
            _ => false,
        };
    broken.then(|| {
        SyncError::new(
            ErrorReason::DatabaseUnavailable,
            format!("the service at {address} can't be reached: {}", cause(status)),
        )
    })
}

/// What a TLS port has against plain text.
pub(super) fn wants_tls(address: &str) -> SyncError {
    let problem = "the service expects TLS; write https://";
    let message = format!("server: no connection to {address}: {problem}");
    SyncError::new(ErrorReason::RequestInvalid, message).violation("server", problem)
}

/// Whether the other side of a handshake that failed has shown a certificate: it speaks TLS.
pub(super) fn was_shown_a_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(Some(error)).any(|error| matches!(tls_error(error), Some(rustls::Error::InvalidCertificate(_))))
}

/// Why the two sides will never agree on a connection: the option to correct, and what is wrong.
fn refused_handshake(status: &Status, address: &str) -> Option<(&'static str, String)> {
    causes(status.source()).find_map(|error| {
        if let Some(tls) = tls_error(error) {
            return refused_by_tls(tls);
        }
        // Not types that can be seen from here.
        let text = error.to_string();
        if text.contains("HTTP/2 was not negotiated") {
            return Some((
                "server",
                "what answers there does not speak HTTP/2; is it the service?".to_owned(),
            ));
        }
        // What comes back from a TLS port that was sent plain text is taken for an HTTP/2 frame of absurd length.
        (address.starts_with("http://") && text.contains("frame with invalid size")).then(|| {
            ("server", "the answer is not HTTP/2; if the service expects TLS, write https://".to_owned())
        })
    })
}

/// An error and what it comes from.
fn causes<'e>(
    error: Option<&'e (dyn std::error::Error + 'static)>,
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(error, |error| {
        let error: &'e (dyn std::error::Error + 'static) = *error;
        error.source()
    })
}

/// The error of TLS itself; an I/O error holds it without counting it among its causes.
fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref())
}

/// What TLS refuses whatever the network does. A handshake that was merely broken off is none of it.
fn refused_by_tls(error: &rustls::Error) -> Option<(&'static str, String)> {
    use rustls::{AlertDescription, CertificateError, Error};
    match error {
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some((
            "server",
            format!("the service's certificate is for another name ({error}); use that name"),
        )),
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            Some((
                "ca",
                format!(
                    "the service's certificate is not from an authority that is trusted here ({error}); name the right one"
                ),
            ))
        }
        Error::InvalidCertificate(_) => {
            Some(("ca", format!("the service's certificate is refused ({error})")))
        }
        Error::InvalidMessage(_) => {
            Some(("server", "what answers there does not speak TLS; is it http://?".to_owned()))
        }
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        ) => Some(("cert", format!("the service refuses this side's certificate ({error})"))),
        Error::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::NoApplicationProtocol,
        )
        | Error::PeerIncompatible(_) => {
            Some(("server", format!("the two sides have no form of TLS in common ({error})")))
        }
        _ => None,
    }
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
