//! The directory beside the database where batches wait: whole, or as far as they have come.
//!
//! ```text
//!  NAME.db-syncline/
//!    lock                        held while a client works on the database
//!    SESSION-ID/
//!      up-SEQUENCE-ID.batch      an upload's batch, whole and synced before the upload is written down in the database
//!      down-SEQUENCE-ID.part     a download's batch, its first bytes
//!      down-SEQUENCE-ID.batch    the same, whole: digest checked; synced before it is released at the service
//!      download.jsonl            what was listed: begin, a line a batch, end; written once there is a batch beside it, and
//!                                synced before a batch is released
//! ```
//!
//! Batches that came inline stay in memory, and are not released: a client that is killed is told of them again, and all
//! of them together are less than a batch. A session that has no others has no folder.
//!
//! The database says which sessions are open; whatever belongs to none is swept.

mod download;
mod files;
mod manifest;
mod part;
mod session;
mod source;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::SessionId;
use tokio_util::task::TaskTracker;

pub(crate) use download::{DownloadParts, Listed, ReceivedPart};
use files::failed;
pub(crate) use session::SessionParts;
pub use source::PartsSource;

/// The directory of one database, locked against a second client for as long as it lives.
#[derive(Debug)]
pub struct PartsDirectory {
    root: PathBuf,
    /// Locked; the lock goes with the file.
    _lock: File,
    /// Sessions that this process works on: never swept.
    open: Mutex<HashSet<SessionId>>,
    work: TaskTracker,
}

impl PartsDirectory {
    /// The place of a SQLite file's directory: `shop.db` has `shop.db-syncline` beside it.
    #[must_use]
    pub fn beside(database: &Path) -> PathBuf {
        let mut name = database.as_os_str().to_owned();
        name.push("-syncline");
        PathBuf::from(name)
    }

    /// Opens the directory, and makes it if it is not there.
    ///
    /// # Errors
    /// LOCK_TIMEOUT if another client holds it; INTERNAL if it can't be made or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Arc<Self>> {
        let root = root.into();
        std::fs::create_dir_all(&root).map_err(|error| failed("made", &root, &error))?;
        let path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed("written", &path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SyncError::new(
                    ErrorReason::LockTimeout,
                    "another client synchronises this database at the moment; wait until it is done, or stop it",
                )
                .with_detail(path.display()));
            }
            Err(TryLockError::Error(error)) => return Err(failed("locked", &path, &error)),
        }
        Ok(Arc::new(Self { root, _lock: lock, open: Mutex::default(), work: TaskTracker::new() }))
    }

    /// The folder of a session. What an earlier run has left there is found if the session is `taken_up`; a new one has
    /// nothing yet.
    pub(crate) fn session(self: &Arc<Self>, id: SessionId, taken_up: bool) -> Arc<SessionParts> {
        self.open_sessions().insert(id);
        Arc::new(SessionParts::new(self.clone(), id, self.root.join(id.to_string()), taken_up))
    }

    /// Removes the folders of sessions that are neither named nor open here.
    ///
    /// # Errors
    /// INTERNAL if the directory can't be read, or a folder not removed.
    pub(crate) async fn sweep(&self, needed: &[SessionId]) -> Result<()> {
        let mut kept: HashSet<String> = needed.iter().map(ToString::to_string).collect();
        kept.extend(self.open_sessions().iter().map(ToString::to_string));
        let root = self.root.clone();
        self.blocking(move || {
            for name in files::names(&root)? {
                // Only what has the form of ours: people put things into folders.
                if uuid::Uuid::parse_str(&name).is_ok() && !kept.contains(&name) {
                    files::remove_folder(&root.join(name))?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Waits for reads and writes that are under way: what a run that was dropped has left behind.
    pub(crate) async fn settle(&self) {
        self.work.close();
        self.work.wait().await;
        self.work.reopen();
    }

    /// Does file work on a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.work.spawn_blocking(work).await.map_err(SyncError::internal)?
    }

    fn open_sessions(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_session(&self, id: SessionId) {
        self.open_sessions().remove(&id);
    }
}
