//! Whole tables: clean rows that are not named go, dirty ones stay.

use syncline::ids::TableId;
use syncline::schema::Direction;
use syncline::value::CanonicalType as T;

use super::kit::{DELTA, Leaf, WHOLE, int, items, table, text, up};
use crate::replica::ChangesMode;

#[tokio::test]
async fn clean_rows_that_are_not_named_go_and_dirty_ones_stay() {
    let mut leaf = Leaf::subscribed(items()).await;
    let s = leaf.schema.clone();
    leaf.download(
        DELTA,
        vec![up(&s, "item", &[[int(1), text("a")], [int(2), text("b")], [int(3), text("c")]])],
    )
    .await;
    leaf.run("UPDATE item SET name = 'mine' WHERE id = 2; INSERT INTO item VALUES (9, 'new')").await;
    let report = leaf.download(WHOLE, vec![up(&s, "item", &[[int(1), text("A")]])]).await;
    assert_eq!((report.upserts, report.deletes, report.conflicts), (1, 1, 0));
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|A 2|mine 9|new");
    assert_eq!(leaf.dirty().await.0, ["+item 2,\"mine\"", "+item 9,\"new\"*"]);
}

#[tokio::test]
async fn only_the_tables_that_are_compared_lose_rows() {
    let mut schema = items();
    schema.tables.push(table(12, "other", &[("id", T::Int64)]));
    let mut up_only = table(13, "report", &[("id", T::Int64)]);
    up_only.direction = Direction::Upload;
    schema.tables.push(up_only);
    let mut leaf = Leaf::subscribed(schema).await;
    let s = leaf.schema.clone();
    leaf.download(DELTA, vec![up(&s, "item", &[[int(1), text("a")]]), up(&s, "other", &[[int(1)]])]).await;
    leaf.run("INSERT INTO report VALUES (1)").await;
    let (_, blocks, _) = leaf.dirty().await;
    leaf.acknowledge(blocks, &[]).await;
    let mode = ChangesMode::Delta { whole_tables: vec![TableId(12)] };
    assert_eq!(leaf.download(mode, Vec::new()).await.deletes, 1);
    assert_eq!(leaf.rows("SELECT count(*) FROM item").await, "1");
    leaf.download(WHOLE, Vec::new()).await;
    assert_eq!(leaf.rows("SELECT count(*) FROM item").await, "0");
    assert_eq!(leaf.rows("SELECT count(*) FROM report").await, "1", "rows of it never come down");
}

#[tokio::test]
async fn a_first_download_writes_data_and_nothing_else() {
    let mut leaf = Leaf::subscribed(items()).await;
    let rows: Vec<_> = (1..=5_000).map(|id| [int(id), text("x")]).collect();
    let report = leaf.download(WHOLE, vec![up(&leaf.schema, "item", &rows)]).await;
    assert_eq!((report.upserts, report.deletes), (5_000, 0));
    assert_eq!(leaf.rows("SELECT count(*) FROM item").await, "5000");
    assert_eq!(
        leaf.rows("SELECT (SELECT count(*) FROM syncline.log_1) + (SELECT count(*) FROM syncline.dirty_1)")
            .await,
        "0"
    );
    let subscription = leaf.subscription().await;
    assert!(subscription.applied && subscription.download_mark.is_some());
    assert_eq!(&subscription.knowledge[..], b"learned");
}

#[tokio::test]
async fn rows_of_a_download_only_table_that_were_there_before_are_logged() {
    let mut schema = items();
    schema.tables[0].direction = Direction::Download;
    let sql =
        "CREATE TABLE item (id bigint PRIMARY KEY, name text); INSERT INTO item VALUES (1, 'a'), (2, 'same')";
    let mut leaf = Leaf::unsubscribed(schema, sql).await;
    leaf.subscribe().await.unwrap();
    let report = leaf.download(WHOLE, vec![up(&leaf.schema, "item", &[[int(2), text("same")]])]).await;
    assert_eq!((report.deletes, report.conflicts), (1, 1));
    assert_eq!(leaf.conflicts().await, ["update_delete remote {\"id\":1}: {\"id\":1,\"name\":\"a\"} / gone"]);
    assert_eq!(leaf.rows("SELECT * FROM item").await, "2|same");
}
