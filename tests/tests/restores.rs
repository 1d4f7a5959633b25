//! A hub that goes back in time: restored from a copy, a dump, a base backup. No acknowledged write is silently gone, and
//! nothing is taken for known.

use syncline_engine::throwaway::{ThrowawayCluster, ThrowawayOptions};
use syncline_tests::backup::Backup;
use syncline_tests::database::{Database, Kind};
use syncline_tests::leaf::Leaf;
use syncline_tests::service::Service;
use syncline_tests::shop;

/// How the hub is backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A copy of the SQLite file, put in its place.
    Copy,
    /// pg_dump, and pg_restore into a new database of the same cluster.
    Dump,
    /// pg_basebackup, started as a cluster of its own: system identifier, timeline and oids are those of the original.
    BaseBackup,
}

/// A hub that can be restored, and two leaves, of SQLite and of PostgreSQL.
struct Shop {
    directory: tempfile::TempDir,
    hub: Database,
    service: Service,
    leaves: Vec<Leaf>,
    /// The clusters of a base backup, which live as long as their databases are needed.
    clusters: Vec<ThrowawayCluster>,
}

impl Shop {
    async fn new(way: Way, scope: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut clusters = Vec::new();
        let hub = match way {
            Way::Copy => Database::new(Kind::Sqlite, directory.path(), "hub").await,
            Way::Dump => Database::new(Kind::Postgres, directory.path(), "hub").await,
            Way::BaseBackup => {
                let cluster = ThrowawayCluster::start(ThrowawayOptions { durable: false }).unwrap();
                let url = cluster.fresh_database();
                clusters.push(cluster);
                Database::Postgres(url)
            }
        };
        shop::fill(&hub, 10).await;
        let service = Service::start(&hub, scope, directory.path()).await;
        let mut leaves = Vec::new();
        for (kind, name) in [(Kind::Sqlite, "one"), (Kind::Postgres, "two")] {
            let database = Database::new(kind, directory.path(), name).await;
            leaves.push(Leaf::new(&database, service.url()));
        }
        Self { directory, hub, service, leaves, clusters }
    }

    /// A backup is taken; `meanwhile` happens; the hub is gone, and restored.
    async fn restore_after(&mut self, way: Way, scope: &str, meanwhile: impl AsyncFnOnce(&Self)) {
        if way == Way::BaseBackup {
            let backup = self.clusters[0].base_backup().unwrap();
            meanwhile(self).await;
            self.service.terminate().await;
            let restored = backup.restore(ThrowawayOptions { durable: false }).unwrap();
            let Database::Postgres(url) = &self.hub else { unreachable!() };
            self.hub = Database::Postgres(restored.url(url.rsplit('/').next().unwrap()));
            self.clusters.push(restored);
        } else {
            let backup = Backup::take(&self.hub, self.directory.path(), "hub");
            meanwhile(self).await;
            self.service.terminate().await;
            match way {
                Way::Dump => self.hub = backup.restore_elsewhere(),
                _ => backup.restore(&self.hub),
            }
        }
        // Written before the service is back: as ticks of the old life they would be taken for known. As many
        // transactions as it takes to hand out again what the leaves have seen.
        for price in 0..40 {
            self.hub.execute(&format!("UPDATE product SET price = {price}.25 WHERE id = 2")).await;
        }
        self.hub.execute("UPDATE customer SET name = 'after the restore' WHERE id = 2").await;
        self.service = Service::start(&self.hub, scope, self.directory.path()).await;
        for leaf in &mut self.leaves {
            leaf.server = self.service.url();
        }
    }

    async fn sync_all(&self) {
        for leaf in &self.leaves {
            leaf.sync().await;
        }
    }

