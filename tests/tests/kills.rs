//! kill -9 of the client and of the service, in the middle of a download, of an upload, and between commit and answer:
//! after the retry everything is equal, and less than a batch was sent again for each kill.
//!
//! What was sent again is counted at the proxy: all bytes that passed in the payload's direction, from the first run to
//! the last, less the stored bytes of the batches, each counted once. So headers, messages and repeated calls count as
//! sent again too. In a download the batches' bytes are what the last run says it moved and found (`downloaded.bytes`,
//! `resumed_bytes`), or what a twin moves that nothing happens to; in an upload, the files of the batches in the
//! directory beside the database, which are there from before the first byte leaves until the upload is acknowledged.

use syncline_tests::backup::upload_bytes;
use syncline_tests::database::{Database, Kind};
use syncline_tests::leaf::Leaf;
use syncline_tests::proxy::Proxy;
use syncline_tests::service::Service;
use syncline_tests::shop;

/// About 12 MiB before compression, half of it after.
const ROWS: u32 = 1_600;
/// Half of the usual size: less than what may lie in the buffers between the two processes if several were in flight.
const BATCH_BYTES: u64 = 1 << 20;
const PAIRINGS: [(Kind, Kind); 3] =
    [(Kind::Sqlite, Kind::Sqlite), (Kind::Postgres, Kind::Sqlite), (Kind::Postgres, Kind::Postgres)];

struct Setup {
    directory: tempfile::TempDir,
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
        Self { directory, hub, service, proxy, leaf }
    }

    /// Starts a run, and answers once about so many more bytes have passed the proxy.
    async fn run_until(&self, bytes: u64) -> tokio::process::Child {
        let (down, up) = self.proxy.passed();
        let child = self.leaf.start();
        self.proxy.wait_until_passed(down + up + bytes).await;
        child
    }

    /// The stored bytes of a whole download, from a twin that nothing happens to.
    async fn download_bytes(&self) -> u64 {
        let database = Database::new(Kind::Sqlite, self.directory.path(), "twin").await;
        let twin = Leaf { database, server: self.service.url(), ..self.leaf.clone() };
        twin.sync().await.number("/downloaded/bytes")
    }
}

/// Less than a batch for each kill.
fn assert_little_again(passed: u64, batches: u64, kills: u64, what: &str) {
    let again = passed.saturating_sub(batches);
    assert!(
        again < kills * BATCH_BYTES,
        "{again} bytes were sent again or beside {batches} after {kills} kills: {what}"
    );
}

#[tokio::test]
async fn a_client_that_is_killed_in_a_download_goes_on() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf).await;
        setup.hub.execute(&shop::bulk_notes(ROWS)).await;
        for bytes in [1_800_000, 1_900_000] {
            setup.run_until(bytes).await.kill().await.unwrap();
        }
        let run = setup.leaf.sync().await;
        assert_eq!(run.report["resumed"], true, "{}", run.report);
        assert_eq!(run.number("/downloaded/upserts"), u64::from(ROWS) + 44);
        shop::assert_same(&setup.hub, &setup.leaf.database).await;
        let resumed = run.number("/resumed_bytes");
        assert!(resumed > 0, "{}", run.report);
        let (down, _) = setup.proxy.passed();
        let batches = run.number("/downloaded/bytes") + resumed;
        assert_little_again(down, batches, 2, &format!("{hub:?} {leaf:?}"));
    }
}

#[tokio::test]
async fn a_client_that_is_killed_in_an_upload_goes_on() {
    for (hub, leaf) in PAIRINGS {
        let setup = Setup::new(hub, leaf).await;
        setup.leaf.sync().await;
        setup.leaf.database.execute(&shop::bulk_notes(ROWS)).await;
        let (_, before) = setup.proxy.passed();
        let mut batches = 0;
        for bytes in [1_800_000, 1_900_000] {
            setup.run_until(bytes).await.kill().await.unwrap();
            batches = upload_bytes(&setup.leaf.database);
        }
        let run = setup.leaf.sync().await;
        assert_eq!(run.report["resumed"], true, "{}", run.report);
        assert_eq!(run.number("/uploaded/upserts"), u64::from(ROWS), "{}", run.report);
        assert_eq!(run.number("/conflicts"), 0);
        shop::assert_same(&setup.hub, &setup.leaf.database).await;
        let (_, up) = setup.proxy.passed();
        assert!(batches > 2 * BATCH_BYTES, "the upload is too small to tell: {batches}");
        assert_little_again(up - before, batches, 2, &format!("{hub:?} {leaf:?}"));
    }
}

