//! Partitioned tables: what happens to one partition is a change of the rows that it held.

use syncline::error::ErrorReason;
use syncline::knowledge::Knowledge;
use syncline::schema::ConflictPolicy;

use super::kit::{Database, Shop, born, changed, definition, int, text};
use crate::store::HubStore as _;

async fn shop(policy: ConflictPolicy) -> (Database, Shop) {
    let database = Database::with(
        "CREATE TABLE item (id int, name text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE item_low PARTITION OF item FOR VALUES FROM (0) TO (10);
         CREATE TABLE item_high PARTITION OF item FOR VALUES FROM (10) TO (20)",
    )
    .await;
    let mut definition = definition(&["item"]);
    definition.conflict_policy = policy;
    let shop = database.scope_of(definition).await;
    database.run("INSERT INTO item VALUES (1, 'a'), (11, 'b')").await;
    (database, shop)
}

#[tokio::test]
async fn an_edit_of_a_row_that_was_truncated_with_its_partition_is_a_conflict() {
    for folded in [false, true] {
        let (database, mut shop) = shop(ConflictPolicy::ServerWins).await;
        let (known, _) = if folded {
            shop.changes(&Knowledge::new()).await
        } else {
            shop.changes_unfolded(&Knowledge::new()).await
        };
        database.run("TRUNCATE item_low").await;
        let rows = [
            changed("item", [int(1), text("edited")]),
            changed("item", [int(11), text("edited")]),
            born("item", [int(2), text("new")]),
        ];
        let report = shop.upload(&known, &rows).await.unwrap();
        assert_eq!((report.result.upserts, report.result.conflicts), (2, 1), "folded: {folded}");
        let names = "SELECT string_agg(id || name, ' ' ORDER BY id) FROM item";
        assert_eq!(database.cell(names).await, "2new 11edited");
        let conflict = shop.conflicts().await.remove(0);
        assert_eq!(conflict.summary.kind.name(), "delete_update");
        assert_eq!(conflict.local_row, None);
        // The leaf hears of it: its next download compares the table as a whole. What it then writes is no conflict.
        let (known, _) = shop.changes(&known).await;
        let report = shop.upload(&known, &[born("item", [int(1), text("again")])]).await.unwrap();
        assert_eq!((report.result.upserts, report.result.conflicts), (1, 0));
    }
}

#[tokio::test]
async fn a_leaf_that_wins_brings_the_truncated_row_back() {
    let (database, mut shop) = shop(ConflictPolicy::ClientWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database.run("TRUNCATE item_low").await;
    let report = shop.upload(&known, &[changed("item", [int(1), text("edited")])]).await.unwrap();
    assert_eq!((report.result.upserts, report.result.conflicts), (1, 1));
    assert_eq!(database.cell("SELECT name FROM item WHERE id = 1").await, "edited");
}

#[tokio::test]
async fn a_partition_that_was_detached_and_attached_again_is_noticed_and_compared() {
    let (database, shop) = shop(ConflictPolicy::ServerWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database
        .run(
            "ALTER TABLE item DETACH PARTITION item_low; UPDATE item_low SET name = 'unseen';
             ALTER TABLE item ATTACH PARTITION item_low FOR VALUES FROM (0) TO (10)",
        )
        .await;
    let error = shop.hub.snapshot(&shop.scope).await.err().unwrap();
    assert_eq!(error.reason(), ErrorReason::TrackingBroken);
    let shop = database.scope(&["item"]).await;
    let (known, rows) = shop.changes(&known).await;
    let names: Vec<_> = rows.iter().map(|row| row.2[1].clone()).collect();
    assert_eq!(names, [text("unseen"), text("b")], "compared as a whole");
    assert!(shop.changes(&known).await.1.is_empty());
}
