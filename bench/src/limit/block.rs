//! Rows on their way from one thread to the other: as SQLite keeps them, without an allocation a row.

use anyhow::Result;
use syncline::value::parse_timestamptz;

use crate::copy::Cells;
use crate::rows::{read_uuid, write_time, write_uuid};

/// Rows of a block.
pub(super) const BLOCK_ROWS: usize = 2_048;
/// Blocks that wait between the threads.
pub(super) const BLOCKS_WAITING: usize = 4;

/// The cells of a row as SQLite keeps them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) id: &'a str,
    pub(super) number: i64,
    pub(super) quantity: i64,
    pub(super) price: f64,
    pub(super) active: bool,
    pub(super) changed_at: &'a str,
    pub(super) name: &'a str,
    pub(super) note: &'a str,
}

/// Some rows.
#[derive(Debug, Default)]
pub(super) struct RowBlock {
    numbers: Vec<Numbers>,
    text: String,
}

#[derive(Debug, Clone, Copy)]
struct Numbers {
    number: i64,
    quantity: i64,
    price: f64,
    active: bool,
    /// Where id, time, name and note end in the text.
    ends: [usize; 4],
}

impl RowBlock {
    /// An empty block with room for a block's rows.
    pub(super) fn with_room() -> Self {
        Self { numbers: Vec::with_capacity(BLOCK_ROWS), text: String::with_capacity(BLOCK_ROWS * 192) }
    }

    /// Whether it should be handed on.
    pub(super) fn is_full(&self) -> bool {
        self.numbers.len() >= BLOCK_ROWS
    }

    /// Adds a row from SQLite.
    pub(super) fn push(&mut self, row: &Stored<'_>) {
        let ends = [row.id, row.changed_at, row.name, row.note].map(|text| {
            self.text.push_str(text);
            self.text.len()
        });
        let Stored { number, quantity, price, active, .. } = *row;
        self.numbers.push(Numbers { number, quantity, price, active, ends });
    }

    /// Adds a row from PostgreSQL.
    pub(super) fn push_cells(&mut self, cells: &Cells<'_>, scratch: &mut Vec<u8>) -> Result<()> {
        scratch.clear();
        write_uuid(&cells.id, scratch);
        write_time(cells.changed_at, scratch);
        let (id, changed_at) = std::str::from_utf8(scratch)?.split_at(36);
        self.push(&Stored {
            id,
            number: cells.number,
            quantity: cells.quantity,
            price: cells.price,
            active: cells.active,
            changed_at,
            name: std::str::from_utf8(cells.name)?,
            note: std::str::from_utf8(cells.note)?,
        });
        Ok(())
    }

    /// The rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = Stored<'_>> {
        let mut start = 0;
        self.numbers.iter().map(move |numbers| {
            let [id, changed_at, name, note] = numbers.ends.map(|end| {
                let text = &self.text[start..end];
                start = end;
                text
            });
            let Numbers { number, quantity, price, active, .. } = *numbers;
            Stored { id, number, quantity, price, active, changed_at, name, note }
        })
    }
}

impl<'a> Stored<'a> {
    /// The cells as PostgreSQL takes them.
    pub(super) fn cells(&self) -> Result<Cells<'a>> {
        let changed_at = parse_timestamptz(self.changed_at);
        Ok(Cells {
            id: read_uuid(self.id.as_bytes())?,
            number: self.number,
            quantity: self.quantity,
            price: self.price,
            active: self.active,
            changed_at: changed_at.ok_or_else(|| anyhow::anyhow!("not a time: {}", self.changed_at))?,
            name: self.name.as_bytes(),
            note: self.note.as_bytes(),
        })
    }
}
