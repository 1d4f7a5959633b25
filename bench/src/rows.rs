//! The rows of every measurement: 8 columns, about 150 bytes each, keys in order (UUIDs as version 7 makes them), the
//! same ones whenever and wherever they are made.

use anyhow::{Result, bail};

/// The table.
pub(crate) const TABLE: &str = "item";
/// The columns, in the order in which all statements name them.
pub(crate) const COLUMNS: &str = "id, number, quantity, price, active, changed_at, name, note";
/// The table in PostgreSQL.
pub(crate) const POSTGRES_SCHEMA: &str = "CREATE TABLE item (id uuid PRIMARY KEY, number bigint NOT NULL, \
     quantity integer NOT NULL, price double precision NOT NULL, active boolean NOT NULL, \
     changed_at timestamptz NOT NULL, name text NOT NULL, note text NOT NULL)";
/// The table in SQLite, as a client makes it from the table in PostgreSQL.
pub(crate) const SQLITE_SCHEMA: &str = "CREATE TABLE item (id UUID NOT NULL, number INTEGER NOT NULL, \
     quantity INTEGER NOT NULL, price REAL NOT NULL, active BOOLEAN NOT NULL, changed_at TIMESTAMPTZ NOT NULL, \
     name TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (id))";

const SEED: u64 = 0x5EED_0F5E_ED00;
/// 2026-01-01, where keys and times begin.
const EPOCH_MS: u64 = 1_767_225_600_000;
const WORDS: [&str; 32] = [
    "amber", "anchor", "basket", "bridge", "candle", "cedar", "copper", "cotton", "delta", "ember", "falcon",
    "garnet", "harbor", "indigo", "juniper", "kettle", "lantern", "linen", "marble", "meadow", "nickel",
    "olive", "paper", "pepper", "quartz", "ribbon", "saddle", "silver", "timber", "velvet", "walnut",
    "willow",
];

/// A row, with its cells as the protocol has them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) id: [u8; 16],
    /// Its place among all rows: by it, statements choose the rows that change.
    pub(crate) number: i64,
    pub(crate) quantity: i64,
    pub(crate) price: f64,
    pub(crate) active: bool,
    /// Microseconds since 1970 UTC.
    pub(crate) changed_at: i64,
    pub(crate) name: String,
    pub(crate) note: String,
}

/// The first rows of the one sequence.
pub(crate) struct Rows {
    random: SplitMix64,
    next: i64,
    end: i64,
}

impl Rows {
    /// So many rows.
    pub(crate) fn first(count: u64) -> Self {
        Self { random: SplitMix64(SEED), next: 0, end: i64::try_from(count).unwrap_or(i64::MAX) }
    }

    /// The rows of these numbers.
    pub(crate) fn numbered(numbers: &std::ops::Range<u64>) -> impl Iterator<Item = Row> + use<> {
        let skipped = usize::try_from(numbers.start).unwrap_or(usize::MAX);
        Self::first(numbers.end).skip(skipped)
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.next == self.end {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let ms = EPOCH_MS + number.cast_unsigned();
        let random = &mut self.random;
        Some(Row {
            id: key(ms, random),
            number,
            quantity: (random.next() % 1_000).cast_signed(),
            price: (random.next() % 1_000_000) as f64 / 100.0,
            active: !random.next().is_multiple_of(4),
            changed_at: (ms * 1_000 + random.next() % 1_000).cast_signed(),
            name: words(random, 2),
            note: words(random, 11),
        })
    }
}

/// A UUID of version 7.
fn key(ms: u64, random: &mut SplitMix64) -> [u8; 16] {
    let high = (ms << 16) | 0x7000 | (random.next() & 0x0FFF);
    let low = (0b10 << 62) | (random.next() >> 2);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&high.to_be_bytes());
    id[8..].copy_from_slice(&low.to_be_bytes());
    id
}

fn words(random: &mut SplitMix64, count: usize) -> String {
    let mut text = String::with_capacity(count * 8);
    for place in 0..count {
        if place > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[(random.next() % WORDS.len() as u64) as usize]);
    }
    text
}

/// Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators.
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Writes a UUID as SQLite keeps it: 36 characters, lower case.
pub(crate) fn write_uuid(id: &[u8; 16], text: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (place, byte) in id.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push(b'-');
        }
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// What [`write_uuid`] wrote.
pub(crate) fn read_uuid(text: &[u8]) -> Result<[u8; 16]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => bail!("not a UUID"),
    };
    let mut id = [0; 16];
    let mut digits = text.iter().filter(|byte| **byte != b'-');
    for byte in &mut id {
        let (Some(high), Some(low)) = (digits.next(), digits.next()) else { bail!("not a UUID") };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(id)
}

/// Writes a time as SQLite keeps it: `YYYY-MM-DD HH:MM:SS[.ffffff]+00:00`.
pub(crate) fn write_time(micros: i64, text: &mut Vec<u8>) {
    let (days, in_day) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let (year, month, day) = civil(days);
    let (seconds, fraction) = (in_day / 1_000_000, in_day % 1_000_000);
    digits(text, year, 4);
    for (separator, part) in [(b'-', month), (b'-', day), (b' ', seconds / 3_600)] {
        text.push(separator);
        digits(text, part, 2);
    }
    for part in [seconds / 60 % 60, seconds % 60] {
        text.push(b':');
        digits(text, part, 2);
    }
    if fraction != 0 {
        text.push(b'.');
        digits(text, fraction, 6);
        while text.last() == Some(&b'0') {
            text.pop();
        }
    }
    text.extend_from_slice(b"+00:00");
}

fn digits(text: &mut Vec<u8>, number: i64, count: u32) {
    for place in (0..count).rev() {
        text.push(b'0' + (number / 10_i64.pow(place) % 10) as u8);
    }
}

/// Year, month and day of a day since 1970 (Hinnant: chrono-compatible low-level date algorithms).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let in_era = shifted.rem_euclid(146_097);
    let year_in_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
    let month_from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_in_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_always_the_same_and_keys_ascend() {
        let rows: Vec<_> = Rows::first(1_000).collect();
        assert_eq!(rows, Rows::first(1_000).collect::<Vec<_>>());
        assert!(rows.is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(rows[7].number, 7);
    }

    #[test]
    fn a_row_has_about_150_bytes() {
        let bytes: usize =
            Rows::first(1_000).map(|row| 16 + 8 + 8 + 8 + 1 + 8 + row.name.len() + row.note.len()).sum();
        assert!((130..170).contains(&(bytes / 1_000)), "{}", bytes / 1_000);
    }

    #[test]
    fn text_is_what_the_protocol_writes() {
        for row in Rows::first(1_000) {
            let mut text = Vec::new();
            write_time(row.changed_at, &mut text);
            assert_eq!(
                std::str::from_utf8(&text).unwrap(),
                syncline::value::format_timestamptz(row.changed_at)
            );
            text.clear();
            write_uuid(&row.id, &mut text);
            assert_eq!(text.len(), 36);
            assert_eq!(read_uuid(&text).unwrap(), row.id);
        }
    }
}
