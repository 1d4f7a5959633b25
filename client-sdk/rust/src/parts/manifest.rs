//! What was listed of a download, line by line: so that a client that was killed knows what its parts are.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use syncline::batch::BatchInfo;
use syncline::error::{Result, SyncError};
use syncline_engine::replica::{ChangesBegin, ChangesEnd};

use super::files::failed;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    Begin(ChangesBegin),
    Batch(BatchInfo),
    End(ChangesEnd),
}

/// What was listed. Lines stand in memory until [`keep`](Self::keep): without a batch beside it the file says nothing
/// that the service would not say again.
#[derive(Debug)]
pub(super) struct Manifest {
    path: PathBuf,
    /// Open at its end, once it is there.
    file: Option<File>,
    /// Lines that are not in the file yet. None if it is there.
    waiting: Vec<u8>,
}

impl Manifest {
    /// Of a session that has no folder yet.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, file: None, waiting: Vec::new() }
    }

    /// Opens the file, if it is there, and answers what it holds. A line that was not written to its end, and whatever may come after
    /// it, is cut off: it names nothing that was released.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Vec<Entry>)> {
        let content = match std::fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Self::new(path), Vec::new()));
            }
            Err(error) => return Err(failed("read", &path, &error)),
        };
        let (entries, length) = parse(&content);
        let file = open_at(&path, length).map_err(|error| failed("written", &path, &error))?;
        Ok((Self { path, file: Some(file), waiting: Vec::new() }, entries))
    }

    /// Whether lines go to the file at once.
    pub(super) const fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Adds a line. Blocks if the manifest [is kept](Self::is_kept).
    pub(super) fn append(&mut self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry).map_err(SyncError::internal)?;
        line.push(b'\n');
        match &mut self.file {
            Some(file) => file.write_all(&line).map_err(|error| failed("written", &self.path, &error)),
            None => {
                self.waiting.extend(line);
                Ok(())
            }
        }
    }

    /// From here on all lines are in the file, whose folder is there. Blocks.
    pub(super) fn keep(&mut self) -> Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let opened = open_at(&self.path, 0).and_then(|mut file| {
            file.write_all(&self.waiting)?;
            Ok(file)
        });
        self.file = Some(opened.map_err(|error| failed("written", &self.path, &error))?);
        self.waiting = Vec::new();
        Ok(())
    }

    /// Makes all lines durable. Blocks.
    pub(super) fn sync(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|error| failed("synced", &self.path, &error))
    }
}

fn open_at(path: &Path, length: u64) -> std::io::Result<File> {
    let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.set_len(length)?;
    file.seek(SeekFrom::Start(length))?;
    Ok(file)
}

/// The whole lines, and the length of these.
fn parse(content: &[u8]) -> (Vec<Entry>, u64) {
    let mut entries = Vec::new();
    let mut length = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let Some(entry) = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok()) else {
            break;
        };
        entries.push(entry);
        length += line.len() as u64;
    }
    (entries, length)
}
