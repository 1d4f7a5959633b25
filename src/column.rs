//! The cells of one column of a block: built cell by cell, sent as vectors, read by row.
//!
//! In memory every row has its place, NULLs included, so that a cell is found by its row without counting; on the wire
//! a NULL takes no place.

use bytes::Bytes;

use crate::batch::BatchError;
use crate::ids::ColumnId;
use crate::pb;
use crate::value::{CanonicalType, Cell, NAN_BITS};

/// The cells of one column.
#[derive(Debug, Clone)]
pub struct Column {
    id: ColumnId,
    ty: CanonicalType,
    rows: usize,
    nulls: Bits,
    has_nulls: bool,
    cells: Cells,
    bytes: usize,
}

/// The cells by row. Where a row is NULL, its place holds nothing of meaning.
#[derive(Debug, Clone)]
enum Cells {
    Bool(Bits),
    /// Integers, floats (their bits), dates, times.
    Fixed(Vec<u64>),
    Uuid(Vec<[u8; 16]>),
    Variable(Variable),
    Any(Any),
}

/// Byte strings one after the other, with the end of each.
#[derive(Debug, Clone, Default)]
struct Variable {
    /// What was pushed; empty if it was decoded.
    pushed: Vec<u8>,
    /// What was decoded: it belongs to the batch, and the batch's other columns share it.
    decoded: Bytes,
    ends: Vec<u32>,
}

/// A tag for each row, and its place in the vector of that tag.
#[derive(Debug, Clone, Default)]
struct Any {
    tags: Vec<u8>,
    places: Vec<u32>,
    integers: Vec<u64>,
    floats: Vec<u64>,
    text: Variable,
    blobs: Variable,
}

const TAG_INTEGER: u8 = 2;
const TAG_FLOAT: u8 = 4;
const TAG_TEXT: u8 = 6;
const TAG_BYTES: u8 = 7;

/// The cell is not of the column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cell is not of the column's type")]
pub struct TypeMismatch;

impl Column {
    /// A column without cells.
    #[must_use]
    pub fn new(id: ColumnId, ty: CanonicalType) -> Self {
        use CanonicalType as T;
        let cells = match ty {
            T::Bool => Cells::Bool(Bits::default()),
            T::Int64 | T::Uint64 | T::Float64 | T::Date | T::Time | T::Timestamp | T::Timestamptz => {
                Cells::Fixed(Vec::new())
            }
            T::Uuid => Cells::Uuid(Vec::new()),
            T::Decimal | T::Text | T::Bytes | T::Json => Cells::Variable(Variable::default()),
            T::Any => Cells::Any(Any::default()),
        };
        Self { id, ty, rows: 0, nulls: Bits::default(), has_nulls: false, cells, bytes: 0 }
    }

    /// The column's id.
    #[must_use]
    pub const fn id(&self) -> ColumnId {
        self.id
    }

    /// What the cells are sent as: the column's own type, or `any`.
    #[must_use]
    pub const fn ty(&self) -> CanonicalType {
        self.ty
    }

    /// The number of cells.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no cells.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The bytes that the cells take in a decoded batch, within a few of each cell's [`Cell::encoded_bytes`].
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a cell.
    ///
    /// # Errors
    /// [`TypeMismatch`]; nothing is added.
    pub fn push(&mut self, cell: Cell<'_>) -> Result<(), TypeMismatch> {
        if cell.is_null() {
            self.push_null();
            return Ok(());
        }
        use CanonicalType as T;
        match (&mut self.cells, cell) {
            (Cells::Bool(bits), Cell::Bool(value)) => bits.push(value),
            (Cells::Fixed(fixed), cell) => match (self.ty, cell) {
                (T::Int64, Cell::Int64(value))
                | (T::Date, Cell::Date(value))
                | (T::Time, Cell::Time(value))
                | (T::Timestamp, Cell::Timestamp(value))
                | (T::Timestamptz, Cell::Timestamptz(value)) => fixed.push(value.cast_unsigned()),
                (T::Uint64, Cell::Uint64(value)) => fixed.push(value),
                (T::Float64, Cell::Float64(value)) => fixed.push(float_bits(value)),
                _ => return Err(TypeMismatch),
            },
            (Cells::Uuid(uuids), Cell::Uuid(value)) => uuids.push(value),
            (Cells::Variable(variable), cell) => match (self.ty, cell) {
                (T::Text, Cell::Text(text))
                | (T::Decimal, Cell::Decimal(text))
                | (T::Json, Cell::Json(text)) => {
                    variable.push(text.as_bytes());
                }
                (T::Bytes, Cell::Bytes(bytes)) => variable.push(bytes),
                _ => return Err(TypeMismatch),
            },
            (Cells::Any(any), cell) => any.push(cell)?,
            _ => return Err(TypeMismatch),
        }
        self.bytes += cell.encoded_bytes();
        self.count(false);
        Ok(())
    }

