//! Connections to one database file: a writer, and a few readers that are kept open. All of them live on blocking
//! threads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use syncline::error::{Result, SyncError};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::busy::wait_for_others;
use super::errors::{DatabaseResult as _, classify};
use crate::limits;
use crate::store::given_up;

/// Steps of a SQLite statement between two looks at whether it is still wanted: well below a millisecond.
const STEPS_BETWEEN_STOP_CHECKS: i32 = 10_000;

/// The connections to one file.
pub(super) struct Connections {
    path: PathBuf,
    writer: Arc<tokio::sync::Mutex<Connection>>,
    idle_readers: Mutex<Vec<Connection>>,
}

impl Connections {
    /// Opens the file. Blocks.
    pub(super) fn open(path: &Path, create: bool) -> Result<Self> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if create {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let writer = connect(path, flags)?;
        // Reads the header: a file that is no database is found now, not in the middle of a session.
        writer.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())).db()?;
        super::state::restore_wal(&writer)?;
        writer.execute_batch(super::incoming::CREATE).db()?;
        writer.execute_batch(super::along::CREATE).db()?;
        Ok(Self {
            path: path.to_owned(),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            idle_readers: Mutex::new(Vec::new()),
        })
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The writer, once it is free, in a write transaction that is rolled back when dropped.
    pub(super) async fn begin(&self) -> Result<WriteTransaction> {
        let guard = Arc::clone(&self.writer).lock_owned().await;
        blocking(move || WriteTransaction::begin(guard)).await
    }

    /// As [`begin`](Self::begin), for work that may be given up: from here to its end, whatever it waits for or runs.
    pub(super) async fn begin_unless(&self, stop: &CancellationToken) -> Result<WriteTransaction> {
        let guard = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(given_up()),
            guard = Arc::clone(&self.writer).lock_owned() => guard,
        };
        let stop = stop.clone();
        blocking(move || WriteTransaction::begin_unless(guard, stop)).await
    }

    /// The writer, once it is free, outside any transaction.
    pub(super) async fn writer(&self) -> OwnedMutexGuard<Connection> {
        Arc::clone(&self.writer).lock_owned().await
    }

    /// A reader in a read transaction, whose snapshot is taken by its first statement. Blocks.
    pub(super) fn begin_read(self: &Arc<Self>) -> Result<ReadTransaction> {
        let idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => self.open_reader()?,
        };
        reader.execute_batch("BEGIN").db()?;
        Ok(ReadTransaction { connection: Some(reader), home: Arc::clone(self) })
    }

    /// A connection that only reads, and belongs to the caller alone. Blocks.
    pub(super) fn open_reader(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = connect(&self.path, flags)?;
        reader.pragma_update(None, "query_only", true).db()?;
        Ok(reader)
    }

    fn give_back(&self, reader: Connection) {
        // A connection whose transaction can't be ended is of no more use: dropping it ends both.
        if reader.execute_batch("ROLLBACK").is_ok() {
            let mut idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < limits::SQLITE_READERS_MAX {
                idle.push(reader);
            }
        }
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let mut connection = Connection::open_with_flags(path, flags)
        .map_err(|error| classify(&error).with("path", path.display()))?;
    wait_for_others(&mut connection, None)?;
    connection.set_prepared_statement_cache_capacity(256);
    // FULL: a commit that was answered survives a power cut, so no tick is handed out twice.
    connection.pragma_update(None, "synchronous", "FULL").db()?;
    connection.pragma_update(None, "foreign_keys", true).db()?;
    // Our statements rely on SQLite's default: REPLACE runs no delete triggers.
    connection.pragma_update(None, "recursive_triggers", false).db()?;
    Ok(connection)
}

/// Runs work that blocks on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(SyncError::internal)?
}

