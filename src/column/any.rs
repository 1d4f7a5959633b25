//! Cells that each have a type of their own.

use super::variable::Variable;
use super::wire::Ranks;
use super::{TypeMismatch, float_bits, from_planes, utf8};
use crate::batch::BatchError;
use crate::pb;
use crate::value::Cell;

const TAG_INTEGER: u8 = 2;
const TAG_FLOAT: u8 = 4;
const TAG_TEXT: u8 = 6;
const TAG_BYTES: u8 = 7;

/// A tag for each row, and its place in the vector of that tag.
#[derive(Debug, Clone, Default)]
pub(super) struct Any {
    pub(super) tags: Vec<u8>,
    pub(super) places: Vec<u32>,
    pub(super) integers: Vec<u64>,
    pub(super) floats: Vec<u64>,
    pub(super) text: Variable,
    pub(super) blobs: Variable,
}

impl Any {
    pub(super) fn push(&mut self, cell: Cell<'_>) -> Result<(), TypeMismatch> {
        let (tag, place) = match cell {
            Cell::Int64(value) => {
                self.integers.push(value.cast_unsigned());
                (TAG_INTEGER, self.integers.len())
            }
            Cell::Float64(value) => {
                self.floats.push(float_bits(value));
                (TAG_FLOAT, self.floats.len())
            }
            Cell::Text(text) => {
                self.text.push(text.as_bytes());
                (TAG_TEXT, self.text.ends.len())
            }
            Cell::Bytes(bytes) => {
                self.blobs.push(bytes);
                (TAG_BYTES, self.blobs.ends.len())
            }
            _ => return Err(TypeMismatch),
        };
        self.tags.push(tag);
        // Rows of a batch are bounded (limits::BATCH_ROWS_MAX).
        self.places.push(place as u32 - 1);
        Ok(())
    }

    pub(super) fn get(&self, row: usize) -> Cell<'_> {
        let place = self.places[row] as usize;
        match self.tags[row] {
            TAG_INTEGER => Cell::Int64(self.integers[place].cast_signed()),
            TAG_FLOAT => Cell::Float64(f64::from_bits(self.floats[place])),
            TAG_TEXT => Cell::Text(utf8(self.text.get(place))),
            _ => Cell::Bytes(self.blobs.get(place)),
        }
    }

    pub(super) fn from_wire(
        wire: &pb::AnyVector,
        present: usize,
        rank: &Ranks<'_>,
    ) -> Result<Self, BatchError> {
        if wire.tags.len() != present {
            return Err(BatchError::Malformed("a vector's length"));
        }
        let mut counts = [0_usize; 4];
        let mut places = Vec::with_capacity(present);
        for tag in &wire.tags {
            let kind = [TAG_INTEGER, TAG_FLOAT, TAG_TEXT, TAG_BYTES]
                .iter()
                .position(|known| known == tag)
                .ok_or(BatchError::Malformed("an unknown tag"))?;
            places.push(counts[kind] as u32);
            counts[kind] += 1;
        }
        Ok(Self {
            tags: rank.spread(|place| wire.tags[place], 0).collect(),
            places: rank.spread(|place| places[place], 0).collect(),
            integers: from_planes(&wire.integers, counts[0])?,
            floats: from_planes(&wire.floats, counts[1])?,
            text: Variable::from_wire(&wire.text, &wire.text_lengths, counts[2], true)?,
            blobs: Variable::from_wire(&wire.blobs, &wire.blob_lengths, counts[3], false)?,
        })
    }
}
