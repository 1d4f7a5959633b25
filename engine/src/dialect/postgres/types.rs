//! What a PostgreSQL column is to the protocol, and the binary form of its cells.
//!
//! Types whose binary form is simple are copied as they are; all others travel as the text that PostgreSQL prints and
//! reads, which the settings of our connections pin.

use syncline::column::Column;
use syncline::value::{
    CanonicalType, Cell, NEGATIVE_INFINITY, POSITIVE_INFINITY, Value, format_date, format_time,
    format_timestamp, format_timestamptz,
};

const MICROS_2000: i64 = 946_684_800_000_000;
const DAYS_2000: i64 = 10_957;

/// The form of a cell in a binary COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Text and its like: the bytes are the text.
    Text,
    Bytea,
    Date,
    /// Times and time stamps: microseconds.
    Micros,
    Uuid,
    /// A version byte, then the text.
    Jsonb,
    /// Everything else, cast to text.
    CastText,
}

/// What a type makes of values that are no error, but not kept as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    /// It keeps all, but for blanks at the end that char(n) adds, which mean nothing to it.
    All,
    /// Floats of 32 bits.
    Reals,
    /// Times that are multiples of so many microseconds.
    Micros(i64),
}

impl Keeps {
    /// Of a type by its name and modifier in the catalogue.
    pub(super) fn of(name: &str, modifier: i32) -> Self {
        match (name, modifier) {
            ("float4", _) => Self::Reals,
            ("time" | "timestamp" | "timestamptz", 0..=5) => {
                Self::Micros(10_i64.pow((6 - modifier).unsigned_abs()))
            }
            _ => Self::All,
        }
    }

    /// Whether a cell stays what it is.
    pub(super) fn keeps(self, cell: Cell<'_>) -> bool {
        match (self, cell) {
            (Self::Reals, Cell::Float64(value)) => value.is_nan() || f64::from(value as f32) == value,
            (
                Self::Micros(unit),
                Cell::Time(micros) | Cell::Timestamp(micros) | Cell::Timestamptz(micros),
            ) => matches!(micros, NEGATIVE_INFINITY | POSITIVE_INFINITY) || micros % unit == 0,
            _ => true,
        }
    }
}

/// A column's type, domains resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnType {
    /// What the protocol calls it.
    pub(super) canonical: CanonicalType,
    /// How its cells are copied out.
    pub(super) wire: Wire,
    /// The type with its modifier, as SQL (`numeric(10,2)`).
    pub(super) declared: String,
    /// The type without its modifier, as SQL that casts without cutting anything off.
    pub(super) bare: String,
    /// Whether it is one of PostgreSQL's own types: then its operators are found without a search path.
    pub(super) built_in: bool,
    /// What it does not keep as it comes.
    pub(super) keeps: Keeps,
}

/// A cell that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CellError {
    /// The binary form is not as it should be: a fault of ours.
    Malformed,
    /// A time beyond what 64 bits of microseconds since 1970 hold.
    BeyondRange,
}

/// The canonical type of a built-in type, by its name in `pg_type`, and its binary form.
pub(super) fn natural(type_name: &str, built_in: bool) -> (CanonicalType, Wire) {
    use CanonicalType as T;
    if !built_in {
        return (T::Text, Wire::CastText);
    }
    match type_name {
        "bool" => (T::Bool, Wire::Bool),
        "int2" => (T::Int64, Wire::Int2),
        "int4" => (T::Int64, Wire::Int4),
        "int8" => (T::Int64, Wire::Int8),
        "float4" => (T::Float64, Wire::Float4),
        "float8" => (T::Float64, Wire::Float8),
        "numeric" => (T::Decimal, Wire::CastText),
        "text" | "varchar" | "bpchar" | "name" => (T::Text, Wire::Text),
        "bytea" => (T::Bytes, Wire::Bytea),
        "date" => (T::Date, Wire::Date),
        "time" => (T::Time, Wire::Micros),
        "timestamp" => (T::Timestamp, Wire::Micros),
        "timestamptz" => (T::Timestamptz, Wire::Micros),
        "uuid" => (T::Uuid, Wire::Uuid),
        "json" => (T::Json, Wire::Text),
        "jsonb" => (T::Json, Wire::Jsonb),
        _ => (T::Text, Wire::CastText),
    }
}

