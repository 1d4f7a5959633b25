//! Declared types, canonical types, and what is stored: both ways, without loss.
//!
//! **Invariant:** [`typed_cell`] answers a cell only if [`stored`] makes the very same stored value of it, storage
//! class included. All else travels as `any`, which is what is stored.

use rusqlite::types::{ToSqlOutput, Value as Stored, ValueRef};
use syncline::value::{
    CanonicalType, Cell, Value, parse_date, parse_time, parse_timestamp, parse_timestamptz, write_date,
    write_time, write_timestamp, write_timestamptz,
};

use crate::dialect::canonical::{is_decimal, parse_uuid};

/// Up to here SQLite makes integers of whole numbers, where a column prefers them.
const REAL_AS_INTEGER_MAX: f64 = 2_251_799_813_685_248.0;
/// Digits that a double holds of any decimal number.
const EXACT_DIGITS: usize = 15;

/// What SQLite makes of a value that is stored in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    Integer,
    Real,
    Numeric,
    Text,
    Blob,
}

impl Affinity {
    /// By SQLite's own five rules.
    pub(super) fn of(declared: &str) -> Self {
        let name = declared.to_ascii_uppercase();
        let has = |part: &str| name.contains(part);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || name.is_empty() {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Real | Self::Numeric)
    }

    /// Whether a column certainly stores a value as it was bound: text that may be read as a number is not told of.
    /// (<https://sqlite.org/datatype3.html#type_affinity>)
    pub(super) fn keeps(self, value: ValueRef<'_>) -> bool {
        match value {
            ValueRef::Null | ValueRef::Blob(_) => true,
            ValueRef::Integer(_) => matches!(self, Self::Integer | Self::Numeric | Self::Blob),
            ValueRef::Real(_) => matches!(self, Self::Real | Self::Blob),
            ValueRef::Text(text) => {
                let number =
                    || std::str::from_utf8(text).map_or(true, |text| text.trim().parse::<f64>().is_ok());
                !self.is_numeric() || !number()
            }
        }
    }
}

/// How a column of this database holds values of its canonical type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) ty: CanonicalType,
    pub(super) affinity: Affinity,
    /// Digits after the point, for decimals of a fixed form.
    pub(super) scale: Option<u32>,
}

/// The canonical type of a declared one, with digits in all and after the point. Names are matched as users write them.
pub(super) fn canonical_type(declared: &str) -> (CanonicalType, Option<(u32, u32)>) {
    use CanonicalType as T;
    let upper = declared.to_ascii_uppercase();
    let (name, arguments) = upper.split_once('(').unwrap_or((&upper, ""));
    let words: Vec<&str> = name.split_ascii_whitespace().collect();
    let any_word = |test: &dyn Fn(&str) -> bool| words.iter().any(|word| test(word));
    let first = words.first().copied().unwrap_or_default();
    let ty = if any_word(&|word| (word.starts_with("INT") && word != "INTERVAL") || is_sized_int(word)) {
        T::Int64
    } else if first.starts_with("BOOL") {
        T::Bool
    } else if any_word(&|word| word.contains("CHAR") || word.contains("CLOB") || word.contains("TEXT")) {
        T::Text
    } else if any_word(&|word| word.contains("BLOB")) {
        T::Bytes
    } else if first.starts_with("REAL") || first.starts_with("FLOAT") || first.starts_with("DOUBLE") {
        T::Float64
    } else if matches!(first, "DEC" | "DECIMAL" | "NUMERIC") {
        return decimal_type(arguments);
    } else if first == "TIMESTAMPTZ" || (first == "TIMESTAMP" && words.get(1) == Some(&"WITH")) {
        T::Timestamptz
    } else {
        match first {
            "DATE" => T::Date,
            "TIME" => T::Time,
            "DATETIME" | "TIMESTAMP" => T::Timestamp,
            "UUID" => T::Uuid,
            "JSON" => T::Json,
            _ => T::Any,
        }
    };
    (ty, None)
}

fn is_sized_int(word: &str) -> bool {
    matches!(word, "BIGINT" | "SMALLINT" | "TINYINT" | "MEDIUMINT")
}

