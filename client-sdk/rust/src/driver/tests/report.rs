//! The report is what the command line prints.

use serde_json::json;

use super::*;
use crate::driver::{Moved, Phase};

#[test]
fn the_json_has_exactly_the_documented_form() {
    let mut report = SyncReport::new(SCOPE.parse().unwrap());
    report.uploaded = Moved { upserts: 3, deletes: 1, batches: 1, bytes: 812 };
    report.downloaded = Moved { upserts: 15_607, deletes: 0, batches: 2, bytes: 281_032 };
    let report = report.finish(Duration::from_millis(412));
    let text = serde_json::to_string(&report).unwrap();
    let expected = concat!(
        r#"{"scope":"shop","session_id":null,"resumed":false,"#,
        r#""uploaded":{"upserts":3,"deletes":1,"batches":1,"bytes":812},"#,
        r#""downloaded":{"upserts":15607,"deletes":0,"batches":2,"bytes":281032},"#,
        r#""resumed_bytes":0,"conflicts":0,"row_errors":0,"up_to_date":false,"elapsed_ms":412}"#
    );
    assert_eq!(text, expected);
}

#[tokio::test(start_paused = true)]
async fn numbers_are_those_of_the_run() {
    let world = World::new().with_hub_rows(0..9);
    world.leaf.edit(20, Some("mine"));
    let report = serde_json::to_value(world.run().await.unwrap()).unwrap();
    assert_eq!(report["uploaded"]["upserts"], json!(1));
    assert_eq!(report["downloaded"]["upserts"], json!(9 + 1), "a first download sends everything");
    assert_eq!(report["downloaded"]["bytes"], json!(world.hub.served_bytes()));
    assert_eq!(report["up_to_date"], json!(false));
    assert!(report["session_id"].is_string());
}

#[tokio::test(start_paused = true)]
async fn progress_shows_rows_bytes_and_batches() {
    let world = World::new().with_hub_rows(0..9);
    let (progress, mut seen) = Progress::channel();
    let looking = tokio::spawn(async move {
        let mut states = Vec::new();
        while seen.changed().await.is_ok() {
            states.push(seen.borrow_and_update().clone());
        }
        states
    });
    let report = world.synchronizer().run(&progress, &CancellationToken::new()).await.unwrap();
    let last = progress.clone().last();
    drop(progress);
    let states = looking.await.unwrap();
    assert!(states.iter().any(|state| state.phase == Phase::Downloading));
    assert_eq!(last.phase, Phase::Done);
    assert_eq!((last.bytes, last.batches), (report.downloaded.bytes, report.downloaded.batches));
    assert_eq!((last.rows, last.rows_total), (9, Some(9)));
}

#[tokio::test(start_paused = true)]
async fn conflicts_of_both_ends_are_counted() {
    let world = World::new().with_hub_rows(0..3);
    world.run().await.unwrap();
    world.hub.edit(1, Some("the hub's"));
    world.leaf.edit(1, Some("the leaf's"));
    assert_eq!(world.run().await.unwrap().conflicts, 1);
    world.assert_in_step();
}
