//! The canonical bytes of a key: one form for a key everywhere, comparable byte by byte.

use bytes::Bytes;

use super::{CanonicalType, Cell, NAN_BITS, Value};

/// A key that can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key's cell is NULL.
    #[error("a key must not hold NULL")]
    Null,
    /// The bytes are no key.
    #[error("the key's bytes are not well-formed")]
    Malformed,
}

/// The canonical bytes of a key, as `Block` of the protocol describes them. Their order is that of the cells.
///
/// # Errors
/// [`KeyError::Null`].
pub fn key_bytes<'a>(cells: impl IntoIterator<Item = Cell<'a>>) -> Result<Bytes, KeyError> {
    let mut key = Vec::with_capacity(24);
    for cell in cells {
        push(&mut key, cell)?;
    }
    Ok(Bytes::from(key))
}

/// The cells of a key, from its canonical bytes.
///
/// # Errors
/// [`KeyError::Malformed`].
pub fn key_cells(mut key: &[u8]) -> Result<Vec<Value>, KeyError> {
    let mut cells = Vec::new();
    while let Some((&tag, rest)) = key.split_first() {
        let ty = CanonicalType::from_wire(i32::from(tag)).ok_or(KeyError::Malformed)?;
        let (value, rest) = pull(ty, rest)?;
        cells.push(value);
        key = rest;
    }
    Ok(cells)
}

fn push(key: &mut Vec<u8>, cell: Cell<'_>) -> Result<(), KeyError> {
    use CanonicalType as T;
    match cell {
        Cell::Null => return Err(KeyError::Null),
        Cell::Bool(value) => key.extend([tag(T::Bool), u8::from(value)]),
        Cell::Int64(value) => signed(key, T::Int64, value),
        Cell::Uint64(value) => fixed(key, T::Uint64, value),
        Cell::Float64(value) => fixed(key, T::Float64, ordered_bits(value)),
        Cell::Date(value) => signed(key, T::Date, value),
        Cell::Time(value) => signed(key, T::Time, value),
        Cell::Timestamp(value) => signed(key, T::Timestamp, value),
        Cell::Timestamptz(value) => signed(key, T::Timestamptz, value),
        Cell::Uuid(value) => {
            key.push(tag(T::Uuid));
            key.extend(value);
        }
        Cell::Decimal(text) => variable(key, T::Decimal, text.as_bytes()),
        Cell::Text(text) => variable(key, T::Text, text.as_bytes()),
        Cell::Json(text) => variable(key, T::Json, text.as_bytes()),
        Cell::Bytes(bytes) => variable(key, T::Bytes, bytes),
    }
    Ok(())
}

const fn tag(ty: CanonicalType) -> u8 {
    ty.wire() as i32 as u8
}

fn fixed(key: &mut Vec<u8>, ty: CanonicalType, value: u64) {
    key.push(tag(ty));
    key.extend(value.to_be_bytes());
}

fn signed(key: &mut Vec<u8>, ty: CanonicalType, value: i64) {
    fixed(key, ty, value.cast_unsigned() ^ (1 << 63));
}

/// Bits that order like the number: the sign inverted for positive ones, all for negative ones.
fn ordered_bits(value: f64) -> u64 {
    let value = if value == 0.0 { 0.0 } else { value };
    let bits = if value.is_nan() { NAN_BITS } else { value.to_bits() };
    if bits >> 63 == 0 { bits ^ (1 << 63) } else { !bits }
}

fn variable(key: &mut Vec<u8>, ty: CanonicalType, bytes: &[u8]) {
    key.push(tag(ty));
    for &byte in bytes {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend([0, 0]);
}

fn pull(ty: CanonicalType, rest: &[u8]) -> Result<(Value, &[u8]), KeyError> {
    use CanonicalType as T;
    match ty {
        T::Bool => {
            let (byte, rest) = rest.split_first().ok_or(KeyError::Malformed)?;
            Ok((Value::Bool(*byte != 0), rest))
        }
        T::Uuid => {
            let (bytes, rest) = rest.split_first_chunk::<16>().ok_or(KeyError::Malformed)?;
            Ok((Value::Uuid(*bytes), rest))
        }
        T::Decimal | T::Text | T::Json | T::Bytes => {
            let (bytes, rest) = pull_variable(rest)?;
            Ok((from_bytes(ty, bytes)?, rest))
        }
        T::Any => Err(KeyError::Malformed),
        T::Int64 | T::Uint64 | T::Float64 | T::Date | T::Time | T::Timestamp | T::Timestamptz => {
            let (bytes, rest) = rest.split_first_chunk::<8>().ok_or(KeyError::Malformed)?;
            Ok((from_bits(ty, u64::from_be_bytes(*bytes)), rest))
        }
    }
}

fn pull_variable(rest: &[u8]) -> Result<(Vec<u8>, &[u8]), KeyError> {
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        match (rest.get(at), rest.get(at + 1)) {
            (Some(0), Some(0)) => return Ok((bytes, &rest[at + 2..])),
            (Some(0), Some(0xff)) => {
                bytes.push(0);
                at += 2;
            }
            (Some(0) | None, _) => return Err(KeyError::Malformed),
            (Some(&byte), _) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
}

fn from_bytes(ty: CanonicalType, bytes: Vec<u8>) -> Result<Value, KeyError> {
    if ty == CanonicalType::Bytes {
        return Ok(Value::Bytes(bytes));
    }
    let text = String::from_utf8(bytes).map_err(|_| KeyError::Malformed)?;
    Ok(match ty {
        CanonicalType::Decimal => Value::Decimal(text),
        CanonicalType::Json => Value::Json(text),
        _ => Value::Text(text),
    })
}

fn from_bits(ty: CanonicalType, bits: u64) -> Value {
    let integer = (bits ^ (1 << 63)).cast_signed();
    match ty {
        CanonicalType::Uint64 => Value::Uint64(bits),
        CanonicalType::Float64 => {
            Value::Float64(f64::from_bits(if bits >> 63 == 1 { bits ^ (1 << 63) } else { !bits }))
        }
        CanonicalType::Date => Value::Date(integer),
        CanonicalType::Time => Value::Time(integer),
        CanonicalType::Timestamp => Value::Timestamp(integer),
        CanonicalType::Timestamptz => Value::Timestamptz(integer),
        _ => Value::Int64(integer),
    }
}