/// A decimal whose digits SQLite's numbers hold exactly; any other is carried as what is stored, so that a leaf can
/// still compare and sum it as a number.
fn decimal_type(arguments: &str) -> (CanonicalType, Option<(u32, u32)>) {
    let mut numbers =
        arguments.trim_end_matches(')').split(',').map(|number| number.trim().parse::<u32>().ok());
    let precision = numbers.next().flatten();
    let scale = match numbers.next() {
        None => Some(0),
        Some(scale) => scale,
    };
    match (precision, scale) {
        (Some(precision), Some(scale))
            if precision as usize <= EXACT_DIGITS && scale <= precision && precision > 0 =>
        {
            (CanonicalType::Decimal, Some((precision, scale)))
        }
        _ => (CanonicalType::Any, None),
    }
}

/// What a column of a leaf is declared as when we create it.
pub(super) fn declared_type(ty: CanonicalType, precision_scale: Option<(u32, u32)>) -> String {
    use CanonicalType as T;
    match (ty, precision_scale) {
        (T::Decimal, Some((precision, scale))) if precision as usize <= EXACT_DIGITS => {
            return format!("DECIMAL({precision},{scale})");
        }
        (T::Bool, _) => "BOOLEAN",
        (T::Int64 | T::Uint64, _) => "INTEGER",
        (T::Float64, _) => "REAL",
        (T::Decimal | T::Text | T::Json, _) => "TEXT",
        (T::Bytes, _) => "BLOB",
        (T::Date, _) => "DATE",
        (T::Time, _) => "TIME",
        (T::Timestamp, _) => "TIMESTAMP",
        (T::Timestamptz, _) => "TIMESTAMPTZ",
        (T::Uuid, _) => "UUID",
        (T::Any, _) => "",
    }
    .to_owned()
}

/// The cell of a stored value, if [`stored`] would make the very same of it. `scratch` lends room for text.
pub(super) fn typed_cell<'a>(form: Form, value: ValueRef<'a>, scratch: &'a mut String) -> Option<Cell<'a>> {
    use CanonicalType as T;
    match (form.ty, value) {
        (_, ValueRef::Null) => Some(Cell::Null),
        (T::Any, value) => any_cell(value),
        (T::Int64, ValueRef::Integer(value)) => Some(Cell::Int64(value)),
        (T::Uint64, ValueRef::Integer(value)) => u64::try_from(value).ok().map(Cell::Uint64),
        (T::Bool, ValueRef::Integer(value @ (0 | 1))) => Some(Cell::Bool(value == 1)),
        (T::Float64, ValueRef::Real(value)) => Some(Cell::Float64(value)),
        (T::Bytes, ValueRef::Blob(value)) => Some(Cell::Bytes(value)),
        (T::Decimal, ValueRef::Integer(value)) if form.affinity.is_numeric() => {
            *scratch = fixed_integer(value, form.scale.unwrap_or(0));
            Some(Cell::Decimal(scratch))
        }
        (T::Decimal, ValueRef::Real(value)) if form.affinity.is_numeric() => {
            *scratch = fixed_real(value, form.scale)?;
            Some(Cell::Decimal(scratch))
        }
        (_, ValueRef::Text(text)) => text_cell(form, std::str::from_utf8(text).ok()?),
        _ => None,
    }
}

fn text_cell(form: Form, text: &str) -> Option<Cell<'_>> {
    use CanonicalType as T;
    Some(match form.ty {
        T::Text => Cell::Text(text),
        T::Json => Cell::Json(text),
        T::Date => Cell::Date(parse_date(text)?),
        T::Time => Cell::Time(parse_time(text)?),
        T::Timestamp => Cell::Timestamp(parse_timestamp(text)?),
        T::Timestamptz => Cell::Timestamptz(parse_timestamptz(text)?),
        T::Uuid => Cell::Uuid(parse_uuid(text)?),
        T::Decimal if !form.affinity.is_numeric() && is_decimal(text) => Cell::Decimal(text),
        _ => return None,
    })
}

