//! Twenty clients at once, all writing transactions of several rows, with writers at the hub: everything is equal at the
//! end, and no transaction is ever seen in part.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use syncline_tests::database::{Database, Kind};
use syncline_tests::leaf::Leaf;
use syncline_tests::service::Service;

const CLIENTS: usize = 20;
const ROUNDS: usize = 3;

/// Each transaction moves an amount between two accounts of one pair: their sum never changes.
const SCHEMA: &str =
    "CREATE TABLE account (id INTEGER PRIMARY KEY, pair INTEGER NOT NULL, amount INTEGER NOT NULL)";
const SCOPE: &str = "name = \"shop\"\n[[tables]]\nname = \"account\"\n";

#[tokio::test]
async fn twenty_clients_and_writers_at_the_hub_end_equal_and_see_whole_transactions() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(kind, directory.path(), "hub").await;
        hub.execute(SCHEMA).await;
        let accounts: Vec<_> = (0..2 * (CLIENTS + 2)).map(|id| format!("({id}, {}, 100)", id / 2)).collect();
        hub.execute(&format!("INSERT INTO account VALUES {}", accounts.join(", "))).await;
        let service = Service::start(&hub, SCOPE, directory.path()).await;

        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write_at_hub(hub.clone(), stop.clone()));
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let database = Database::new(Kind::Sqlite, directory.path(), &format!("leaf{number}")).await;
            let leaf = Leaf::new(&database, service.url());
            clients.push(tokio::spawn(live(leaf, number)));
        }
        let mut leaves = Vec::new();
        for client in clients {
            leaves.push(client.await.unwrap());
        }
        stop.store(true, Ordering::SeqCst);
        writer.await.unwrap();

        assert_whole(&hub).await;
        let expected = hub.rows("account", &["id"], &["pair", "amount"]).await;
        for leaf in leaves {
            leaf.sync().await;
            assert_eq!(leaf.database.rows("account", &["id"], &["pair", "amount"]).await, expected);
        }
    }
}

/// Edits its own pair and synchronises, and looks at all pairs after each session.
async fn live(leaf: Leaf, number: usize) -> Leaf {
    leaf.sync().await;
    for round in 0..ROUNDS {
        leaf.database.execute(&transfer(number, round + 1)).await;
        leaf.sync().await;
        assert_whole(&leaf.database).await;
    }
    leaf
}

async fn write_at_hub(hub: Database, stop: Arc<AtomicBool>) {
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        round += 1;
        hub.execute(&transfer(CLIENTS + round % 2, round % 7)).await;
    }
}

fn transfer(pair: usize, amount: usize) -> String {
    format!(
        "UPDATE account SET amount = amount - {amount} WHERE id = {}; \
         UPDATE account SET amount = amount + {amount} WHERE id = {}",
        2 * pair,
        2 * pair + 1
    )
}

async fn assert_whole(database: &Database) {
    let torn =
        "SELECT count(*) FROM (SELECT pair FROM account GROUP BY pair HAVING sum(amount) <> 200) AS torn";
    assert_eq!(database.count(torn).await, 0, "a transaction is seen in part");
}