    /// Whether a name is in a row of a database, or in its conflict log.
    async fn is_kept(&self, database: &Database, table: &str, name: &str) -> bool {
        let there = format!("SELECT count(*) FROM {table} WHERE name = '{name}'");
        if database.count(&there).await > 0 {
            return true;
        }
        let log = crate::everyday::conflicts(database).await;
        log.iter().any(|entry| {
            entry["table"] == table
                && (entry["local"]["row"]["name"] == name || entry["remote"]["row"]["name"] == name)
        })
    }
}

/// What leaves had acknowledged, and what the hub itself wrote and leaves had read, after the backup was taken: each
/// leaf that had it has it in its log where the restored hub's state takes its place. What was pending goes up. What was
/// written at the restored hub reaches everyone.
async fn a_restored_hub_hears_of_what_its_leaves_have(way: Way, policy: &str) {
    let scope = shop::scope_with(policy);
    let what = format!("{way:?} {policy}");
    let mut shop = Shop::new(way, &scope).await;
    shop.sync_all().await;
    shop.restore_after(way, &scope, async |shop: &Shop| {
        let at_one = "UPDATE customer SET name = 'acknowledged' WHERE id = 1;
                      INSERT INTO product VALUES (40, 'acknowledged too', 1.25);
                      DELETE FROM line WHERE order_id = 'o7'";
        shop.leaves[0].database.execute(at_one).await;
        shop.sync_all().await;
        shop.hub.execute("UPDATE customer SET name = 'at the hub' WHERE id = 3").await;
        shop.sync_all().await;
        assert_eq!(shop.leaves[0].sync().await.report["up_to_date"], true);
        // Not sent when the hub is lost.
        shop.leaves[1].database.execute("UPDATE customer SET name = 'pending' WHERE id = 4").await;
    })
    .await;
    for _ in 0..3 {
        shop.sync_all().await;
    }
    for leaf in &shop.leaves {
        shop::assert_same(&shop.hub, &leaf.database).await;
        let quiet = leaf.sync().await;
        assert_eq!(quiet.report["up_to_date"], true, "{what}: {}", quiet.report);
        for (table, name) in [
            ("customer", "acknowledged"),
            ("product", "acknowledged too"),
            ("customer", "at the hub"),
            ("customer", "after the restore"),
        ] {
            assert!(shop.is_kept(&leaf.database, table, name).await, "{name} is silently gone: {what}");
        }
    }
    assert!(shop.is_kept(&shop.hub, "customer", "pending").await, "the pending edit is gone: {what}");
    let new = "SELECT count(*) FROM customer WHERE name = 'after the restore'";
    assert_eq!(shop.hub.count(new).await, 1, "{what}");
    // The lost delete is lost for all: a row that the hub has again is everywhere again.
    assert_eq!(shop.hub.count("SELECT count(*) FROM line WHERE order_id = 'o7'").await, 2, "{what}");

    // And life goes on.
    shop.leaves[0].database.execute("UPDATE customer SET name = 'later' WHERE id = 9").await;
    shop.sync_all().await;
    assert_eq!(shop.leaves[0].sync().await.number("/conflicts"), 0);
    let later = "SELECT count(*) FROM customer WHERE name = 'later'";
    assert_eq!(shop.leaves[1].database.count(later).await, 1, "{what}");
}

#[tokio::test]
async fn a_sqlite_hub_restored_from_a_copy_hears_of_what_its_leaves_have() {
    for policy in ["server_wins", "client_wins"] {
        a_restored_hub_hears_of_what_its_leaves_have(Way::Copy, policy).await;
    }
}

#[tokio::test]
async fn a_postgres_hub_restored_from_a_dump_hears_of_what_its_leaves_have() {
    for policy in ["server_wins", "client_wins"] {
        a_restored_hub_hears_of_what_its_leaves_have(Way::Dump, policy).await;
    }
}

#[tokio::test]
async fn a_postgres_hub_restored_from_a_base_backup_hears_of_what_its_leaves_have() {
    a_restored_hub_hears_of_what_its_leaves_have(Way::BaseBackup, "server_wins").await;
}
