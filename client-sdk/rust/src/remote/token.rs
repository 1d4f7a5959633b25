//! The token that calls carry.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use syncline::error::{Result, SyncError};
use tonic::metadata::AsciiMetadataValue;

use super::connect::read;

/// A token in a file, which whoever issues it may replace while we run.
#[derive(Debug)]
pub(super) struct Token {
    file: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    /// When the file was written and how long it is; `None` if that can't be found out.
    stamp: Option<(SystemTime, u64)>,
    authorization: AsciiMetadataValue,
}

impl Token {
    /// Reads it.
    ///
    /// # Errors
    /// REQUEST_INVALID if the file can't be read or holds no token. The token itself is in no message.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let current = Current { stamp: stamp(file), authorization: authorization(file)? };
        Ok(Self { file: file.to_owned(), current: Mutex::new(current) })
    }

    /// The value of the `authorization` header. Where the file has changed and does not hold a token any more, that of
    /// before: it may be about to be written.
    pub(super) fn authorization(&self) -> AsciiMetadataValue {
        // Nothing that can panic happens under the lock.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.file);
        if stamp.is_some() && stamp != current.stamp {
            match authorization(&self.file) {
                Ok(authorization) => *current = Current { stamp, authorization },
                Err(error) => tracing::warn!("the token of before is sent on: {error}"),
            }
        }
        current.authorization.clone()
    }
}

fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn authorization(file: &Path) -> Result<AsciiMetadataValue> {
    let content = String::from_utf8(read("token-file", file)?)
        .map_err(|_| SyncError::invalid("token-file", "the file holds no text"))?;
    let token = content.trim();
    if token.is_empty() {
        return Err(SyncError::invalid("token-file", "the file is empty"));
    }
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| SyncError::invalid("token-file", "the token holds characters that a header can't"))?;
    value.set_sensitive(true);
    Ok(value)
}
