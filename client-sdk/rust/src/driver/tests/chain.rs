//! Restored and copied databases, sessions that are gone, knowledge that is too old, a scope that has changed.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_leaf_that_was_restored_takes_a_new_id_and_loses_no_edit() {
    let mut world = World::new().with_hub_rows(0..6);
    world.run().await.unwrap();
    let backup = world.leaf.copy();
    world.leaf.edit(50, Some("after the backup"));
    world.run().await.unwrap();
    let replica = world.leaf.stored().replica;

    backup.edit(51, Some("after the restore"));
    backup.edit(3, None);
    world.leaf = Arc::new(backup);
    let report = world.run().await.unwrap();
    world.assert_in_step();
    assert_ne!(world.leaf.stored().replica, replica);
    assert!(world.hub.rows().contains_key(&50) && world.hub.rows().contains_key(&51));
    assert_eq!(report.conflicts, 1, "a delete that was made with nothing is judged");
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_is_broken_again_ends_the_run() {
    let world = World::new().with_hub_rows(0..6);
    world.run().await.unwrap();
    world.hub.edit(1, Some("new"));
    world.faults.plan("begin", &[Fault::Fail(ErrorReason::ReplicaDiverged); 2]);
    assert_eq!(reason(world.run().await), ErrorReason::ReplicaDiverged);
    world.run().await.unwrap();
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn knowledge_that_is_too_old_compares_everything_and_keeps_own_edits() {
    let world = World::new().with_hub_rows(0..6);
    world.run().await.unwrap();
    world.hub.edit(2, None);
    world.hub.forget();
    world.leaf.edit(70, Some("while away"));
    let report = world.run().await.unwrap();
    world.assert_in_step();
    assert!(world.hub.rows().contains_key(&70));
    assert_eq!(report.downloaded.deletes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_lease_ran_out_is_followed_by_another() {
    for point in (4..60).step_by(2) {
        let world = World::new().with_hub_rows(0..9);
        world.leaf.edit(80, Some(&long_name("e")));
        if !world.run_and_die_at(point).await {
            break;
        }
        world.hub.expire_sessions();
        world.leaf.edit(81, Some("edited in between"));
        world.run().await.unwrap();
        world.assert_in_step();
        world.assert_never_diverged();
        assert_eq!(world.hub.applied_rows(), 2, "killed at {point}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_gone_in_the_middle_is_begun_anew() {
    for call in ["changes", "read_batch", "apply", "release"] {
        let world = World::new().with_hub_rows(0..9);
        world.leaf.edit(80, Some("mine"));
        let other =
            if call == "read_batch" { ErrorReason::BatchNotFound } else { ErrorReason::SessionExpired };
        world
            .faults
            .plan(call, &[Fault::Fail(ErrorReason::SessionNotFound), Fault::None, Fault::Fail(other)]);
        world.run().await.unwrap();
        world.assert_in_step();
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_are_not_begun_anew_without_end() {
    let world = World::new().with_hub_rows(0..3);
    world.faults.plan("changes", &[Fault::Fail(ErrorReason::SessionExpired); 50]);
    assert_eq!(reason(world.run().await), ErrorReason::SessionExpired);
    assert_eq!(world.faults.calls().iter().filter(|call| **call == "changes").count(), 4);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_superseded_stops() {
    let world = World::new().with_hub_rows(0..3);
    world.faults.plan("changes", &[Fault::Fail(ErrorReason::SessionSuperseded)]);
    assert_eq!(reason(world.run().await), ErrorReason::SessionSuperseded);
    let calls = world.faults.calls();
    assert_eq!(calls.last(), Some(&"changes"), "{calls:?}");
    world.run().await.unwrap();
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_has_changed_is_fetched_anew() {
    let world = World::new().with_hub_rows(0..3);
    world.run().await.unwrap();
    world.hub.set_schema_version(2);
    world.leaf.edit(9, Some("mine"));
    world.run().await.unwrap();
    world.assert_in_step();
    assert_eq!(world.leaf.stored().schema.version, 2);
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_changes_while_a_session_is_open_costs_no_row() {
    for point in (4..60).step_by(3) {
        let world = World::new().with_hub_rows(0..9);
        world.leaf.edit(80, Some(&long_name("s")));
        if !world.run_and_die_at(point).await {
            break;
        }
        world.hub.set_schema_version(2);
        world.run().await.unwrap();
        world.assert_in_step();
        assert_eq!(world.hub.applied_rows(), 1, "killed at {point}");
    }
}
