//! What tonic refuses by itself, before a handler of ours sees it: said as every other refusal is.
//!
//! A message that does not decode is Internal to tonic, and one that is too large OutOfRange; neither has a reason. To a
//! client the one would be a fault of the service, the other a wrong offset.

use syncline::error::SyncError;
use syncline::limits::MESSAGE_BYTES_MAX;
use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::{Code, Status};

use crate::status;

/// Gives a refusal that has no reason the one that it deserves.
pub(crate) fn explain(response: Response<Body>) -> Response<Body> {
    // A refusal before the first message stands in the headers alone.
    let Some(refusal) = Status::from_header_map(response.headers()) else { return response };
    if !refusal.details().is_empty() {
        return response;
    }
    match fault(&refusal) {
        Some(error) => {
            tracing::info!(reason = error.reason().as_str(), %error, said = refusal.message(), "refused");
            status::from_error(&error, "", false).into_http()
        }
        None => response,
    }
}

/// What is wrong with the request.
fn fault(refusal: &Status) -> Option<SyncError> {
    let problem = match refusal.code() {
        Code::Internal => "does not decode; use messages made from the service's descriptors".to_owned(),
        Code::OutOfRange => format!("must have at most {MESSAGE_BYTES_MAX} bytes; send less at once"),
        Code::Unimplemented if refusal.message().contains("ompress") => {
            "must not be compressed: batches are, once".to_owned()
        }
        _ => return None,
    };
    Some(SyncError::invalid("message", problem))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tonic_types::StatusExt as _;

    use super::*;

    fn explained(status: Status) -> Status {
        Status::from_header_map(explain(status.into_http()).headers()).unwrap()
    }

    #[test]
    fn what_tonic_refuses_gets_a_reason() {
        for (refusal, says) in [
            (Status::internal("failed to decode Protobuf message"), "does not decode"),
            (Status::out_of_range("decoded message length too large"), "at most 2097152 bytes"),
            (Status::unimplemented("Content is compressed with `gzip` which isn't supported"), "compressed"),
        ] {
            let explained = explained(refusal);
            assert_eq!(explained.code(), Code::InvalidArgument);
            let details = explained.get_error_details();
            assert_eq!(details.error_info().unwrap().reason, "REQUEST_INVALID");
            assert!(explained.message().contains(says), "{explained:?}");
        }
    }

    #[test]
    fn what_has_a_reason_and_what_is_no_refusal_stay_as_they_are() {
        let ours = SyncError::internal("a fault");
        let told = explained(status::from_error(&ours, "", false));
        assert_eq!(
            (told.code(), told.get_error_details().error_info().unwrap().reason.as_str()),
            (Code::Internal, "INTERNAL")
        );
        assert_eq!(explained(Status::unimplemented("")).code(), Code::Unimplemented);
        assert!(Status::from_header_map(explain(Response::new(Body::empty())).headers()).is_none());
    }
}