/// The cell of a stored value as it is; `None` for text that is not UTF-8, which has no form that travels.
pub(super) fn any_cell(value: ValueRef<'_>) -> Option<Cell<'_>> {
    Some(match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(value) => Cell::Int64(value),
        ValueRef::Real(value) => Cell::Float64(value),
        ValueRef::Text(text) => Cell::Text(std::str::from_utf8(text).ok()?),
        ValueRef::Blob(bytes) => Cell::Bytes(bytes),
    })
}

/// A stored value on its own: typed where that is exact, else as it is. One stored value has one such form, so it names
/// keys whatever type a block sent them as.
pub(super) fn single_value(form: Form, value: ValueRef<'_>) -> Option<Value> {
    let mut scratch = String::new();
    if let Some(cell) = typed_cell(form, value, &mut scratch) {
        return Some(cell.to_value());
    }
    any_cell(value).map(|cell| cell.to_value())
}

/// A cell that a column of this database can't hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unstorable {
    #[error("SQLite has no NaN")]
    NotANumber,
    #[error("the number is beyond 64 bits with sign")]
    TooLarge,
    #[error("the number has more digits than the column holds")]
    TooManyDigits,
    #[error("the column would store this key as another value")]
    OtherKey,
}

/// As [`stored`]; `scratch` lends room for text, so that nothing is allocated.
pub(super) fn stored_in<'a>(
    form: Form,
    cell: Cell<'a>,
    scratch: &'a mut String,
) -> Result<ToSqlOutput<'a>, Unstorable> {
    scratch.clear();
    if write_text(cell, scratch) {
        return Ok(ToSqlOutput::Borrowed(ValueRef::Text(scratch.as_bytes())));
    }
    stored(form, cell)
}

/// Adds the text of a cell whose type SQLite has only as text. Answers `false` for all others.
fn write_text(cell: Cell<'_>, text: &mut String) -> bool {
    match cell {
        Cell::Date(days) => write_date(text, days),
        Cell::Time(micros) => write_time(text, micros),
        Cell::Timestamp(micros) => write_timestamp(text, micros),
        Cell::Timestamptz(micros) => write_timestamptz(text, micros),
        Cell::Uuid(bytes) => {
            let mut digits = [0; uuid::fmt::Hyphenated::LENGTH];
            text.push_str(uuid::Uuid::from_bytes(bytes).hyphenated().encode_lower(&mut digits));
        }
        _ => return false,
    }
    true
}

