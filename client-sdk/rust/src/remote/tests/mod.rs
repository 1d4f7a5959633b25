//! The gRPC client: statuses as reasons, answers that are checked, and a real connection.
#![allow(clippy::unwrap_used)]

mod answers;
mod connection;
mod service;
mod tls;

use std::collections::HashMap;
use std::time::Duration;

use syncline::error::ERROR_DOMAIN;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;

const ADDRESS: &str = "http://hub.example:50051";

fn with_reason(code: Code, reason: &str) -> Status {
    let metadata = HashMap::from([("batch_id".into(), "7".into()), ("what".into(), "unknown".into())]);
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    details.set_retry_info(Some(Duration::from_secs(3)));
    details.add_bad_request_violation("knowledge", "is none");
    Status::with_error_details(code, "what to do", details)
}

#[test]
fn a_reason_comes_with_all_that_belongs_to_it() {
    let error = status::to_error(&with_reason(Code::NotFound, "BATCH_NOT_FOUND"), ADDRESS);
    assert_eq!(error.reason(), ErrorReason::BatchNotFound);
    assert_eq!(error.message(), "what to do");
    assert_eq!(error.metadata()["batch_id"], "7");
    assert_eq!(error.metadata().len(), 1);
    assert_eq!(error.retry_pause(), Some(Duration::from_secs(3)));
    assert_eq!(error.violations()[0].field, "knowledge");
}

#[test]
fn an_unknown_reason_is_handled_by_its_status() {
    let of = |code| status::to_error(&with_reason(code, "MADE_UP_LATER"), ADDRESS).reason();
    assert!(of(Code::Unavailable).is_temporary());
    assert!(of(Code::Aborted).is_temporary());
    assert!(of(Code::ResourceExhausted).is_temporary(), "it has RetryInfo");
    assert!(!of(Code::FailedPrecondition).is_temporary());
    assert_eq!(of(Code::InvalidArgument), ErrorReason::RequestInvalid);
    assert_eq!(of(Code::Unauthenticated), ErrorReason::Unauthenticated);
    assert_eq!(of(Code::Unknown), ErrorReason::Internal);
}

#[test]
fn what_is_not_ours_is_judged_by_its_status() {
    let exhausted = status::to_error(&Status::resource_exhausted("too large"), ADDRESS);
    assert!(!exhausted.reason().is_temporary());
    let gateway = status::to_error(&Status::unavailable("bad gateway"), ADDRESS);
    assert!(gateway.reason().is_temporary());
    assert_eq!(gateway.message(), "the service at http://hub.example:50051 can't be reached: bad gateway");
    let broken = Status::from_error(Box::new(std::io::Error::other("broken pipe")));
    assert!(status::to_error(&broken, ADDRESS).reason().is_temporary());
}

#[test]
fn a_stream_that_is_closed_without_a_word_is_temporary() {
    // What tonic makes of a stream that ends without trailers, within a message, or before the only one; and of a channel
    // whose connection went away.
    for status in [
        Status::unknown(""),
        Status::unknown("Service was not ready: transport error"),
        Status::internal("Unexpected EOF decoding stream."),
        Status::internal("Missing response message."),
    ] {
        let error = status::to_error(&status, ADDRESS);
        assert!(error.reason().is_temporary(), "{status:?}");
        assert!(error.message().contains(ADDRESS), "{error}");
    }
    let garbage = status::to_error(&Status::internal("failed to decode Protobuf message"), ADDRESS);
    assert_eq!(garbage.reason(), ErrorReason::Internal);
    let answered = status::connection_failure(&with_reason(Code::NotFound, "SCOPE_NOT_FOUND"), ADDRESS);
    assert!(answered.is_none(), "an answer says nothing bad of the connection");
}

#[test]
fn every_reason_survives_the_way() {
    for reason in ErrorReason::ALL {
        let details = ErrorDetails::with_error_info(reason.as_str(), ERROR_DOMAIN, HashMap::new());
        let status = Status::with_error_details((reason.status() as i32).into(), "x", details);
        assert_eq!(status::to_error(&status, ADDRESS).reason(), *reason);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_stalls_only_if_nothing_is_taken_for_long() {
    let header = pb::UploadBatchHeader::default();
    let endless = futures_util::stream::repeat_with(|| Ok(Bytes::from_static(b"x")));
    let upload = streams::Upload::new(header, Box::pin(endless));
    let watch = upload.watch();
    let mut messages = Box::pin(upload.into_messages());
    let started = tokio::time::Instant::now();
    let taking = async {
        for _ in 0..5 {
            // Time is paused: this takes none.
            tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_secs(20)).await;
            futures_util::StreamExt::next(&mut messages).await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = taking => {}
        () = watch.stalled(Duration::from_secs(30)) => {}
    }
    assert_eq!(started.elapsed().as_secs(), 130);
}