#[tokio::test]
async fn a_service_that_is_killed_in_a_download_goes_on() {
    for (hub, leaf) in PAIRINGS {
        let mut setup = Setup::new(hub, leaf).await;
        setup.hub.execute(&shop::bulk_notes(ROWS)).await;
        let child = setup.run_until(1_500_000).await;
        setup.service.kill().await;
        setup.service.restart().await;
        // The client retries by itself.
        let status = child.wait_with_output().await.unwrap().status;
        assert_eq!(status.code(), Some(0));
        shop::assert_same(&setup.hub, &setup.leaf.database).await;
        let (down, _) = setup.proxy.passed();
        assert_little_again(down, setup.download_bytes().await, 1, &format!("{hub:?} {leaf:?}"));
        assert_eq!(setup.leaf.sync().await.report["up_to_date"], true);
    }
}

/// So many bytes have left, and as many are in the spool as must be: of a batch in flight a piece may be in memory,
/// an eighth of it.
#[tokio::test]
async fn a_service_that_is_killed_in_an_upload_goes_on() {
    for hub in [Kind::Sqlite, Kind::Postgres] {
        for bytes in [1_600_000, 3_000_000, 5_000_000] {
            let what = format!("{hub:?} after {bytes}");
            let mut setup = Setup::new(hub, Kind::Sqlite).await;
            setup.leaf.sync().await;
            setup.leaf.database.execute(&shop::bulk_notes(ROWS)).await;
            let (_, before) = setup.proxy.passed();
            setup.proxy.hold_requests_after(bytes);
            let mut child = setup.leaf.start();
            let mut pause = tokio::time::interval(std::time::Duration::from_millis(2));
            while setup.service.spooled_bytes() + BATCH_BYTES / 2 < bytes.unsigned_abs() {
                pause.tick().await;
                assert!(child.try_wait().unwrap().is_none(), "the run came to its end: {what}");
            }
            let batches = upload_bytes(&setup.leaf.database);
            setup.service.kill().await;
            setup.proxy.hold_requests_after(syncline_tests::proxy::UNLIMITED);
            setup.service.restart().await;
            let status = child.wait_with_output().await.unwrap().status;
            assert_eq!(status.code(), Some(0), "{what}");
            shop::assert_same(&setup.hub, &setup.leaf.database).await;
            let (_, up) = setup.proxy.passed();
            assert!(batches > 2 * BATCH_BYTES, "the upload is too small to tell: {batches}");
            assert_little_again(up - before, batches, 1, &what);
            assert_eq!(crate::everyday::conflicts(&setup.hub).await.len(), 0);
            assert_eq!(setup.leaf.sync().await.report["up_to_date"], true, "{what}");
        }
    }
}

/// At several points: while bytes arrive, while they are applied, while the answer is on its way.
#[tokio::test]
async fn a_service_that_is_killed_anywhere_applies_an_upload_once() {
    for hub in [Kind::Sqlite, Kind::Postgres] {
        for bytes in [20_000, 90_000, 110_000] {
            let mut setup = Setup::new(hub, Kind::Sqlite).await;
            setup.leaf.sync().await;
            setup.leaf.database.execute(&shop::bulk(6_000)).await;
            let child = setup.run_until(bytes).await;
            setup.service.kill().await;
            setup.service.restart().await;
            let status = child.wait_with_output().await.unwrap().status;
            assert_eq!(status.code(), Some(0), "{hub:?} after {bytes}");
            shop::assert_same(&setup.hub, &setup.leaf.database).await;
            assert_eq!(crate::everyday::conflicts(&setup.hub).await.len(), 0);
            assert_eq!(setup.leaf.sync().await.report["up_to_date"], true);
        }
    }
}

/// The service has committed and is killed before a byte of its answer has arrived.
#[tokio::test]
async fn a_service_that_is_killed_between_commit_and_answer_applies_once() {
    for hub in [Kind::Sqlite, Kind::Postgres] {
        let mut setup = Setup::new(hub, Kind::Sqlite).await;
        setup.leaf.sync().await;
        setup.leaf.database.execute(&shop::bulk_notes(ROWS)).await;
        let (_, before) = setup.proxy.passed();
        setup.proxy.hold_answers_after(0);
        let leaf = setup.leaf.clone();
        let running = tokio::spawn(async move { leaf.sync().await });
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(1));
        while setup.hub.count("SELECT count(*) FROM orders WHERE note <> 'first'").await == 0 {
            // The opening's answer passes a few bytes at a time, and so do those of the batches; that of the apply
            // does not before this looks again.
            setup.proxy.let_answers_go(64);
            pause.tick().await;
            assert!(!running.is_finished(), "the run came to its end");
        }
        let batches = upload_bytes(&setup.leaf.database);
        setup.service.kill().await;
        setup.proxy.hold_answers_after(syncline_tests::proxy::UNLIMITED);
        setup.service.restart().await;
        let run = running.await.unwrap();
        // The answer is the first one's.
        assert_eq!(run.number("/uploaded/upserts"), u64::from(ROWS), "{}", run.report);
        assert_eq!(run.number("/conflicts"), 0);
        shop::assert_same(&setup.hub, &setup.leaf.database).await;
        let (_, up) = setup.proxy.passed();
        assert_little_again(up - before, batches, 1, &format!("{hub:?}"));
        assert_eq!(setup.leaf.sync().await.report["up_to_date"], true);
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
