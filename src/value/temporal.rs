//! Dates, times and time stamps as text, in the one form that SQLite columns hold them in.
//!
//! Years 1 to 9999 have four digits, others are ISO 8601 expanded (`+10000`, `-0044`; year 0 is 1 BC); the ends of
//! int64 are `-infinity` and `infinity`. The parsers take exactly what the formatters write: so a text that parses
//! comes back byte for byte, and any other is no date to us. Calendar arithmetic after Howard Hinnant,
//! "chrono-Compatible Low-Level Date Algorithms".

use super::{NEGATIVE_INFINITY, POSITIVE_INFINITY};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Keeps the arithmetic far from overflow; PostgreSQL's last year is 5,874,897.
const YEAR_MAX: i64 = 9_999_999;

/// Days since 1970-01-01 as text.
#[must_use]
pub fn format_date(days: i64) -> String {
    let mut text = String::with_capacity(10);
    write_date(&mut text, days);
    text
}

/// Adds what [`format_date`] answers to a text.
pub fn write_date(text: &mut String, days: i64) {
    if !push_infinity(text, days) {
        push_date(text, days);
    }
}

/// Microseconds since midnight as `HH:MM:SS[.ffffff]`.
#[must_use]
pub fn format_time(micros: i64) -> String {
    let mut text = String::with_capacity(15);
    write_time(&mut text, micros);
    text
}

/// Adds what [`format_time`] answers to a text.
pub fn write_time(text: &mut String, micros: i64) {
    push_time(text, micros);
}

/// Microseconds since 1970 as `YYYY-MM-DD HH:MM:SS[.ffffff]`.
#[must_use]
pub fn format_timestamp(micros: i64) -> String {
    let mut text = String::with_capacity(26);
    write_timestamp(&mut text, micros);
    text
}

/// Adds what [`format_timestamp`] answers to a text.
pub fn write_timestamp(text: &mut String, micros: i64) {
    if !push_infinity(text, micros) {
        push_date(text, micros.div_euclid(MICROS_PER_DAY));
        text.push(' ');
        push_time(text, micros.rem_euclid(MICROS_PER_DAY));
    }
}

/// As [`format_timestamp`], in UTC, with `+00:00` at the end.
#[must_use]
pub fn format_timestamptz(micros: i64) -> String {
    let mut text = String::with_capacity(32);
    write_timestamptz(&mut text, micros);
    text
}

/// Adds what [`format_timestamptz`] answers to a text.
pub fn write_timestamptz(text: &mut String, micros: i64) {
    write_timestamp(text, micros);
    if micros != NEGATIVE_INFINITY && micros != POSITIVE_INFINITY {
        text.push_str("+00:00");
    }
}

/// What [`format_date`] wrote; `None` for any other text.
#[must_use]
pub fn parse_date(text: &str) -> Option<i64> {
    parse_infinity(text)
        .or_else(|| scan_date(text.as_bytes()).and_then(|(days, rest)| rest.is_empty().then_some(days)))
}

/// What [`format_time`] wrote; `None` for any other text.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    scan_time(text.as_bytes()).and_then(|(micros, rest)| rest.is_empty().then_some(micros))
}

/// What [`format_timestamp`] wrote; `None` for any other text.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<i64> {
    parse_infinity(text).or_else(|| scan_timestamp(text.as_bytes(), b""))
}

/// What [`format_timestamptz`] wrote; `None` for any other text.
#[must_use]
pub fn parse_timestamptz(text: &str) -> Option<i64> {
    parse_infinity(text).or_else(|| scan_timestamp(text.as_bytes(), b"+00:00"))
}

fn push_infinity(text: &mut String, value: i64) -> bool {
    match value {
        NEGATIVE_INFINITY => text.push_str("-infinity"),
        POSITIVE_INFINITY => text.push_str("infinity"),
        _ => return false,
    }
    true
}

fn parse_infinity(text: &str) -> Option<i64> {
    match text {
        "-infinity" => Some(NEGATIVE_INFINITY),
        "infinity" => Some(POSITIVE_INFINITY),
        _ => None,
    }
}

