//! Rows that wait for each other and are written in two steps: none stays as the first step wrote it.

use syncline::schema::ScopeSchema;
use syncline::value::{CanonicalType as T, Value};

use super::kit::{DELTA, Leaf, int, refers, scope, table, up};

/// `a (id, b -> b)`, `b (id, a -> a)` and `c (id, a -> a, b -> b)`.
fn triangle() -> ScopeSchema {
    let mut schema = scope(vec![
        table(1, "a", &[("id", T::Int64), ("b", T::Int64)]),
        table(2, "b", &[("id", T::Int64), ("a", T::Int64)]),
        table(3, "c", &[("id", T::Int64), ("a", T::Int64), ("b", T::Int64)]),
    ]);
    schema.tables[0].foreign_keys = vec![refers(2, 2)];
    schema.tables[1].foreign_keys = vec![refers(2, 1)];
    schema.tables[2].foreign_keys = vec![refers(2, 1), refers(3, 2)];
    schema
}

/// The keys of rows in error, with their tables.
fn errors(report: &crate::store::DownloadReport) -> Vec<String> {
    report.row_errors.iter().map(|error| format!("{}{}", error.table_name, error.key_json)).collect()
}

#[tokio::test]
async fn a_row_that_can_only_be_written_with_its_reference_cut_is_not_written() {
    let mut leaf = Leaf::subscribed(triangle()).await;
    let s = leaf.schema.clone();
    let there = vec![up(&s, "a", &[[int(1), Value::Null]]), up(&s, "c", &[[int(5), int(1), Value::Null]])];
    leaf.download(DELTA, there).await;
    // a 2 refers to nothing; c 5, which is there, and c 6 refer to it; c 7 to two that lead nowhere.
    let blocks = vec![
        up(&s, "a", &[[int(2), int(99)], [int(3), int(10)]]),
        up(&s, "b", &[[int(10), int(3)]]),
        up(
            &s,
            "c",
            &[
                [int(5), int(2), Value::Null],
                [int(6), int(2), int(10)],
                [int(7), int(2), int(77)],
                [int(8), int(3), int(10)],
            ],
        ),
    ];
    let report = leaf.download(DELTA, blocks.clone()).await;
    assert_eq!(errors(&report), ["a{\"id\":2}", "c{\"id\":5}", "c{\"id\":6}", "c{\"id\":7}"]);
    assert_eq!(report.upserts, 3, "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM a ORDER BY id").await, "1|NULL 3|10");
    assert_eq!(leaf.rows("SELECT * FROM b").await, "10|3");
    assert_eq!(leaf.rows("SELECT * FROM c ORDER BY id").await, "5|1|NULL 8|3|10");
    assert_eq!(leaf.subscription().await.excepted_keys.len(), 4);
    assert!(leaf.dirty().await.0.is_empty());
    // Once what they refer to comes, so do they.
    let mut again = blocks;
    again.push(up(&s, "b", &[[int(99), int(2)], [int(77), Value::Null]]));
    let report = leaf.download(DELTA, again).await;
    assert!(report.row_errors.is_empty(), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM a ORDER BY id").await, "1|NULL 2|99 3|10");
    assert_eq!(leaf.rows("SELECT * FROM c ORDER BY id").await, "5|2|NULL 6|2|10 7|2|77 8|3|10");
    assert!(leaf.subscription().await.excepted_keys.is_empty());
}

#[tokio::test]
async fn nor_is_any_of_a_chain_of_such_rows() {
    let long = i64::from(crate::limits::POSTGRES_CUT_ROUNDS_MAX) + 4;
    for length in [3, long] {
        let mut leaf = Leaf::subscribed(triangle()).await;
        let s = leaf.schema.clone();
        // a 1 refers to b 1, that to a 2, that to b 2, and so on, to one that is not there. Beside them a circle.
        let a: Vec<_> = (1..=length).map(|id| [int(id), int(id)]).chain([[int(1000), int(1000)]]).collect();
        let b: Vec<_> =
            (1..=length).map(|id| [int(id), int(id + 1)]).chain([[int(1000), int(1000)]]).collect();
        let report = leaf.download(DELTA, vec![up(&s, "a", &a), up(&s, "b", &b)]).await;
        // Of a chain that is too long, nothing is cut: the circle waits along with it.
        let circle = if length == long { "" } else { "1000|1000" };
        assert_eq!(leaf.rows("SELECT * FROM a").await, circle);
        assert_eq!(leaf.rows("SELECT * FROM b").await, circle);
        let circles = usize::from(length == long);
        assert_eq!(report.row_errors.len(), 2 * (usize::try_from(length).unwrap() + circles));
    }
}

#[tokio::test]
async fn a_condition_that_a_cut_row_breaks_is_no_error_of_the_whole_row() {
    let sql = "CREATE TABLE b (id bigint PRIMARY KEY, a bigint); \
        CREATE TABLE a (id bigint PRIMARY KEY, b bigint REFERENCES b CHECK (id <> 2 OR b IS NOT NULL)); \
        ALTER TABLE b ADD FOREIGN KEY (a) REFERENCES a; \
        CREATE TABLE c (id bigint PRIMARY KEY, a bigint REFERENCES a, b bigint REFERENCES b)";
    let mut leaf = Leaf::unsubscribed(triangle(), sql).await;
    leaf.subscribe().await.unwrap();
    let s = leaf.schema.clone();
    let a = up(&s, "a", &[[int(1), int(1)], [int(2), int(2)]]);
    let report = leaf.download(DELTA, vec![a, up(&s, "b", &[[int(1), int(1)], [int(2), int(2)]])]).await;
    // b is cut in place of a.
    assert!(report.row_errors.is_empty(), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM a ORDER BY id").await, "1|1 2|2");
    assert_eq!(leaf.rows("SELECT * FROM b ORDER BY id").await, "1|1 2|2");
}
