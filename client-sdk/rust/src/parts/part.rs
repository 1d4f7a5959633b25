//! A batch that is being received: appended to, hashed on the way, and made durable once it is whole.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use syncline::batch::{BatchError, BatchInfo};
use syncline::error::{Result, SyncError};

use super::files::{failed, sync_folder};

/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;

/// The first bytes of a batch. Invariant: `hasher` has seen exactly the `length` bytes of the file.
#[derive(Debug)]
pub(super) struct PartFile {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
    info: BatchInfo,
}

impl PartFile {
    /// Opens the part and reads what is there: it is gone on with.
    pub(super) fn open(path: PathBuf, info: BatchInfo) -> Result<Self> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| failed("written", &path, &error))?;
        let mut part = Self { path, file, hasher: Sha256::new(), length: 0, info };
        part.read_what_is_there()?;
        if part.length > part.info.stored_bytes {
            part.restart()?;
        }
        Ok(part)
    }

    fn read_what_is_there(&mut self) -> Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = self.file.read(&mut buffer).map_err(|error| failed("read", &self.path, &error))?;
            if read == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..read]);
            self.length += read as u64;
        }
    }

    /// The bytes that are there.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// BATCH_CORRUPT if they are more than the batch has; INTERNAL if the disk fails.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.length + bytes.len() as u64 > self.info.stored_bytes {
            return Err(damaged(&self.info));
        }
        if let Err(error) = self.file.write_all(bytes) {
            // Some of it may be there: back to what the hash has seen.
            let back =
                self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            back.map_err(|error| failed("written", &self.path, &error))?;
            return Err(failed("written", &self.path, &error));
        }
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Drops what is there.
    pub(super) fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|error| failed("written", &self.path, &error))?;
        self.hasher = Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Checks the digest of the whole batch, and keeps it under its name, durably.
    ///
    /// # Errors
    /// BATCH_CORRUPT; the part is empty again then.
    pub(super) fn finish(&mut self, whole: &Path) -> Result<()> {
        let digest = std::mem::take(&mut self.hasher).finalize();
        if self.length != self.info.stored_bytes || digest[..] != self.info.sha256 {
            self.restart()?;
            return Err(damaged(&self.info));
        }
        self.file.sync_all().map_err(|error| failed("synced", &self.path, &error))?;
        std::fs::rename(&self.path, whole).map_err(|error| failed("renamed", whole, &error))?;
        whole.parent().map_or(Ok(()), sync_folder)
    }
}

fn damaged(info: &BatchInfo) -> SyncError {
    SyncError::from(BatchError::Digest).with("batch_id", info.id)
}