/// The type of the column that a canonical cell is staged in.
pub(super) const fn staged_as(ty: CanonicalType) -> &'static str {
    use CanonicalType as T;
    match ty {
        T::Bool => "boolean",
        T::Int64 => "bigint",
        T::Float64 => "double precision",
        T::Uint64 | T::Decimal | T::Text | T::Json | T::Any => "text",
        T::Bytes => "bytea",
        T::Date => "date",
        T::Time => "time",
        T::Timestamp => "timestamp",
        T::Timestamptz => "timestamptz",
        T::Uuid => "uuid",
    }
}

impl ColumnType {
    /// What is selected so that [`push`] can read it. `column` is a quoted reference.
    pub(super) fn select(&self, column: &str) -> String {
        if self.wire == Wire::CastText { format!("({column})::text") } else { column.to_owned() }
    }

    /// A staged canonical cell as this type, modifier aside: assignment to a column of the type adds it, and refuses
    /// what it would cut off.
    #[allow(clippy::wrong_self_convention)] // it is the cell that comes from staging
    pub(super) fn from_staged(&self, staged: &str) -> String {
        let character = matches!(self.bare.as_str(), "character varying" | "bpchar" | "text");
        if character && staged_as(self.canonical) == "text" {
            staged.to_owned()
        } else {
            format!("({staged})::{}", self.bare)
        }
    }

    /// Whether a column of this type, modifier and all, gives a staged cell back as it came: not where it rounds, pads
    /// or writes in another way (1.555 in a numeric(10,2), jsonb). `None` where it always does.
    pub(super) fn gives_back(&self, staged: &str) -> Option<String> {
        let kept = format!("({staged})::{}", self.declared);
        match self.wire {
            Wire::Bool
            | Wire::Int2
            | Wire::Int4
            | Wire::Int8
            | Wire::Float8
            | Wire::Bytea
            | Wire::Date
            | Wire::Uuid => None,
            Wire::Float4 => Some(format!("({kept})::double precision IS NOT DISTINCT FROM {staged}")),
            Wire::Micros if self.declared == self.bare => None,
            Wire::Micros => Some(format!("{kept} IS NOT DISTINCT FROM {staged}")),
            Wire::Text if matches!(self.declared.as_str(), "text" | "character varying" | "json") => None,
            // Not a cast to text, which takes away what char(n) pads with.
            Wire::Text => Some(format!("({staged} IS NULL OR concat({kept}) COLLATE \"C\" = {staged})")),
            Wire::Jsonb | Wire::CastText => {
                Some(format!("({kept})::text COLLATE \"C\" IS NOT DISTINCT FROM {staged}"))
            }
        }
    }

    /// Whether [`stage_own`] writes every staged cell in the binary form of this type, which gives it back as it came.
    pub(super) fn takes_staged(&self) -> bool {
        let narrow = self.canonical == CanonicalType::Int64 && matches!(self.wire, Wire::Int2 | Wire::Int4);
        // json is not just any text: a COPY of what is none would end the transaction, and not name the row.
        let same_form = self.wire == staged_wire(self.canonical) && self.declared != "json";
        self.built_in && (narrow || same_form) && self.gives_back("").is_none()
    }

    /// What key columns are ordered by: an order that does not depend on operators outside of `pg_catalog`.
    pub(super) fn order(&self, column: &str) -> String {
        if self.built_in { column.to_owned() } else { format!("({column})::text COLLATE \"C\"") }
    }

    /// Whether two cells hold the same canonical value. NaN equals NaN and zero negative zero; all others compare in
    /// their text form (`1.0` is not `1.00`, and json has no equality of its own).
    pub(super) fn same(&self, left: &str, right: &str) -> String {
        match self.wire {
            Wire::Bool
            | Wire::Int2
            | Wire::Int4
            | Wire::Int8
            | Wire::Float4
            | Wire::Float8
            | Wire::Bytea
            | Wire::Date
            | Wire::Micros
            | Wire::Uuid => format!("{left} IS NOT DISTINCT FROM {right}"),
            Wire::Text | Wire::Jsonb | Wire::CastText => {
                format!("({left})::text COLLATE \"C\" IS NOT DISTINCT FROM ({right})::text COLLATE \"C\"")
            }
        }
    }
}

/// Adds a cell of a binary COPY to a column.
pub(super) fn push(column: &mut Column, wire: Wire, bytes: Option<&[u8]>) -> Result<(), CellError> {
    let Some(bytes) = bytes else {
        column.push_null();
        return Ok(());
    };
    let cell = cell(column.ty(), wire, bytes)?;
    column.push(cell).map_err(|_| CellError::Malformed)
}

