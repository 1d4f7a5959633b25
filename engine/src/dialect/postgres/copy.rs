//! The binary form of COPY: rows out, decoded in place, and rows in.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use syncline::error::{Result, SyncError};

use super::errors;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the extension.
const HEADER_BYTES: usize = 19;

/// Rows of a COPY TO STDOUT (FORMAT BINARY).
pub(super) struct CopyRows<'c> {
    stream: BoxStream<'c, sqlx::Result<Bytes>>,
    /// What came and was not read yet.
    buffer: Bytes,
    header_read: bool,
}

/// A row: the bytes of each cell, `None` for NULL.
pub(super) struct CopyRow {
    bytes: Bytes,
    cells: Vec<Option<(usize, usize)>>,
}

impl CopyRow {
    /// A cell; NULL also beyond the last.
    pub(super) fn cell(&self, at: usize) -> Option<&[u8]> {
        let (start, end) = (*self.cells.get(at)?)?;
        Some(&self.bytes[start..end])
    }

    /// A 64-bit number.
    pub(super) fn int8(&self, at: usize) -> Result<Option<i64>> {
        let fixed = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).map_err(|_| malformed());
        self.cell(at).map(fixed).transpose()
    }

    /// A boolean.
    pub(super) fn bool(&self, at: usize) -> bool {
        self.cell(at).is_some_and(|cell| cell != [0])
    }
}

impl<'c> CopyRows<'c> {
    /// Over the bytes that the server sends.
    pub(super) fn new(stream: BoxStream<'c, sqlx::Result<Bytes>>) -> Self {
        Self { stream, buffer: Bytes::new(), header_read: false }
    }

    /// The next row; `None` after the last. The cells share the row's memory.
    pub(super) async fn next(&mut self, row: &mut CopyRow) -> Result<bool> {
        if !self.header_read {
            self.read_header().await?;
        }
        loop {
            if let Some(length) = scan(&self.buffer, &mut row.cells)? {
                let Some(length) = length else {
                    // The trailer. What follows is the end of the stream, which leaves the connection clean.
                    while let Some(rest) = self.stream.next().await {
                        rest.map_err(errors::database)?;
                    }
                    return Ok(false);
                };
                row.bytes = self.buffer.split_to(length);
                return Ok(true);
            }
            self.fill().await?;
        }
    }

    async fn read_header(&mut self) -> Result<()> {
        while self.buffer.len() < HEADER_BYTES {
            self.fill().await?;
        }
        let header = self.buffer.split_to(HEADER_BYTES);
        if !header.starts_with(SIGNATURE) {
            return Err(malformed());
        }
        self.header_read = true;
        Ok(())
    }

    /// The server sends a row a message, so that the buffer is nearly always empty here and nothing is copied.
    async fn fill(&mut self) -> Result<()> {
        let more = self.stream.next().await.ok_or_else(malformed)?.map_err(errors::database)?;
        if self.buffer.is_empty() {
            self.buffer = more;
        } else {
            let mut joined = Vec::with_capacity(self.buffer.len() + more.len());
            joined.extend_from_slice(&self.buffer);
            joined.extend_from_slice(&more);
            self.buffer = joined.into();
        }
        Ok(())
    }
}

impl CopyRow {
    /// A row to be filled by [`CopyRows::next`], again and again.
    pub(super) const fn new() -> Self {
        Self { bytes: Bytes::new(), cells: Vec::new() }
    }
}

/// Where the cells of the row at the beginning of `bytes` are. `None` if it is not all there; `Some(None)` for the
/// trailer.
fn scan(bytes: &[u8], cells: &mut Vec<Option<(usize, usize)>>) -> Result<Option<Option<usize>>> {
    cells.clear();
    let Some((count, _)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
    let count = i16::from_be_bytes(*count);
    if count == -1 {
        return Ok(Some(None));
    }
    let mut at = 2;
    for _ in 0..count {
        let Some((length, _)) = bytes.get(at..).and_then(|rest| rest.split_first_chunk::<4>()) else {
            return Ok(None);
        };
        at += 4;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            cells.push(None);
            continue;
        }
        let length = usize::try_from(length).map_err(|_| malformed())?;
        if bytes.len() - at < length {
            return Ok(None);
        }
        cells.push(Some((at, at + length)));
        at += length;
    }
    Ok(Some(Some(at)))
}

fn malformed() -> SyncError {
    SyncError::internal("the server's binary COPY is not well-formed")
}

/// Rows for a COPY FROM STDIN (FORMAT BINARY).
pub(super) struct CopyBuffer {
    bytes: Vec<u8>,
    row_start: usize,
}

impl CopyBuffer {
    /// With the header.
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(64 << 10);
        bytes.extend_from_slice(SIGNATURE);
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, row_start: 0 }
    }

    /// Begins a row of so many cells.
    pub(super) fn row(&mut self, cells: usize) {
        self.row_start = self.bytes.len();
        // PostgreSQL's tables have at most 1,600 columns.
        self.bytes.extend_from_slice(&(cells as i16).to_be_bytes());
    }

    /// Takes back the row that was begun last.
    pub(super) fn drop_row(&mut self) {
        self.bytes.truncate(self.row_start);
    }

    /// Adds a cell that `write` writes; NULL if it answers `false`.
    pub(super) fn cell<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&(-1_i32).to_be_bytes());
        if write(&mut self.bytes)? {
            // A cell is bounded by limits::ROW_BYTES_MAX.
            let length = (self.bytes.len() - start - 4) as i32;
            self.bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }

    /// Adds a cell of these bytes.
    pub(super) fn bytes_cell(&mut self, bytes: &[u8]) {
        let _: Result<(), std::convert::Infallible> = self.cell(|out| {
            out.extend_from_slice(bytes);
            Ok(true)
        });
    }

    /// How much is waiting.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What is waiting.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what is waiting: it was sent. Its room is used again.
    pub(super) fn clear(&mut self) {
        self.row_start = 0;
        self.bytes.clear();
    }

    /// What is waiting, leaving nothing.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.row_start = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Adds the trailer.
    pub(super) fn end(&mut self) {
        self.bytes.extend_from_slice(&(-1_i16).to_be_bytes());
    }
}
