//! Where batches' bytes wait: behind `object_store`, a directory by default.
//!
//! A batch is a sequence of pieces, objects named by the offset of their first byte: `<session>/<batch>/<offset>`. A
//! piece appears whole or not at all, and is durable (fsync) when `put` answers: so the bytes of a batch that count are
//! those of its pieces from 0 on without a gap, and an upload goes on at the byte after a crash. A batch that is made
//! here has one piece.
//!
//! **Invariant:** the manifest in the database decides what a batch is; a file without a row there is garbage, and swept.

mod id;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt as _};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchId, SessionId};
use syncline::limits::CHUNK_BYTES_SENT;

use crate::limits::SPOOL_READ_BYTES;

pub use id::SpoolId;

/// Where batches' bytes wait.
#[derive(Debug, Clone)]
pub struct Spool {
    store: Arc<dyn ObjectStore>,
}

/// A run of bytes of a batch that is one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    offset: u64,
    length: u64,
}

impl Spool {
    /// A spool in a directory, which is made if it is missing.
    ///
    /// # Errors
    /// INTERNAL, with the path and the system's message in the detail, if it can't be made or written.
    pub fn directory(path: &FilePath) -> Result<Self> {
        let unusable = |error: &dyn std::fmt::Display| {
            SyncError::new(
                ErrorReason::Internal,
                format!("the spool directory {} can't be used: {error}", path.display()),
            )
        };
        std::fs::create_dir_all(path).map_err(|error| unusable(&error))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(|error| unusable(&error))?;
        Ok(Self { store: Arc::new(store.with_fsync(true).with_automatic_cleanup(true)) })
    }

    /// A spool in any object store.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// Stores bytes of a batch from `offset` on, durably.
    ///
    /// # Errors
    /// SPOOL_FULL if there is no room, else INTERNAL.
    pub async fn put(&self, session: SessionId, batch: BatchId, offset: u64, bytes: Bytes) -> Result<()> {
        self.store.put(&piece_path(session, batch, offset), bytes.into()).await.map_err(failed)?;
        Ok(())
    }

    /// How many bytes of a batch are stored, from 0 on without a gap.
    ///
    /// # Errors
    /// INTERNAL if the store fails.
    pub async fn committed_size(&self, session: SessionId, batch: BatchId) -> Result<u64> {
        Ok(self.pieces(session, batch).await?.last().map_or(0, |piece| piece.offset + piece.length))
    }

    /// The bytes of a batch from `offset` on, in chunks of at most 16 KiB.
    ///
    /// # Errors
    /// INTERNAL if the store fails.
    pub async fn read(
        &self,
        session: SessionId,
        batch: BatchId,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let pieces = self.pieces(session, batch).await?;
        Ok(self.read_pieces(session, batch, offset, pieces))
    }

