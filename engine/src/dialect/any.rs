//! Cells of type `any`, as SQLite sends them, turned into a column's type where nothing is lost.

use syncline::value::{
    CanonicalType, Cell, Value, parse_date, parse_time, parse_timestamp, parse_timestamptz,
};

use super::canonical::{is_decimal, parse_uuid};

/// The value of the column's type that the cell is, if it is one: just what a SQLite column of that type would hold.
pub(in crate::dialect) fn from_any(
    cell: Cell<'_>,
    ty: CanonicalType,
    precision_scale: Option<(u32, u32)>,
) -> Option<Value> {
    use CanonicalType as T;
    Some(match (ty, cell) {
        (_, Cell::Null) => Value::Null,
        (T::Bool, Cell::Int64(0)) => Value::Bool(false),
        (T::Bool, Cell::Int64(1)) => Value::Bool(true),
        (T::Int64, Cell::Int64(value)) => Value::Int64(value),
        (T::Float64, Cell::Float64(value)) => Value::Float64(value),
        (T::Float64, Cell::Int64(value)) => Value::Float64(exact_float(value)?),
        (T::Decimal, cell) => Value::Decimal(decimal(cell, precision_scale)?),
        (T::Text, Cell::Text(text)) => Value::Text(text.to_owned()),
        (T::Json, Cell::Text(text)) => Value::Json(text.to_owned()),
        (T::Bytes, Cell::Bytes(bytes)) => Value::Bytes(bytes.to_owned()),
        (T::Date, Cell::Text(text)) => Value::Date(parse_date(text)?),
        (T::Time, Cell::Text(text)) => Value::Time(parse_time(text)?),
        (T::Timestamp, Cell::Text(text)) => Value::Timestamp(parse_timestamp(text)?),
        (T::Timestamptz, Cell::Text(text)) => Value::Timestamptz(parse_timestamptz(text)?),
        (T::Uuid, Cell::Text(text)) => Value::Uuid(parse_uuid(text)?),
        _ => return None,
    })
}

/// The same number as a float, if it is one.
fn exact_float(value: i64) -> Option<f64> {
    let float = value as f64;
    // Just below 2^63 a float rounds up to it, which no integer is.
    (float as i64 == value && float < 9_223_372_036_854_775_808.0).then_some(float)
}

fn decimal(cell: Cell<'_>, precision_scale: Option<(u32, u32)>) -> Option<String> {
    match cell {
        Cell::Int64(value) => Some(with_scale(value.to_string(), precision_scale)),
        // Rust prints the shortest text that reads as the same float, without an exponent.
        Cell::Float64(value) if value.is_finite() => Some(with_scale(value.to_string(), precision_scale)),
        Cell::Text(text) => is_decimal(text).then(|| text.to_owned()),
        _ => None,
    }
}

/// 1.5 of a numeric(p,2) is 1.50 again.
fn with_scale(mut text: String, precision_scale: Option<(u32, u32)>) -> String {
    let Some((_, scale)) = precision_scale else { return text };
    let digits = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let missing = (scale as usize).saturating_sub(digits);
    if missing > 0 {
        if digits == 0 {
            text.push('.');
        }
        text.extend(std::iter::repeat_n('0', missing));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_column_of_the_type_would_hold_is_taken_and_nothing_else() {
        use CanonicalType as T;
        let check = |cell, ty, expect: Option<Value>| assert_eq!(from_any(cell, ty, Some((10, 2))), expect);
        check(Cell::Int64(1), T::Bool, Some(Value::Bool(true)));
        check(Cell::Int64(2), T::Bool, None);
        check(Cell::Float64(1.5), T::Decimal, Some(Value::Decimal("1.50".into())));
        check(Cell::Int64(3), T::Decimal, Some(Value::Decimal("3.00".into())));
        check(Cell::Text("1e3"), T::Decimal, None);
        check(Cell::Text("2009-1-1"), T::Date, None);
        check(Cell::Text("2009-01-01"), T::Date, Some(Value::Date(14_245)));
        check(Cell::Int64(i64::MAX), T::Float64, None);
        check(Cell::Int64(1 << 53), T::Float64, Some(Value::Float64(9_007_199_254_740_992.0)));
        check(Cell::Text("x"), T::Int64, None);
        check(Cell::Int64(7), T::Text, None);
        check(Cell::Null, T::Uuid, Some(Value::Null));
    }
}
