//! A leaf that goes back in time: restored from a copy that was taken before a session, in it, and after it. No edit is
//! lost, its own or that of others, and nothing is there twice.

use syncline_tests::backup::Backup;
use syncline_tests::database::{Database, Kind};
use syncline_tests::leaf::Leaf;
use syncline_tests::proxy::{Proxy, UNLIMITED};
use syncline_tests::service::Service;
use syncline_tests::shop;

const PAIRINGS: [(Kind, Kind); 2] = [(Kind::Sqlite, Kind::Sqlite), (Kind::Postgres, Kind::Postgres)];
const BATCH_BYTES: &str = "65536";
const ROWS: u32 = 3_000;

/// A hub, the leaf that is restored, and another leaf that must not suffer by it.
struct Setup {
    directory: tempfile::TempDir,
    hub: Database,
    _service: Service,
    proxy: Proxy,
    leaf: Leaf,
    other: Leaf,
}

impl Setup {
    async fn new(hub: Kind, leaf: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(hub, directory.path(), "hub").await;
        shop::fill(&hub, 10).await;
        let service = Service::start(&hub, shop::SCOPE, directory.path()).await;
        let proxy = Proxy::start(service.port()).await;
        let database = Database::new(leaf, directory.path(), "leaf").await;
        let leaf = Leaf::new(&database, proxy.url()).with(&["--batch-bytes", BATCH_BYTES]);
        let database = Database::new(Kind::Sqlite, directory.path(), "other").await;
        let other = Leaf::new(&database, service.url());
        leaf.sync().await;
        other.sync().await;
        Self { directory, hub, _service: service, proxy, leaf, other }
    }

    async fn edit(&self, id: u32, name: &str) {
        let edit = format!("UPDATE customer SET name = '{name}' WHERE id = {id}");
        self.leaf.database.execute(&edit).await;
    }

    /// Whether a name is at the hub.
    async fn is_at_hub(&self, name: &str) -> bool {
        self.hub.count(&format!("SELECT count(*) FROM customer WHERE name = '{name}'")).await == 1
    }

    fn backup(&self, with_parts: bool) -> Backup {
        if with_parts {
            Backup::take_with_parts(&self.leaf.database, self.directory.path(), "leaf")
        } else {
            Backup::take(&self.leaf.database, self.directory.path(), "leaf")
        }
    }

    /// Starts a run and kills it when the hub has committed its upload and no byte of the answer has arrived.
    async fn kill_between_commit_and_answer(&self, name: &str) {
        self.proxy.hold_answers_after(0);
        let mut child = self.leaf.start();
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(1));
        while !self.is_at_hub(name).await {
            // A few bytes at a time: the opening's answer passes, that of the apply (which is longer) has no time to.
            self.proxy.let_answers_go(16);
            pause.tick().await;
            assert!(child.try_wait().unwrap().is_none(), "the run came to its end");
        }
        child.kill().await.unwrap();
        self.proxy.hold_answers_after(UNLIMITED);
    }

    /// Starts a run and kills it when so many bytes have come down.
    async fn kill_in_download(&self, bytes: u64) {
        let (down, up) = self.proxy.passed();
        let mut child = self.leaf.start();
        self.proxy.wait_until_passed(down + up + bytes).await;
        child.kill().await.unwrap();
    }

    /// All edits are at the hub, or in a log of a conflict; all replicas hold the same rows, and rest.
    async fn assert_nothing_lost(&self, edits: &[&str], what: &str) {
        for _ in 0..2 {
            self.leaf.sync().await;
            self.other.sync().await;
        }
        let mut logs = crate::everyday::conflicts(&self.hub).await;
        logs.extend(crate::everyday::conflicts(&self.leaf.database).await);
        for edit in edits {
            let in_log = logs.iter().any(|entry| {
                entry["local"]["row"]["name"] == *edit || entry["remote"]["row"]["name"] == *edit
            });
            assert!(self.is_at_hub(edit).await || in_log, "{edit} is gone, {what}: {logs:?}");
        }
        for leaf in [&self.leaf, &self.other] {
            shop::assert_same(&self.hub, &leaf.database).await;
            let quiet = leaf.sync().await;
            assert_eq!(quiet.report["up_to_date"], true, "{what}: {}", quiet.report);
        }
    }

    async fn assert_no_conflicts(&self, what: &str) {
        assert_eq!(crate::everyday::conflicts(&self.hub).await.len(), 0, "{what}");
        assert_eq!(crate::everyday::conflicts(&self.leaf.database).await.len(), 0, "{what}");
    }
}

