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

/// The file, open at its end.
#[derive(Debug)]
pub(super) struct Manifest {
    path: PathBuf,
    file: File,
}

impl Manifest {
    /// Opens the file and answers what it holds. A line that was not written to its end, and whatever may come after
    /// it, is cut off: it names nothing that was released.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Vec<Entry>)> {
        let content = match std::fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        let (entries, length) = parse(&content);
        let file = open_at(&path, length).map_err(|error| failed("written", &path, &error))?;
        Ok((Self { path, file }, entries))
    }

    /// Adds a line.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry).map_err(SyncError::internal)?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| failed("written", &self.path, &error))
    }

    /// Makes all lines durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| failed("synced", &self.path, &error))
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
