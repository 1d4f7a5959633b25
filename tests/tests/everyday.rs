//! What users do every day, on all four pairings of databases: fill an empty replica, edit on any side with plain SQL,
//! synchronise, and have the same rows everywhere.

use syncline_tests::database::{Database, Kind, PAIRINGS};
use syncline_tests::leaf::Leaf;
use syncline_tests::service::Service;
use syncline_tests::shop;

/// A hub with `customers` customers, its service, and two empty leaves.
pub(crate) struct Setup {
    _directory: tempfile::TempDir,
    pub(crate) hub: Database,
    pub(crate) service: Service,
    pub(crate) leaves: Vec<Leaf>,
}

impl Setup {
    pub(crate) async fn new(hub: Kind, leaf: Kind, customers: u32) -> Self {
        Self::with_scope(hub, leaf, customers, shop::SCOPE).await
    }

    pub(crate) async fn with_scope(hub: Kind, leaf: Kind, customers: u32, scope: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(hub, directory.path(), "hub").await;
        shop::fill(&hub, customers).await;
        let service = Service::start(&hub, scope, directory.path()).await;
        let mut leaves = Vec::new();
        for name in ["one", "two"] {
            let database = Database::new(leaf, directory.path(), name).await;
            leaves.push(Leaf::new(&database, service.url()));
        }
        Self { _directory: directory, hub, service, leaves }
    }

    pub(crate) async fn sync_all(&self) {
        for leaf in &self.leaves {
            leaf.sync().await;
        }
    }

    pub(crate) async fn assert_all_same(&self) {
        for leaf in &self.leaves {
            shop::assert_same(&self.hub, &leaf.database).await;
        }
    }
}

#[tokio::test]
async fn an_empty_replica_is_filled_and_then_has_nothing_to_do() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf, 50).await;
        let first = setup.leaves[0].sync().await;
        assert_eq!(first.number("/downloaded/upserts"), 204, "{hub:?} to {leaf:?}");
        assert_eq!(first.report["up_to_date"], false);
        shop::assert_same(&setup.hub, &setup.leaves[0].database).await;

        let second = setup.leaves[0].sync().await;
        assert_eq!(second.report["up_to_date"], true, "{hub:?} to {leaf:?}: {}", second.report);
        assert!(second.report["session_id"].is_null());
    }
}

#[tokio::test]
async fn edits_of_any_side_reach_all_others() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf, 20).await;
        setup.sync_all().await;

        let at_hub = "UPDATE customer SET name = 'renamed at the hub' WHERE id = 1;
                      INSERT INTO product VALUES (3, 'paper', 3.75); DELETE FROM line WHERE order_id = 'o2'";
        setup.hub.execute(at_hub).await;
        let at_one = "UPDATE customer SET name = 'renamed at one' WHERE id = 2;
                      INSERT INTO orders VALUES ('n1', 2, '2026-02-02 12:00:00', NULL);
                      INSERT INTO line VALUES ('n1', 1, 1, 7)";
        setup.leaves[0].database.execute(at_one).await;
        let at_two = "DELETE FROM line WHERE order_id = 'o5'; DELETE FROM orders WHERE id = 'o5'";
        setup.leaves[1].database.execute(at_two).await;

        setup.sync_all().await;
        setup.sync_all().await;
        setup.assert_all_same().await;
        let renamed = "SELECT count(*) FROM customer WHERE name LIKE 'renamed%'";
        assert_eq!(setup.hub.count(renamed).await, 2, "{hub:?} to {leaf:?}");
        let lines = "SELECT count(*) FROM line WHERE order_id = 'o5'";
        assert_eq!(setup.hub.count(lines).await, 0, "{hub:?} to {leaf:?}");

        for leaf in &setup.leaves {
            let quiet = leaf.sync().await;
            assert_eq!(quiet.report["up_to_date"], true, "{}", quiet.report);
        }
    }
}

#[tokio::test]
async fn a_changed_key_is_a_delete_and_an_insert() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf, 3).await;
        setup.sync_all().await;
        setup.hub.execute("UPDATE product SET id = 30 WHERE id = 3 OR name = 'none'").await;
        setup.hub.execute("INSERT INTO product VALUES (7, 'cap', 1.25)").await;
        setup.sync_all().await;
        setup.hub.execute("UPDATE product SET id = 8 WHERE id = 7").await;
        setup.leaves[0].database.execute("INSERT INTO product VALUES (9, 'box', 2.25)").await;
        setup.sync_all().await;
        setup.leaves[0].database.execute("UPDATE product SET id = 10 WHERE id = 9").await;
        setup.sync_all().await;
        setup.sync_all().await;
        setup.assert_all_same().await;
        assert_eq!(setup.hub.count("SELECT count(*) FROM product WHERE id IN (8, 10)").await, 2);
        assert_eq!(setup.hub.count("SELECT count(*) FROM product WHERE id IN (7, 9)").await, 0);
    }
}

#[tokio::test]
async fn a_conflict_is_settled_by_the_policy_and_keeps_both_sides() {
    for (hub, leaf) in PAIRINGS {
        for (policy, winner) in [("server_wins", "at the hub"), ("client_wins", "at the leaf")] {
            let setup = Setup::with_scope(hub, leaf, 3, &shop::scope_with(policy)).await;
            setup.sync_all().await;
            setup.hub.execute("UPDATE customer SET name = 'at the hub' WHERE id = 1").await;
            setup.leaves[0].database.execute("UPDATE customer SET name = 'at the leaf' WHERE id = 1").await;
            let run = setup.leaves[0].sync().await;
            assert_eq!(run.number("/conflicts"), 1, "{policy}: {}", run.report);
            setup.sync_all().await;
            setup.assert_all_same().await;
            let kept = format!("SELECT count(*) FROM customer WHERE id = 1 AND name = '{winner}'");
            assert_eq!(setup.hub.count(&kept).await, 1, "{policy} {hub:?} to {leaf:?}");

            let listed = conflicts(&setup.hub).await;
            assert_eq!(listed.len(), 1, "{listed:?}");
            assert_eq!(listed[0]["kind"], "update_update");
            assert_eq!(listed[0]["policy"], policy);
            assert_eq!(listed[0]["local"]["row"]["name"], "at the hub");
            assert_eq!(listed[0]["remote"]["row"]["name"], "at the leaf");
        }
    }
}

/// What `syncline conflicts list --json` prints of a database.
pub(crate) async fn conflicts(database: &Database) -> Vec<serde_json::Value> {
    let output = tokio::process::Command::new(syncline_tests::binary())
        .args(["conflicts", "list", "--json", "--database", &database.url()])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    document["conflicts"].as_array().unwrap().clone()
}

#[tokio::test]
async fn rows_that_are_there_before_the_first_session_are_uploaded() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf, 2).await;
        let database = &setup.leaves[0].database;
        database.execute(shop::SCHEMA).await;
        database.execute("INSERT INTO product VALUES (1, 'pen', 1.50), (50, 'mine', 5.25)").await;
        let run = setup.leaves[0].sync().await;
        // The pen is the same as the hub's: no conflict.
        assert_eq!(run.number("/conflicts"), 0, "{hub:?} to {leaf:?}: {}", run.report);
        setup.sync_all().await;
        setup.assert_all_same().await;
        assert_eq!(setup.hub.count("SELECT count(*) FROM product WHERE id = 50").await, 1);
    }
}
