//! An acknowledged upload clears what has not changed since, and nothing else.

use syncline::batch::Operation;
use syncline::conflict::{RowError, RowErrorReason};
use syncline::knowledge::RowKey;

use super::kit::{Leaf, items};

#[tokio::test]
async fn what_was_uploaded_is_clean() {
    let mut leaf = Leaf::subscribed(items()).await;
    leaf.run("INSERT INTO item VALUES (1, 'a'), (2, 'b')").await;
    let (_, blocks, _) = leaf.dirty().await;
    leaf.acknowledge(blocks.clone(), &[]).await;
    assert!(leaf.dirty().await.0.is_empty());
    leaf.acknowledge(blocks, &[]).await;
    assert!(leaf.dirty().await.0.is_empty());
}

#[tokio::test]
async fn an_edit_since_then_stays_dirty_and_is_no_birth() {
    let mut leaf = Leaf::subscribed(items()).await;
    leaf.run("INSERT INTO item VALUES (1, 'a'), (2, 'b'), (3, 'c')").await;
    let (_, blocks, _) = leaf.dirty().await;
    leaf.run("UPDATE item SET name = 'A' WHERE id = 1").await;
    leaf.run("DELETE FROM item WHERE id = 2").await;
    leaf.acknowledge(blocks, &[]).await;
    assert_eq!(leaf.dirty().await.0, ["+item 1,\"A\"", "-item 2"]);
}

#[tokio::test]
async fn a_row_that_comes_again_after_an_uploaded_delete_is_born() {
    let mut leaf = Leaf::subscribed(items()).await;
    leaf.run("INSERT INTO item VALUES (1, 'a')").await;
    let (_, blocks, _) = leaf.dirty().await;
    leaf.acknowledge(blocks, &[]).await;
    leaf.run("DELETE FROM item").await;
    let (_, blocks, _) = leaf.dirty().await;
    leaf.run("INSERT INTO item VALUES (1, 'again')").await;
    leaf.acknowledge(blocks, &[]).await;
    assert_eq!(leaf.dirty().await.0, ["+item 1,\"again\"*"]);
}

#[tokio::test]
async fn a_folded_edit_since_then_is_kept_too() {
    let mut leaf = Leaf::subscribed(items()).await;
    leaf.run("INSERT INTO item VALUES (1, 'a')").await;
    let (_, blocks, _) = leaf.dirty().await;
    leaf.run("DELETE FROM item").await;
    leaf.run("INSERT INTO item VALUES (1, 'b')").await;
    // Enumerating folds: the record has a newer tick now.
    leaf.dirty().await;
    leaf.acknowledge(blocks, &[]).await;
    assert_eq!(leaf.dirty().await.0, ["+item 1,\"b\""]);
}

#[tokio::test]
async fn failed_rows_stay_dirty_as_they_are() {
    let mut leaf = Leaf::subscribed(items()).await;
    leaf.run("INSERT INTO item VALUES (1, 'a'), (2, 'b')").await;
    let (_, blocks, _) = leaf.dirty().await;
    let table = &leaf.schema.tables[0];
    let error = RowError {
        row: RowKey { table: table.id, key: blocks[0].key(&table.key, 1).unwrap() },
        table_name: table.name.clone(),
        key_json: "{\"id\":2}".to_owned(),
        operation: Operation::Upsert,
        reason: RowErrorReason::Check,
        message: "no".to_owned(),
    };
    leaf.acknowledge(blocks, &[error]).await;
    assert_eq!(leaf.dirty().await.0, ["+item 2,\"b\"*"]);
}

#[tokio::test]
async fn the_subscription_is_stored_but_for_its_schema() {
    use crate::store::LeafStore as _;
    let leaf = Leaf::subscribed(items()).await;
    let mut after = leaf.subscription().await;
    after.upload_mark_answered = Some(syncline::ids::Mark::fresh());
    after.schema.version = 99;
    leaf.store.save(&after).await.unwrap();
    let stored = leaf.subscription().await;
    assert_eq!(stored.upload_mark_answered, after.upload_mark_answered);
    assert_eq!(stored.schema, leaf.schema);
}
