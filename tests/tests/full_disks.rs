//! Disks without room, for the spool, for either database, and for what a client has received: the run fails with a
//! reason, nothing has changed, and once there is room the same run brings everything. A service without room has none
//! for its log either.

use syncline_tests::database::{Database, Kind};
use syncline_tests::leaf::{Leaf, Run};
use syncline_tests::service::Service;
use syncline_tests::shop;

struct Setup {
    _directory: tempfile::TempDir,
    hub: Database,
    service: Service,
    leaf: Leaf,
}

impl Setup {
    /// Both sides hold the shop.
    async fn new(hub: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(hub, directory.path(), "hub").await;
        shop::fill(&hub, 10).await;
        let service = Service::start(&hub, shop::SCOPE, directory.path()).await;
        let database = Database::new(Kind::Sqlite, directory.path(), "leaf").await;
        let leaf = Leaf::new(&database, service.url()).with(&["--retry-for", "1s"]);
        leaf.sync().await;
        Self { _directory: directory, hub, service, leaf }
    }

    /// Runs it without room.
    async fn run_with_files_up_to(&self, kib: u64) -> Run {
        Leaf { files_kib_max: Some(kib), ..self.leaf.clone() }.run().await
    }

    /// Of a client before such rows the batches beside the database are what has no room; nothing has moved.
    async fn assert_fails_beside_the_database(&self) {
        let before = (orders(&self.hub).await, orders(&self.leaf.database).await);
        let run = self.run_with_files_up_to(256).await;
        assert_failed(&run, 1, "INTERNAL");
        let message = run.report["error"]["message"].as_str().unwrap();
        assert!(message.contains("beside the database"), "{}", run.report);
        assert_eq!((orders(&self.hub).await, orders(&self.leaf.database).await), before);
        self.assert_recovers().await;
    }

    /// There is room now: one run brings everything, once.
    async fn assert_recovers(&self) {
        self.leaf.sync().await;
        shop::assert_same(&self.hub, &self.leaf.database).await;
        assert_eq!(crate::everyday::conflicts(&self.hub).await.len(), 0);
        assert_eq!(self.leaf.sync().await.report["up_to_date"], true);
    }
}

/// Rows that take four MiB in a database and next to nothing on the wire.
fn long_notes() -> String {
    let note = "long ".repeat(20_000);
    let values: Vec<_> =
        (0..40).map(|row| format!("('l{row}', 1, '2026-01-01 10:00:00', '{note}')")).collect();
    format!("INSERT INTO orders VALUES {}", values.join(", "))
}

async fn orders(database: &Database) -> i64 {
    database.count("SELECT count(*) FROM orders").await
}

fn assert_failed(run: &Run, status: i32, reason: &str) {
    assert_eq!(run.status, Some(status), "{} {}", run.report, run.errors);
    assert_eq!(run.report["error"]["reason"], reason, "{} {}", run.report, run.errors);
}

/// Of a service before PostgreSQL the spool is all that it writes.
#[tokio::test]
async fn a_download_waits_for_room_in_the_spool() {
    let mut setup = Setup::new(Kind::Postgres).await;
    setup.hub.execute(&shop::bulk_notes(200)).await;
    setup.service.restart_with_files_up_to(256).await;
    let run = setup.leaf.run().await;
    assert_failed(&run, 4, "SPOOL_FULL");
    assert_eq!(orders(&setup.leaf.database).await, 10);
    setup.service.kill().await;
    setup.service.restart().await;
    setup.assert_recovers().await;
}

#[tokio::test]
async fn an_upload_waits_for_room_in_the_spool() {
    let mut setup = Setup::new(Kind::Postgres).await;
    setup.leaf.database.execute(&shop::bulk_notes(1_600)).await;
    setup.service.restart_with_files_up_to(64).await;
    let run = setup.leaf.run().await;
    assert_failed(&run, 4, "SPOOL_FULL");
    assert_eq!(orders(&setup.hub).await, 10);
    setup.service.kill().await;
    setup.service.restart().await;
    setup.assert_recovers().await;
}

#[tokio::test]
async fn an_upload_waits_for_room_in_the_hubs_database() {
    let mut setup = Setup::new(Kind::Sqlite).await;
    setup.leaf.database.execute(&long_notes()).await;
    setup.service.restart_with_files_up_to(1_024).await;
    let run = setup.leaf.run().await;
    assert_failed(&run, 4, "DATABASE_UNAVAILABLE");
    assert_eq!(orders(&setup.hub).await, 10);
    setup.service.kill().await;
    setup.service.restart().await;
    setup.assert_recovers().await;
}

#[tokio::test]
async fn a_download_waits_for_room_in_the_local_database() {
    let setup = Setup::new(Kind::Sqlite).await;
    setup.hub.execute(&long_notes()).await;
    let run = setup.run_with_files_up_to(1_024).await;
    assert_failed(&run, 4, "DATABASE_UNAVAILABLE");
    assert_eq!(orders(&setup.leaf.database).await, 10);
    setup.assert_recovers().await;
}

#[tokio::test]
async fn a_download_waits_for_room_beside_the_local_database() {
    let setup = Setup::new(Kind::Postgres).await;
    setup.hub.execute(&shop::bulk_notes(200)).await;
    setup.assert_fails_beside_the_database().await;
}

#[tokio::test]
async fn an_upload_waits_for_room_beside_the_local_database() {
    let setup = Setup::new(Kind::Postgres).await;
    setup.leaf.database.execute(&shop::bulk_notes(200)).await;
    setup.assert_fails_beside_the_database().await;
}
