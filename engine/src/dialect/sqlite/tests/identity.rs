//! Goal: a hub that went back in time never gives out a version twice. Method: a file that is put back to an older
//! copy of itself.

use std::time::Duration;

use syncline::ids::Tick;
use syncline::knowledge::{Clock, Knowledge, Version};

use super::super::SqliteDatabase;
use super::support::*;
use crate::store::HubStore;

#[tokio::test]
async fn a_restored_hub_takes_a_new_id_and_its_old_one_stands_still() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    let old = file.database.open_hub().await.unwrap();
    file.run("INSERT INTO customer (id, name) VALUES (1, 'before')");
    let before = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    let durable = file.database.durable_tick().await.unwrap();
    assert!(before.contains_version(durable));
    let copy = file.path.with_extension("copy");
    file.app.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    file.run("INSERT INTO customer (id, name) VALUES (2, 'lost')");
    let seen = file.changes(&scope, &before, None).await.knowledge;

    let app = application(&copy);
    app.execute_batch("PRAGMA journal_mode = WAL; INSERT INTO customer (id, name) VALUES (3, 'since')")
        .unwrap();
    let restored = SqliteDatabase::open_existing(&copy).await.unwrap();
    assert_eq!(restored.open_hub().await.unwrap(), old);
    let known_to_caller = Version { replica: old, tick: seen.clock(old).unwrap().tick() };
    let new = restored.check_not_behind(known_to_caller).await.unwrap();
    assert_ne!(new, old);
    assert_eq!(restored.open_hub().await.unwrap(), new);
    let stored = restored.scope(&scope.schema.name).await.unwrap().unwrap();
    let table = &stored.tables[0];
    assert_eq!(table.reshaped, table.since, "both were before the mark, or neither was");
    let snapshot = restored.snapshot(&stored).await.unwrap();
    assert_eq!(snapshot.knowledge().clock(old), Some(&Clock::up_to(durable.tick)));
    assert!(snapshot.knowledge().clock(new).unwrap().tick() > Tick(0));
    drop(snapshot);

    // What was written since the restore is no version that anyone can have seen.
    let file = File { database: restored, app, ..file };
    assert_eq!(file.changes(&stored, &seen, None).await.rows(), ["+customer(3,since,~,~,0)"]);
    // Once: a caller that knows no more than the hub changes nothing.
    assert_eq!(file.database.check_not_behind(durable).await.unwrap(), new);
}

#[tokio::test]
async fn a_file_that_is_not_there_or_no_database_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let missing = SqliteDatabase::open_existing(directory.path().join("missing.db")).await.err().unwrap();
    assert!(missing.message().contains("can't be opened"), "{}", missing.message());
    let path = directory.path().join("text.db");
    std::fs::write(&path, "this is no database, whatever its name says; it is long enough to have a header")
        .unwrap();
    let other = SqliteDatabase::open(&path).await.err().unwrap();
    assert!(other.message().contains("no SQLite database"), "{}", other.message());
}

#[tokio::test]
async fn a_file_without_wal_is_opened_once_an_application_lets_go_of_it() {
    let (file, _) = File::hub(SCHEMA, &["customer"]).await;
    // A backup made so is in no WAL mode.
    let copy = file.path.with_file_name("copy.db");
    file.app.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    let app = application(&copy);
    let mode = || app.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(mode(), "delete");
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut opening = tokio::spawn(async move { SqliteDatabase::open_existing(&copy).await.map(|_| ()) });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut opening).await;
    assert!(early.is_err(), "it does not wait: {early:?}");
    app.execute_batch("INSERT INTO customer (id, name) VALUES (1, 'meanwhile'); COMMIT").unwrap();
    opening.await.unwrap().unwrap();
    // Read anew, the connection knows how the file is now.
    assert_eq!(rows_of(&app, "SELECT name FROM customer"), "meanwhile");
    assert_eq!(mode(), "wal");
}
