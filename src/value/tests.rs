//! Text forms and key bytes are lossless, ordered, and take nothing that would come back otherwise.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

#[test]
fn dates_and_times_are_written_as_documented() {
    assert_eq!(format_date(0), "1970-01-01");
    assert_eq!(format_date(-719_162), "0001-01-01");
    assert_eq!(format_date(-719_163), "+0000-12-31");
    assert_eq!(format_date(2_932_897), "+10000-01-01");
    assert_eq!(format_date(i64::MAX), "infinity");
    assert_eq!(format_time(86_400_000_000), "24:00:00");
    assert_eq!(format_timestamp(-1), "1969-12-31 23:59:59.999999");
    assert_eq!(format_timestamp(1_500_000), "1970-01-01 00:00:01.5");
    assert_eq!(format_timestamptz(0), "1970-01-01 00:00:00+00:00");
    assert_eq!(format_timestamptz(i64::MIN), "-infinity");
}

#[test]
fn a_text_in_any_other_form_is_no_date() {
    for text in ["2009-1-1", "2009-02-30", "2009-01-01 ", "0000-01-01", "+2009-01-01", "", "x", "02009-01-01"]
    {
        assert_eq!(parse_date(text), None, "{text}");
    }
    for text in ["2009-01-01T00:00:00", "2009-01-01 00:00:00.10", "2009-01-01 24:00:00", "2009-01-01 00:00"] {
        assert_eq!(parse_timestamp(text), None, "{text}");
    }
    assert_eq!(parse_timestamptz("2009-01-01 00:00:00"), None);
    assert_eq!(parse_time("24:00:01"), None);
}

/// Within PostgreSQL's range of time stamps.
fn micros() -> impl Strategy<Value = i64> {
    prop_oneof![
        -210_866_803_200_000_000_i64..9_223_371_331_200_000_000,
        Just(i64::MIN),
        Just(i64::MAX),
        Just(0),
        Just(-1)
    ]
}

fn key_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int64),
        any::<u64>().prop_map(Value::Uint64),
        any::<f64>().prop_map(Value::Float64),
        any::<String>().prop_map(Value::Text),
        any::<Vec<u8>>().prop_map(Value::Bytes),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        any::<i64>().prop_map(Value::Timestamp),
    ]
}

proptest! {
    #[test]
    fn timestamps_come_back(micros in micros()) {
        prop_assert_eq!(parse_timestamp(&format_timestamp(micros)), Some(micros));
        prop_assert_eq!(parse_timestamptz(&format_timestamptz(micros)), Some(micros));
    }

    #[test]
    fn dates_come_back(days in -2_451_545_i64..2_145_031_949) {
        prop_assert_eq!(parse_date(&format_date(days)), Some(days));
    }

    #[test]
    fn times_come_back(micros in 0_i64..=86_400_000_000) {
        prop_assert_eq!(parse_time(&format_time(micros)), Some(micros));
    }

    #[test]
    fn a_text_that_parses_is_written_the_same(text in "[+-]?[0-9]{4,5}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,6})?") {
        if let Some(micros) = parse_timestamp(&text) {
            prop_assert_eq!(format_timestamp(micros), text);
        }
    }

    #[test]
    fn keys_come_back(cells in prop::collection::vec(key_value(), 1..4)) {
        let bytes = key_bytes(cells.iter().map(Value::cell)).unwrap();
        prop_assert_eq!(key_cells(&bytes).unwrap(), cells);
    }

    #[test]
    fn key_bytes_order_like_the_keys(a in any::<i64>(), b in any::<i64>(), x in any::<String>(), y in any::<String>()) {
        let key = |n: i64, t: &str| key_bytes([Cell::Text(t), Cell::Int64(n)]).unwrap();
        prop_assert_eq!(key(a, &x).cmp(&key(b, &y)), (x.as_bytes(), a).cmp(&(y.as_bytes(), b)));
    }

    #[test]
    fn random_bytes_never_break_the_decoder(bytes in any::<Vec<u8>>()) {
        let _ = key_cells(&bytes);
    }
}