/// What was sent in the life that is forgotten stays at the hub, what was pending in the copy goes up again.
#[tokio::test]
async fn a_copy_taken_before_a_session() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf).await;
        setup.edit(3, "pending in the copy").await;
        let backup = setup.backup(false);
        setup.edit(1, "sent").await;
        setup.leaf.sync().await;
        backup.restore(&setup.leaf.database);
        setup.edit(2, "after the restore").await;
        let what = format!("{hub:?} {leaf:?}");
        setup.assert_nothing_lost(&["pending in the copy", "sent", "after the restore"], &what).await;
        assert!(setup.is_at_hub("sent").await && setup.is_at_hub("pending in the copy").await, "{what}");
        // The row that was pending came up again, as it is: no conflict.
        let log = crate::everyday::conflicts(&setup.hub).await;
        assert!(!log.iter().any(|entry| entry["key"]["id"] == 3), "{log:?}");
    }
}

/// The hub has applied the upload, the leaf does not know it. With the parts or without, the upload is applied once.
#[tokio::test]
async fn a_copy_taken_between_commit_and_answer() {
    for (hub, leaf) in PAIRINGS {
        for with_parts in [true, false] {
            for goes_on in [false, true] {
                let what = format!("{hub:?} {leaf:?}, parts {with_parts}, goes on {goes_on}");
                let setup = Setup::new(hub, leaf).await;
                setup.leaf.database.execute("INSERT INTO product VALUES (50, 'new', 5.25)").await;
                setup.edit(1, "sent").await;
                setup.kill_between_commit_and_answer("sent").await;
                let backup = setup.backup(with_parts);
                let mut edits = vec!["sent", "after the restore"];
                if goes_on {
                    // The life that is forgotten goes on.
                    setup.leaf.sync().await;
                    setup.edit(4, "in the other life").await;
                    setup.leaf.sync().await;
                    edits.push("in the other life");
                }
                backup.restore(&setup.leaf.database);
                setup.edit(2, "after the restore").await;
                setup.assert_nothing_lost(&edits, &what).await;
                assert!(setup.is_at_hub("sent").await, "{what}");
                assert_eq!(setup.hub.count("SELECT count(*) FROM product WHERE id = 50").await, 1, "{what}");
                if !goes_on {
                    // The chain is whole: nothing is a conflict, and the edit arrives.
                    setup.assert_no_conflicts(&what).await;
                    assert!(setup.is_at_hub("after the restore").await, "{what}");
                }
            }
        }
    }
}

/// Half of a download is there.
#[tokio::test]
async fn a_copy_taken_in_a_download() {
    for (hub, leaf) in PAIRINGS {
        for with_parts in [true, false] {
            for goes_on in [false, true] {
                let what = format!("{hub:?} {leaf:?}, parts {with_parts}, goes on {goes_on}");
                let setup = Setup::new(hub, leaf).await;
                setup.hub.execute(&shop::bulk(ROWS)).await;
                setup.kill_in_download(60_000).await;
                let backup = setup.backup(with_parts);
                let mut edits = vec!["after the restore"];
                if goes_on {
                    setup.leaf.sync().await;
                    setup.edit(4, "in the other life").await;
                    setup.leaf.sync().await;
                    setup.hub.execute("DELETE FROM product WHERE id = 1500").await;
                    edits.push("in the other life");
                }
                backup.restore(&setup.leaf.database);
                setup.edit(2, "after the restore").await;
                setup.assert_nothing_lost(&edits, &what).await;
                if !goes_on {
                    setup.assert_no_conflicts(&what).await;
                    assert!(setup.is_at_hub("after the restore").await, "{what}");
                }
            }
        }
    }
}