fn push_date(text: &mut String, days: i64) {
    let (year, month, day) = civil_from_days(days);
    if !(0..=9999).contains(&year) {
        text.push(if year < 0 { '-' } else { '+' });
    } else if year == 0 {
        text.push('+');
    }
    push_digits(text, year.unsigned_abs(), 4);
    text.push('-');
    push_digits(text, month.unsigned_abs(), 2);
    text.push('-');
    push_digits(text, day.unsigned_abs(), 2);
}

fn push_time(text: &mut String, micros: i64) {
    let (seconds, fraction) = (micros.div_euclid(MICROS_PER_SECOND), micros.rem_euclid(MICROS_PER_SECOND));
    push_digits(text, (seconds / 3_600).unsigned_abs(), 2);
    text.push(':');
    push_digits(text, (seconds / 60 % 60).unsigned_abs(), 2);
    text.push(':');
    push_digits(text, (seconds % 60).unsigned_abs(), 2);
    if fraction != 0 {
        text.push('.');
        push_digits(text, fraction.unsigned_abs(), 6);
        while text.ends_with('0') {
            text.pop();
        }
    }
}

/// At least `width` digits, without the formatting machinery: times are written by the million.
fn push_digits(text: &mut String, value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let (mut start, mut rest) = (digits.len(), value);
    while rest > 0 || digits.len() - start < width {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    text.extend(digits[start..].iter().copied().map(char::from));
}

fn scan_timestamp(text: &[u8], zone: &[u8]) -> Option<i64> {
    let (days, rest) = scan_date(text)?;
    let (micros, rest) = scan_time(rest.strip_prefix(b" ")?)?;
    if rest != zone || micros >= MICROS_PER_DAY {
        return None;
    }
    days.checked_mul(MICROS_PER_DAY)?.checked_add(micros)
}

fn scan_date(text: &[u8]) -> Option<(i64, &[u8])> {
    let (sign, digits) = match text.first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (0, text),
    };
    let width = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(4..=7).contains(&width) || (width > 4 && digits[0] == b'0') {
        return None;
    }
    let (number, rest) = scan_digits(digits, width)?;
    // One form for each year: no sign from 1 to 9999, a sign for all others.
    let year = match sign {
        0 if (1..=9999).contains(&number) && width == 4 => number,
        1 if number == 0 || number > 9999 => number,
        -1 if number > 0 => -number,
        _ => return None,
    };
    let (month, rest) = scan_digits(rest.strip_prefix(b"-")?, 2)?;
    let (day, rest) = scan_digits(rest.strip_prefix(b"-")?, 2)?;
    if !(1..=12).contains(&month) || day < 1 || year.abs() > YEAR_MAX {
        return None;
    }
    let days = days_from_civil(year, month, day);
    (civil_from_days(days) == (year, month, day)).then_some((days, rest))
}

fn scan_time(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hours, rest) = scan_digits(text, 2)?;
    let (minutes, rest) = scan_digits(rest.strip_prefix(b":")?, 2)?;
    let (seconds, mut rest) = scan_digits(rest.strip_prefix(b":")?, 2)?;
    let mut micros = (hours * 3_600 + minutes * 60 + seconds) * MICROS_PER_SECOND;
    if minutes > 59 || seconds > 59 {
        return None;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let width = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if width == 0 || width > 6 || fraction[width - 1] == b'0' {
            return None;
        }
        let (value, after) = scan_digits(fraction, width)?;
        // At most six digits, so the exponent is 0 to 5.
        micros += value * 10_i64.pow(6 - width as u32);
        rest = after;
    }
    // 24:00:00 is a time of its own in PostgreSQL.
    (micros <= MICROS_PER_DAY).then_some((micros, rest))
}

fn scan_digits(text: &[u8], width: usize) -> Option<(i64, &[u8])> {
    let (digits, rest) = text.split_at_checked(width)?;
    let digit = |value: i64, byte: &u8| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'));
    digits.iter().try_fold(0, digit).map(|value| (value, rest))
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// (year, month, day) of days since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
