//! Keys: a refused row is named by the key that was sent, and keys whose equality is not that of their bytes are refused.

use syncline::ids::Tick;
use syncline::knowledge::{Knowledge, RowKey, Version};
use syncline::value::Value;

use super::kit::{Database, Shop, born, int, key, text};

fn decimal(value: &str) -> Value {
    Value::Decimal(value.to_owned())
}

/// Whether the hub takes the leaf's change of this key for known.
async fn is_known(shop: &Shop, sent: &[Value], tick: u64) -> bool {
    let row = RowKey { table: shop.id("item"), key: key(sent) };
    shop.leaf_clock().await.contains(&row, Version { replica: shop.leaf.id, tick: Tick(tick) })
}

#[tokio::test]
async fn a_key_that_the_column_cannot_hold_is_refused_under_the_name_that_the_leaf_knows_it_by() {
    let database = Database::with("CREATE TABLE item (id uuid PRIMARY KEY, name text)").await;
    let mut shop = database.scope(&["item"]).await;
    let fits = text("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    let rows = [born("item", [text("not-a-uuid"), text("a")]), born("item", [fits, text("b")])];
    let report = shop.upload(&Knowledge::new(), &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (1, 1));
    assert_eq!(shop.row_errors().await, [(r#"{"id":"not-a-uuid"}"#.to_owned(), "TYPE")]);
    assert!(!is_known(&shop, &[text("not-a-uuid")], 1).await, "it is sent again");
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_is_refused_under_its_key_as_it_was_sent() {
    let database =
        Database::with("CREATE TABLE item (id numeric(10,2) PRIMARY KEY, n int CHECK (n > 0))").await;
    let mut shop = database.scope(&["item"]).await;
    let rows = [born("item", [decimal("1.5"), int(-1)]), born("item", [decimal("2.50"), int(1)])];
    let report = shop.upload(&Knowledge::new(), &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (1, 1));
    assert_eq!(shop.row_errors().await, [(r#"{"id":"1.5"}"#.to_owned(), "CHECK")]);
    assert!(!is_known(&shop, &[decimal("1.5")], 1).await, "it is sent again");
    assert!(is_known(&shop, &[decimal("2.50")], 2).await);
}

#[tokio::test]
async fn a_key_of_a_type_outside_the_catalogue_takes_part_both_ways() {
    let database = Database::with(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE item (id mood PRIMARY KEY, name text)",
    )
    .await;
    let mut shop = database.scope(&["item"]).await;
    let report = shop.upload(&Knowledge::new(), &[born("item", [text("ok"), text("a")])]).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (1, 0));
    assert_eq!(database.cell("SELECT id || name FROM item").await, "oka");
    let (_, rows) = shop.other_leaf().changes(&Knowledge::new()).await;
    assert_eq!(rows[0].2, [text("ok"), text("a")]);
}
