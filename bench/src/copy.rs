//! Rows in PostgreSQL's binary COPY format.

use anyhow::{Result, bail, ensure};

use crate::rows::Row;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const FIELDS: i16 = 8;
/// 2000-01-01, where PostgreSQL's times begin.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The cells of a row, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cells<'a> {
    pub(crate) id: [u8; 16],
    pub(crate) number: i64,
    pub(crate) quantity: i64,
    pub(crate) price: f64,
    pub(crate) active: bool,
    pub(crate) changed_at: i64,
    pub(crate) name: &'a [u8],
    pub(crate) note: &'a [u8],
}

impl<'a> From<&'a Row> for Cells<'a> {
    fn from(row: &'a Row) -> Self {
        Self {
            id: row.id,
            number: row.number,
            quantity: row.quantity,
            price: row.price,
            active: row.active,
            changed_at: row.changed_at,
            name: row.name.as_bytes(),
            note: row.note.as_bytes(),
        }
    }
}

/// Begins a stream.
pub(crate) fn write_header(bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(SIGNATURE);
    bytes.extend_from_slice(&[0; 8]);
}

/// Ends a stream.
pub(crate) fn write_trailer(bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(-1_i16).to_be_bytes());
}

/// Adds a row.
pub(crate) fn write_row(cells: &Cells<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.extend_from_slice(&FIELDS.to_be_bytes());
    write_field(&cells.id, bytes)?;
    write_field(&cells.number.to_be_bytes(), bytes)?;
    write_field(&i32::try_from(cells.quantity)?.to_be_bytes(), bytes)?;
    write_field(&cells.price.to_be_bytes(), bytes)?;
    write_field(&[u8::from(cells.active)], bytes)?;
    write_field(&(cells.changed_at - EPOCH_MICROS).to_be_bytes(), bytes)?;
    write_field(cells.name, bytes)?;
    write_field(cells.note, bytes)
}

fn write_field(field: &[u8], bytes: &mut Vec<u8>) -> Result<()> {
    bytes.extend_from_slice(&i32::try_from(field.len())?.to_be_bytes());
    bytes.extend_from_slice(field);
    Ok(())
}

/// Reads a stream that arrives in pieces.
#[derive(Default)]
pub(crate) struct Reader {
    begun: bool,
}

impl Reader {
    /// Takes one row off the front of `bytes`; `None` at the end of the stream. PostgreSQL sends rows whole.
    pub(crate) fn row<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Cells<'a>>> {
        if !self.begun {
            ensure!(take(bytes, SIGNATURE.len())? == SIGNATURE, "not a binary COPY");
            take(bytes, 8)?;
            self.begun = true;
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        match i16::from_be_bytes(array(take(bytes, 2)?)?) {
            -1 => return Ok(None),
            FIELDS => {}
            other => bail!("{other} fields"),
        }
        Ok(Some(Cells {
            id: array(field(bytes)?)?,
            number: i64::from_be_bytes(array(field(bytes)?)?),
            quantity: i64::from(i32::from_be_bytes(array(field(bytes)?)?)),
            price: f64::from_be_bytes(array(field(bytes)?)?),
            active: field(bytes)? == [1],
            changed_at: i64::from_be_bytes(array(field(bytes)?)?) + EPOCH_MICROS,
            name: field(bytes)?,
            note: field(bytes)?,
        }))
    }
}

fn field<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = i32::from_be_bytes(array(take(bytes, 4)?)?);
    take(bytes, usize::try_from(length)?)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let Some((taken, rest)) = bytes.split_at_checked(length) else { bail!("a row that is cut off") };
    *bytes = rest;
    Ok(taken)
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    Ok(bytes.try_into()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rows::Rows;

    #[test]
    fn rows_come_back() {
        let rows: Vec<_> = Rows::first(100).collect();
        let mut bytes = Vec::new();
        write_header(&mut bytes);
        for row in &rows {
            write_row(&row.into(), &mut bytes).unwrap();
        }
        write_trailer(&mut bytes);
        let (mut reader, mut rest) = (Reader::default(), bytes.as_slice());
        for row in &rows {
            assert_eq!(reader.row(&mut rest).unwrap(), Some(row.into()));
        }
        assert_eq!(reader.row(&mut rest).unwrap(), None);
        assert!(rest.is_empty());
    }
}