/// Nothing has happened since: the chain goes on as if nothing was.
#[tokio::test]
async fn a_copy_taken_after_a_session() {
    for (hub, leaf) in PAIRINGS {
        let what = format!("{hub:?} {leaf:?}");
        let setup = Setup::new(hub, leaf).await;
        setup.edit(1, "sent").await;
        setup.leaf.sync().await;
        let backup = setup.backup(false);
        setup.edit(3, "never sent, and forgotten").await;
        backup.restore(&setup.leaf.database);
        setup.edit(2, "after the restore").await;
        setup.assert_nothing_lost(&["sent", "after the restore"], &what).await;
        setup.assert_no_conflicts(&what).await;
        assert!(setup.is_at_hub("after the restore").await, "{what}");
    }
}

/// A dump goes on in another cluster, which counts its transactions from another beginning: no edit is taken for known.
#[tokio::test]
async fn a_postgres_leaf_that_moves_to_another_cluster() {
    use syncline_engine::throwaway::{ThrowawayCluster, ThrowawayOptions};

    let mut setup = Setup::new(Kind::Sqlite, Kind::Postgres).await;
    let Database::Postgres(url) = setup.leaf.database.clone() else { unreachable!() };
    // The cluster that it leaves has come far: the hub knows its ticks.
    let old = ThrowawayCluster::shared();
    for id in 1..=60 {
        setup.edit(1 + id % 5, &format!("edit {id}")).await;
    }
    setup.leaf.sync().await;
    setup.edit(7, "pending").await;
    let archive = old.archive(&url);

    let new = ThrowawayCluster::start(ThrowawayOptions { durable: false }).unwrap();
    let moved = new.fresh_database();
    new.restore_archive(&archive, &moved);
    setup.leaf.database = Database::Postgres(moved);
    setup.edit(8, "after the move").await;
    setup.assert_nothing_lost(&["pending", "after the move"], "moved").await;
    assert_eq!(setup.leaf.sync().await.report["up_to_date"], true);
    // Not diverged for ever: the next edit is plain.
    setup.edit(9, "later").await;
    assert_eq!(setup.leaf.sync().await.number("/conflicts"), 0);
    assert!(setup.is_at_hub("later").await);
}

/// A comparison that can't remove a row yet writes it down: the download that removes it later keeps nothing.
#[tokio::test]
async fn a_row_that_can_not_go_yet_is_in_the_log_already() {
    for (hub, leaf) in PAIRINGS {
        let what = format!("{hub:?} {leaf:?}");
        let setup = Setup::new(hub, leaf).await;
        let database = &setup.leaf.database;
        setup.hub.execute("INSERT INTO customer (id, name) VALUES (5000, 'sent')").await;
        setup.leaf.sync().await;
        let backup = setup.backup(false);
        setup.hub.execute("DELETE FROM customer WHERE id = 5000").await;
        setup.edit(1, "later").await;
        setup.leaf.sync().await;
        backup.restore(database);
        let mine = "CREATE TABLE mine (customer INTEGER REFERENCES customer); INSERT INTO mine VALUES (5000)";
        database.execute(mine).await;
        let run = setup.leaf.run().await;
        assert_eq!((run.status, run.number("/row_errors")), (Some(3), 1), "{what}: {}", run.report);
        assert_eq!(database.count("SELECT count(*) FROM customer WHERE id = 5000").await, 1, "{what}");
        database.execute("DELETE FROM mine").await;
        setup.leaf.sync().await;
        assert_eq!(database.count("SELECT count(*) FROM customer WHERE id = 5000").await, 0, "{what}");
        let log = crate::everyday::conflicts(database).await;
        let kept: Vec<_> = log.iter().filter(|entry| entry["key"]["id"] == 5000).collect();
        assert_eq!(kept.len(), 1, "{what}: {log:?}");
        assert_eq!(kept[0]["local"]["row"]["name"], "sent", "{what}");
    }
}
