//! Numbers as people read them.

use std::time::Duration;

use syncline::value::format_timestamptz;

/// A count with thousands apart: `15,607`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that leaves at least one: `1.4 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number of bytes: digits, and KiB, MiB or GiB if it is in those.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text[digits.len()..].trim() {
        "" | "B" => 1_u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => return Err(format!("{unit} is no unit here: B, KiB, MiB, GiB")),
    };
    let number: u64 = digits.parse().map_err(|_| "a number like 4194304, or 4MiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is too large".to_owned())
}

/// A time that something took: `412 ms`, `3.2 s`, `2 m 05 s`.
pub(crate) fn duration(elapsed: Duration) -> String {
    match elapsed.as_millis() {
        millis @ ..1_000 => format!("{millis} ms"),
        millis @ ..60_000 => format!("{:.1} s", millis as f64 / 1000.0),
        millis => format!("{} m {:02} s", millis / 60_000, millis / 1_000 % 60),
    }
}

/// A point in time, given in microseconds since 1970 UTC, to the second.
pub(crate) fn time(micros: i64) -> String {
    let text = format_timestamptz(micros - micros.rem_euclid(1_000_000));
    text.strip_suffix("+00:00").map_or(text.clone(), |text| format!("{text} UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (15_607, "15,607"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn bytes_have_units() {
        for (number, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.5 KiB"),
            (4 << 20, "4.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn bytes_are_read() {
        for (text, number) in
            [("65536", 65_536), ("64KiB", 65_536), ("4 MiB", 4 << 20), ("1GiB", 1 << 30), ("7B", 7)]
        {
            assert_eq!(parse_bytes(text), Ok(number));
        }
        for text in ["", "MiB", "4MB", "-1", "4.5MiB", "99999999999GiB", "ü"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_short() {
        for (millis, text) in [(0, "0 ms"), (412, "412 ms"), (3_200, "3.2 s"), (125_000, "2 m 05 s")] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(1_500_000), "1970-01-01 00:00:01 UTC");
    }
}
