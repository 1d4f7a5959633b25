//! Canonical values: what a cell is, whatever database it came from.

mod key;
mod temporal;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

pub use key::{KeyError, key_bytes, key_cells};
pub use temporal::{
    format_date, format_time, format_timestamp, format_timestamptz, parse_date, parse_time, parse_timestamp,
    parse_timestamptz, write_date, write_time, write_timestamp, write_timestamptz,
};

use crate::pb;

/// The one bit pattern that every NaN is sent as.
pub const NAN_BITS: u64 = 0x7ff8_0000_0000_0000;
/// `-infinity` of dates and time stamps.
pub const NEGATIVE_INFINITY: i64 = i64::MIN;
/// `infinity` of dates and time stamps.
pub const POSITIVE_INFINITY: i64 = i64::MAX;

macro_rules! types {
    ($($(#[$doc:meta])* $name:ident = $wire:ident, $text:literal;)*) => {
        /// The canonical type of a column: fixed by the hub when the scope is defined.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum CanonicalType { $($(#[$doc])* $name),* }

        impl CanonicalType {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            /// Its name in scope files.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
            /// The number in the protocol's enum.
            #[must_use]
            pub const fn wire(self) -> pb::CanonicalType {
                match self { $(Self::$name => pb::CanonicalType::$wire),* }
            }
        }
    };
}

types! {
    /// true or false.
    Bool = Bool, "bool";
    /// A signed 64-bit integer.
    Int64 = Int64, "int64";
    /// An unsigned 64-bit integer.
    Uint64 = Uint64, "uint64";
    /// An IEEE 754 double.
    Float64 = Float64, "float64";
    /// A decimal number in text form, scale kept; NaN and infinities allowed.
    Decimal = Decimal, "decimal";
    /// Text.
    Text = Text, "text";
    /// Bytes.
    Bytes = Bytes, "bytes";
    /// Days since 1970-01-01.
    Date = Date, "date";
    /// Microseconds since midnight.
    Time = Time, "time";
    /// Microseconds since 1970, without zone.
    Timestamp = Timestamp, "timestamp";
    /// Microseconds since 1970 UTC.
    Timestamptz = Timestamptz, "timestamptz";
    /// A UUID.
    Uuid = Uuid, "uuid";
    /// JSON in text form.
    Json = Json, "json";
    /// A tagged value per cell.
    Any = Any, "any";
}

impl CanonicalType {
    /// The type of this number in the protocol's enum.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|ty| ty.wire() as i32 == number)
    }

    /// The type of this name in scope files.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|ty| ty.as_str() == name)
    }
}

/// One cell, borrowed. In a column of type `any`, cells are `Null`, `Int64`, `Float64`, `Text` or `Bytes`.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the variants are CanonicalType's
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int64(i64),
    Uint64(u64),
    Float64(f64),
    Decimal(&'a str),
    Text(&'a str),
    Bytes(&'a [u8]),
    Date(i64),
    Time(i64),
    Timestamp(i64),
    Timestamptz(i64),
    Uuid([u8; 16]),
    Json(&'a str),
}

/// One cell, owned.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)] // the variants are CanonicalType's
pub enum Value {
    Null,
    Bool(bool),
    Int64(i64),
    Uint64(u64),
    Float64(f64),
    Decimal(String),
    Text(String),
    Bytes(Vec<u8>),
    Date(i64),
    Time(i64),
    Timestamp(i64),
    Timestamptz(i64),
    Uuid([u8; 16]),
    Json(String),
}

impl Value {
    /// The cell.
    #[must_use]
    pub fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Bool(value) => Cell::Bool(*value),
            Self::Int64(value) => Cell::Int64(*value),
            Self::Uint64(value) => Cell::Uint64(*value),
            Self::Float64(value) => Cell::Float64(*value),
            Self::Decimal(value) => Cell::Decimal(value),
            Self::Text(value) => Cell::Text(value),
            Self::Bytes(value) => Cell::Bytes(value),
            Self::Date(value) => Cell::Date(*value),
            Self::Time(value) => Cell::Time(*value),
            Self::Timestamp(value) => Cell::Timestamp(*value),
            Self::Timestamptz(value) => Cell::Timestamptz(*value),
            Self::Uuid(value) => Cell::Uuid(*value),
            Self::Json(value) => Cell::Json(value),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cell() == other.cell()
    }
}

impl PartialEq for Cell<'_> {
    /// Equal content: the same canonical value. NaN equals NaN, and zero equals negative zero (whose sign not every
    /// database keeps).
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int64(a), Self::Int64(b))
            | (Self::Date(a), Self::Date(b))
            | (Self::Time(a), Self::Time(b))
            | (Self::Timestamp(a), Self::Timestamp(b))
            | (Self::Timestamptz(a), Self::Timestamptz(b)) => a == b,
            (Self::Uint64(a), Self::Uint64(b)) => a == b,
            (Self::Float64(a), Self::Float64(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Self::Decimal(a), Self::Decimal(b))
            | (Self::Text(a), Self::Text(b))
            | (Self::Json(a), Self::Json(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Uuid(a), Self::Uuid(b)) => a == b,
            _ => false,
        }
    }
}

