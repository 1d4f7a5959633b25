//! One database that is a hub of one scope and a leaf of another: allowed for different tables; a table that is both is
//! refused by name, from either side.

use syncline_tests::binary;
use syncline_tests::database::{Database, Kind};
use syncline_tests::leaf::Leaf;
use syncline_tests::service::{Service, apply_scope};

const UPPER: &str = "CREATE TABLE price (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL)";
const LOWER: &str = "CREATE TABLE sale (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL)";
const PRICES: &str = "name = \"shop\"\n[[tables]]\nname = \"price\"\n";
const SALES: &str = "name = \"shop\"\n[[tables]]\nname = \"sale\"\n";

async fn assert_rows(databases: &[&Database], table: &str) {
    let expected = databases[0].rows(table, &["id"], &["amount"]).await;
    for database in &databases[1..] {
        assert_eq!(database.rows(table, &["id"], &["amount"]).await, expected, "{table}");
    }
}

/// Upper hub, the branch that is its leaf and a hub itself, and the branch's leaf. Each scope travels on its own.
#[tokio::test]
async fn a_branch_is_a_leaf_of_one_hub_and_a_hub_of_its_own_tables() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let (above, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let head = Database::new(kind, above.path(), "head").await;
        head.execute(UPPER).await;
        head.execute("INSERT INTO price VALUES (1, 10), (2, 20)").await;
        let head_service = Service::start(&head, PRICES, above.path()).await;
        let branch = Database::new(kind, below.path(), "branch").await;
        branch.execute(LOWER).await;
        branch.execute("INSERT INTO sale VALUES (1, 100)").await;
        let branch_service = Service::start(&branch, SALES, below.path()).await;
        let till = Database::new(Kind::Sqlite, below.path(), "till").await;

        let (up, down) = (Leaf::new(&branch, head_service.url()), Leaf::new(&till, branch_service.url()));
        up.sync().await;
        down.sync().await;
        assert_rows(&[&head, &branch], "price").await;
        assert_rows(&[&branch, &till], "sale").await;

        head.execute("UPDATE price SET amount = 11 WHERE id = 1").await;
        branch.execute("UPDATE price SET amount = 21 WHERE id = 2; INSERT INTO sale VALUES (2, 200)").await;
        till.execute("UPDATE sale SET amount = 101 WHERE id = 1; INSERT INTO sale VALUES (3, 300)").await;
        for _ in 0..2 {
            up.sync().await;
            down.sync().await;
        }
        assert_rows(&[&head, &branch], "price").await;
        assert_rows(&[&branch, &till], "sale").await;
        assert_eq!(head.count("SELECT sum(amount) FROM price").await, 32);
        assert_eq!(branch.count("SELECT sum(amount) FROM sale").await, 601);
        for leaf in [&up, &down] {
            let quiet = leaf.sync().await;
            assert_eq!(quiet.report["up_to_date"], true, "{kind:?}: {}", quiet.report);
        }
    }
}

/// What comes down to a leaf is not tracked there, so it could not be handed on: a table has one role.
#[tokio::test]
async fn a_table_is_never_of_a_hub_and_of_a_leaf_at_once() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let (above, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let head = Database::new(kind, above.path(), "head").await;
        head.execute(UPPER).await;
        let head_service = Service::start(&head, PRICES, above.path()).await;

        // A leaf's table is not served on.
        let branch = Database::new(kind, below.path(), "branch").await;
        Leaf::new(&branch, head_service.url()).sync().await;
        let file = below.path().join("scope.toml");
        std::fs::write(&file, PRICES.replace("shop", "branch")).unwrap();
        let output = tokio::process::Command::new(binary())
            .args(["scope", "apply", "--database", &branch.url()])
            .arg(&file)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{kind:?}: {said}");
        assert!(said.contains("price") && said.contains("another hub"), "{kind:?}: {said}");

        // A hub's table does not become a leaf's.
        let other = Database::new(kind, below.path(), "other").await;
        other.execute(UPPER).await;
        apply_scope(&other, &PRICES.replace("shop", "own"), below.path()).await;
        let run = Leaf::new(&other, head_service.url()).run().await;
        assert_eq!(run.status, Some(1), "{kind:?}: {}", run.errors);
        assert_eq!(run.report["error"]["reason"], "SCHEMA_MISMATCH", "{kind:?}: {}", run.report);
        assert!(run.report.to_string().contains("price"), "{kind:?}: {}", run.report);
        // Nothing was changed: both go on.
        head.execute("INSERT INTO price VALUES (3, 30)").await;
        Leaf::new(&branch, head_service.url()).sync().await;
        assert_rows(&[&head, &branch], "price").await;
    }
}
