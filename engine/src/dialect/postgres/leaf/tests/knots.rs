//! Rows that wait for others, rows that refer to each other, unique values that swap, and rows that can't be.

use syncline::batch::Block;
use syncline::conflict::RowErrorReason;
use syncline::error::ErrorReason;
use syncline::ids::ColumnId;
use syncline::schema::{RowErrorPolicy, ScopeSchema};
use syncline::value::{CanonicalType as T, Value};

use super::kit::{DELTA, Leaf, gone, int, items, refers, scope, table, text, up};

/// `a (id, b -> b)` and `b (id, a -> a)`.
fn cycle() -> ScopeSchema {
    let mut schema = scope(vec![
        table(1, "a", &[("id", T::Int64), ("b", T::Int64)]),
        table(2, "b", &[("id", T::Int64), ("a", T::Int64)]),
    ]);
    schema.tables[0].foreign_keys = vec![refers(2, 2)];
    schema.tables[1].foreign_keys = vec![refers(2, 1)];
    schema
}

/// `parent (id)` and `child (id, parent -> parent)`.
fn family() -> ScopeSchema {
    let mut schema = scope(vec![
        table(1, "parent", &[("id", T::Int64), ("up", T::Int64)]),
        table(2, "child", &[("id", T::Int64), ("parent", T::Int64)]),
    ]);
    schema.tables[0].foreign_keys = vec![refers(2, 1)];
    schema.tables[1].foreign_keys = vec![refers(2, 1)];
    schema
}

fn unique_items() -> ScopeSchema {
    let mut schema = items();
    schema.tables[0].unique = vec![vec![ColumnId(2)]];
    schema
}

fn batch(blocks: impl IntoIterator<Item = Block>) -> Vec<Block> {
    blocks.into_iter().collect()
}

