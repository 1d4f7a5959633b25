//! The report is what the command line prints.

use bytes::Bytes;
use serde_json::json;
use syncline::batch::Operation;
use syncline::conflict::{RowError, RowErrorReason};
use syncline::ids::TableId;
use syncline::knowledge::RowKey;
use syncline::limits::ROW_ERRORS_MAX;

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

/// A row that is refused in two sessions of a run waits once, and one that could not be applied here does not wait at all:
/// counted more often, they would hide an edit that was made meanwhile.
#[test]
fn what_is_left_behind_is_counted_by_rows() {
    let refused = |key: &'static [u8]| RowError {
        row: RowKey { table: TableId(1), key: Bytes::from_static(key) },
        table_name: "item".to_owned(),
        key_json: "{}".to_owned(),
        operation: Operation::Upsert,
        reason: RowErrorReason::Check,
        message: String::new(),
    };
    let mut report = SyncReport::new(SCOPE.parse().unwrap());
    report.row_errors_at_hub = vec![refused(b"1"), refused(b"2"), refused(b"1")];
    report.row_errors_here = vec![refused(b"3")];
    report.row_errors = 4;
    assert_eq!(report.left_behind(), 2);
    report.row_errors_at_hub = vec![refused(b"1"); ROW_ERRORS_MAX];
    report.row_errors = 5_000;
    assert_eq!(report.left_behind(), 5_000, "not all of them are listed");
}
