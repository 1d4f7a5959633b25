//! What the application writes is found by the next upload, whatever it did.

use sqlx::Connection as _;
use syncline::error::ErrorReason;
use syncline::value::CanonicalType as T;

use super::kit::{DELTA, Leaf, int, items, refers, rows, run, scope, table, text, up};
use crate::dialect::postgres::tests::kit::Publisher;
use crate::store::{LeafStore as _, LeafUpload};

/// A leaf that downloaded items 1 to 3 and has nothing dirty.
async fn leaf() -> Leaf {
    let leaf = Leaf::subscribed(items()).await;
    let three = up(&leaf.schema, "item", &[[int(1), text("a")], [int(2), text("b")], [int(3), text("c")]]);
    leaf.download(DELTA, vec![three]).await;
    assert!(leaf.dirty().await.0.is_empty());
    leaf
}

#[tokio::test]
async fn inserts_updates_and_deletes_of_many_rows() {
    let mut leaf = leaf().await;
    leaf.run("INSERT INTO item SELECT g, 'n' FROM generate_series(4, 5) g").await;
    leaf.run("UPDATE item SET name = name || '!' WHERE id <= 2").await;
    leaf.run("DELETE FROM item WHERE id >= 3 AND id < 5").await;
    assert_eq!(
        leaf.dirty().await.0,
        ["+item 1,\"a!\"", "+item 2,\"b!\"", "+item 5,\"n\"*", "-item 3", "-item 4*"]
    );
}

#[tokio::test]
async fn a_changed_key_is_a_delete_and_an_insert() {
    let mut leaf = leaf().await;
    leaf.run("UPDATE item SET id = id + 10 WHERE id = 1").await;
    assert_eq!(leaf.dirty().await.0, ["+item 11,\"a\"*", "-item 1"]);
}

#[tokio::test]
async fn a_row_that_comes_again_was_not_born_here() {
    let mut leaf = leaf().await;
    leaf.run("DELETE FROM item WHERE id = 1; INSERT INTO item VALUES (1, 'again')").await;
    assert_eq!(leaf.dirty().await.0, ["+item 1,\"again\""]);
}

#[tokio::test]
async fn columns_may_have_the_names_that_the_functions_use() {
    let columns = ["found", "own_tick", "now_us", "entry", "is_new", "k1", "k"];
    let mut leaf =
        Leaf::subscribed(scope(vec![table(11, "item", &columns.map(|name| (name, T::Int64)))])).await;
    leaf.run("INSERT INTO item VALUES (1, 2, 3, 4, 5, 6, 7), (8, 2, 3, 4, 5, 6, 7)").await;
    leaf.run("UPDATE item SET own_tick = 9; UPDATE item SET found = 2 WHERE found = 1").await;
    leaf.run("DELETE FROM item WHERE found = 8").await;
    assert_eq!(leaf.dirty().await.0, ["+item 2,9,3,4,5,6,7*", "-item 1*", "-item 8*"]);
}

#[tokio::test]
async fn truncate_deletes_each_key() {
    let mut leaf = leaf().await;
    leaf.run("TRUNCATE item").await;
    assert_eq!(leaf.dirty().await.0, ["-item 1", "-item 2", "-item 3"]);
}

#[tokio::test]
async fn what_a_subscription_writes_is_tracked() {
    let mut leaf = leaf().await;
    let mut publisher =
        Publisher::of("CREATE TABLE item (id bigint PRIMARY KEY, name text)", &leaf.url).await;
    publisher.run("INSERT INTO item VALUES (4, 'd'); UPDATE item SET id = 5").await;
    publisher.arrives("SELECT bool_or(id = 5) FROM item").await;
    assert_eq!(leaf.dirty().await.0, ["+item 5,\"d\"*", "-item 4*"]);
    // While the engine writes, it is still silent.
    leaf.run("BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL syncline.writing = 'on'; DELETE FROM item; COMMIT")
        .await;
    assert_eq!(leaf.dirty().await.0, ["-item 4*", "-item 5*"]);
}

#[tokio::test]
async fn cascades_are_tracked() {
    let mut schema = scope(vec![
        table(1, "parent", &[("id", T::Int64)]),
        table(2, "child", &[("id", T::Int64), ("parent", T::Int64)]),
    ]);
    schema.tables[1].foreign_keys = vec![refers(2, 1)];
    let sql = "CREATE TABLE parent (id bigint PRIMARY KEY); \
               CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent ON DELETE CASCADE)";
    let mut leaf = Leaf::unsubscribed(schema, sql).await;
    leaf.subscribe().await.unwrap();
    let parent = up(&leaf.schema, "parent", &[[int(1)]]);
    let child = up(&leaf.schema, "child", &[[int(7), int(1)], [int(8), int(1)]]);
    leaf.download(DELTA, vec![parent, child]).await;
    leaf.run("DELETE FROM parent").await;
    assert_eq!(leaf.dirty().await.0, ["-child 7", "-child 8", "-parent 1"]);
}

