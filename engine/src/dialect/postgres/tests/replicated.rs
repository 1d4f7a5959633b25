//! Rows that come by a logical subscription are changes of this database like any other.

use syncline::batch::Operation;
use syncline::error::ErrorReason;
use syncline::knowledge::Knowledge;

use super::kit::{Database, Publisher, int, text};
use crate::store::HubStore as _;

const ITEMS: &str = "CREATE TABLE item (id int PRIMARY KEY, name text)";

#[tokio::test]
async fn what_a_subscription_writes_is_tracked() {
    let database = Database::with(ITEMS).await;
    let shop = database.scope(&["item"]).await;
    let mut publisher = Publisher::of(ITEMS, &database.url).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    publisher.run("INSERT INTO item VALUES (1, 'a'), (2, 'b'), (3, 'c')").await;
    publisher.arrives("SELECT count(*) = 3 FROM item").await;
    let (known, rows) = shop.changes(&known).await;
    assert_eq!(rows.len(), 3);
    publisher
        .run("BEGIN; UPDATE item SET name = 'z' WHERE id = 1; UPDATE item SET id = 9 WHERE id = 2; DELETE FROM item WHERE id = 3; COMMIT")
        .await;
    publisher.arrives("SELECT count(*) = 2 AND bool_or(id = 9) FROM item").await;
    let (known, rows) = shop.changes(&known).await;
    let rows: Vec<_> = rows.into_iter().map(|(_, operation, cells)| (operation, cells)).collect();
    let (upsert, delete) = (Operation::Upsert, Operation::Delete);
    let expect = [
        (upsert, vec![int(1), text("z")]),
        (upsert, vec![int(9), text("b")]),
        (delete, vec![int(2)]),
        (delete, vec![int(3)]),
    ];
    assert_eq!(rows, expect);
    publisher.run("TRUNCATE item").await;
    publisher.arrives("SELECT count(*) = 0 FROM item").await;
    let snapshot = shop.hub.snapshot(&shop.scope).await.unwrap();
    let truncated = snapshot.table(shop.id("item")).unwrap().truncated.unwrap();
    assert!(!known.contains_version(truncated));
}

#[tokio::test]
async fn without_the_trigger_for_them_tracking_is_broken() {
    let database = Database::with(ITEMS).await;
    let shop = database.scope(&["item"]).await;
    for harm in ["DISABLE TRIGGER syncline_replica", "ENABLE TRIGGER syncline_replica"] {
        database.run(&format!("ALTER TABLE item {harm}")).await;
        let error = shop.hub.snapshot(&shop.scope).await.err().unwrap();
        assert_eq!(error.reason(), ErrorReason::TrackingBroken, "{harm}");
    }
    database.scope(&["item"]).await.changes(&Knowledge::new()).await;
}

#[tokio::test]
async fn an_ordinary_session_of_the_replication_role_marks_a_row_as_if_once() {
    let database = Database::with(ITEMS).await;
    let shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database.run("SET session_replication_role = replica; INSERT INTO item VALUES (1, 'a')").await;
    let (known, rows) = shop.changes(&known).await;
    assert_eq!(rows.len(), 1);
    database.run("SET session_replication_role = replica; UPDATE item SET id = 2").await;
    let (known, rows) = shop.changes(&known).await;
    assert_eq!(rows.iter().map(|row| row.1).collect::<Vec<_>>(), [Operation::Upsert, Operation::Delete]);
    assert!(shop.changes(&known).await.1.is_empty());
}
