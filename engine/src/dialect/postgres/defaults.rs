//! Constant defaults, from the text in which the catalogue holds them.

use syncline::value::CanonicalType;

/// The value of a default that is a constant, in the text form of the canonical type; `None` for all others.
pub(super) fn constant_default(expression: &str, ty: CanonicalType) -> Option<String> {
    let text = literal_value(strip_casts(expression.trim()))?;
    use CanonicalType as T;
    match ty {
        T::Bool => matches!(text.as_str(), "true" | "false").then_some(text),
        T::Int64 => text.parse::<i64>().is_ok().then_some(text),
        T::Float64 => text.parse::<f64>().is_ok().then_some(text),
        T::Decimal => text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()).then_some(text),
        T::Text | T::Json => Some(text),
        T::Date => syncline::value::parse_date(&text).is_some().then_some(text),
        T::Time => syncline::value::parse_time(&text).is_some().then_some(text),
        T::Timestamp => syncline::value::parse_timestamp(&text).is_some().then_some(text),
        T::Timestamptz => timestamptz(&text),
        T::Uuid => uuid::Uuid::try_parse(&text).ok().map(|id| id.to_string()),
        T::Bytes | T::Uint64 | T::Any => None,
    }
}

/// The catalogue prints `+00` for UTC, which the settings of our connections pin.
fn timestamptz(text: &str) -> Option<String> {
    let full = text.strip_suffix("+00").map(|time| format!("{time}+00:00"))?;
    syncline::value::parse_timestamptz(&full).is_some().then_some(full)
}

/// `'a'::text` is `'a'`, `('-1'::integer)::bigint` is `'-1'`.
fn strip_casts(expression: &str) -> &str {
    let mut rest = expression;
    loop {
        let inner = match rest.rfind("::") {
            // Within the literal, if a quote follows.
            Some(at) if !rest[at..].contains('\'') => rest[..at].trim(),
            _ => rest,
        };
        let inner = match inner.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
            Some(unwrapped) if !unwrapped.contains('(') => unwrapped.trim(),
            _ => inner,
        };
        if inner == rest {
            return rest;
        }
        rest = inner;
    }
}

fn literal_value(literal: &str) -> Option<String> {
    if let Some(quoted) = literal.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        let plain = quoted.replace("''", "");
        return (!plain.contains('\'')).then(|| quoted.replace("''", "'"));
    }
    let constant = matches!(literal, "true" | "false") || literal.parse::<f64>().is_ok();
    constant.then(|| literal.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_found_and_expressions_are_not() {
        use CanonicalType as T;
        let check = |text: &str, ty, expect: Option<&str>| {
            assert_eq!(constant_default(text, ty).as_deref(), expect, "{text}");
        };
        check("'it''s'::text", T::Text, Some("it's"));
        check("'a::b'::character varying", T::Text, Some("a::b"));
        check("0", T::Int64, Some("0"));
        check("'-1'::integer", T::Int64, Some("-1"));
        check("('-1'::integer)::bigint", T::Int64, Some("-1"));
        check("1.50", T::Decimal, Some("1.50"));
        check("true", T::Bool, Some("true"));
        check("'2020-01-02'::date", T::Date, Some("2020-01-02"));
        check("now()", T::Timestamptz, None);
        check("nextval('a_seq'::regclass)", T::Int64, None);
        check("CURRENT_TIMESTAMP", T::Timestamptz, None);
        check("('a'::text || 'b'::text)", T::Text, None);
        check("NULL::text", T::Text, None);
    }
}
