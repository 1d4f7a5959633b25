//! Texts that stand for values of other types, in the one form in which each is written.

/// Whether the text is a decimal number as it travels: digits, a point with digits, or one of the special words.
pub(super) fn is_decimal(text: &str) -> bool {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return true;
    }
    let number = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole) && digits(fraction)
}

/// A UUID in the one form that is written: lower case, with hyphens.
pub(super) fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; uuid::fmt::Hyphenated::LENGTH] = text.as_bytes().try_into().ok()?;
    let digit = |place: usize| match text[place] {
        byte @ b'0'..=b'9' => Some(byte - b'0'),
        byte @ b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if [8, 13, 18, 23].iter().any(|place| text[*place] != b'-') {
        return None;
    }
    let mut uuid = [0; 16];
    for (at, byte) in uuid.iter_mut().enumerate() {
        // Groups of 4, 2, 2, 2 and 6 bytes, a dash after each of the first four.
        let dashes = [4, 6, 8, 10].iter().filter(|start| at >= **start).count();
        let place = at * 2 + dashes;
        *byte = digit(place)? << 4 | digit(place + 1)?;
    }
    Some(uuid)
}
