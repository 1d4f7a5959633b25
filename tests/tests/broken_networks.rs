//! Connections that are cut at any byte: the run goes on where it stopped, sends less than a batch again, and ends with
//! the same rows.

use syncline_tests::backup::upload_bytes;
use syncline_tests::database::{Database, Kind};
use syncline_tests::leaf::Leaf;
use syncline_tests::proxy::Proxy;
use syncline_tests::service::Service;
use syncline_tests::shop;

const ROWS: u32 = 6_000;
const BATCH_BYTES: u64 = 65_536;
const SMALL_BATCHES: [&str; 2] = ["--batch-bytes", "65536"];

#[tokio::test]
async fn a_download_goes_on_after_cuts() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(kind, directory.path(), "hub").await;
        shop::fill(&hub, 10).await;
        hub.execute(&shop::bulk(ROWS)).await;
        let service = Service::start(&hub, shop::SCOPE, directory.path()).await;
        let proxy = Proxy::start(service.port()).await;
        let database = Database::new(Kind::Sqlite, directory.path(), "leaf").await;
        let leaf = Leaf::new(&database, proxy.url()).with(&SMALL_BATCHES);
        let mut cuts = 0;
        let running = leaf.run();
        tokio::pin!(running);
        let run = loop {
            // A few more bytes each time, so that cuts fall on any byte of headers, messages and chunks.
            proxy.cut_after(20_000 + cuts * 7_919);
            let passed = proxy.cuts();
            tokio::select! {
                run = &mut running => break run,
                () = wait_for_cut(&proxy, passed) => cuts += 1,
            }
        };
        assert_eq!(run.status, Some(0), "{}", run.errors);
        assert!(cuts > 3, "only {cuts} cuts");
        shop::assert_same(&hub, &database).await;
        let twin = Database::new(Kind::Sqlite, directory.path(), "twin").await;
        let twin = Leaf::new(&twin, service.url()).with(&SMALL_BATCHES).sync().await;
        assert_little_again(proxy.passed().0, twin.number("/downloaded/bytes"), proxy.cuts());
    }
}

#[tokio::test]
async fn an_upload_goes_on_after_cuts_and_is_applied_once() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(kind, directory.path(), "hub").await;
        shop::fill(&hub, 10).await;
        let service = Service::start(&hub, shop::SCOPE, directory.path()).await;
        let proxy = Proxy::start(service.port()).await;
        let database = Database::new(Kind::Sqlite, directory.path(), "leaf").await;
        let leaf = Leaf::new(&database, proxy.url()).with(&SMALL_BATCHES);
        leaf.sync().await;
        database.execute(&shop::bulk(ROWS)).await;
        let ((_, before), mut batches) = (proxy.passed(), 0);
        let mut cuts = 0;
        let running = leaf.run();
        tokio::pin!(running);
        let run = loop {
            proxy.cut_after(40_000 + cuts * 15_013);
            let passed = proxy.cuts();
            tokio::select! {
                run = &mut running => break run,
                () = wait_for_cut(&proxy, passed) => cuts += 1,
            }
            batches = batches.max(upload_bytes(&database));
        };
        assert_eq!(run.status, Some(0), "{}", run.errors);
        assert_eq!(run.number("/uploaded/upserts"), 6_000);
        assert_eq!(run.number("/conflicts"), 0);
        assert!(cuts > 2, "only {cuts} cuts");
        assert!(batches > 100_000, "the upload is too small to tell: {batches}");
        assert_little_again(proxy.passed().1 - before, batches, proxy.cuts());
        shop::assert_same(&hub, &database).await;
        leaf.sync().await;
        assert_eq!(leaf.sync().await.report["up_to_date"], true);
    }
}

/// Less than a batch for each cut: what passed, headers and repeated calls included, less the stored bytes of the
/// batches, each counted once (see kills.rs).
fn assert_little_again(passed: u64, batches: u64, cuts: u64) {
    let again = passed.saturating_sub(batches);
    assert!(again < cuts * BATCH_BYTES, "{again} bytes again or beside {batches} after {cuts} cuts");
}

async fn wait_for_cut(proxy: &Proxy, seen: u64) {
    let (down, up) = proxy.passed();
    let mut passed = down + up;
    while proxy.cuts() == seen {
        passed += 1;
        proxy.wait_until_passed(passed).await;
        let (down, up) = proxy.passed();
        passed = down + up;
    }
}
