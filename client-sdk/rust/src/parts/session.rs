//! The folder of one session.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use syncline::batch::{BatchError, BatchInfo, Block, EncodedBatch};
use syncline::error::{Result, SyncError};
use syncline::ids::SessionId;
use syncline::limits::CHUNK_BYTES_SENT;
use syncline_engine::compute::{compute, compute_over};
use tokio::task::JoinHandle;

use super::PartsDirectory;
use super::files::{failed, length, names, remove, remove_folder, sync_folder};

/// Which way a batch travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// The folder of one session; open, it is never swept. Made when something is first written into it: what travels inline
/// needs none.
#[derive(Debug)]
pub(crate) struct SessionParts {
    directory: Arc<PartsDirectory>,
    id: SessionId,
    folder: PathBuf,
    /// Whether there may be something in it: an earlier run's, or ours.
    in_use: AtomicBool,
}

impl Drop for SessionParts {
    fn drop(&mut self) {
        self.directory.close_session(self.id);
    }
}

impl SessionParts {
    pub(super) fn new(directory: Arc<PartsDirectory>, id: SessionId, folder: PathBuf, in_use: bool) -> Self {
        Self { directory, id, folder, in_use: AtomicBool::new(in_use) }
    }

    /// Whether there may be something in the folder.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    /// The folder, which is made if it is not there: for whoever writes into it. Blocks.
    pub(super) fn made(&self) -> Result<&Path> {
        self.in_use.store(true, Ordering::Release);
        std::fs::create_dir_all(&self.folder).map_err(|error| failed("made", &self.folder, &error))?;
        Ok(&self.folder)
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.directory.blocking(work).await
    }

    /// Decodes a batch: these bytes, or those on disk.
    pub(super) async fn decode(
        &self,
        way: Way,
        info: BatchInfo,
        inline: Option<Bytes>,
    ) -> Result<Vec<Block>> {
        let path = self.whole(way, &info);
        let bytes = info.decoded_bytes;
        let decode = move |stored: &[u8]| {
            info.decode(stored).map_err(|error| SyncError::from(error).with("batch_id", info.id))
        };
        if let Some(stored) = inline {
            return compute_over(bytes, move || decode(&stored)).await;
        }
        let read = move || {
            let stored = std::fs::read(&path).map_err(|error| failed("read", &path, &error))?;
            decode(&stored)
        };
        self.directory.work.spawn(compute(read)).await.map_err(SyncError::internal)?
    }

    /// Runs a task of the session's beside others.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.directory.work.spawn(task)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a whole batch lies.
    pub(super) fn whole(&self, way: Way, info: &BatchInfo) -> PathBuf {
        self.folder.join(format!("{}.batch", name(way, info)))
    }

    /// Where the first bytes of a batch lie.
    pub(super) fn partial(&self, way: Way, info: &BatchInfo) -> PathBuf {
        self.folder.join(format!("{}.part", name(way, info)))
    }

    /// Encodes a batch of an upload and makes its bytes durable, on a thread of its own. Its name is durable after
    /// [`sync`](Self::sync).
    pub(crate) async fn store_upload(
        self: &Arc<Self>,
        encode: impl FnOnce() -> Result<EncodedBatch, BatchError> + Send + 'static,
    ) -> Result<BatchInfo> {
        let parts = self.clone();
        self.blocking(move || {
            let batch = encode()?;
            parts.made()?;
            let path = parts.whole(Way::Up, &batch.info);
            let written = File::create(&path).and_then(|mut file| {
                file.write_all(&batch.stored)?;
                file.sync_all()
            });
            written.map_err(|error| failed("written", &path, &error))?;
            Ok(batch.info)
        })
        .await
    }

    /// Makes the names in the folder durable, and the folder's own.
    pub(crate) async fn sync(self: &Arc<Self>) -> Result<()> {
        let parts = self.clone();
        self.blocking(move || {
            sync_folder(&parts.folder)?;
            sync_folder(&parts.directory.root)
        })
        .await
    }

    /// Whether all batches of an upload are there, at full length.
    pub(crate) async fn has_uploads(self: &Arc<Self>, batches: &[BatchInfo]) -> Result<bool> {
        let (parts, batches) = (self.clone(), batches.to_vec());
        self.blocking(move || {
            for info in &batches {
                if length(&parts.whole(Way::Up, info))? != Some(info.stored_bytes) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// All bytes of a batch of an upload: for those that travel inline.
    pub(crate) async fn read_upload(self: &Arc<Self>, info: &BatchInfo) -> Result<Bytes> {
        let path = self.whole(Way::Up, info);
        self.blocking(move || {
            std::fs::read(&path).map(Bytes::from).map_err(|error| failed("read", &path, &error))
        })
        .await
    }

    /// The bytes of a batch of an upload from `offset` on, in chunks.
    pub(crate) fn stream_upload(
        self: &Arc<Self>,
        info: &BatchInfo,
        offset: u64,
    ) -> BoxStream<'static, Result<Bytes>> {
        let path = self.whole(Way::Up, info);
        let parts = self.clone();
        stream::try_unfold(None::<File>, move |file| {
            let (path, parts) = (path.clone(), parts.clone());
            async move { parts.blocking(move || read_chunk(&path, file, offset)).await }
        })
        .boxed()
    }

    /// Whether the bytes of a batch of an upload are still those that were written.
    pub(crate) async fn verify_upload(self: &Arc<Self>, info: &BatchInfo) -> Result<()> {
        let stored = self.read_upload(info).await?;
        let info = info.clone();
        self.blocking(move || {
            info.verify(&stored).map_err(|error| SyncError::from(error).with("batch_id", info.id))
        })
        .await
    }

    /// Removes the batches of an upload: before another is made, and after it was acknowledged.
    pub(crate) async fn remove_uploads(self: &Arc<Self>) -> Result<()> {
        self.remove_matching("up-").await
    }

    /// Removes all that belongs to the download.
    pub(crate) async fn remove_downloads(self: &Arc<Self>) -> Result<()> {
        self.remove_matching("down").await
    }

    async fn remove_matching(self: &Arc<Self>, prefix: &'static str) -> Result<()> {
        if !self.is_in_use() {
            return Ok(());
        }
        let parts = self.clone();
        self.blocking(move || {
            for name in names(&parts.folder)?.iter().filter(|name| name.starts_with(prefix)) {
                remove(&parts.folder.join(name))?;
            }
            Ok(())
        })
        .await
    }

    /// Removes the folder.
    pub(crate) async fn remove(self: &Arc<Self>) -> Result<()> {
        if !self.is_in_use() {
            return Ok(());
        }
        let parts = self.clone();
        self.blocking(move || remove_folder(&parts.folder)).await
    }
}

fn name(way: Way, info: &BatchInfo) -> String {
    let way = match way {
        Way::Up => "up",
        Way::Down => "down",
    };
    format!("{way}-{:07}-{}", info.sequence.0, info.id)
}

/// The next chunk of a file that is opened at `offset` first; `None` at its end.
fn read_chunk(path: &Path, file: Option<File>, offset: u64) -> Result<Option<(Bytes, Option<File>)>> {
    let read = || -> std::io::Result<Option<(Bytes, Option<File>)>> {
        let mut file = match file {
            Some(file) => file,
            None => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                file
            }
        };
        let mut chunk = Vec::with_capacity(CHUNK_BYTES_SENT);
        (&mut file).take(CHUNK_BYTES_SENT as u64).read_to_end(&mut chunk)?;
        Ok(if chunk.is_empty() { None } else { Some((Bytes::from(chunk), Some(file))) })
    };
    read().map_err(|error| failed("read", path, &error))
}
