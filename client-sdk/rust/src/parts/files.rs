//! The few things done to files and folders, with errors that people can read.

use std::fs::File;
use std::io;
use std::path::Path;

use syncline::error::{ErrorReason, Result, SyncError};

/// A file or folder of ours failed. The path is in the detail; what the system said is in the message.
pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> SyncError {
    let message = format!("a file in the directory beside the database could not be {what}: {error}");
    SyncError::new(ErrorReason::Internal, message).with_detail(path.display())
}

/// The names in a folder; none if it is not there.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", folder, &error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed("read", folder, &error))?;
        // A name that is no UTF-8 is not ours.
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// The length of a file; `None` if it is not there.
pub(super) fn length(path: &Path) -> Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removed", path, &error)),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it, if it is there.
pub(super) fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removed", path, &error)),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    // Elsewhere a folder can't be opened, and renames are durable by the file system's own journal.
    if cfg!(unix) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("synced", folder, &error))?;
    }
    Ok(())
}
