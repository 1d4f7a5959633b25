//! The cells of one column of a block: built cell by cell, sent as vectors, read by row.
//!
//! In memory every row has its place, NULLs included, so that a cell is found by its row without counting; on the wire
//! a NULL takes no place.
//!
//! `variable` and `any` hold cells whose size differs, `bits` and `planes` are how bitmaps and words travel, `wire` makes
//! vectors of a column and checks those that came from outside.

mod any;
mod bits;
mod planes;
mod variable;
mod wire;

use any::Any;
pub(crate) use bits::Bits;
pub(crate) use planes::{from_planes, planes};
use variable::Variable;

use crate::ids::ColumnId;
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

    /// The bytes of a row's cell if the column is one of texts, decimals, JSON or bytes; `None` for NULL and in other
    /// columns. Those of texts are UTF-8.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn bytes(&self, row: usize) -> Option<&[u8]> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        match &self.cells {
            Cells::Variable(variable) if !(self.has_nulls && self.nulls.get(row)) => Some(variable.get(row)),
            _ => None,
        }
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
}

fn float_bits(value: f64) -> u64 {
    if value.is_nan() { NAN_BITS } else { value.to_bits() }
}

/// Checked when it was pushed or came from the wire.
fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