/// A cell of a binary COPY.
pub(super) fn cell(ty: CanonicalType, wire: Wire, bytes: &[u8]) -> Result<Cell<'_>, CellError> {
    Ok(match wire {
        Wire::Bool => Cell::Bool(fixed::<1>(bytes)? != [0]),
        Wire::Int2 => Cell::Int64(i16::from_be_bytes(fixed(bytes)?).into()),
        Wire::Int4 => Cell::Int64(i32::from_be_bytes(fixed(bytes)?).into()),
        Wire::Int8 => Cell::Int64(i64::from_be_bytes(fixed(bytes)?)),
        Wire::Float4 => Cell::Float64(f32::from_be_bytes(fixed(bytes)?).into()),
        Wire::Float8 => Cell::Float64(f64::from_be_bytes(fixed(bytes)?)),
        Wire::Text | Wire::CastText => text(ty, bytes)?,
        Wire::Jsonb => text(ty, bytes.strip_prefix(&[1]).ok_or(CellError::Malformed)?)?,
        Wire::Bytea => Cell::Bytes(bytes),
        Wire::Date => Cell::Date(match i32::from_be_bytes(fixed(bytes)?) {
            i32::MAX => POSITIVE_INFINITY,
            i32::MIN => NEGATIVE_INFINITY,
            days => i64::from(days) + DAYS_2000,
        }),
        Wire::Micros => micros(ty, i64::from_be_bytes(fixed(bytes)?))?,
        Wire::Uuid => Cell::Uuid(fixed(bytes)?),
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], CellError> {
    bytes.try_into().map_err(|_| CellError::Malformed)
}

fn text(ty: CanonicalType, bytes: &[u8]) -> Result<Cell<'_>, CellError> {
    let text = std::str::from_utf8(bytes).map_err(|_| CellError::Malformed)?;
    Ok(match ty {
        CanonicalType::Decimal => Cell::Decimal(text),
        CanonicalType::Json => Cell::Json(text),
        _ => Cell::Text(text),
    })
}

fn micros(ty: CanonicalType, value: i64) -> Result<Cell<'static>, CellError> {
    if ty == CanonicalType::Time {
        return Ok(Cell::Time(value));
    }
    let since_1970 = match value {
        NEGATIVE_INFINITY | POSITIVE_INFINITY => value,
        _ => match value.checked_add(MICROS_2000) {
            // The ends of int64 are the infinities.
            Some(micros) if micros != POSITIVE_INFINITY => micros,
            _ => return Err(CellError::BeyondRange),
        },
    };
    Ok(if ty == CanonicalType::Timestamp {
        Cell::Timestamp(since_1970)
    } else {
        Cell::Timestamptz(since_1970)
    })
}

/// Why a canonical cell can't be staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StageError {
    /// U+0000, which PostgreSQL's text can't hold.
    ZeroCharacter,
    /// Beyond what the type holds.
    BeyondRange,
    /// A cell of type `any` that is no value of the column's type.
    NoSuchValue,
    /// The column would make another value of it.
    NotKept,
}

