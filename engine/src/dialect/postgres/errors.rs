//! What PostgreSQL's errors mean to us: every SQLSTATE that is named stands here.

use sqlx::postgres::PgDatabaseError;
use syncline::conflict::RowErrorReason;
use syncline::error::{ErrorReason, SyncError};

const NOT_NULL_VIOLATION: &str = "23502";
const FOREIGN_KEY_VIOLATION: &str = "23503";
const RESTRICT_VIOLATION: &str = "23001";
pub(super) const UNIQUE_VIOLATION: &str = "23505";
const EXCLUSION_VIOLATION: &str = "23P01";
const CHECK_VIOLATION: &str = "23514";
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const RAISE_EXCEPTION: &str = "P0001";
const READ_ONLY_TRANSACTION: &str = "25006";
const UNDEFINED_TABLE: &str = "42P01";
const INVALID_SCHEMA: &str = "3F000";
const INVALID_DATABASE: &str = "3D000";
/// The class of refused roles and passwords.
const INVALID_AUTHORIZATION: &str = "28";

/// What a failed statement calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The transaction gave way to another: do it again.
    Repeat,
    /// A row can't be written: the others can.
    Row(RowErrorReason),
    /// The server is not there, or about to go.
    Unavailable,
    /// The role may not do that.
    Forbidden,
    /// Anything else.
    Other,
}

/// What a failed statement calls for.
pub(super) fn classify(error: &sqlx::Error) -> Class {
    match error {
        sqlx::Error::Database(database) => classify_code(database.code().as_deref().unwrap_or_default()),
        // A server that dies while a connection comes about leaves half an answer, which keeps to no protocol.
        sqlx::Error::Protocol(_)
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Class::Unavailable,
        _ => Class::Other,
    }
}

fn classify_code(code: &str) -> Class {
    match code {
        SERIALIZATION_FAILURE | DEADLOCK_DETECTED | LOCK_NOT_AVAILABLE => Class::Repeat,
        UNIQUE_VIOLATION | EXCLUSION_VIOLATION => Class::Row(RowErrorReason::Unique),
        FOREIGN_KEY_VIOLATION | RESTRICT_VIOLATION => Class::Row(RowErrorReason::ForeignKey),
        CHECK_VIOLATION => Class::Row(RowErrorReason::Check),
        NOT_NULL_VIOLATION => Class::Row(RowErrorReason::NotNull),
        INSUFFICIENT_PRIVILEGE => Class::Forbidden,
        RAISE_EXCEPTION => Class::Row(RowErrorReason::Trigger),
        _ => match code.get(..2) {
            Some("22") => Class::Row(RowErrorReason::Type),
            Some("23") => Class::Row(RowErrorReason::Other),
            Some("08" | "57" | "53") => Class::Unavailable,
            _ => Class::Other,
        },
    }
}

/// A failure of the database as the protocol names it. What the database said goes to the log only.
pub(super) fn database(error: sqlx::Error) -> SyncError {
    let (reason, message) = match classify(&error) {
        Class::Repeat => (ErrorReason::LockTimeout, "another transaction holds a lock; try again"),
        Class::Unavailable => (ErrorReason::DatabaseUnavailable, "the database does not answer; try again"),
        Class::Forbidden => (
            ErrorReason::PermissionDenied,
            "the database role lacks a right (row security counts as one); the log names it",
        ),
        Class::Row(_) | Class::Other if is_code(&error, READ_ONLY_TRANSACTION) => {
            (ErrorReason::DatabaseUnavailable, "the database is read-only; connect to the primary")
        }
        Class::Row(_) | Class::Other => return SyncError::internal(describe(&error)),
    };
    SyncError::new(reason, message).with_detail(describe(&error))
}

/// A failed COMMIT: where the connection broke, the outcome is unknown. So it is where the server said that it ends the
/// connection: it may do so after it has committed, while it waits for a standby.
pub(super) fn commit(error: sqlx::Error) -> SyncError {
    let answered = matches!(error, sqlx::Error::Database(_)) && classify(&error) != Class::Unavailable;
    let failure = database(error);
    if answered { failure } else { failure.commit_unknown() }
}

/// What a server that was reached has against the connection, whenever it is asked for again; `None` if it is about
/// something else.
pub(super) fn refusal(error: &sqlx::Error) -> Option<&'static str> {
    let code = error.as_database_error()?.code()?;
    if code.starts_with(INVALID_AUTHORIZATION) {
        return Some("the server refuses the role or its password; check the URL, PGPASSWORD and PGPASSFILE");
    }
    if code == INVALID_DATABASE {
        return Some("the server has no database of that name; check the URL");
    }
    (code == INSUFFICIENT_PRIVILEGE)
        .then_some("the role may not connect to this database; grant it CONNECT, or name another one")
}

/// Whether one of our tables is not there: nothing was provisioned yet.
pub(super) fn is_missing(error: &sqlx::Error) -> bool {
    is_code(error, UNDEFINED_TABLE) || is_code(error, INVALID_SCHEMA)
}

/// Whether the role may not do it.
pub(super) fn is_forbidden(error: &sqlx::Error) -> bool {
    is_code(error, INSUFFICIENT_PRIVILEGE)
}

/// Whether the server said this code.
pub(super) fn is_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(|database| database.code()).as_deref() == Some(code)
}

/// What the server said, for the log.
pub(super) fn describe(error: &sqlx::Error) -> String {
    let Some(database) = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>())
    else {
        return error.to_string();
    };
    let mut text = format!("{} {}", database.code(), database.message());
    for (name, part) in
        [("detail", database.detail()), ("hint", database.hint()), ("where", database.r#where())]
    {
        if let Some(part) = part {
            text.push_str(&format!("; {name}: {part}"));
        }
    }
    text
}

/// What a user may read of a row that was refused: the server's sentence, without the values in its detail.
pub(super) fn message(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| "the row was refused".to_owned(), |e| e.message().to_owned())
}

#[cfg(test)]
mod tests {
    use syncline::error::CommitOutcome;

    use super::*;

    #[test]
    fn a_connection_that_broke_off_while_it_came_about_is_worth_another_try() {
        let half_an_answer = || sqlx::Error::Protocol("unexpected response from SSLRequest: 0x00".to_owned());
        assert_eq!(database(half_an_answer()).reason(), ErrorReason::DatabaseUnavailable);
        assert!(commit(half_an_answer()).commit_outcome() == CommitOutcome::Unknown);
    }
}
