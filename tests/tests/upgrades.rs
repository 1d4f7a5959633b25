//! A scope gets a column while its leaves are out with edits of their own: nobody's edit is lost, neither what the hub
//! has in the new column nor what the leaf has in the old ones.

use std::time::Duration;

use syncline_tests::database::{Database, Kind, PAIRINGS, Rows};
use syncline_tests::leaf::Leaf;
use syncline_tests::service::{Service, apply_scope};
use syncline_tests::watching::Watching;

const SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(80) NOT NULL)";
pub(crate) const COLUMN: &str = "ALTER TABLE item ADD COLUMN colour VARCHAR(20) DEFAULT 'grey'";

pub(crate) struct Setup {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) hub: Database,
    pub(crate) service: Service,
    pub(crate) leaf: Leaf,
    /// One that is never out.
    other: Leaf,
}

pub(crate) fn scope(policy: &str) -> String {
    format!("name = \"shop\"\nconflict = \"{policy}\"\n[[tables]]\nname = \"item\"\n")
}

impl Setup {
    pub(crate) async fn new(hub: Kind, leaf: Kind, policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(hub, directory.path(), "hub").await;
        hub.execute(SCHEMA).await;
        let rows: Vec<_> = (1..=8).map(|id| format!("({id}, 'item {id}')")).collect();
        hub.execute(&format!("INSERT INTO item VALUES {}", rows.join(", "))).await;
        let service = Service::start(&hub, &scope(policy), directory.path()).await;
        let leaf = Leaf::new(&Database::new(leaf, directory.path(), "leaf").await, service.url());
        let other = Leaf::new(&Database::new(Kind::Sqlite, directory.path(), "other").await, service.url());
        leaf.sync().await;
        other.sync().await;
        Self { directory, hub, service, leaf, other }
    }

    pub(crate) async fn rows(database: &Database) -> Rows {
        database.rows("item", &["id"], &["name", "colour"]).await
    }

    pub(crate) async fn assert_same(&self, what: &str) {
        for _ in 0..2 {
            self.leaf.sync().await;
            self.other.sync().await;
        }
        let expected = Self::rows(&self.hub).await;
        for leaf in [&self.leaf, &self.other] {
            assert_eq!(Self::rows(&leaf.database).await, expected, "{what}");
            assert_eq!(leaf.sync().await.report["up_to_date"], true, "{what}");
        }
    }
}

pub(crate) fn row(rows: &Rows, id: u32) -> (String, Option<String>) {
    let cells = &rows[&id.to_string()];
    (cells[0].clone().unwrap(), cells[1].clone())
}

#[tokio::test]
async fn a_leaf_with_unsent_edits_gets_a_column() {
    for (hub, leaf) in PAIRINGS {
        for policy in ["server_wins", "client_wins"] {
            let what = format!("{hub:?} {leaf:?} {policy}");
            let setup = Setup::new(hub, leaf, policy).await;
            // Out there: an edit, an insert, a delete, and an edit of what the hub will edit too.
            setup
                .leaf
                .database
                .execute(
                    "UPDATE item SET name = 'edited' WHERE id = 1; INSERT INTO item VALUES (20, 'born'); \
                     DELETE FROM item WHERE id = 3; UPDATE item SET name = 'by the leaf' WHERE id = 4",
                )
                .await;
            setup.hub.execute(COLUMN).await;
            apply_scope(&setup.hub, &scope(policy), setup.directory.path()).await;
            setup.hub.execute("UPDATE item SET colour = 'red' WHERE id = 2").await;
            setup.hub.execute("UPDATE item SET name = 'by the hub', colour = 'blue' WHERE id = 4").await;
            setup.other.sync().await;
            let run = setup.leaf.sync().await;
            assert_eq!(run.number("/conflicts"), 1, "{what}: {}", run.report);
            setup.assert_same(&what).await;
            let rows = Setup::rows(&setup.hub).await;
            let grey = Some("grey".to_owned());
            assert_eq!(row(&rows, 1), ("edited".into(), grey.clone()), "{what}");
            assert_eq!(row(&rows, 2), ("item 2".into(), Some("red".into())), "{what}");
            assert!(!rows.contains_key("3"), "{what}");
            assert_eq!(row(&rows, 20), ("born".into(), grey), "{what}");
            let expected = if policy == "server_wins" { "by the hub" } else { "by the leaf" };
            assert_eq!(row(&rows, 4).0, expected, "{what}");
            assert_eq!(crate::everyday::conflicts(&setup.hub).await.len(), 1, "{what}");
            // The column travels both ways from now on.
            setup.leaf.database.execute("UPDATE item SET colour = 'green' WHERE id = 5").await;
            setup.assert_same(&what).await;
            assert_eq!(row(&Setup::rows(&setup.hub).await, 5).1, Some("green".into()), "{what}");
            drop(setup.service);
        }
    }
}

