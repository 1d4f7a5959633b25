//! Broken streams, lost answers, damaged bytes, cancellation: goes on at the byte, and keeps what has come.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_broken_download_goes_on_at_the_byte() {
    let undisturbed = World::new().with_hub_rows(0..12);
    let whole = undisturbed.run().await.unwrap().downloaded;

    let world = World::new().with_hub_rows(0..12);
    world
        .faults
        .plan("read_batch", &[Fault::CutAfter(2), Fault::CutAfter(1), Fault::LoseAnswer, Fault::CutAfter(0)]);
    world.faults.plan("changes", &[Fault::CutAfter(2), Fault::Fail(ErrorReason::DatabaseUnavailable)]);
    world.faults.plan("release", &[Fault::LoseAnswer]);
    let report = world.run().await.unwrap();
    world.assert_in_step();
    assert_eq!(report.downloaded, whole, "no byte came twice");
}

#[tokio::test(start_paused = true)]
async fn a_broken_upload_goes_on_at_the_byte() {
    let world = World::new();
    for id in 0..6 {
        world.leaf.edit(id, Some(&long_name("y")));
    }
    world.faults.plan("write_batch", &[Fault::CutAfter(150_000), Fault::LoseAnswer, Fault::CutAfter(10)]);
    world.faults.plan("query_batch", &[Fault::Fail(ErrorReason::Overloaded)]);
    let report = world.run().await.unwrap();
    world.assert_in_step();
    assert_eq!(report.uploaded.upserts, 6);
    assert_eq!(world.hub.applied_rows(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_an_apply_applies_nothing_twice() {
    let world = World::new();
    world.leaf.edit(1, Some("once"));
    world.faults.plan("apply", &[Fault::LoseAnswer, Fault::CutAfter(1), Fault::CutAfter(0)]);
    let report = world.run().await.unwrap();
    world.assert_in_step();
    assert_eq!((report.uploaded.upserts, report.uploaded.batches), (1, 1));
    assert_eq!(world.hub.applied_rows(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_fetched_once_more() {
    let world = World::new().with_hub_rows(0..3);
    world.faults.plan("read_batch", &[Fault::Corrupt]);
    world.run().await.unwrap();
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_damaged_twice_ends_the_run_and_the_next_begins_anew() {
    let world = World::new().with_hub_rows(0..3);
    world.faults.plan("read_batch", &[Fault::Corrupt, Fault::Corrupt]);
    assert_eq!(reason(world.run().await), ErrorReason::BatchCorrupt);
    assert_eq!(world.leaf.stored().session, None);
    world.run().await.unwrap();
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_arrives_damaged_is_sent_once_more() {
    let world = World::new();
    world.leaf.edit(1, Some(&long_name("z")));
    world.faults.plan("write_batch", &[Fault::Corrupt]);
    world.run().await.unwrap();
    world.assert_in_step();

    world.leaf.edit(2, Some(&long_name("z")));
    world.faults.plan("write_batch", &[Fault::Corrupt, Fault::Corrupt]);
    assert_eq!(reason(world.run().await), ErrorReason::BatchCorrupt);
    world.run().await.unwrap();
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn a_temporary_failure_that_lasts_ends_the_run_and_the_next_goes_on() {
    let mut world = World::new().with_hub_rows(0..12);
    world.options.retry_for = Duration::from_secs(1);
    world.faults.plan("read_batch", &[Fault::None]);
    world.faults.plan("read_batch", &[Fault::Fail(ErrorReason::DatabaseUnavailable); 100]);
    let error = world.run().await.unwrap_err();
    assert!(matches!(error, RunError::Temporary(_)), "{error:?}");

    let mut world = world;
    world.faults = Arc::new(Faults::default());
    world.hub = Arc::new(world.hub.reached_by(world.faults.clone()));
    let report = world.run().await.unwrap();
    world.assert_in_step();
    assert!(report.resumed && report.resumed_bytes > 0);
    assert_eq!((report.downloaded.batches, report.downloaded.upserts), (2, 12));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_keeps_what_has_come() {
    let world = World::new().with_hub_rows(0..12);
    let cancel = CancellationToken::new();
    let synchronizer = world.synchronizer();
    let (progress, mut seen) = Progress::channel();
    let run = synchronizer.run(&progress, &cancel);
    let cancelling = async {
        seen.wait_for(|state| state.bytes >= 100).await.unwrap();
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(run, cancelling);
    assert!(matches!(outcome, Err(RunError::Interrupted)));
    assert_eq!(world.folders().len(), 1, "the session's parts are there");

    let report = world.run().await.unwrap();
    world.assert_in_step();
    assert!(report.resumed && report.resumed_bytes > 0, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_somebody_emptied_costs_no_row() {
    for point in (5..70).step_by(5) {
        let world = World::new().with_hub_rows(0..12);
        world.leaf.edit(500, Some(&long_name("a")));
        if !world.run_and_die_at(point).await {
            break;
        }
        world.parts.settle().await;
        for folder in world.folders() {
            std::fs::remove_dir_all(world.directory.path().join("shop.db-syncline").join(folder)).unwrap();
        }
        world.run().await.unwrap();
        world.assert_in_step();
        assert_eq!(world.hub.applied_rows(), 1, "killed at {point}");
    }
}
