//! A row that breaks a constraint at the destination does not stop the others: it is reported, kept, and makes the exit
//! status 3.

use syncline_tests::database::{Kind, PAIRINGS};
use syncline_tests::leaf::Leaf;
use syncline_tests::shop;
use syncline_tests::world::{Reach, World, WorldOptions};

use crate::everyday::Setup;

#[tokio::test]
async fn a_row_that_the_hub_refuses_stays_at_the_leaf_and_the_others_arrive() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf, 3).await;
        setup.sync_all().await;
        // Taken at the hub while the leaf could not know.
        setup.hub.execute("INSERT INTO customer VALUES (70, 'first', 'taken@example.org', 1.25, NULL)").await;
        let leaf = &setup.leaves[0];
        leaf.database
            .execute(
                "INSERT INTO customer VALUES (71, 'second', 'taken@example.org', 1.25, NULL);
                 INSERT INTO product VALUES (71, 'arrives', 7.25)",
            )
            .await;
        let run = leaf.run().await;
        assert_eq!(run.status, Some(3), "{hub:?} to {leaf:?}: {} {}", run.report, run.errors);
        assert!(run.number("/row_errors") >= 1);
        assert_eq!(setup.hub.count("SELECT count(*) FROM product WHERE id = 71").await, 1);
        assert_eq!(leaf.database.count("SELECT count(*) FROM customer WHERE id = 71").await, 1);

        // Mended, it arrives, and what could not come because of it comes too.
        leaf.database.execute("UPDATE customer SET email = 'free@example.org' WHERE id = 71").await;
        leaf.run().await;
        setup.sync_all().await;
        setup.assert_all_same().await;
        assert_eq!(setup.hub.count("SELECT count(*) FROM customer WHERE id IN (70, 71)").await, 2);
    }
}

/// The leaf could not apply the hub's row, though its knowledge passed it: an edit of that row at the leaf must meet it.
#[tokio::test]
async fn an_edit_of_a_row_that_could_not_be_applied_is_a_conflict() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf, 3).await;
        setup.sync_all().await;
        setup
            .hub
            .execute("INSERT INTO customer VALUES (70, 'of the hub', 'taken@example.org', 1.25, NULL)")
            .await;
        let leaf = &setup.leaves[0];
        leaf.database
            .execute("INSERT INTO customer VALUES (71, 'other', 'taken@example.org', 1.25, NULL)")
            .await;
        assert_eq!(leaf.run().await.status, Some(3), "{hub:?} to {leaf:?}");
        leaf.database
            .execute(
                "UPDATE customer SET email = 'free@example.org' WHERE id = 71;
                 INSERT INTO customer VALUES (70, 'of the leaf', 'else@example.org', 1.25, NULL)",
            )
            .await;
        let run = leaf.run().await;
        assert!(run.number("/conflicts") >= 1, "{hub:?} to {leaf:?}: {}", run.report);
        let kept = "SELECT count(*) FROM customer WHERE id = 70 AND name = 'of the hub'";
        assert_eq!(setup.hub.count(kept).await, 1);
        setup.sync_all().await;
        setup.assert_all_same().await;
    }
}

#[tokio::test]
async fn unique_values_that_change_places_are_no_error() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf, 4).await;
        setup.sync_all().await;
        let swap = "UPDATE customer SET email = 'x' WHERE id = 1;
                    UPDATE customer SET email = 'c1@example.org' WHERE id = 2;
                    UPDATE customer SET email = 'c2@example.org' WHERE id = 1";
        setup.hub.execute(swap).await;
        setup.sync_all().await;
        setup.assert_all_same().await;
        let back = "UPDATE customer SET email = 'x' WHERE id = 3;
                    UPDATE customer SET email = 'c3@example.org' WHERE id = 4;
                    UPDATE customer SET email = 'c4@example.org' WHERE id = 3";
        setup.leaves[0].database.execute(back).await;
        setup.sync_all().await;
        setup.sync_all().await;
        setup.assert_all_same().await;
    }
}

#[tokio::test]
async fn rows_that_refer_to_themselves_and_to_each_other_arrive() {
    let setup = Setup::new(Kind::Postgres, Kind::Sqlite, 2).await;
    setup.sync_all().await;
    let leaf: &Leaf = &setup.leaves[0];
    leaf.database
        .execute("INSERT INTO employee VALUES (10, 'Zoe', NULL), (11, 'Yan', 10), (12, 'Xia', 11); UPDATE employee SET boss = 12 WHERE id = 10")
        .await;
    setup.hub.execute("INSERT INTO employee VALUES (20, 'Own', 20)").await;
    setup.sync_all().await;
    setup.sync_all().await;
    setup.assert_all_same().await;
    shop::assert_same(&setup.hub, &leaf.database).await;
}

#[tokio::test]
async fn a_row_with_a_key_that_the_hub_cannot_hold_stays_dirty_until_it_is_corrected() {
    let options = WorldOptions {
        hub: Kind::Postgres,
        leaf: Kind::Sqlite,
        leaves: 1,
        reach: Reach::Near,
        schema: "CREATE TABLE item (id uuid PRIMARY KEY, price numeric(10,2) CHECK (price > 0))",
        scope: "name = \"shop\"\n[[tables]]\nname = \"item\"\n",
    };
    let world = World::new(options).await;
    let leaf = &world.leaves[0];
    world.sync(0).await;
    leaf.execute(
        "INSERT INTO item VALUES ('not-a-uuid', 1.5);
         INSERT INTO item VALUES ('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 1.555)",
    )
    .await;
    for _ in 0..2 {
        let report = world.sync(0).await;
        assert_eq!(report.row_errors, 1, "each session sends it again");
    }
    // What the hub rounded has come back.
    assert_eq!(leaf.count("SELECT count(*) FROM item WHERE price = 1.56").await, 1);
    leaf.execute("UPDATE item SET id = '6ba7b811-9dad-11d1-80b4-00c04fd430c8' WHERE id = 'not-a-uuid'").await;
    for _ in 0..2 {
        assert_eq!(world.sync(0).await.row_errors, 0);
    }
    assert_eq!(world.hub.count("SELECT count(*) FROM item").await, 2);
    assert_eq!(leaf.count("SELECT count(*) FROM item").await, 2);
}
