//! Databases that go back in time: a leaf restored from a copy, a hub restored from a backup. No acknowledged write is
//! silently gone, and nothing is taken for known.

use std::path::Path;

use syncline_tests::database::{Database, Kind, open};
use syncline_tests::service::Service;
use syncline_tests::shop;

use crate::everyday::Setup;

/// A consistent copy of a SQLite file, as a backup tool makes it.
fn copy(database: &Database, to: &Path) {
    let Database::Sqlite(from) = database else { unreachable!() };
    let _ = std::fs::remove_file(to);
    open(from).execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
}

/// Puts a copy in the place of a SQLite file.
fn restore(database: &Database, from: &Path) {
    let Database::Sqlite(path) = database else { unreachable!() };
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    std::fs::copy(from, path).unwrap();
}

#[tokio::test]
async fn a_leaf_restored_from_a_copy_loses_no_edit_of_its_own_and_none_of_others() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let setup = Setup::new(kind, Kind::Sqlite, 10).await;
        setup.sync_all().await;
        let leaf = &setup.leaves[0];
        let backup = setup.directory.path().join("backup.db");
        copy(&leaf.database, &backup);
        leaf.database.execute("UPDATE customer SET name = 'sent' WHERE id = 1").await;
        leaf.sync().await;

        restore(&leaf.database, &backup);
        leaf.database.execute("UPDATE customer SET name = 'after the restore' WHERE id = 2").await;
        leaf.run().await;
        setup.sync_all().await;
        setup.sync_all().await;
        setup.assert_all_same().await;
        // What was sent before the restore is still there, and what was written after it has arrived.
        assert_eq!(setup.hub.count("SELECT count(*) FROM customer WHERE name = 'sent'").await, 1);
        let after = "SELECT count(*) FROM customer WHERE name = 'after the restore'";
        let logged = crate::everyday::conflicts(&setup.hub).await;
        let in_log = logged.iter().any(|entry| entry["remote"]["row"]["name"] == "after the restore");
        assert!(setup.hub.count(after).await == 1 || in_log, "the edit is gone: {logged:?}");
    }
}

#[tokio::test]
async fn a_sqlite_hub_restored_from_a_backup_hears_of_what_its_leaves_have() {
    let mut setup = Setup::new(Kind::Sqlite, Kind::Sqlite, 10).await;
    setup.sync_all().await;
    let backup = setup.directory.path().join("backup.db");
    copy(&setup.hub, &backup);
    // Acknowledged after the backup was made.
    setup.leaves[0].database.execute("UPDATE customer SET name = 'acknowledged' WHERE id = 1").await;
    setup.hub.execute("UPDATE customer SET name = 'at the hub' WHERE id = 3").await;
    setup.sync_all().await;
    setup.sync_all().await;

    setup.service.terminate().await;
    restore(&setup.hub, &backup);
    setup.service = Service::start(&setup.hub, shop::SCOPE, &setup.directory.path().join(".")).await;
    // Written at the restored hub before any leaf comes back: as a tick of the old life it would be taken for known.
    setup.hub.execute("UPDATE customer SET name = 'after the restore' WHERE id = 2").await;
    for leaf in &mut setup.leaves {
        leaf.server = setup.service.url();
    }
    for _ in 0..3 {
        for leaf in &setup.leaves {
            leaf.run().await;
        }
    }
    setup.assert_all_same().await;
    let kept = "SELECT count(*) FROM customer WHERE name = 'after the restore'";
    assert_eq!(setup.leaves[1].database.count(kept).await, 1);
    // What the backup lacks is in somebody's log.
    for name in ["acknowledged", "at the hub"] {
        let mut found =
            setup.hub.count(&format!("SELECT count(*) FROM customer WHERE name = '{name}'")).await > 0;
        for leaf in &setup.leaves {
            let log = crate::everyday::conflicts(&leaf.database).await;
            found |= log.iter().any(|entry| entry["local"]["row"]["name"] == name);
        }
        assert!(found, "{name} is silently gone");
    }
}
