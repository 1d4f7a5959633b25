//! The service's memory is what it holds, not what its threads keep: see `cli/src/heap.rs`.

use syncline_tests::database::{Database, Kind};
use syncline_tests::service::Service;
use syncline_tests::shop;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[tokio::test]
async fn a_service_has_one_heap_and_is_the_process_that_was_started() {
    let directory = tempfile::tempdir().unwrap();
    let hub = Database::new(Kind::Sqlite, directory.path(), "hub").await;
    shop::fill(&hub, 1).await;
    let mut service = Service::start(&hub, shop::SCOPE, directory.path()).await;
    let environment = std::fs::read(format!("/proc/{}/environ", service.process())).unwrap();
    let settings: Vec<_> = environment.split(|byte| *byte == 0).collect();
    for wanted in ["MALLOC_ARENA_MAX=1", "MALLOC_MMAP_THRESHOLD_=131072"] {
        assert!(settings.contains(&wanted.as_bytes()), "{wanted}");
    }
    // The signal reaches the one that serves.
    assert!(service.terminate().await.success());
}
