//! What a column's type makes of a leaf's value goes back to that leaf, so that both hold the same in the end.

use syncline::knowledge::Knowledge;
use syncline::value::Value;

use super::kit::{Database, born, changed, deleted, int, text};

fn decimal(value: &str) -> Value {
    Value::Decimal(value.to_owned())
}

fn json(value: &str) -> Value {
    Value::Json(value.to_owned())
}

#[tokio::test]
async fn a_value_that_is_rounded_comes_back_to_its_sender_and_others_do_not() {
    // A column's type, what is sent, and what is kept: the same where `None`.
    let cases: &[(&str, Value, Option<Value>)] = &[
        ("numeric(10,2)", decimal("1.555"), Some(decimal("1.56"))),
        ("numeric(10,2)", decimal("1.5"), Some(decimal("1.50"))),
        ("numeric(10,2)", decimal("1.50"), None),
        ("numeric", decimal("1.50"), None),
        ("timestamp(0)", Value::Timestamp(600_000), Some(Value::Timestamp(1_000_000))),
        ("timestamp(0)", Value::Timestamp(1_000_000), None),
        ("timestamptz(3)", Value::Timestamptz(1_700), Some(Value::Timestamptz(2_000))),
        ("timestamp", Value::Timestamp(600_001), None),
        ("time(0)", Value::Time(400_000), Some(Value::Time(0))),
        ("real", Value::Float64(0.1), Some(Value::Float64(f64::from(0.1_f32)))),
        ("real", Value::Float64(0.5), None),
        ("real", Value::Float64(f64::NAN), None),
        ("char(5)", text("ab"), Some(text("ab   "))),
        ("char(5)", text("abcde"), None),
        ("varchar(2)", text("ab  "), Some(text("ab"))),
        ("varchar(2)", text("ab"), None),
        ("text", text(" a "), None),
        ("jsonb", json("{\"b\":1,\"a\":2}"), Some(json("{\"a\": 2, \"b\": 1}"))),
        ("jsonb", json("{\"a\": 2}"), None),
        ("json", json("{\"b\":1}"), None),
        ("interval", text("1 day"), Some(text("P1D"))),
        ("int[]", text("{ 1, 2 }"), Some(text("{1,2}"))),
        ("uuid", Value::Null, None),
        ("char(5)", Value::Null, None),
    ];
    let columns: Vec<_> = cases.iter().enumerate().map(|(at, (ty, ..))| format!("v{at} {ty}")).collect();
    let database =
        Database::with(&format!("CREATE TABLE exact (id int PRIMARY KEY, {})", columns.join(", "))).await;
    let mut shop = database.scope(&["exact"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    for (at, (ty, sent, kept)) in cases.iter().enumerate() {
        let id = int(at as i64);
        let mut cells = vec![Value::Null; cases.len() + 1];
        cells[0] = id.clone();
        cells[at + 1] = sent.clone();
        let (before, _) = shop.changes(&known).await;
        shop.upload(&before, &[born("exact", cells)]).await.unwrap();
        let (after, rows) = shop.changes(&before).await;
        let back = rows.iter().map(|(_, _, cells)| cells[at + 1].clone()).next();
        assert_eq!(back, *kept, "{ty} {sent:?}");
        // The next edit is none of a conflict with itself.
        let report = shop.upload(&before, &[deleted("exact", [id])]).await.unwrap();
        assert_eq!((report.result.deletes, report.result.conflicts), (1, 0));
        shop.changes(&after).await;
    }
}

#[tokio::test]
async fn once_it_holds_what_was_kept_the_sender_is_not_told_again() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, price numeric(10,2))").await;
    let mut shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    shop.upload(&known, &[born("item", [int(1), decimal("1.555")])]).await.unwrap();
    let (known, rows) = shop.changes(&known).await;
    assert_eq!(rows[0].2, [int(1), decimal("1.56")]);
    shop.upload(&known, &[changed("item", [int(1), decimal("1.56")])]).await.unwrap();
    assert!(shop.changes(&known).await.1.is_empty());
}