    /// The same of a batch that should have so many bytes; `None` if there are fewer.
    ///
    /// # Errors
    /// INTERNAL if the store fails.
    pub async fn read_whole(
        &self,
        session: SessionId,
        batch: BatchId,
        offset: u64,
        stored_bytes: u64,
    ) -> Result<Option<BoxStream<'static, Result<Bytes>>>> {
        let pieces = self.pieces(session, batch).await?;
        let there = pieces.last().map_or(0, |piece| piece.offset + piece.length);
        Ok((there >= stored_bytes).then(|| self.read_pieces(session, batch, offset, pieces)))
    }

    fn read_pieces(
        &self,
        session: SessionId,
        batch: BatchId,
        offset: u64,
        pieces: Vec<Piece>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let store = self.store.clone();
        let wanted = pieces.into_iter().filter(move |piece| piece.offset + piece.length > offset);
        let bytes = stream::iter(wanted).then(move |piece| {
            let store = store.clone();
            async move {
                let skip = offset.saturating_sub(piece.offset);
                let range = GetOptions { range: Some(GetRange::Offset(skip)), ..GetOptions::default() };
                let found =
                    store.get_opts(&piece_path(session, batch, piece.offset), range).await.map_err(failed)?;
                Ok::<_, SyncError>(match found.payload {
                    GetResultPayload::File(file, _) => read_file(file, found.range).boxed(),
                    GetResultPayload::Stream(stream) => stream.map_err(failed).boxed(),
                })
            }
        });
        bytes.try_flatten().map_ok(|bytes| stream::iter(chunks(bytes))).try_flatten().boxed()
    }

    /// All bytes of a batch.
    ///
    /// # Errors
    /// INTERNAL if the store fails.
    pub async fn read_all(&self, session: SessionId, batch: BatchId) -> Result<Bytes> {
        let mut chunks = self.read(session, batch, 0).await?;
        let length = self.committed_size(session, batch).await?;
        let mut all = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        while let Some(chunk) = chunks.try_next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }

    /// Frees a batch. One that is not there is fine.
    ///
    /// # Errors
    /// INTERNAL if the store fails.
    pub async fn delete_batch(&self, session: SessionId, batch: BatchId) -> Result<()> {
        self.delete_below(&batch_path(session, batch)).await
    }

    /// Frees all batches of a session.
    ///
    /// # Errors
    /// INTERNAL if the store fails.
    pub async fn delete_session(&self, session: SessionId) -> Result<()> {
        self.delete_below(&Path::from(session.to_string())).await
    }

    /// The sessions that have something here.
    ///
    /// # Errors
    /// INTERNAL if the store fails.
    pub async fn sessions(&self) -> Result<Vec<SessionId>> {
        let listing = self.store.list_with_delimiter(None).await.map_err(failed)?;
        let names = listing.common_prefixes.iter().filter_map(|path| path.filename());
        Ok(names.filter_map(|name| uuid::Uuid::parse_str(name).ok()).map(SessionId::from_uuid).collect())
    }

    async fn delete_below(&self, prefix: &Path) -> Result<()> {
        let found: Vec<_> =
            self.store.list(Some(prefix)).map_ok(|meta| meta.location).try_collect().await.map_err(failed)?;
        for path in found {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// The pieces of a batch that follow each other from 0 on. A later piece may overlap an earlier one (a write that
    /// was repeated): what is passed already is not counted twice.
    async fn pieces(&self, session: SessionId, batch: BatchId) -> Result<Vec<Piece>> {
        let prefix = batch_path(session, batch);
        let mut found: Vec<Piece> = self
            .store
            .list(Some(&prefix))
            .map_err(failed)
            .try_filter_map(|meta| async move {
                let offset = meta.location.filename().and_then(|name| u64::from_str_radix(name, 16).ok());
                Ok(offset.map(|offset| Piece { offset, length: meta.size }))
            })
            .try_collect()
            .await?;
        found.sort_by_key(|piece| piece.offset);
        let mut end = 0;
        found.retain(|piece| {
            let follows = piece.offset == end;
            end += if follows { piece.length } else { 0 };
            follows
        });
        Ok(found)
    }
}

fn batch_path(session: SessionId, batch: BatchId) -> Path {
    Path::from(format!("{session}/{batch}"))
}

fn piece_path(session: SessionId, batch: BatchId, offset: u64) -> Path {
    Path::from(format!("{session}/{batch}/{offset:016x}"))
}

/// The bytes of a file. The store's own stream reads eight KiB at a time, each on a thread for it.
fn read_file(file: File, range: Range<u64>) -> impl futures_util::Stream<Item = Result<Bytes>> {
    stream::try_unfold((file, range), |(mut file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let read = move || {
            let end = range.end.min(range.start + SPOOL_READ_BYTES as u64);
            // At most SPOOL_READ_BYTES.
            let mut buffer = vec![0; (end - range.start) as usize];
            file.seek(SeekFrom::Start(range.start))?;
            file.read_exact(&mut buffer)?;
            Ok::<_, std::io::Error>(Some((buffer.into(), (file, end..range.end))))
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(SyncError::internal)?;
        read.map_err(|error| SyncError::internal(format!("spool: {error}")))
    })
}

/// Bytes as they travel, in chunks of at most 16 KiB.
pub(crate) fn chunks(bytes: Bytes) -> impl Iterator<Item = Result<Bytes>> {
    let count = bytes.len().div_ceil(CHUNK_BYTES_SENT);
    (0..count).map(move |index| {
        let start = index * CHUNK_BYTES_SENT;
        Ok(bytes.slice(start..bytes.len().min(start + CHUNK_BYTES_SENT)))
    })
}

fn failed(error: object_store::Error) -> SyncError {
    let full = std::iter::successors(std::error::Error::source(&error), |error| error.source())
        .filter_map(|source| source.downcast_ref::<std::io::Error>())
        .any(|error| matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge));
    if full {
        return SyncError::new(ErrorReason::SpoolFull, "the spool's disk is full; try again later")
            .retry_after(std::time::Duration::from_secs(30))
            .with_detail(error);
    }
    SyncError::internal(format!("spool: {error}"))
}
