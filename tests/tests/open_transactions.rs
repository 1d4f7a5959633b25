//! The fault of every watermark, impossible here: a transaction that is open while a session runs, and commits after it,
//! reaches every replica in the next session, and nothing else is delayed or sent twice.

use sqlx::Connection as _;
use syncline_tests::database::{Database, Kind, open};

use crate::everyday::Setup;

#[tokio::test]
async fn what_was_open_during_a_session_comes_with_the_next_at_a_postgres_hub() {
    let setup = Setup::new(Kind::Postgres, Kind::Sqlite, 5).await;
    setup.sync_all().await;
    let Database::Postgres(url) = &setup.hub else { unreachable!() };
    let mut slow = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE customer SET name = 'slow' WHERE id = 1").execute(&mut slow).await.unwrap();
    setup.hub.execute("UPDATE customer SET name = 'quick' WHERE id = 2").await;

    let during = setup.leaves[0].sync().await;
    assert_eq!(during.number("/downloaded/upserts"), 1, "{}", during.report);
    sqlx::raw_sql("COMMIT").execute(&mut slow).await.unwrap();
    let after = setup.leaves[0].sync().await;
    assert_eq!(after.number("/downloaded/upserts"), 1, "{}", after.report);
    setup.leaves[1].sync().await;
    setup.assert_all_same().await;
    let quiet = setup.leaves[0].sync().await;
    assert_eq!(quiet.report["up_to_date"], true);
}

#[tokio::test]
async fn a_prepared_transaction_is_open_too() {
    let setup = Setup::new(Kind::Postgres, Kind::Sqlite, 5).await;
    setup.sync_all().await;
    let Database::Postgres(url) = &setup.hub else { unreachable!() };
    let mut slow = sqlx::PgConnection::connect(url).await.unwrap();
    let prepare = "BEGIN; UPDATE customer SET name = 'slow' WHERE id = 1; PREPARE TRANSACTION 'slow'";
    sqlx::raw_sql(prepare).execute(&mut slow).await.unwrap();
    setup.hub.execute("UPDATE customer SET name = 'quick' WHERE id = 2").await;
    assert_eq!(setup.leaves[0].sync().await.number("/downloaded/upserts"), 1);
    sqlx::raw_sql("COMMIT PREPARED 'slow'").execute(&mut slow).await.unwrap();
    assert_eq!(setup.leaves[0].sync().await.number("/downloaded/upserts"), 1);
    setup.sync_all().await;
    setup.assert_all_same().await;
}

#[tokio::test]
async fn an_open_transaction_of_a_postgres_leaf_comes_with_the_next_session() {
    let setup = Setup::new(Kind::Sqlite, Kind::Postgres, 5).await;
    setup.sync_all().await;
    let Database::Postgres(url) = &setup.leaves[0].database else { unreachable!() };
    let mut slow = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE customer SET name = 'slow' WHERE id = 1").execute(&mut slow).await.unwrap();
    setup.leaves[0].database.execute("UPDATE customer SET name = 'quick' WHERE id = 2").await;
    assert_eq!(setup.leaves[0].sync().await.number("/uploaded/upserts"), 1);
    sqlx::raw_sql("COMMIT").execute(&mut slow).await.unwrap();
    assert_eq!(setup.leaves[0].sync().await.number("/uploaded/upserts"), 1);
    setup.sync_all().await;
    setup.assert_all_same().await;
}

#[tokio::test]
async fn what_a_sqlite_writer_commits_after_the_session_comes_with_the_next() {
    let setup = Setup::new(Kind::Sqlite, Kind::Sqlite, 5).await;
    setup.sync_all().await;
    let Database::Sqlite(path) = &setup.hub else { unreachable!() };
    // A writer holds the file's lock for a moment: the session waits for it, and then has its rows.
    let slow = open(path);
    slow.execute_batch("BEGIN IMMEDIATE; UPDATE customer SET name = 'slow' WHERE id = 1").unwrap();
    let session = tokio::spawn({
        let leaf = setup.leaves[0].clone();
        async move { leaf.sync().await }
    });
    slow.execute_batch("COMMIT").unwrap();
    session.await.unwrap();
    setup.sync_all().await;
    setup.assert_all_same().await;
}
