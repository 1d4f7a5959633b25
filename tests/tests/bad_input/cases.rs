//! Tables of cases, and what holds for each.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::kit::{Bare, Client, Open};

/// What is done to a good request, and what comes of it: status, reason, and what the message says.
pub(super) type Case<R> = (&'static str, fn(&mut R), Code, &'static str, &'static str);

/// Plays a table: each case in a session of its own, changing a good request. Everything must be as before after each.
pub(super) async fn check_table<R>(
    bare: &mut Bare,
    rpc: &str,
    request: impl Fn(&Bare, &Open) -> R,
    call: impl AsyncFn(&mut Client, R) -> Result<(), Status>,
    cases: &[Case<R>],
) {
    let before = bare.standing().await;
    let mut faults = Vec::new();
    for (what, change, code, reason, says) in cases {
        let session = bare.open().await;
        let mut request = request(bare, &session);
        change(&mut request);
        let answer = call(&mut bare.client, request).await;
        if let Err(fault) = check_refusal(answer, *code, reason, says) {
            faults.push(format!("{rpc}, {what}: {fault}"));
        }
        bare.abandon(&session).await;
        let after = bare.standing().await;
        if after != before {
            faults.push(format!("{rpc}, {what}: something was changed: {before:?} {after:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    bare.process.assert_sound();
}

/// Asserts that a call was refused as it should be.
#[track_caller]
pub(super) fn assert_refused(what: &str, answer: Result<(), Status>, code: Code, reason: &str, says: &str) {
    check_refusal(answer, code, reason, says).unwrap_or_else(|fault| panic!("{what}: {fault}"));
}

fn check_refusal(answer: Result<(), Status>, code: Code, reason: &str, says: &str) -> Result<(), String> {
    let Err(status) = answer else { return Err("the call succeeded".to_owned()) };
    let details = status.get_error_details();
    let info = details.error_info().cloned();
    let (found, domain) = info.map(|info| (info.reason, info.domain)).unwrap_or_default();
    let message = status.message();
    if (status.code(), found.as_str(), domain.as_str()) != (code, reason, "syncline") {
        return Err(format!("{:?} {found} {domain}, not {code:?} {reason}: {message}", status.code()));
    }
    if !message.contains(says) {
        return Err(format!("does not say \"{says}\": {message}"));
    }
    if reason == "REQUEST_INVALID" && details.bad_request().is_none_or(|bad| bad.field_violations.is_empty())
    {
        return Err(format!("names no field: {message}"));
    }
    for inside in ["SELECT", "INSERT", "syncline_", "/tmp", "panicked", ".rs:"] {
        if message.contains(inside) {
            return Err(format!("leaks {inside}: {message}"));
        }
    }
    Ok(())
}

/// The cases of every request that names a session. `$within` finds what holds its id and token.
macro_rules! session_cases {
    ($request:ty, $within:expr) => {{
        use bytes::Bytes;
        use tonic::Code;
        let cases: [crate::bad_input::cases::Case<$request>; 6] = [
            (
                "no session id",
                |r| $within(r).session_id = Bytes::new(),
                Code::InvalidArgument,
                "REQUEST_INVALID",
                "session_id",
            ),
            (
                "short session id",
                |r| $within(r).session_id = Bytes::from_static(b"short"),
                Code::InvalidArgument,
                "REQUEST_INVALID",
                "16 bytes",
            ),
            (
                "long session id",
                |r| $within(r).session_id = Bytes::from(vec![7; 100_000]),
                Code::InvalidArgument,
                "REQUEST_INVALID",
                "16 bytes",
            ),
            (
                "no token",
                |r| $within(r).session_token = Bytes::new(),
                Code::InvalidArgument,
                "REQUEST_INVALID",
                "session_token",
            ),
            (
                "short token",
                |r| $within(r).session_token = Bytes::from_static(b"short"),
                Code::InvalidArgument,
                "REQUEST_INVALID",
                "16 bytes",
            ),
            (
                "another's token",
                |r| $within(r).session_token = Bytes::from_static(&[7; 16]),
                Code::FailedPrecondition,
                "SESSION_SUPERSEDED",
                "this one must stop",
            ),
        ];
        cases.to_vec()
    }};
}
pub(super) use session_cases;

/// The case of a session that is not there; EndSession alone takes it, since it may be repeated.
macro_rules! unknown_session {
    ($within:expr) => {
        (
            "a session that is not there",
            |r| $within(r).session_id = bytes::Bytes::from_static(&[9; 16]),
            tonic::Code::NotFound,
            "SESSION_NOT_FOUND",
            "begin a new",
        )
    };
}
pub(super) use unknown_session;