/// The hub's column is filled before the scope knows it, so the leaf has seen the rows' versions without their new
/// cells. Its edits of those rows must not empty them.
#[tokio::test]
async fn an_edit_without_the_new_column_leaves_it_as_it_is() {
    for (hub, leaf) in PAIRINGS {
        let what = format!("{hub:?} {leaf:?}");
        let setup = Setup::new(hub, leaf, "server_wins").await;
        setup.hub.execute(COLUMN).await;
        setup.hub.execute("UPDATE item SET colour = 'red' WHERE id <= 4").await;
        // In the old form: the versions are known now.
        let versions = setup.leaf.run().await;
        setup.leaf.database.execute("UPDATE item SET name = 'edited' WHERE id = 1").await;
        apply_scope(&setup.hub, &scope("server_wins"), setup.directory.path()).await;
        let run = setup.leaf.sync().await;
        assert_eq!(run.number("/conflicts"), 0, "{what}: {} {}", run.report, versions.report);
        setup.assert_same(&what).await;
        let rows = Setup::rows(&setup.hub).await;
        assert_eq!(row(&rows, 1), ("edited".into(), Some("red".into())), "{what}");
        assert_eq!(row(&rows, 2), ("item 2".into(), Some("red".into())), "{what}");
        // What is set in the new column afterwards is taken.
        setup.leaf.database.execute("UPDATE item SET colour = 'green' WHERE id = 1").await;
        setup.assert_same(&what).await;
        assert_eq!(row(&Setup::rows(&setup.hub).await, 1).1, Some("green".into()), "{what}");
    }
}

/// News find a watching leaf with a session that was begun when the scope had its older version.
#[tokio::test]
async fn a_watching_leaf_follows_the_scope_to_its_next_version() {
    for (hub, leaf) in PAIRINGS {
        let what = format!("{hub:?} {leaf:?}");
        let setup = Setup::new(hub, leaf, "server_wins").await;
        let mut watching = Watching::start(&setup.leaf);
        watching.round().await;
        setup.hub.execute("UPDATE item SET name = 'news' WHERE id = 1").await;
        assert_eq!(watching.round_that_moves("downloaded").await, 1, "{what}");
        let sessions = match hub {
            Kind::Sqlite => "SELECT count(*) FROM syncline_sessions",
            Kind::Postgres => "SELECT count(*) FROM syncline.sessions",
        };
        let opened = async {
            while setup.hub.count(sessions).await == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), opened).await.expect("a session is opened ahead");
        let joins = "CREATE TABLE note (id INTEGER PRIMARY KEY, text VARCHAR(80)); \
                     INSERT INTO note VALUES (1, 'was there before')";
        setup.hub.execute(&format!("{COLUMN}; {joins}")).await;
        let wider = format!("{}[[tables]]\nname = \"note\"\n", scope("server_wins"));
        apply_scope(&setup.hub, &wider, setup.directory.path()).await;
        setup.hub.execute("UPDATE item SET colour = 'red' WHERE id = 2").await;
        let has_note = async {
            while setup.leaf.database.try_execute("SELECT * FROM note").await.is_err()
                || setup.leaf.database.count("SELECT count(*) FROM note").await == 0
            {
                watching.round().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), has_note).await.expect("the table that joined");
        setup.hub.execute("UPDATE item SET colour = 'green' WHERE id = 3").await;
        let green = "SELECT count(*) FROM item WHERE colour = 'green'";
        while setup.leaf.database.count(green).await == 0 {
            watching.round().await;
        }
        watching.kill().await;
        setup.assert_same(&what).await;
    }
}
