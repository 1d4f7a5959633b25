//! A look at a batch's outline before it is decoded: 16 MiB of empty blocks would decode to 2 GiB.

use bytes::Buf;

use super::BatchError;
use crate::limits;

const BLOCKS_FIELD: u64 = 1;
const COLUMNS_FIELD: u64 = 4;
const LENGTHS_FIELD: u64 = 5;
const ANY_FIELD: u64 = 6;
/// Of an AnyVector: text_lengths and blob_lengths.
const ANY_LENGTHS_FIELDS: [u64; 2] = [5, 7];
const BROKEN: BatchError = BatchError::Malformed("its outline");

/// Counts blocks, columns of each, and lengths of cells, without decoding them: a length takes a byte here and four once
/// it is decoded.
///
/// # Errors
/// If there are more than may be, or the form is broken.
pub(super) fn check_outline(content: &[u8], cells_max: u64) -> Result<(), BatchError> {
    let (mut blocks, mut lengths) = (0, 0);
    fields(content, |field, block| {
        let (BLOCKS_FIELD, Some(block)) = (field, block) else { return Ok(()) };
        blocks += 1;
        if blocks > limits::BATCH_BLOCKS_MAX {
            return Err(BatchError::TooLarge("blocks"));
        }
        let mut columns = 0;
        fields(block, |field, column| {
            let (COLUMNS_FIELD, Some(column)) = (field, column) else { return Ok(()) };
            columns += 1;
            if columns > limits::BLOCK_COLUMNS_MAX {
                return Err(BatchError::TooLarge("columns"));
            }
            lengths += lengths_of(column)?;
            if lengths > cells_max { Err(BatchError::TooLarge("cells")) } else { Ok(()) }
        })
    })
}

/// The lengths that a column's vectors hold.
fn lengths_of(column: &[u8]) -> Result<u64, BatchError> {
    let mut lengths = 0;
    fields(column, |field, value| {
        match (field, value) {
            (LENGTHS_FIELD, value) => lengths += numbers(value),
            (ANY_FIELD, Some(any)) => fields(any, |field, value| {
                if ANY_LENGTHS_FIELDS.contains(&field) {
                    lengths += numbers(value);
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(lengths)
}

/// The numbers of a packed field, or of one that stands alone.
fn numbers(packed: Option<&[u8]>) -> u64 {
    packed.map_or(1, |packed| packed.iter().filter(|byte| **byte < 0x80).count() as u64)
}

/// Calls `visit` with the number of each field of a message, and with the bytes of those that are length-delimited.
fn fields(
    mut message: &[u8],
    mut visit: impl FnMut(u64, Option<&[u8]>) -> Result<(), BatchError>,
) -> Result<(), BatchError> {
    while message.has_remaining() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                varint(&mut message)?;
                visit(key >> 3, None)?;
            }
            1 => skip(&mut message, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| BROKEN)?;
                let bytes = message.get(..length).ok_or(BROKEN)?;
                visit(key >> 3, Some(bytes))?;
                message.advance(length);
            }
            5 => skip(&mut message, 4)?,
            _ => return Err(BROKEN),
        }
    }
    Ok(())
}

fn varint(message: &mut &[u8]) -> Result<u64, BatchError> {
    prost::encoding::decode_varint(message).map_err(|_| BROKEN)
}

fn skip(message: &mut &[u8], bytes: usize) -> Result<(), BatchError> {
    if message.remaining() < bytes {
        return Err(BROKEN);
    }
    message.advance(bytes);
    Ok(())
}
