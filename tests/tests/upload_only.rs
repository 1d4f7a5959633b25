//! Goal: in a table that only uploads, a leaf overwrites nothing that it was never sent without a conflict, whatever it
//! downloads of other tables; and its own rows are plain.

use syncline_tests::database::{Kind, PAIRINGS};
use syncline_tests::world::{Reach, World, WorldOptions};

const SCHEMA: &str = "CREATE TABLE inbox (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE note (id INTEGER PRIMARY KEY, name TEXT)";
const SCOPE: &str = "name = \"shop\"
    [[tables]]
    name = \"inbox\"
    direction = \"upload\"
    [[tables]]
    name = \"note\"
    ";

async fn world(hub: Kind, leaf: Kind) -> World {
    let reach = Reach::Near;
    let world = World::new(WorldOptions { hub, leaf, leaves: 1, reach, schema: SCHEMA, scope: SCOPE }).await;
    world.sync(0).await;
    world.leaves[0].execute("INSERT INTO inbox VALUES (1, 'leaf')").await;
    world.sync(0).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_a_row_that_the_hub_has_edited_is_a_conflict_whatever_was_downloaded() {
    for (hub, leaf) in PAIRINGS {
        let world = world(hub, leaf).await;
        world.hub.execute("UPDATE inbox SET name = 'hub' WHERE id = 1").await;
        world.hub.execute("INSERT INTO note VALUES (1, 'unrelated')").await;
        world.sync(0).await;
        world.leaves[0].execute("UPDATE inbox SET name = 'leaf again' WHERE id = 1").await;
        world.sync(0).await;
        assert_eq!(world.hub.count("SELECT count(*) FROM inbox WHERE name = 'hub'").await, 1, "{hub:?}");
        let conflicts = world.hub_conflicts().await;
        assert_eq!(conflicts.len(), 1, "{hub:?}");
        assert_eq!(conflicts[0].remote_row.as_ref().unwrap()["name"], "leaf again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leafs_own_rows_are_plain() {
    for (hub, leaf) in PAIRINGS {
        let world = world(hub, leaf).await;
        world.leaves[0].execute("UPDATE inbox SET name = 'edited' WHERE id = 1").await;
        world.sync(0).await;
        assert_eq!(world.hub.count("SELECT count(*) FROM inbox WHERE name = 'edited'").await, 1, "{hub:?}");
        world.leaves[0].execute("DELETE FROM inbox").await;
        world.sync(0).await;
        assert_eq!(world.hub.count("SELECT count(*) FROM inbox").await, 0, "{hub:?}");
        assert!(world.hub_conflicts().await.is_empty(), "{hub:?}");
    }
}