#[tokio::test]
async fn two_tables_that_refer_to_each_other_come_and_go() {
    let mut leaf = Leaf::subscribed(cycle()).await;
    let s = leaf.schema.clone();
    let come =
        batch([up(&s, "a", &[[int(1), int(10)], [int(2), Value::Null]]), up(&s, "b", &[[int(10), int(1)]])]);
    let report = leaf.download(DELTA, come).await;
    assert_eq!((report.upserts, report.row_errors.len()), (3, 0), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM a ORDER BY id").await, "1|10 2|NULL");
    assert_eq!(leaf.rows("SELECT * FROM b").await, "10|1");
    let report = leaf.download(DELTA, batch([gone(&s, "b", &[10]), gone(&s, "a", &[1])])).await;
    assert_eq!((report.deletes, report.row_errors.len()), (2, 0), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM a").await, "2|NULL");
    assert!(leaf.dirty().await.0.is_empty());
}

#[tokio::test]
async fn a_self_reference_may_come_in_a_later_block() {
    let mut leaf = Leaf::subscribed(family()).await;
    let s = leaf.schema.clone();
    let blocks = batch([
        up(&s, "parent", &[[int(1), int(2)], [int(3), int(3)]]),
        up(&s, "parent", &[[int(2), Value::Null]]),
        up(&s, "child", &[[int(7), int(1)]]),
    ]);
    let report = leaf.download(DELTA, blocks).await;
    assert_eq!((report.upserts, report.row_errors.len()), (4, 0), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM parent ORDER BY id").await, "1|2 2|NULL 3|3");
    let report = leaf.download(
        DELTA,
        batch([gone(&s, "child", &[7]), gone(&s, "parent", &[2]), gone(&s, "parent", &[1])]),
    );
    let report = report.await;
    assert_eq!((report.deletes, report.row_errors.len()), (3, 0), "{report:?}");
}

#[tokio::test]
async fn swapped_unique_values_are_no_errors() {
    let mut leaf = Leaf::subscribed(unique_items()).await;
    let s = leaf.schema.clone();
    leaf.download(
        DELTA,
        vec![up(&s, "item", &[[int(1), text("a")], [int(2), text("b")], [int(3), text("c")]])],
    )
    .await;
    let swapped = up(&s, "item", &[[int(1), text("b")], [int(2), text("c")], [int(3), text("a")]]);
    let report = leaf.download(DELTA, vec![swapped]).await;
    assert_eq!((report.upserts, report.row_errors.len()), (3, 0), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|b 2|c 3|a");
    assert!(leaf.dirty().await.0.is_empty());
}

#[tokio::test]
async fn swapped_unique_values_that_may_not_be_null() {
    let mut schema = unique_items();
    schema.tables[0].columns[1].not_null = true;
    let mut leaf = Leaf::subscribed(schema).await;
    let s = leaf.schema.clone();
    leaf.download(DELTA, vec![up(&s, "item", &[[int(1), text("a")], [int(2), text("b")]])]).await;
    let report =
        leaf.download(DELTA, vec![up(&s, "item", &[[int(1), text("b")], [int(2), text("a")]])]).await;
    assert_eq!(report.row_errors.len(), 0, "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|b 2|a");
}

#[tokio::test]
async fn a_unique_value_that_a_delete_frees() {
    let mut leaf = Leaf::subscribed(unique_items()).await;
    let s = leaf.schema.clone();
    leaf.download(DELTA, vec![up(&s, "item", &[[int(1), text("a")]])]).await;
    let blocks = batch([up(&s, "item", &[[int(2), text("a")], [int(3), text("c")]]), gone(&s, "item", &[1])]);
    let report = leaf.download(DELTA, blocks).await;
    assert_eq!((report.upserts, report.deletes, report.row_errors.len()), (2, 1, 0), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "2|a 3|c");
}

#[tokio::test]
async fn rows_that_break_a_constraint_do_not_stop_the_others() {
    let sql = "CREATE TABLE item (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'))";
    let mut leaf = Leaf::unsubscribed(items(), sql).await;
    leaf.subscribe().await.unwrap();
    let s = leaf.schema.clone();
    let rows: Vec<_> =
        (1..=50).map(|id| [int(id), text(if matches!(id, 7 | 8 | 41) { "bad" } else { "good" })]).collect();
    let report = leaf.download(DELTA, vec![up(&s, "item", &rows)]).await;
    assert_eq!(report.upserts, 47);
    let errors: Vec<_> =
        report.row_errors.iter().map(|error| (error.key_json.as_str(), error.reason)).collect();
    let check = RowErrorReason::Check;
    assert_eq!(errors, [("{\"id\":7}", check), ("{\"id\":8}", check), ("{\"id\":41}", check)]);
    let subscription = leaf.subscription().await;
    assert_eq!(subscription.excepted_keys.len(), 3);
    assert!(subscription.excepted_keys.iter().all(|key| key.knowledge_before.is_empty()));
    // Once mended, the exception is gone; what fails again keeps the knowledge from before its first failure.
    leaf.run("ALTER TABLE item DROP CONSTRAINT item_name_check; ALTER TABLE item ADD CHECK (id <> 8)").await;
    let report =
        leaf.download(DELTA, vec![up(&s, "item", &[[int(7), text("bad")], [int(8), text("x")]])]).await;
    assert_eq!(report.row_errors.len(), 1);
    let subscription = leaf.subscription().await;
    assert_eq!(subscription.excepted_keys.len(), 1);
    assert!(subscription.excepted_keys[0].knowledge_before.is_empty());
    assert_eq!(&subscription.knowledge[..], b"learned");
}

#[tokio::test]
async fn a_missing_parent_and_a_child_that_stays_are_row_errors() {
    let mut leaf = Leaf::subscribed(family()).await;
    let s = leaf.schema.clone();
    let blocks = batch([
        up(&s, "parent", &[[int(1), Value::Null], [int(2), Value::Null]]),
        up(&s, "child", &[[int(5), int(1)], [int(6), int(99)]]),
    ]);
    let report = leaf.download(DELTA, blocks).await;
    assert_eq!(report.upserts, 3);
    assert_eq!(report.row_errors.len(), 1);
    assert_eq!(report.row_errors[0].reason, RowErrorReason::ForeignKey);
    leaf.run("INSERT INTO child VALUES (8, 2)").await;
    let report = leaf.download(DELTA, batch([gone(&s, "parent", &[2])])).await;
    assert_eq!((report.deletes, report.row_errors.len()), (0, 1));
    assert_eq!(leaf.subscription().await.excepted_keys.len(), 1);
    assert_eq!(leaf.rows("SELECT id FROM parent ORDER BY id").await, "1 2");
}

#[tokio::test]
async fn values_that_the_local_column_cant_hold() {
    let sql = "CREATE TABLE item (id integer PRIMARY KEY, name varchar(3))";
    let mut leaf = Leaf::unsubscribed(items(), sql).await;
    leaf.subscribe().await.unwrap();
    let rows = [
        [int(1), text("abc")],
        [int(2), text("abcd")],
        [int(3), text("a\0b")],
        [int(3_000_000_000), text("x")],
    ];
    let report = leaf.download(DELTA, vec![up(&leaf.schema, "item", &rows)]).await;
    assert_eq!(report.upserts, 1);
    let errors: Vec<_> =
        report.row_errors.iter().map(|error| (error.key_json.as_str(), error.reason)).collect();
    let ty = RowErrorReason::Type;
    assert_eq!(errors, [("{\"id\":2}", ty), ("{\"id\":3}", ty), ("{\"id\":3000000000}", ty)]);
    assert_eq!(leaf.rows("SELECT * FROM item").await, "1|abc");
}

#[tokio::test]
async fn abort_applies_nothing() {
    let mut schema = items();
    schema.row_error_policy = RowErrorPolicy::Abort;
    let sql = "CREATE TABLE item (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'))";
    let mut leaf = Leaf::unsubscribed(schema, sql).await;
    leaf.subscribe().await.unwrap();
    let blocks = vec![vec![up(&leaf.schema, "item", &[[int(1), text("good")], [int(2), text("bad")]])]];
    let error = leaf.try_download(leaf.job(DELTA), blocks).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowErrors);
    assert_eq!(leaf.rows("SELECT count(*) FROM item").await, "0");
    assert!(!leaf.subscription().await.applied);
}

#[tokio::test]
async fn sequences_move_past_what_came() {
    let sql = "CREATE TABLE item (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)";
    let mut leaf = Leaf::unsubscribed(items(), sql).await;
    leaf.subscribe().await.unwrap();
    leaf.download(DELTA, vec![up(&leaf.schema, "item", &[[int(1), text("a")], [int(41), text("b")]])]).await;
    leaf.download(DELTA, vec![up(&leaf.schema, "item", &[[int(7), text("c")]])]).await;
    leaf.run("INSERT INTO item (name) VALUES ('mine')").await;
    assert_eq!(leaf.rows("SELECT id FROM item WHERE name = 'mine'").await, "42");
}

#[tokio::test]
async fn a_row_that_failed_and_comes_again_in_the_same_download() {
    let sql = "CREATE TABLE item (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'))";
    let mut leaf = Leaf::unsubscribed(items(), sql).await;
    leaf.subscribe().await.unwrap();
    let s = leaf.schema.clone();
    let blocks = batch([up(&s, "item", &[[int(1), text("bad")]]), up(&s, "item", &[[int(1), text("good")]])]);
    let report = leaf.download(DELTA, blocks).await;
    assert!(report.row_errors.is_empty());
    assert_eq!(leaf.rows("SELECT * FROM item").await, "1|good");
}

#[tokio::test]
async fn sequences_keep_to_their_range_step_and_direction() {
    // Options of the sequence, keys that come, what it draws next.
    let cases: [(&str, &[i64], &str); 7] = [
        (
            "MINVALUE -9223372036854775808 INCREMENT BY -10 START WITH -8",
            &[-9_223_372_036_854_775_790],
            "-9223372036854775808",
        ),
        ("MAXVALUE 999", &[7, 5000], "8"),
        ("MINVALUE 1000 MAXVALUE 1999", &[7, 5000], "1000"),
        ("START WITH 3 INCREMENT BY 10", &[3, 14], "33"),
        ("START WITH 3 INCREMENT BY 10", &[3], "13"),
        ("INCREMENT BY -1", &[-7, 9], "-8"),
        ("INCREMENT BY -5 START WITH -2", &[-8], "-17"),
    ];
    for (options, keys, next) in cases {
        // Into an empty table rows are copied; else they are staged.
        for staged in [false, true] {
            let mut leaf = leaf_that_draws(options, staged, keys).await;
            let drawn = leaf.rows("SELECT nextval('odd')").await;
            assert_eq!(drawn, next, "{options}, staged: {staged}");
        }
    }
}

#[tokio::test]
async fn a_sequence_that_is_used_up_says_so_when_it_is_drawn_from() {
    let options = "START WITH 2 INCREMENT BY 4 MAXVALUE 12";
    let mut leaf = leaf_that_draws(options, true, &[11]).await;
    assert_eq!(leaf.rows("SELECT last_value, is_called FROM odd").await, "10|true");
}

/// A leaf whose sequence has these options, once these keys have come.
async fn leaf_that_draws(options: &str, staged: bool, keys: &[i64]) -> Leaf {
    let sql = format!(
        "CREATE SEQUENCE odd {options}; CREATE TABLE item (id bigint PRIMARY KEY DEFAULT nextval('odd'), name text); \
         ALTER SEQUENCE odd OWNED BY item.id"
    );
    let mut leaf = Leaf::unsubscribed(items(), &sql).await;
    if staged {
        leaf.run("INSERT INTO item VALUES (1000000, 'there')").await;
    }
    leaf.subscribe().await.unwrap();
    let rows: Vec<_> = keys.iter().map(|key| [int(*key), text("came")]).collect();
    leaf.download(DELTA, vec![up(&leaf.schema, "item", &rows)]).await;
    leaf
}
