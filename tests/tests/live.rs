//! `syncline sync --watch`: changes of either side arrive by themselves, also after the service or the client was gone.

use sqlx::Connection as _;
use syncline_client::PartsDirectory;
use syncline_tests::database::{Database, Kind, PAIRINGS};
use syncline_tests::shop;
use syncline_tests::watching::Watching;

use crate::everyday::Setup;

#[tokio::test]
async fn what_either_side_commits_arrives_by_itself() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf, 5).await;
        let [one, two] = &setup.leaves[..] else { panic!("two leaves") };
        let (mut first, mut second) = (Watching::start(one), Watching::start(two));
        first.round().await;
        second.round().await;

        setup.hub.execute("UPDATE customer SET name = 'from the hub' WHERE id = 1").await;
        assert_eq!(first.round_that_moves("downloaded").await, 1, "{hub:?} to {leaf:?}");
        assert_eq!(second.round_that_moves("downloaded").await, 1, "{hub:?} to {leaf:?}");

        one.database.execute("UPDATE customer SET name = 'from a leaf' WHERE id = 2").await;
        assert_eq!(first.round_that_moves("uploaded").await, 1, "{leaf:?} to {hub:?}");
        assert_eq!(second.round_that_moves("downloaded").await, 1, "{leaf:?} to {hub:?}");
        setup.assert_all_same().await;
    }
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_told_of_when_it_does() {
    let setup = Setup::new(Kind::Postgres, Kind::Sqlite, 5).await;
    let mut watching = Watching::start(&setup.leaves[0]);
    watching.round().await;
    let Database::Postgres(url) = &setup.hub else { unreachable!() };
    let mut late = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE customer SET name = 'late' WHERE id = 1").execute(&mut late).await.unwrap();
    // Another one overtakes it.
    setup.hub.execute("UPDATE customer SET name = 'early' WHERE id = 2").await;
    assert_eq!(watching.round_that_moves("downloaded").await, 1);
    sqlx::raw_sql("COMMIT").execute(&mut late).await.unwrap();
    assert_eq!(watching.round_that_moves("downloaded").await, 1);
    shop::assert_same(&setup.hub, &setup.leaves[0].database).await;
}

#[tokio::test]
async fn a_service_that_was_killed_is_found_again() {
    for (hub, leaf) in PAIRINGS {
        let mut setup = Setup::new(hub, leaf, 5).await;
        let mut watching = Watching::start(&setup.leaves[0]);
        watching.round().await;
        setup.service.kill().await;
        // Nobody is there to be told.
        setup.hub.execute("UPDATE customer SET name = 'meanwhile' WHERE id = 1").await;
        setup.service.restart().await;
        assert_eq!(watching.round_that_moves("downloaded").await, 1);
        setup.hub.execute("UPDATE customer SET name = 'afterwards' WHERE id = 1").await;
        assert_eq!(watching.round_that_moves("downloaded").await, 1);
    }
}

#[tokio::test]
async fn a_service_that_stops_does_not_wait_for_whoever_watches() {
    let (hub, leaf) = PAIRINGS[0];
    let mut setup = Setup::new(hub, leaf, 5).await;
    let mut watching = Watching::start(&setup.leaves[0]);
    watching.round().await;
    setup.hub.execute("UPDATE customer SET name = 'told' WHERE id = 1").await;
    watching.round_that_moves("downloaded").await;
    // Its grace is 25 s, and `terminate` waits for 30 s at most.
    let started = std::time::Instant::now();
    assert!(setup.service.terminate().await.success());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_client_that_was_gone_hears_at_once_what_it_missed() {
    let (hub, leaf) = PAIRINGS[0];
    let setup = Setup::new(hub, leaf, 5).await;
    let mut watching = Watching::start(&setup.leaves[0]);
    watching.round().await;
    watching.kill().await;
    setup.hub.execute("DELETE FROM line; DELETE FROM orders").await;
    let mut watching = Watching::start(&setup.leaves[0]);
    assert!(watching.round_that_moves("downloaded").await > 1);
    shop::assert_same(&setup.hub, &setup.leaves[0].database).await;
}

#[tokio::test]
async fn a_client_that_goes_on_waits_for_another_that_has_the_database() {
    let setup = Setup::new(Kind::Sqlite, Kind::Sqlite, 5).await;
    let Database::Sqlite(path) = &setup.leaves[0].database else { unreachable!() };
    let other = PartsDirectory::open(PartsDirectory::beside(path)).unwrap();
    let once = setup.leaves[0].run().await;
    assert_eq!(once.status, Some(4), "{}", once.errors);
    let mut going_on = Watching::start_with(&setup.leaves[0], &["--every", "100ms"]);
    assert_eq!(going_on.round().await["error"]["reason"], "LOCK_TIMEOUT");
    drop(other);
    while going_on.round().await["scope"] != "shop" {}
}