    /// Adds a NULL.
    pub fn push_null(&mut self) {
        match &mut self.cells {
            Cells::Bool(bits) => bits.push(false),
            Cells::Fixed(fixed) => fixed.push(0),
            Cells::Uuid(uuids) => uuids.push([0; 16]),
            Cells::Variable(variable) => variable.push(b""),
            Cells::Any(any) => {
                any.tags.push(0);
                any.places.push(0);
            }
        }
        self.bytes += 1;
        self.count(true);
    }

    fn count(&mut self, null: bool) {
        self.nulls.push(null);
        self.has_nulls |= null;
        self.rows += 1;
    }

    /// The same cells as a column of type `any`, each as `storage` says (`Int64`, `Float64`, `Text` or `Bytes`): what
    /// a source does when a cell comes that does not fit the type.
    ///
    /// # Errors
    /// [`TypeMismatch`] if `storage` answers another kind of cell.
    pub fn into_any<'s>(
        &'s self,
        storage: impl Fn(Cell<'s>) -> crate::value::Value,
    ) -> Result<Self, TypeMismatch> {
        let mut column = Self::new(self.id, CanonicalType::Any);
        for row in 0..self.rows {
            let cell = self.cell(row);
            if cell.is_null() { column.push_null() } else { column.push(storage(cell).cell())? }
        }
        Ok(column)
    }

    /// The cell of a row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn cell(&self, row: usize) -> Cell<'_> {
        use CanonicalType as T;
        assert!(row < self.rows, "row {row} of {}", self.rows);
        if self.has_nulls && self.nulls.get(row) {
            return Cell::Null;
        }
        match &self.cells {
            Cells::Bool(bits) => Cell::Bool(bits.get(row)),
            Cells::Fixed(fixed) => match self.ty {
                T::Uint64 => Cell::Uint64(fixed[row]),
                T::Float64 => Cell::Float64(f64::from_bits(fixed[row])),
                T::Date => Cell::Date(fixed[row].cast_signed()),
                T::Time => Cell::Time(fixed[row].cast_signed()),
                T::Timestamp => Cell::Timestamp(fixed[row].cast_signed()),
                T::Timestamptz => Cell::Timestamptz(fixed[row].cast_signed()),
                _ => Cell::Int64(fixed[row].cast_signed()),
            },
            Cells::Uuid(uuids) => Cell::Uuid(uuids[row]),
            Cells::Variable(variable) => match self.ty {
                T::Bytes => Cell::Bytes(variable.get(row)),
                T::Decimal => Cell::Decimal(utf8(variable.get(row))),
                T::Json => Cell::Json(utf8(variable.get(row))),
                _ => Cell::Text(utf8(variable.get(row))),
            },
            Cells::Any(any) => any.get(row),
        }
    }

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
struct Ranks<'a> {
    nulls: &'a Bits,
    has_nulls: bool,
    rows: usize,
}

