//! A column as the vectors that travel.

use bytes::Bytes;

use super::any::Any;
use super::variable::Variable;
use super::{Bits, Cells, Column, from_planes, planes};
use crate::batch::BatchError;
use crate::ids::ColumnId;
use crate::pb;
use crate::value::CanonicalType;

impl Column {
    /// The vectors that travel.
    #[must_use]
    pub fn to_wire(&self) -> pb::ColumnVector {
        let mut vector = pb::ColumnVector {
            column_id: self.id.0,
            r#type: self.ty.wire() as i32,
            nulls: if self.has_nulls { self.nulls.to_bytes() } else { Bytes::new() },
            ..Default::default()
        };
        let present = || (0..self.rows).filter(|row| !self.has_nulls || !self.nulls.get(*row));
        match &self.cells {
            Cells::Bool(bits) => {
                vector.data = present().map(|row| bits.get(row)).collect::<Bits>().to_bytes();
            }
            Cells::Fixed(fixed) if self.has_nulls => {
                vector.data = planes(&present().map(|row| fixed[row]).collect::<Vec<_>>());
            }
            Cells::Fixed(fixed) => vector.data = planes(fixed),
            Cells::Uuid(uuids) if !self.has_nulls => {
                vector.data = Bytes::copy_from_slice(uuids.as_flattened());
            }
            Cells::Uuid(uuids) => {
                vector.data = present().flat_map(|row| uuids[row]).collect::<Vec<u8>>().into();
            }
            Cells::Variable(variable) => {
                // A NULL holds no bytes, so the buffer is right as it stands.
                vector.lengths = present().map(|row| variable.length(row)).collect();
                vector.data = variable.to_bytes();
            }
            Cells::Any(any) => {
                vector.any = Some(pb::AnyVector {
                    tags: present().map(|row| any.tags[row]).collect::<Vec<u8>>().into(),
                    integers: planes(&any.integers),
                    floats: planes(&any.floats),
                    text: any.text.to_bytes(),
                    text_lengths: any.text.lengths(),
                    blobs: any.blobs.to_bytes(),
                    blob_lengths: any.blobs.lengths(),
                });
            }
        }
        vector
    }

    /// Checks vectors that came from outside, for a block of `rows` rows.
    ///
    /// # Errors
    /// [`BatchError`], before anything of the size that the vectors claim is allocated.
    pub fn from_wire(vector: &pb::ColumnVector, rows: usize) -> Result<Self, BatchError> {
        let ty =
            CanonicalType::from_wire(vector.r#type).ok_or(BatchError::Malformed("an unknown column type"))?;
        let nulls = if vector.nulls.is_empty() {
            Bits::zeros(rows)
        } else {
            Bits::from_bytes(&vector.nulls, rows).ok_or(BatchError::Malformed("a NULL bitmap's length"))?
        };
        let has_nulls = !vector.nulls.is_empty();
        let present = rows - if has_nulls { nulls.count() } else { 0 };
        let mut column = Self::new(ColumnId(vector.column_id), ty);
        let rank = Ranks { nulls: &nulls, has_nulls, rows };
        column.cells = match &column.cells {
            Cells::Bool(_) => {
                let bits = Bits::from_bytes(&vector.data, present)
                    .ok_or(BatchError::Malformed("a bitmap's length"))?;
                Cells::Bool(rank.spread(|place| bits.get(place), false).collect())
            }
            Cells::Fixed(_) => {
                let fixed = from_planes(&vector.data, present)?;
                Cells::Fixed(if has_nulls { rank.spread(|place| fixed[place], 0).collect() } else { fixed })
            }
            Cells::Uuid(_) => {
                if vector.data.len() != present * 16 {
                    return Err(BatchError::Malformed("a vector's length"));
                }
                let uuid = |place: usize| {
                    let mut uuid = [0; 16];
                    uuid.copy_from_slice(&vector.data[place * 16..][..16]);
                    uuid
                };
                Cells::Uuid(rank.spread(uuid, [0; 16]).collect())
            }
            Cells::Variable(_) => {
                let packed =
                    Variable::from_wire(&vector.data, &vector.lengths, present, ty != CanonicalType::Bytes)?;
                Cells::Variable(if has_nulls { packed.spread(&rank) } else { packed })
            }
            Cells::Any(_) => {
                let any = vector.any.as_ref().ok_or(BatchError::Malformed("a missing vector"))?;
                Cells::Any(Any::from_wire(any, present, &rank)?)
            }
        };
        column.bytes = vector.data.len() + vector.lengths.len() * 4;
        column.rows = rows;
        column.nulls = nulls;
        column.has_nulls = has_nulls;
        Ok(column)
    }
}

/// Places in a packed vector, by row.
pub(super) struct Ranks<'a> {
    pub(super) nulls: &'a Bits,
    has_nulls: bool,
    pub(super) rows: usize,
}

impl Ranks<'_> {
    /// What `at` answers for the place of each row that is not NULL, else `absent`.
    pub(super) fn spread<T: Copy>(&self, at: impl Fn(usize) -> T, absent: T) -> impl Iterator<Item = T> {
        let mut place = 0;
        (0..self.rows).map(move |row| {
            if self.has_nulls && self.nulls.get(row) {
                return absent;
            }
            place += 1;
            at(place - 1)
        })
    }
}