#[tokio::test]
async fn partitions_are_tracked_however_they_are_written() {
    let sql = "CREATE TABLE item (id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id); \
               CREATE TABLE item_1 PARTITION OF item FOR VALUES FROM (0) TO (10); \
               CREATE TABLE item_2 PARTITION OF item FOR VALUES FROM (10) TO (20)";
    let mut leaf = Leaf::unsubscribed(items(), sql).await;
    leaf.subscribe().await.unwrap();
    let rows = [[int(1), text("a")], [int(2), text("b")], [int(11), text("k")]];
    let report = leaf.download(DELTA, vec![up(&leaf.schema, "item", &rows)]).await;
    assert_eq!(report.upserts, 3);
    leaf.run(
        "UPDATE item_1 SET name = 'x' WHERE id = 1; UPDATE item SET id = 12 WHERE id = 2; TRUNCATE item_2",
    )
    .await;
    assert_eq!(leaf.dirty().await.0, ["+item 1,\"x\"", "-item 2", "-item 11", "-item 12*"]);
}

#[tokio::test]
async fn an_open_transaction_comes_in_the_next_upload_and_nothing_twice() {
    let mut leaf = leaf().await;
    let mut open = sqlx::PgConnection::connect(&leaf.url).await.unwrap();
    run(&mut open, "BEGIN; UPDATE item SET name = 'late' WHERE id = 1").await;
    leaf.run("UPDATE item SET name = 'soon' WHERE id = 2").await;
    let (first, blocks, clock) = leaf.dirty().await;
    assert_eq!(first, ["+item 2,\"soon\""]);
    let open_tick = rows(&mut open, "SELECT pg_current_xact_id()").await.parse().unwrap();
    assert!(!clock.contains(syncline::ids::Tick(open_tick)));
    assert!(clock.contains(blocks[0].ticks[0]));
    run(&mut open, "COMMIT").await;
    leaf.acknowledge(blocks, &[]).await;
    let (second, _, clock) = leaf.dirty().await;
    assert_eq!(second, ["+item 1,\"late\""]);
    assert!(clock.contains(syncline::ids::Tick(open_tick)));
}

#[tokio::test]
async fn the_time_of_a_row_never_goes_back_and_is_greater_with_each_entry() {
    let mut leaf = leaf().await;
    leaf.run("UPDATE item SET name = 'x' WHERE id = 1").await;
    let (_, first, _) = leaf.dirty().await;
    let future = first[0].changed_at[0] + 3_600_000_000;
    leaf.run(&format!("UPDATE syncline.dirty_1 SET changed_at = {future}")).await;
    leaf.run("UPDATE item SET name = 'y' WHERE id = 1").await;
    leaf.run("UPDATE item SET name = 'z' WHERE id = 1").await;
    let (_, second, _) = leaf.dirty().await;
    assert_eq!(second[0].changed_at[0], future + 2);
}

#[tokio::test]
async fn what_is_not_folded_reads_as_if_it_were() {
    let mut leaf = leaf().await;
    leaf.run("UPDATE item SET name = 'x' WHERE id = 1").await;
    leaf.dirty().await;
    // An advisory lock would make a fold wait; entries that commit between fold and snapshot are simulated by hand.
    leaf.run("DELETE FROM item WHERE id = 1").await;
    let pending = leaf.store.pending_changes(&leaf.subscription().await).await.unwrap();
    assert_eq!(pending, 2, "a record and an entry");
    assert_eq!(leaf.dirty().await.0, ["-item 1"]);
    assert_eq!(leaf.rows("SELECT count(*) FROM syncline.log_1").await, "0");
}

#[tokio::test]
async fn a_row_that_is_too_large_is_named() {
    let mut leaf = leaf().await;
    leaf.run("INSERT INTO item VALUES (77, repeat('x', 100000))").await;
    let upload = LeafUpload { block_bytes_max: 1_000, row_bytes_max: 50_000 };
    let mut snapshot = leaf.store.enumerate_dirty(&leaf.subscription().await, upload).await.unwrap();
    let error = snapshot.blocks.recv().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowTooLarge);
    assert_eq!(error.metadata().get("table").map(String::as_str), Some("item"));
    assert_eq!(error.metadata().get("key").map(String::as_str), Some("{\"id\":77}"));
}

#[tokio::test]
async fn blocks_are_bounded() {
    let mut leaf = leaf().await;
    leaf.run("INSERT INTO item SELECT g, repeat('x', 100) FROM generate_series(100, 199) g").await;
    let upload = LeafUpload { block_bytes_max: 1_000, row_bytes_max: 50_000 };
    let mut snapshot = leaf.store.enumerate_dirty(&leaf.subscription().await, upload).await.unwrap();
    let mut rows = 0;
    while let Some(block) = snapshot.blocks.recv().await {
        let block = block.unwrap();
        assert!(block.encoded_bytes() <= 1_100);
        rows += block.rows();
    }
    assert_eq!(rows, 100);
}

#[tokio::test]
async fn the_engines_own_writes_are_not_tracked_and_the_applications_always_are() {
    let mut leaf = leaf().await;
    // A logical subscriber writes so.
    leaf.run("SET session_replication_role = replica; UPDATE item SET name = 'r' WHERE id = 3").await;
    assert_eq!(leaf.dirty().await.0, ["+item 3,\"r\""]);
}