/// What is bound for a cell, typed or `any`.
pub(super) fn stored(form: Form, cell: Cell<'_>) -> Result<ToSqlOutput<'_>, Unstorable> {
    let borrowed = |value| Ok(ToSqlOutput::Borrowed(value));
    let text = |text: String| Ok(ToSqlOutput::Owned(Stored::Text(text)));
    match cell {
        Cell::Null => borrowed(ValueRef::Null),
        Cell::Bool(value) => borrowed(ValueRef::Integer(i64::from(value))),
        // What SQLite would do itself; done here so that keys are found in our tables too, which have no affinity.
        Cell::Int64(value) if form.affinity == Affinity::Text => text(value.to_string()),
        Cell::Int64(value) => borrowed(ValueRef::Integer(value)),
        Cell::Uint64(value) => {
            borrowed(ValueRef::Integer(i64::try_from(value).map_err(|_| Unstorable::TooLarge)?))
        }
        Cell::Float64(value) if value.is_nan() => Err(Unstorable::NotANumber),
        Cell::Float64(value) => borrowed(ValueRef::Real(value)),
        Cell::Decimal(digits) if form.affinity.is_numeric() => stored_decimal(digits),
        Cell::Decimal(value) | Cell::Text(value) | Cell::Json(value) => {
            borrowed(ValueRef::Text(value.as_bytes()))
        }
        Cell::Bytes(value) => borrowed(ValueRef::Blob(value)),
        Cell::Date(_) | Cell::Time(_) | Cell::Timestamp(_) | Cell::Timestamptz(_) | Cell::Uuid(_) => {
            let mut written = String::with_capacity(uuid::fmt::Hyphenated::LENGTH);
            write_text(cell, &mut written);
            text(written)
        }
    }
}

/// The cell as `any` carries it: what [`stored`] binds.
pub(super) fn stored_value(form: Form, cell: Cell<'_>) -> Value {
    match stored(form, cell) {
        Ok(value) => any_cell(as_ref(&value)).map_or(Value::Null, |cell| cell.to_value()),
        // Cells that came from this database are storable in it.
        Err(_) => cell.to_value(),
    }
}

/// Whether a key's column stores a value as it is bound, or as one that counts as the same key. A row under another key would
/// be two rows for whoever sent it. (<https://sqlite.org/datatype3.html#type_affinity>)
pub(super) fn keeps_key(form: Form, value: ValueRef<'_>) -> bool {
    let kept = match (form.affinity, value) {
        (affinity, ValueRef::Text(text)) if affinity.is_numeric() => {
            let number = |text: &str| {
                text.trim().parse::<f64>().is_ok() && text.contains(|c: char| c.is_ascii_digit())
            };
            return std::str::from_utf8(text).is_ok_and(|text| !number(text));
        }
        (Affinity::Text, ValueRef::Integer(_) | ValueRef::Real(_)) => return false,
        (Affinity::Real, ValueRef::Integer(value)) => ValueRef::Real(value as f64),
        (Affinity::Integer | Affinity::Numeric, ValueRef::Real(value))
            if value.fract() == 0.0 && value.abs() <= REAL_AS_INTEGER_MAX =>
        {
            ValueRef::Integer(value as i64)
        }
        _ => return true,
    };
    single_value(form, value) == single_value(form, kept)
}

/// Whether keys of a type can be told apart in a column: the type is not the column's own, it was chosen.
pub(super) fn may_be_key(form: Form) -> bool {
    use CanonicalType as T;
    match form.ty {
        T::Bool | T::Int64 | T::Uint64 | T::Float64 => form.affinity != Affinity::Text,
        T::Text | T::Json => !form.affinity.is_numeric(),
        _ => true,
    }
}

/// The value that is bound.
pub(super) fn as_ref<'a>(value: &'a ToSqlOutput<'a>) -> ValueRef<'a> {
    match value {
        ToSqlOutput::Borrowed(value) => *value,
        ToSqlOutput::Owned(value) => value.into(),
        // `stored` makes no others.
        _ => ValueRef::Null,
    }
}

fn stored_decimal(digits: &str) -> Result<ToSqlOutput<'_>, Unstorable> {
    if !is_decimal(digits) || !digits.ends_with(|last: char| last.is_ascii_digit()) {
        return Err(Unstorable::NotANumber);
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if let Ok(integer) = whole.parse::<i64>()
        && fraction.bytes().all(|digit| digit == b'0')
        && digits != "-0"
    {
        return Ok(ToSqlOutput::Borrowed(ValueRef::Integer(integer)));
    }
    let number: f64 = digits.parse().map_err(|_| Unstorable::NotANumber)?;
    // A number with another count of digits after the point is the same number; one that changes is refused.
    let trimmed = digits.trim_end_matches('0');
    let exact = fixed_real(number, None).is_some_and(|text| text.trim_end_matches('0') == trimmed);
    if exact { Ok(ToSqlOutput::Borrowed(ValueRef::Real(number))) } else { Err(Unstorable::TooManyDigits) }
}

fn fixed_integer(value: i64, scale: u32) -> String {
    let mut text = value.to_string();
    if scale > 0 {
        text.push('.');
        text.extend(std::iter::repeat_n('0', scale as usize));
    }
    text
}

/// The text of a number that is no integer, if it comes back as the same number.
fn fixed_real(value: f64, scale: Option<u32>) -> Option<String> {
    // Whole numbers are integers under numeric affinity: as text they would come back so.
    if !value.is_finite() || value.fract() == 0.0 || value.abs() >= 1e15 || value.abs() < 1e-15 {
        return None;
    }
    let text = match scale {
        Some(scale) => format!("{value:.*}", scale as usize),
        None => format!("{value}"),
    };
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let leading = text
        .bytes()
        .take_while(|byte| matches!(byte, b'-' | b'0' | b'.'))
        .filter(|byte| *byte == b'0')
        .count();
    let same = text.parse::<f64>().is_ok_and(|back| back.to_bits() == value.to_bits());
    (same && digits - leading <= EXACT_DIGITS).then_some(text)
}
