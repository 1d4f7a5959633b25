//! A database that went back in time, or is a copy, takes a new id; what was marked durable keeps the old one.

use syncline::ids::Tick;
use syncline::knowledge::{Knowledge, Version};

use super::kit::{Database, int, text};
use crate::dialect::postgres::PostgresDatabase;
use crate::store::HubStore as _;

#[tokio::test]
async fn opening_it_again_keeps_the_id() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, name text)").await;
    let id = database.hub.open_hub().await.unwrap();
    assert_eq!(database.hub.open_hub().await.unwrap(), id);
    let again = PostgresDatabase::open(&database.url).await.unwrap();
    assert_eq!(again.open_hub().await.unwrap(), id);
}

#[tokio::test]
async fn a_copy_takes_a_new_id_and_the_old_one_stands_still() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, name text)").await;
    let shop = database.scope(&["item"]).await;
    let id = shop.hub.open_hub().await.unwrap();
    database.run("INSERT INTO item VALUES (1, 'marked')").await;
    let mark = shop.hub.durable_tick().await.unwrap();
    database.run("INSERT INTO item VALUES (2, 'after the mark')").await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    shop.hub.close().await;
    let name = database.url.rsplit('/').next().unwrap();
    let copy = format!("{name}_copy");
    let mut admin = super::kit::connect(&database.url.replace(name, "postgres")).await;
    super::kit::run(&mut admin, &format!("CREATE DATABASE {copy} TEMPLATE {name}")).await;
    let url = database.url.replace(name, &copy);
    let hub = PostgresDatabase::open(&url).await.unwrap();
    let new = hub.open_hub().await.unwrap();
    assert_ne!(new, id);
    let scope = hub.scope(&shop.scope.schema.name).await.unwrap().unwrap();
    let copied = super::kit::Shop { hub, scope: std::sync::Arc::new(scope), leaf: shop.leaf.clone() };
    let (knowledge, rows) = copied.changes(&known).await;
    assert_eq!(knowledge.clock(id).unwrap().tick(), mark.tick);
    assert!(knowledge.clock(new).is_some());
    // What was written after the last mark is not known by anyone as the new id's.
    assert_eq!(rows[0].2, [int(2), text("after the mark")]);
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn a_form_that_no_mark_has_covered_is_of_the_new_id() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, name text)").await;
    let shop = database.scope(&["item"]).await;
    let id = shop.hub.open_hub().await.unwrap();
    let ahead = Version { replica: id, tick: Tick(u64::MAX >> 1) };
    let new = shop.hub.check_not_behind(ahead).await.unwrap();
    let stored = shop.hub.scope(&shop.scope.schema.name).await.unwrap().unwrap();
    let table = &stored.tables[0];
    assert_eq!([table.since, table.reshaped, table.baseline].map(|version| version.replica), [new; 3]);
}

#[tokio::test]
async fn a_caller_that_knows_more_than_the_hub_makes_it_take_a_new_id() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, name text)").await;
    let id = database.hub.open_hub().await.unwrap();
    let mark = database.hub.durable_tick().await.unwrap();
    assert_eq!(database.hub.check_not_behind(mark).await.unwrap(), id);
    let ahead = Version { replica: id, tick: Tick(mark.tick.0 + 1_000_000) };
    let new = database.hub.check_not_behind(ahead).await.unwrap();
    assert_ne!(new, id);
    assert_eq!(
        database.hub.check_not_behind(ahead).await.unwrap(),
        new,
        "the old id is not ours to judge any more"
    );
    assert_eq!(database.hub.open_hub().await.unwrap(), new);
}

/// Whoever hangs up while a transaction begins leaves none behind: the next user of the connection would be in it.
#[tokio::test]
async fn a_begin_that_is_dropped_leaves_no_transaction_in_the_pool() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, name text)").await;
    for polls in 1..12 {
        let mut begin = Box::pin(database.hub.begin_durable());
        for _ in 0..polls {
            if futures_util::poll!(&mut begin).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // What was begun comes to its end.
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncline' \
                AND datname = current_database() AND state LIKE 'idle in transaction%'";
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while database.cell(open).await != "0" {
        assert!(tokio::time::Instant::now() < deadline, "a transaction was left open");
    }
}