/// Adds a canonical cell in the binary form of [`staged_as`], without its length. Answers whether it is not NULL.
pub(super) fn stage(ty: CanonicalType, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<bool, StageError> {
    match cell {
        Cell::Null => return Ok(false),
        Cell::Bool(value) => out.push(u8::from(value)),
        Cell::Int64(value) => out.extend(value.to_be_bytes()),
        Cell::Uint64(value) => out.extend(value.to_string().as_bytes()),
        Cell::Float64(value) => out.extend(value.to_be_bytes()),
        Cell::Decimal(text) | Cell::Text(text) | Cell::Json(text) => {
            if text.as_bytes().contains(&0) {
                return Err(StageError::ZeroCharacter);
            }
            out.extend(text.as_bytes());
        }
        Cell::Bytes(bytes) => out.extend(bytes),
        Cell::Date(days) => out.extend(date_bytes(days)?),
        Cell::Time(micros) => {
            if !(0..=86_400_000_000).contains(&micros) {
                return Err(StageError::BeyondRange);
            }
            out.extend(micros.to_be_bytes());
        }
        Cell::Timestamp(micros) | Cell::Timestamptz(micros) => out.extend(timestamp_bytes(micros)?),
        Cell::Uuid(bytes) => out.extend(bytes),
    }
    debug_assert!(matches!(ty, CanonicalType::Any) || cell_fits(ty, cell));
    Ok(true)
}

/// As [`stage`], in the binary form of a column that takes staged cells as they are.
pub(super) fn stage_own(ty: &ColumnType, cell: Cell<'_>, out: &mut Vec<u8>) -> Result<bool, StageError> {
    match (ty.wire, cell) {
        (Wire::Int2, Cell::Int64(value)) => {
            out.extend(i16::try_from(value).map_err(|_| StageError::BeyondRange)?.to_be_bytes());
            Ok(true)
        }
        (Wire::Int4, Cell::Int64(value)) => {
            out.extend(i32::try_from(value).map_err(|_| StageError::BeyondRange)?.to_be_bytes());
            Ok(true)
        }
        _ => stage(ty.canonical, cell, out),
    }
}

const fn cell_fits(ty: CanonicalType, cell: Cell<'_>) -> bool {
    use CanonicalType as T;
    matches!(
        (ty, cell),
        (T::Bool, Cell::Bool(_))
            | (T::Int64, Cell::Int64(_))
            | (T::Uint64, Cell::Uint64(_))
            | (T::Float64, Cell::Float64(_))
            | (T::Decimal, Cell::Decimal(_))
            | (T::Text, Cell::Text(_))
            | (T::Bytes, Cell::Bytes(_))
            | (T::Date, Cell::Date(_))
            | (T::Time, Cell::Time(_))
            | (T::Timestamp, Cell::Timestamp(_))
            | (T::Timestamptz, Cell::Timestamptz(_))
            | (T::Uuid, Cell::Uuid(_))
            | (T::Json, Cell::Json(_))
    )
}

fn date_bytes(days: i64) -> Result<[u8; 4], StageError> {
    // PostgreSQL's first and last day: 4714-11-24 BC and 5874897-12-31.
    const FIRST: i64 = -2_451_545;
    const LAST: i64 = 2_145_031_948;
    let since_2000 = match days {
        POSITIVE_INFINITY => i32::MAX,
        NEGATIVE_INFINITY => i32::MIN,
        _ => match i32::try_from(days - DAYS_2000) {
            Ok(since) if (FIRST..=LAST).contains(&i64::from(since)) => since,
            _ => return Err(StageError::BeyondRange),
        },
    };
    Ok(since_2000.to_be_bytes())
}

fn timestamp_bytes(micros: i64) -> Result<[u8; 8], StageError> {
    // PostgreSQL's first time stamp, 4714-11-24 BC; its last lies beyond ours.
    const FIRST: i64 = -211_813_488_000_000_000;
    let since_2000 = match micros {
        POSITIVE_INFINITY | NEGATIVE_INFINITY => micros,
        _ => match micros.checked_sub(MICROS_2000) {
            Some(since) if since >= FIRST => since,
            _ => return Err(StageError::BeyondRange),
        },
    };
    Ok(since_2000.to_be_bytes())
}

/// A cell as the text that PostgreSQL reads: for keys that are bound as settings.
pub(super) fn literal_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
        Value::Int64(value) => value.to_string(),
        Value::Uint64(value) => value.to_string(),
        Value::Float64(value) if value.is_nan() => "NaN".to_owned(),
        Value::Float64(value) if value.is_infinite() => {
            if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Value::Float64(value) => format!("{value:?}"),
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => text.clone(),
        Value::Bytes(bytes) => bytes.iter().fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
        Value::Date(days) => with_era(&format_date(*days)),
        Value::Time(micros) => format_time(*micros),
        Value::Timestamp(micros) => with_era(&format_timestamp(*micros)),
        Value::Timestamptz(micros) => with_era(&format_timestamptz(*micros)),
        Value::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).to_string(),
    }
}

/// ISO 8601's expanded years as PostgreSQL writes them: `-0044` is `0045 ... BC`.
fn with_era(text: &str) -> String {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'+') => (false, &text[1..]),
        Some(b'-') if text.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => (true, &text[1..]),
        _ => return text.to_owned(),
    };
    let Some((year, after)) = rest.split_once('-') else { return text.to_owned() };
    match year.parse::<i64>() {
        Ok(year) if negative || year == 0 => format!("{:04}-{after} BC", year + 1),
        _ => rest.to_owned(),
    }
}

/// The binary form of [`staged_as`].
pub(super) const fn staged_wire(ty: CanonicalType) -> Wire {
    use CanonicalType as T;
    match ty {
        T::Bool => Wire::Bool,
        T::Int64 => Wire::Int8,
        T::Float64 => Wire::Float8,
        T::Uint64 | T::Decimal | T::Text | T::Json | T::Any => Wire::Text,
        T::Bytes => Wire::Bytea,
        T::Date => Wire::Date,
        T::Time | T::Timestamp | T::Timestamptz => Wire::Micros,
        T::Uuid => Wire::Uuid,
    }
}