impl Cell<'_> {
    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match *self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int64(value) => Value::Int64(value),
            Self::Uint64(value) => Value::Uint64(value),
            Self::Float64(value) => Value::Float64(value),
            Self::Decimal(value) => Value::Decimal(value.to_owned()),
            Self::Text(value) => Value::Text(value.to_owned()),
            Self::Bytes(value) => Value::Bytes(value.to_owned()),
            Self::Date(value) => Value::Date(value),
            Self::Time(value) => Value::Time(value),
            Self::Timestamp(value) => Value::Timestamp(value),
            Self::Timestamptz(value) => Value::Timestamptz(value),
            Self::Uuid(value) => Value::Uuid(value),
            Self::Json(value) => Value::Json(value.to_owned()),
        }
    }

    /// Whether it is NULL.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// As JSON for people and programs: integers beyond ±2^53, decimals, NaN and infinities as strings, bytes as
    /// base64, dates, times and UUIDs as text, JSON as a string.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        const EXACT: u64 = 1 << 53;
        match *self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => value.into(),
            Self::Int64(value) if value.unsigned_abs() <= EXACT => value.into(),
            Self::Int64(value) => value.to_string().into(),
            Self::Uint64(value) if value <= EXACT => value.into(),
            Self::Uint64(value) => value.to_string().into(),
            Self::Float64(value) if value.is_finite() => value.into(),
            Self::Float64(value) if value.is_nan() => "NaN".into(),
            Self::Float64(value) => if value > 0.0 { "Infinity" } else { "-Infinity" }.into(),
            Self::Decimal(text) | Self::Text(text) | Self::Json(text) => text.into(),
            Self::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
            Self::Date(days) => format_date(days).into(),
            Self::Time(micros) => format_time(micros).into(),
            Self::Timestamp(micros) => format_timestamp(micros).into(),
            Self::Timestamptz(micros) => format_timestamptz(micros).into(),
            Self::Uuid(bytes) => uuid::Uuid::from_bytes(bytes).to_string().into(),
        }
    }

    /// The bytes that the cell takes in a decoded batch, lengths included.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 1,
            Self::Uuid(_) => 16,
            Self::Decimal(text) | Self::Text(text) | Self::Json(text) => text.len() + 4,
            Self::Bytes(bytes) => bytes.len() + 4,
            _ => 8,
        }
    }
}

/// A row's named cells as a JSON object, in the columns' order.
pub fn row_json<'a>(cells: impl IntoIterator<Item = (&'a str, Cell<'a>)>) -> serde_json::Value {
    serde_json::Value::Object(
        cells.into_iter().map(|(name, cell)| (name.to_owned(), cell.to_json())).collect(),
    )
}
