//! A look at a batch's outline before it is decoded: 16 MiB of empty blocks would decode to 2 GiB.

use bytes::Buf;

use super::BatchError;
use crate::limits;

const BLOCKS_FIELD: u64 = 1;
const COLUMNS_FIELD: u64 = 4;
const BROKEN: BatchError = BatchError::Malformed("its outline");

/// Counts blocks, and columns of each, without decoding them.
///
/// # Errors
/// If there are more than may be, or the form is broken.
pub(super) fn check_outline(content: &[u8]) -> Result<(), BatchError> {
    let mut blocks = 0;
    fields(content, |field, block| {
        if field != BLOCKS_FIELD {
            return Ok(());
        }
        blocks += 1;
        if blocks > limits::BATCH_BLOCKS_MAX {
            return Err(BatchError::TooLarge("blocks"));
        }
        let mut columns = 0;
        fields(block, |field, _| {
            columns += usize::from(field == COLUMNS_FIELD);
            if columns > limits::BLOCK_COLUMNS_MAX { Err(BatchError::TooLarge("columns")) } else { Ok(()) }
        })
    })
}

/// Calls `visit` with the number and bytes of each length-delimited field of a message.
fn fields(
    mut message: &[u8],
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), BatchError>,
) -> Result<(), BatchError> {
    while message.has_remaining() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                varint(&mut message)?;
            }
            1 => skip(&mut message, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| BROKEN)?;
                let bytes = message.get(..length).ok_or(BROKEN)?;
                visit(key >> 3, bytes)?;
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