/// The writer connection within a write transaction. Dropped, it is rolled back.
pub(super) struct WriteTransaction {
    connection: OwnedMutexGuard<Connection>,
    /// Cancelled: not wanted any more. None: to be ended by itself alone.
    stop: Option<CancellationToken>,
    /// Whether the commit need not wait for the disk.
    losable: bool,
}

impl WriteTransaction {
    /// Begins; holds the file's write lock from here on. Blocks.
    pub(super) fn begin(connection: OwnedMutexGuard<Connection>) -> Result<Self> {
        connection.execute_batch("BEGIN IMMEDIATE").db()?;
        Ok(Self { connection, stop: None, losable: false })
    }

    /// As [`begin`](Self::begin), but the commit does not wait for the disk: SQLite appends it to the write-ahead log,
    /// and the next durable commit, or checkpoint, syncs the log up to there. Blocks.
    pub(super) fn begin_losable(connection: OwnedMutexGuard<Connection>) -> Result<Self> {
        // From here on dropping it puts the connection back to FULL, whatever happens.
        let transaction = Self { connection, stop: None, losable: true };
        transaction.connection.execute_batch("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE").db()?;
        Ok(transaction)
    }

    /// As [`begin`](Self::begin), but once `stop` is cancelled, waiting for the file's lock ends, and so does every
    /// statement that runs in the transaction: SQLite asks now and then.
    fn begin_unless(mut connection: OwnedMutexGuard<Connection>, stop: CancellationToken) -> Result<Self> {
        let asked = stop.clone();
        connection.progress_handler(STEPS_BETWEEN_STOP_CHECKS, Some(move || asked.is_cancelled())).db()?;
        // From here on dropping it takes the handlers away.
        let mut transaction = Self { connection, stop: Some(stop.clone()), losable: false };
        wait_for_others(&mut transaction.connection, Some(stop))?;
        transaction.take_lock()?;
        Ok(transaction)
    }

    /// Waits for the file's lock.
    fn take_lock(&self) -> Result<()> {
        let taken = self.connection.execute_batch("BEGIN IMMEDIATE").db();
        let stopped = self.stop.as_ref().is_some_and(CancellationToken::is_cancelled);
        if stopped { Err(given_up()) } else { taken }
    }

    /// The connection.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Commits. If it fails, the transaction may be still open: to be looked into, and dropped. Blocks.
    pub(super) fn try_commit(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("COMMIT")
    }

    /// Commits, or rolls back. Blocks.
    pub(super) fn commit(self) -> Result<()> {
        self.try_commit().db()
    }

    /// Ends the transaction and begins another on the same connection. Blocks.
    pub(super) fn restart(&self) -> Result<()> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK").db()?;
        }
        self.take_lock()
    }
}

impl Drop for WriteTransaction {
    fn drop(&mut self) {
        // The rollback must not be broken off, nor what the connection is used for next. It can't fail: there is no
        // other state of the connection that refuses it.
        if self.stop.take().is_some() {
            let _ = self.connection.progress_handler(0, None::<fn() -> bool>);
            let _ = wait_for_others(&mut self.connection, None);
        }
        if !self.connection.is_autocommit() {
            // Nothing can be done about a failure here; SQLite rolls back when the file is next opened.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        if self.losable {
            // Outside a transaction this sets a flag of the connection, and can't fail.
            let _ = self.connection.execute_batch("PRAGMA synchronous = FULL");
        }
    }
}

/// A reader within a read transaction; goes back to its pool when dropped.
pub(super) struct ReadTransaction {
    connection: Option<Connection>,
    home: Arc<Connections>,
}

impl ReadTransaction {
    /// The connection.
    pub(super) fn connection(&self) -> &Connection {
        // Taken by drop alone.
        #[allow(clippy::unwrap_used)]
        self.connection.as_ref().unwrap()
    }
}

impl Drop for ReadTransaction {
    fn drop(&mut self) {
        if let Some(reader) = self.connection.take() {
            self.home.give_back(reader);
        }
    }
}
