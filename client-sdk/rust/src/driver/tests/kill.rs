//! The process is killed at every point of a run, before and after each call and each commit: the next run ends where
//! a run that was not killed would have, and no row is written twice at the hub.

use super::*;

/// Both sides hold something of each other, and then each changes: inserts, updates, deletes, a conflict.
async fn prepared(mode: ApplyMode) -> World {
    let world = World::applying(mode).with_hub_rows(0..10);
    world.leaf.edit(100, Some("of the leaf"));
    world.run().await.unwrap();
    world.assert_in_step();
    for id in 5..16 {
        world.hub.edit(id, Some("changed at the hub"));
    }
    world.hub.edit(1, None);
    for id in 200..205 {
        world.leaf.edit(id, Some("new at the leaf"));
    }
    world.leaf.edit(206, Some(&long_name("x")));
    world.leaf.edit(2, None);
    world.leaf.edit(6, Some("a conflict"));
    world
}

async fn killed_everywhere(mode: ApplyMode) {
    let undisturbed = prepared(mode).await;
    undisturbed.run().await.unwrap();
    undisturbed.assert_in_step();
    let mut point = 0;
    loop {
        point += 1;
        let world = prepared(mode).await;
        if !world.run_and_die_at(point).await {
            break;
        }
        world.run().await.unwrap();
        world.assert_in_step();
        world.assert_never_diverged();
        assert_eq!(world.leaf.rows(), undisturbed.leaf.rows(), "killed at {point}");
        assert_eq!(world.hub.applied_rows(), undisturbed.hub.applied_rows(), "killed at {point}");
    }
    assert!(point > 30, "there are only {point} points");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_killed_anywhere_is_gone_on_with() {
    killed_everywhere(ApplyMode::Once).await;
}

#[tokio::test(start_paused = true)]
async fn so_is_one_that_applies_per_batch() {
    killed_everywhere(ApplyMode::PerBatch).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_download_that_is_killed_anywhere_is_gone_on_with() {
    let undisturbed = World::new().with_hub_rows(0..18);
    undisturbed.run().await.unwrap();
    // Of five batches at most two are on their way at once: what is on disk is not served again.
    let all = undisturbed.hub.served_bytes();
    for mode in [ApplyMode::Once, ApplyMode::AfterTransfer] {
        let mut point = 0;
        loop {
            point += 1;
            let world = World::applying(mode).with_hub_rows(0..18);
            if !world.run_and_die_at(point).await {
                break;
            }
            world.run().await.unwrap();
            world.assert_in_step();
            let bytes = world.hub.served_bytes();
            assert!(bytes <= all + all / 5 * 2, "killed at {point}: {bytes} bytes instead of {all}");
        }
        assert!(point > 20, "there are only {point} points");
    }
}

#[tokio::test(start_paused = true)]
async fn killed_twice_and_edited_in_between() {
    for point in (1..60).step_by(3) {
        let world = prepared(ApplyMode::Once).await;
        world.run_and_die_at(point).await;
        world.leaf.edit(300, Some("between the runs"));
        world.hub.edit(301, Some("between the runs"));
        world.run_and_die_at(point / 2 + 1).await;
        world.run().await.unwrap();
        world.assert_in_step();
        world.assert_never_diverged();
        assert!(world.hub.rows().contains_key(&300) && world.leaf.rows().contains_key(&301));
    }
}