impl Ranks<'_> {
    /// What `at` answers for the place of each row that is not NULL, else `absent`.
    fn spread<T: Copy>(&self, at: impl Fn(usize) -> T, absent: T) -> impl Iterator<Item = T> {
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

impl Variable {
    fn push(&mut self, bytes: &[u8]) {
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

    fn to_bytes(&self) -> Bytes {
        if self.decoded.is_empty() { Bytes::copy_from_slice(&self.pushed) } else { self.decoded.clone() }
    }

    fn start(&self, row: usize) -> u32 {
        if row == 0 { 0 } else { self.ends[row - 1] }
    }

    fn length(&self, row: usize) -> u32 {
        self.ends[row] - self.start(row)
    }

    fn lengths(&self) -> Vec<u32> {
        (0..self.ends.len()).map(|row| self.length(row)).collect()
    }

    fn get(&self, row: usize) -> &[u8] {
        &self.bytes()[self.start(row) as usize..self.ends[row] as usize]
    }

    fn from_wire(data: &Bytes, lengths: &[u32], cells: usize, text: bool) -> Result<Self, BatchError> {
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

    fn spread(self, rank: &Ranks<'_>) -> Self {
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

impl Any {
    fn push(&mut self, cell: Cell<'_>) -> Result<(), TypeMismatch> {
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

    fn get(&self, row: usize) -> Cell<'_> {
        let place = self.places[row] as usize;
        match self.tags[row] {
            TAG_INTEGER => Cell::Int64(self.integers[place].cast_signed()),
            TAG_FLOAT => Cell::Float64(f64::from_bits(self.floats[place])),
            TAG_TEXT => Cell::Text(utf8(self.text.get(place))),
            _ => Cell::Bytes(self.blobs.get(place)),
        }
    }

    fn from_wire(wire: &pb::AnyVector, present: usize, rank: &Ranks<'_>) -> Result<Self, BatchError> {
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

fn float_bits(value: f64) -> u64 {
    if value.is_nan() { NAN_BITS } else { value.to_bits() }
}

/// Checked when it was pushed or came from the wire.
fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Little-endian words by planes: byte 0 of all, then byte 1 of all. Compresses far better than word by word.
pub(crate) fn planes(words: &[u64]) -> Bytes {
    let mut bytes = vec![0; words.len() * 8];
    if !words.is_empty() {
        for (plane, out) in bytes.chunks_exact_mut(words.len()).enumerate() {
            for (byte, word) in out.iter_mut().zip(words) {
                *byte = (word >> (plane * 8)) as u8;
            }
        }
    }
    bytes.into()
}

/// The words of [`planes`].
pub(crate) fn from_planes(bytes: &[u8], count: usize) -> Result<Vec<u64>, BatchError> {
    if Some(bytes.len()) != count.checked_mul(8) {
        return Err(BatchError::Malformed("a vector's length"));
    }
    let mut words = vec![0; count];
    if count > 0 {
        for (plane, bytes) in bytes.chunks_exact(count).enumerate() {
            for (word, byte) in words.iter_mut().zip(bytes) {
                *word |= u64::from(*byte) << (plane * 8);
            }
        }
    }
    Ok(words)
}

/// A bitmap, least significant bit first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits {
    words: Vec<u8>,
    length: usize,
}

impl Bits {
    pub(crate) fn zeros(length: usize) -> Self {
        Self { words: vec![0; length.div_ceil(8)], length }
    }

    pub(crate) fn push(&mut self, bit: bool) {
        if self.length.is_multiple_of(8) {
            self.words.push(0);
        }
        self.words[self.length / 8] |= u8::from(bit) << (self.length % 8);
        self.length += 1;
    }

    pub(crate) fn get(&self, index: usize) -> bool {
        self.words[index / 8] >> (index % 8) & 1 == 1
    }

    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.words)
    }

    /// `None` if there are not just enough bytes, or a bit beyond the last is set.
    pub(crate) fn from_bytes(bytes: &[u8], length: usize) -> Option<Self> {
        let tail_clear = match (length % 8, bytes.last()) {
            (0, _) | (_, None) => true,
            (used, Some(last)) => last >> used == 0,
        };
        (bytes.len() == length.div_ceil(8) && tail_clear).then(|| Self { words: bytes.to_vec(), length })
    }
}

impl FromIterator<bool> for Bits {
    fn from_iter<T: IntoIterator<Item = bool>>(bits: T) -> Self {
        let mut all = Self::default();
        bits.into_iter().for_each(|bit| all.push(bit));
        all
    }
}
