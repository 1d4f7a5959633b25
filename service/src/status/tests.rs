//! Goal: every reason reaches a caller with its status, reason and retry, and no status grows beyond its bound.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn every_reason_travels_with_its_status_and_details() {
    for reason in ErrorReason::ALL {
        let error = SyncError::new(*reason, "a sentence").with("scope", "shop").with_detail("SELECT secret");
        let status = from_error(&error, "request-1", false);
        assert_eq!(status.code() as i32, reason.status() as i32, "{reason:?}");
        assert_eq!(status.message(), "a sentence");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), "syncline"));
        assert_eq!(info.metadata["scope"], "shop");
        assert_eq!(details.request_info().unwrap().request_id, "request-1");
        assert_eq!(status.metadata().get(REQUEST_ID_HEADER).unwrap(), "request-1");
        let wants_retry = matches!(
            reason,
            ErrorReason::Overloaded
                | ErrorReason::SpoolFull
                | ErrorReason::DatabaseUnavailable
                | ErrorReason::LockTimeout
                | ErrorReason::Draining
        );
        assert_eq!(details.retry_info().is_some(), wants_retry, "{reason:?}");
    }
}

#[test]
fn a_reason_is_one_of_the_protocols_table() {
    // The table of protocol.md, so that a change of one side alone is noticed.
    let table = [
        (Code::NotFound, "SCOPE_NOT_FOUND SESSION_NOT_FOUND BATCH_NOT_FOUND"),
        (
            Code::FailedPrecondition,
            "SCHEMA_MISMATCH SCOPE_VERSION_UNSUPPORTED CAPABILITY_REQUIRED SESSION_EXPIRED SESSION_SUPERSEDED \
             SESSION_STATE BATCH_INCOMPLETE ROW_TOO_LARGE REINITIALIZE_REQUIRED REPLICA_DIVERGED TRACKING_BROKEN \
             ROW_ERRORS",
        ),
        (
            Code::InvalidArgument,
            "BATCH_TOO_LARGE KNOWLEDGE_INVALID PARAMETER_INVALID REQUEST_INVALID ROW_INVALID",
        ),
        (Code::DataLoss, "BATCH_CORRUPT"),
        (Code::OutOfRange, "OFFSET_MISMATCH"),
        (Code::Unimplemented, "FEATURE_UNSUPPORTED"),
        (Code::ResourceExhausted, "SPOOL_FULL OVERLOADED KNOWLEDGE_TOO_LARGE"),
        (Code::Aborted, "CALL_REPLACED"),
        (Code::Unavailable, "DATABASE_UNAVAILABLE LOCK_TIMEOUT DRAINING"),
        (Code::PermissionDenied, "PERMISSION_DENIED"),
        (Code::Unauthenticated, "UNAUTHENTICATED"),
        (Code::Internal, "INTERNAL"),
    ];
    let mut seen = 0;
    for (code, names) in table {
        for name in names.split_whitespace() {
            let reason = ErrorReason::from_name(name).unwrap();
            assert_eq!(from_error(&SyncError::new(reason, "x"), "r", false).code(), code, "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, ErrorReason::ALL.len());
}

#[test]
fn nothing_internal_leaks_unless_it_is_asked_for() {
    let error = SyncError::internal("SELECT * FROM secret at /var/lib/hub.db");
    let quiet = from_error(&error, "r", false);
    assert!(!String::from_utf8_lossy(quiet.details()).contains("secret"));
    assert!(!quiet.message().contains("secret"));
    assert!(from_error(&error, "r", true).message().contains("SELECT * FROM secret"));
}

#[test]
fn violations_are_listed_up_to_a_bound_and_the_rest_is_counted() {
    let mut error = SyncError::invalid("field_0", "is wrong");
    for number in 1..50 {
        error = error.violation(format!("field_{number}"), "is wrong");
    }
    let details = from_error(&error, "r", false).get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations.len(), 20);
    assert_eq!(violations[0].field, "field_0");
    assert_eq!(details.error_info().unwrap().metadata[OMITTED_VIOLATIONS], "30");
}

#[test]
fn details_never_pass_their_bound() {
    let long = "é".repeat(10_000);
    let mut error =
        SyncError::new(ErrorReason::RequestInvalid, long.clone()).with("scope", &long).with("table", &long);
    for _ in 0..40 {
        error = error.violation(long.clone(), long.clone());
    }
    for verbose in [false, true] {
        let status = from_error(&error, "r", verbose);
        assert!(status.details().len() <= STATUS_DETAILS_BYTES_MAX);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        let listed = details.bad_request().map_or(0, |request| request.field_violations.len());
        assert!(listed > 0);
        assert_eq!(info.metadata[OMITTED_VIOLATIONS], (40 - listed).to_string());
    }
}

#[test]
fn metadata_goes_when_nothing_else_is_left_to_drop() {
    const KEYS: [&str; 40] = [
        "a00", "a01", "a02", "a03", "a04", "a05", "a06", "a07", "a08", "a09", "a10", "a11", "a12", "a13",
        "a14", "a15", "a16", "a17", "a18", "a19", "a20", "a21", "a22", "a23", "a24", "a25", "a26", "a27",
        "a28", "a29", "a30", "a31", "a32", "a33", "a34", "a35", "a36", "a37", "a38", "a39",
    ];
    let mut error = SyncError::new(ErrorReason::TrackingBroken, "x");
    for key in KEYS {
        error = error.with(key, "v".repeat(300));
    }
    let status = from_error(&error, "r", false);
    assert!(status.details().len() <= STATUS_DETAILS_BYTES_MAX);
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "TRACKING_BROKEN");
}
