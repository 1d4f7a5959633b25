//! Cells of bytes and text.

use bytes::Bytes;

use super::wire::Ranks;
use crate::batch::BatchError;

/// Byte strings one after the other, with the end of each.
#[derive(Debug, Clone, Default)]
pub(super) struct Variable {
    /// What was pushed; empty if it was decoded.
    pushed: Vec<u8>,
    /// What was decoded: it belongs to the batch, and the batch's other columns share it.
    decoded: Bytes,
    pub(super) ends: Vec<u32>,
}

impl Variable {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !self.decoded.is_empty() {
            self.pushed = std::mem::take(&mut self.decoded).into();
        }
        self.pushed.extend_from_slice(bytes);
        // A batch is bounded far below 4 GiB (limits::ROW_BYTES_MAX).
        self.ends.push(self.pushed.len() as u32);
    }

    fn bytes(&self) -> &[u8] {
        if self.decoded.is_empty() { &self.pushed } else { &self.decoded }
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        if self.decoded.is_empty() { Bytes::copy_from_slice(&self.pushed) } else { self.decoded.clone() }
    }

    fn start(&self, row: usize) -> u32 {
        if row == 0 { 0 } else { self.ends[row - 1] }
    }

    pub(super) fn length(&self, row: usize) -> u32 {
        self.ends[row] - self.start(row)
    }

    pub(super) fn lengths(&self) -> Vec<u32> {
        (0..self.ends.len()).map(|row| self.length(row)).collect()
    }

    pub(super) fn get(&self, row: usize) -> &[u8] {
        &self.bytes()[self.start(row) as usize..self.ends[row] as usize]
    }

    pub(super) fn from_wire(
        data: &Bytes,
        lengths: &[u32],
        cells: usize,
        text: bool,
    ) -> Result<Self, BatchError> {
        let total: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        if lengths.len() != cells || total != data.len() as u64 || total > u64::from(u32::MAX) {
            return Err(BatchError::Malformed("a vector's length"));
        }
        let mut end = 0;
        let ends: Vec<u32> = lengths
            .iter()
            .map(|length| {
                end += length;
                end
            })
            .collect();
        if text {
            let all =
                std::str::from_utf8(data).map_err(|_| BatchError::Malformed("text that is not UTF-8"))?;
            if !ends.iter().all(|end| all.is_char_boundary(*end as usize)) {
                return Err(BatchError::Malformed("text that is not UTF-8"));
            }
        }
        Ok(Self { pushed: Vec::new(), decoded: data.clone(), ends })
    }

    pub(super) fn spread(self, rank: &Ranks<'_>) -> Self {
        let mut place = 0;
        let ends = (0..rank.rows)
            .map(|row| {
                if !rank.nulls.get(row) {
                    place += 1;
                }
                if place == 0 { 0 } else { self.ends[place - 1] }
            })
            .collect();
        Self { ends, ..self }
    }
}
