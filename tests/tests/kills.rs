//! kill -9 of the client and of the service, in the middle of a download, of an upload, and between commit and answer:
//! after the retry everything is equal, and less than a batch was sent again.

use syncline_tests::database::{Database, Kind};
use syncline_tests::leaf::Leaf;
use syncline_tests::proxy::Proxy;
use syncline_tests::service::Service;
use syncline_tests::shop;

const ROWS: u32 = 6_000;
const BATCH_BYTES: u64 = 65_536;

struct Setup {
    _directory: tempfile::TempDir,
    hub: Database,
    service: Service,
    proxy: Proxy,
    leaf: Leaf,
}

impl Setup {
    async fn new(hub: Kind, leaf: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(hub, directory.path(), "hub").await;
        shop::fill(&hub, 10).await;
        let service = Service::start(&hub, shop::SCOPE, directory.path()).await;
        let proxy = Proxy::start(service.port()).await;
        let database = Database::new(leaf, directory.path(), "leaf").await;
        let leaf = Leaf::new(&database, proxy.url()).with(&["--batch-bytes", &BATCH_BYTES.to_string()]);
        Self { _directory: directory, hub, service, proxy, leaf }
    }

    /// Starts a run, and answers once about so many more bytes have passed the proxy.
    async fn run_until(&self, bytes: u64) -> tokio::process::Child {
        let (down, up) = self.proxy.passed();
        let child = self.leaf.start();
        self.proxy.wait_until_passed(down + up + bytes).await;
        child
    }
}

#[tokio::test]
async fn a_client_that_is_killed_in_a_download_goes_on() {
    for (hub, leaf) in
        [(Kind::Sqlite, Kind::Sqlite), (Kind::Postgres, Kind::Sqlite), (Kind::Postgres, Kind::Postgres)]
    {
        let setup = Setup::new(hub, leaf).await;
        setup.hub.execute(&shop::bulk(ROWS)).await;
        for bytes in [30_000, 60_000] {
            setup.run_until(bytes).await.kill().await.unwrap();
        }
        let (down, _) = setup.proxy.passed();
        let run = setup.leaf.sync().await;
        let (down_after, _) = setup.proxy.passed();
        assert_eq!(run.report["resumed"], true, "{}", run.report);
        assert_eq!(run.number("/downloaded/upserts"), u64::from(ROWS) + 44);
        shop::assert_same(&setup.hub, &setup.leaf.database).await;
        let resumed = run.number("/resumed_bytes");
        assert!(resumed > 0, "{}", run.report);
        // What had arrived did not come again.
        let total = run.number("/downloaded/bytes") + resumed;
        assert!(
            down_after - down < total - resumed + 2 * BATCH_BYTES,
            "{} {}",
            down_after - down,
            run.report
        );
    }
}

#[tokio::test]
async fn a_client_that_is_killed_in_an_upload_goes_on() {
    for hub in [Kind::Sqlite, Kind::Postgres] {
        let setup = Setup::new(hub, Kind::Sqlite).await;
        setup.leaf.sync().await;
        setup.leaf.database.execute(&shop::bulk(ROWS)).await;
        for bytes in [30_000, 60_000] {
            setup.run_until(bytes).await.kill().await.unwrap();
        }
        let run = setup.leaf.sync().await;
        assert_eq!(run.number("/uploaded/upserts"), u64::from(ROWS), "{}", run.report);
        assert_eq!(run.number("/conflicts"), 0);
        shop::assert_same(&setup.hub, &setup.leaf.database).await;
    }
}

#[tokio::test]
async fn a_service_that_is_killed_in_a_download_goes_on() {
    for hub in [Kind::Sqlite, Kind::Postgres] {
        let mut setup = Setup::new(hub, Kind::Sqlite).await;
        setup.hub.execute(&shop::bulk(ROWS)).await;
        let child = setup.run_until(40_000).await;
        setup.service.kill().await;
        setup.service.restart().await;
        // The client retries by itself.
        let status = child.wait_with_output().await.unwrap().status;
        assert_eq!(status.code(), Some(0));
        shop::assert_same(&setup.hub, &setup.leaf.database).await;
        assert_eq!(setup.leaf.sync().await.report["up_to_date"], true);
    }
}

#[tokio::test]
async fn a_service_that_is_killed_in_an_upload_applies_it_once() {
    for hub in [Kind::Sqlite, Kind::Postgres] {
        // At several points: while bytes arrive, while they are applied, while the answer is on its way.
        for bytes in [20_000, 60_000, 90_000, 110_000] {
            let mut setup = Setup::new(hub, Kind::Sqlite).await;
            setup.leaf.sync().await;
            setup.leaf.database.execute(&shop::bulk(ROWS)).await;
            let child = setup.run_until(bytes).await;
            setup.service.kill().await;
            setup.service.restart().await;
            let status = child.wait_with_output().await.unwrap().status;
            assert_eq!(status.code(), Some(0), "{hub:?} after {bytes}");
            shop::assert_same(&setup.hub, &setup.leaf.database).await;
            assert_eq!(crate::everyday::conflicts(&setup.hub).await.len(), 0);
            let versions = setup.leaf.sync().await;
            assert_eq!(versions.report["up_to_date"], true, "{}", versions.report);
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_commit_is_heard_again() {
    for hub in [Kind::Sqlite, Kind::Postgres] {
        let setup = Setup::new(hub, Kind::Sqlite).await;
        setup.leaf.sync().await;
        setup.leaf.database.execute("UPDATE product SET name = 'edited' WHERE id = 1").await;
        // The service commits, but nothing comes back: every answer is cut off after a few bytes.
        let mut cut = 0;
        let running = setup.leaf.run();
        tokio::pin!(running);
        let run = loop {
            setup.proxy.cut_after(900 + cut * 331);
            cut += 1;
            let (down, up) = setup.proxy.passed();
            tokio::select! {
                run = &mut running => break run,
                () = setup.proxy.wait_until_passed(down + up + 1_200) => {}
            }
        };
        assert_eq!(run.status, Some(0), "{}", run.errors);
        assert_eq!(run.number("/uploaded/upserts"), 1);
        shop::assert_same(&setup.hub, &setup.leaf.database).await;
        assert_eq!(crate::everyday::conflicts(&setup.hub).await.len(), 0);
    }
}
