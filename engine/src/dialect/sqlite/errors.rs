//! What SQLite's errors mean, named and classified in this one place.

use rusqlite::ffi;
use syncline::conflict::RowErrorReason;
use syncline::error::{ErrorReason, Result, SyncError};

/// Turns a result of SQLite into one of ours.
pub(super) trait DatabaseResult<T> {
    /// See [`classify`].
    fn db(self) -> Result<T>;
}

impl<T> DatabaseResult<T> for rusqlite::Result<T> {
    fn db(self) -> Result<T> {
        self.map_err(|error| classify(&error))
    }
}

/// The error of a statement or commit: what it means for a session. In SQLite a transaction whose commit failed was
/// certainly not committed, whatever the code.
pub(super) fn classify(error: &rusqlite::Error) -> SyncError {
    let failed = |reason, message: &'static str| SyncError::new(reason, message).with_detail(error);
    match primary_code(error) {
        Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED) => {
            failed(ErrorReason::LockTimeout, "another program holds the database file's lock; try again")
        }
        Some(ffi::SQLITE_FULL) => {
            failed(ErrorReason::DatabaseUnavailable, "the disk of the database file is full; make room")
        }
        Some(ffi::SQLITE_READONLY) => {
            failed(ErrorReason::PermissionDenied, "the database file can't be written; check its permissions")
        }
        Some(ffi::SQLITE_CANTOPEN | ffi::SQLITE_PERM | ffi::SQLITE_AUTH) => failed(
            ErrorReason::DatabaseUnavailable,
            "the database file can't be opened; check its path and permissions",
        ),
        Some(ffi::SQLITE_NOTADB) => {
            failed(ErrorReason::RequestInvalid, "the file is no SQLite database; check its path")
        }
        Some(ffi::SQLITE_CORRUPT) => failed(
            ErrorReason::Internal,
            "the database file is damaged; restore it from a backup (PRAGMA integrity_check says more)",
        ),
        Some(ffi::SQLITE_NOMEM) => {
            failed(ErrorReason::DatabaseUnavailable, "there is not enough memory for the database")
        }
        Some(ffi::SQLITE_IOERR) => {
            // A quota or a limit on the size of files comes as this, not as a full disk.
            let text = "the database file can't be read or written: look at its disk (room, quota, faults)";
            failed(ErrorReason::DatabaseUnavailable, text)
        }
        Some(ffi::SQLITE_SCHEMA) => failed(
            ErrorReason::TrackingBroken,
            "the database's schema changed meanwhile; apply the scope again, then synchronise",
        ),
        _ => SyncError::internal(error),
    }
}

/// What a failed write says about its row; `None` if it says something about the database instead.
pub(super) fn row_error(error: &rusqlite::Error) -> Option<(RowErrorReason, String)> {
    let rusqlite::Error::SqliteFailure(failure, message) = error else { return None };
    let text = message.clone().unwrap_or_else(|| failure.to_string());
    let reason = match failure.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            RowErrorReason::Unique
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => RowErrorReason::ForeignKey,
        // ON DELETE RESTRICT is run as a trigger inside SQLite.
        ffi::SQLITE_CONSTRAINT_TRIGGER if text.contains("FOREIGN KEY") => RowErrorReason::ForeignKey,
        ffi::SQLITE_CONSTRAINT_TRIGGER => RowErrorReason::Trigger,
        ffi::SQLITE_CONSTRAINT_CHECK => RowErrorReason::Check,
        ffi::SQLITE_CONSTRAINT_NOTNULL => RowErrorReason::NotNull,
        ffi::SQLITE_CONSTRAINT_DATATYPE | ffi::SQLITE_MISMATCH | ffi::SQLITE_TOOBIG => RowErrorReason::Type,
        code if code & 0xff == ffi::SQLITE_CONSTRAINT => RowErrorReason::Other,
        // An error inside a trigger of the user's own (a table that it names is gone, for example).
        ffi::SQLITE_ERROR => RowErrorReason::Trigger,
        _ => return None,
    };
    Some((reason, text))
}

/// Whether a commit failed because a reference leads nowhere. The transaction is still open then.
pub(super) fn is_foreign_key_failure(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _)
        if failure.extended_code == ffi::SQLITE_CONSTRAINT_FOREIGNKEY)
}

fn primary_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.extended_code & 0xff),
        _ => None,
    }
}

/// Tracking is not as provisioned: says what is wrong with which table, and the remedy.
pub(super) fn tracking_broken(table: &str, problem: &str) -> SyncError {
    SyncError::new(
        ErrorReason::TrackingBroken,
        format!("table \"{table}\": {problem}; apply the scope again, then synchronise"),
    )
    .with("table", table)
}

/// A row can't be tracked. Nothing has to be provisioned anew for it.
pub(super) fn null_in_key(table: &str) -> SyncError {
    let text = format!(
        "table \"{table}\": a row has NULL in its key; give it a key, or delete it, and synchronise again: nothing else is wrong"
    );
    SyncError::new(ErrorReason::TrackingBroken, text).with("table", table)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use syncline::error::ErrorReason;

    use super::classify;

    #[test]
    fn a_full_disk_is_named() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch("PRAGMA max_page_count = 4; CREATE TABLE t (x)").unwrap();
        let full = connection.execute("INSERT INTO t VALUES (zeroblob(100000))", []).unwrap_err();
        let error = classify(&full);
        assert_eq!(error.reason(), ErrorReason::DatabaseUnavailable);
        assert!(error.to_string().contains("full"), "{error}");
    }
}
