//! Rows of one table with one operation, by columns.

use serde::{Deserialize, Serialize};

use super::BatchError;
use crate::column::{Column, from_planes, planes};
use crate::ids::{ColumnId, TableId, Tick};
use crate::value::{Cell, KeyError, key_bytes};
use crate::{limits, pb};

/// What is done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// It is inserted or updated.
    Upsert,
    /// It was deleted.
    Delete,
    /// It left the client's view.
    Leave,
}

impl Operation {
    /// The number in the protocol's enum.
    #[must_use]
    pub const fn wire(self) -> pb::Operation {
        match self {
            Self::Upsert => pb::Operation::Upsert,
            Self::Delete => pb::Operation::Delete,
            Self::Leave => pb::Operation::Leave,
        }
    }

    /// The operation of this number.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<Self> {
        [Self::Upsert, Self::Delete, Self::Leave]
            .into_iter()
            .find(|operation| operation.wire() as i32 == number)
    }

    /// Whether the row is removed.
    #[must_use]
    pub const fn removes(self) -> bool {
        matches!(self, Self::Delete | Self::Leave)
    }
}

/// Rows of one table with one operation.
#[derive(Debug, Clone)]
pub struct Block {
    /// The table.
    pub table: TableId,
    /// What is done to the rows.
    pub operation: Operation,
    /// The columns: all that are carried for upserts, the key's for deletes. Each has a cell for every row.
    pub columns: Vec<Column>,
    /// When each row was changed, in microseconds since 1970 UTC; empty where nobody needs it.
    pub changed_at: Vec<i64>,
    /// From a leaf: its tick of each row; else empty.
    pub ticks: Vec<Tick>,
    /// From a leaf: the tick at which each row was born there since its last acknowledgement, [`Tick::default`] (0) if it
    /// was not; else empty.
    pub births: Vec<Tick>,
}

impl Block {
    /// A block without rows.
    #[must_use]
    pub const fn new(table: TableId, operation: Operation, columns: Vec<Column>) -> Self {
        Self { table, operation, columns, changed_at: Vec::new(), ticks: Vec::new(), births: Vec::new() }
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// The bytes that the rows take in a decoded batch, about.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let beside = (self.changed_at.len() + self.ticks.len() + self.births.len()) * 8;
        self.columns.iter().map(Column::encoded_bytes).sum::<usize>() + beside
    }

    /// The column of this id.
    #[must_use]
    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        self.columns.iter().find(|column| column.id() == id)
    }

    /// The cell of a column that is there, else NULL.
    #[must_use]
    pub fn cell(&self, id: ColumnId, row: usize) -> Cell<'_> {
        self.column(id).map_or(Cell::Null, |column| column.cell(row))
    }

    /// The canonical bytes of a row's key.
    ///
    /// # Errors
    /// [`KeyError::Null`], also if a key column is not there.
    pub fn key(&self, key: &[ColumnId], row: usize) -> Result<bytes::Bytes, KeyError> {
        key_bytes(key.iter().map(|id| self.cell(*id, row)))
    }

    pub(super) fn to_wire(&self) -> pb::Block {
        let words =
            |times: &[i64]| planes(&times.iter().map(|time| time.cast_unsigned()).collect::<Vec<_>>());
        let numbers = |ticks: &[Tick]| planes(&ticks.iter().map(|tick| tick.0).collect::<Vec<_>>());
        pb::Block {
            table_id: self.table.0,
            operation: self.operation.wire() as i32,
            // Bounded by BATCH_ROWS_MAX before this is called.
            rows: self.rows() as u32,
            columns: self.columns.iter().map(Column::to_wire).collect(),
            changed_at: words(&self.changed_at),
            ticks: numbers(&self.ticks),
            births: numbers(&self.births),
        }
    }

    pub(super) fn from_wire(message: &pb::Block) -> Result<Self, BatchError> {
        if message.rows > limits::BATCH_ROWS_MAX {
            return Err(BatchError::TooLarge("rows"));
        }
        let rows = message.rows as usize;
        if rows == 0 || message.columns.is_empty() {
            return Err(BatchError::Malformed("a block without rows or columns"));
        }
        let columns: Vec<Column> =
            message.columns.iter().map(|vector| Column::from_wire(vector, rows)).collect::<Result<_, _>>()?;
        let mut ids: Vec<_> = columns.iter().map(Column::id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(BatchError::Malformed("a column twice in a block"));
        }
        let words = |bytes: &[u8]| if bytes.is_empty() { Ok(Vec::new()) } else { from_planes(bytes, rows) };
        Ok(Self {
            table: TableId(message.table_id),
            operation: Operation::from_wire(message.operation)
                .ok_or(BatchError::Malformed("an unknown operation"))?,
            columns,
            changed_at: words(&message.changed_at)?.into_iter().map(u64::cast_signed).collect(),
            ticks: words(&message.ticks)?.into_iter().map(Tick).collect(),
            births: words(&message.births)?.into_iter().map(Tick).collect(),
        })
    }
}
