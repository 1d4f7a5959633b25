//! What a session asks of the hub, and what it leaves alone.

use syncline::schema::Direction;

use super::*;

/// Applications give a run to a task of its own.
#[tokio::test]
async fn a_run_can_be_spawned() {
    let world = World::new().with_hub_rows(0..3);
    let synchronizer = world.synchronizer();
    let run = async move { synchronizer.run(&Progress::unseen(), &CancellationToken::new()).await };
    tokio::spawn(run).await.unwrap().unwrap();
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn nothing_pending_and_nothing_new_is_one_call_and_writes_nothing() {
    let world = World::new().with_hub_rows(0..3);
    world.run().await.unwrap();
    let writes = world.leaf.writes();
    world.faults.calls();
    let report = world.run().await.unwrap();
    assert_eq!(world.faults.calls(), ["poll"]);
    assert_eq!(world.leaf.writes(), writes);
    assert!(report.up_to_date && report.session_id.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_small_exchange_is_four_calls() {
    let world = World::new();
    world.hub.set_inline();
    world.run().await.unwrap();
    world.hub.edit(1, Some("from the hub"));
    world.leaf.edit(2, Some("from the leaf"));
    world.faults.calls();
    world.run().await.unwrap();
    let calls = world.faults.calls();
    let local = ["save", "acknowledge", "apply_download"];
    // The release is a courtesy; EndSession frees the spool anyway.
    let remote: Vec<_> =
        calls.into_iter().filter(|call| !local.contains(call) && *call != "release").collect();
    assert_eq!(remote, ["begin", "apply", "changes", "end"]);
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_up_and_does_not_come_back() {
    let world = World::new();
    for id in 0..10 {
        world.leaf.edit(id, Some("mine"));
    }
    let report = world.run().await.unwrap();
    world.assert_in_step();
    assert_eq!((report.uploaded.upserts, report.uploaded.batches), (10, 3));
    world.leaf.edit(3, None);
    let report = world.run().await.unwrap();
    world.assert_in_step();
    assert_eq!((report.uploaded.deletes, report.downloaded.upserts), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_direction_alone_leaves_the_other_alone() {
    let mut world = World::new().with_hub_rows(0..3);
    world.leaf.edit(10, Some("mine"));
    world.options.direction = Direction::Upload;
    world.run().await.unwrap();
    assert_eq!((world.leaf.rows().len(), world.hub.rows().len()), (1, 4));
    assert!(world.run().await.unwrap().up_to_date);

    world.leaf.edit(11, Some("stays here"));
    world.options.direction = Direction::Download;
    world.run().await.unwrap();
    assert_eq!((world.leaf.rows().len(), world.hub.rows().len()), (5, 4));

    world.options.direction = Direction::Both;
    world.run().await.unwrap();
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn rows_that_fail_are_named_and_come_again() {
    let world = World::new().with_hub_rows(0..3);
    world.leaf.edit(10, Some("refused"));
    world.hub.edit(20, Some("bad"));
    let report = world.run().await.unwrap();
    assert_eq!(report.row_errors, 2);
    assert_eq!((report.row_errors_at_hub.len(), report.row_errors_here.len()), (1, 1));
    assert_eq!(world.leaf.dirty(), [10]);

    world.leaf.edit(10, Some("accepted"));
    world.hub.edit(20, Some("good"));
    assert_eq!(world.run().await.unwrap().row_errors, 0);
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn a_row_that_failed_here_is_asked_for_even_if_nothing_is_new() {
    let world = World::new();
    world.hub.edit(20, Some("bad"));
    world.run().await.unwrap();
    world.faults.calls();
    assert_eq!(world.run().await.unwrap().row_errors, 1);
    assert!(world.faults.calls().contains(&"changes"));
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_refused_as_a_whole_is_read_anew_by_the_next_run() {
    let world = World::new();
    world.leaf.edit(1, Some("wrong"));
    world.faults.plan("apply", &[Fault::Fail(ErrorReason::RowErrors)]);
    assert_eq!(reason(world.run().await), ErrorReason::RowErrors);
    world.leaf.edit(1, Some("mended"));
    world.run().await.unwrap();
    world.assert_in_step();
    assert_eq!(world.hub.rows()[&1], "mended");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_does_not_come_here_is_waited_for() {
    let world = World::new().with_hub_rows(0..9);
    world.leaf.edit(30, Some("mine"));
    for call in ["save", "acknowledge", "apply_download"] {
        world.faults.plan(call, &[Fault::Fail(ErrorReason::LockTimeout)]);
    }
    world.run().await.unwrap();
    world.assert_in_step();
    assert_eq!(world.faults.calls().iter().filter(|call| **call == "changes").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_whose_answer_was_lost_is_only_ended() {
    let mut world = World::new().with_hub_rows(0..9);
    world.options.retry_for = Duration::ZERO;
    world.faults.plan("end", &[Fault::LoseAnswer]);
    assert!(matches!(world.run().await, Err(RunError::Temporary(_))));
    assert!(world.leaf.stored().applied);
    world.faults.calls();
    let report = world.run().await.unwrap();
    world.assert_in_step();
    assert!(report.up_to_date && report.session_id.is_some());
    assert!(!world.faults.calls().contains(&"changes"));
}
