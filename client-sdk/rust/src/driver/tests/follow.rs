//! When the next run is due.

use std::time::Duration;

use syncline::error::ErrorReason;
use tokio::time::Instant;

use super::World;
use crate::driver::{Due, Follower, SyncReport};
use crate::limits::{FAILED_PAUSE, WATCH_PAUSE_MAX, WATCH_POLL_INTERVAL};
use crate::testing::Fault;

const NO_PAUSE: Duration = Duration::ZERO;

#[tokio::test(start_paused = true)]
async fn news_of_the_hub_make_a_run_due() {
    let world = World::new().with_hub_rows(1..3);
    let report = world.run().await.unwrap();
    world.hub.edit(7, Some("news"));
    let started = Instant::now();
    world.synchronizer().follow(NO_PAUSE).next(Some(&report)).await;
    assert!(started.elapsed() < WATCH_POLL_INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_while_nobody_listened_is_told_when_somebody_does() {
    let world = World::new().with_hub_rows(1..3);
    let report = world.run().await.unwrap();
    world.faults.plan("watch", &[Fault::CutAfter(1), Fault::Fail(ErrorReason::DatabaseUnavailable)]);
    let mut follower = world.synchronizer().follow(NO_PAUSE);
    // Nothing is new: it listens, is cut off, and comes again.
    assert!(tokio::time::timeout(Duration::from_millis(1), follower.next(Some(&report))).await.is_err());
    world.hub.edit(7, Some("news"));
    let started = Instant::now();
    follower.next(Some(&report)).await;
    assert!(started.elapsed() < WATCH_POLL_INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_can_not_be_watched_is_polled() {
    let world = World::new().with_hub_rows(1..3);
    let report = world.run().await.unwrap();
    world.faults.plan("watch", &[Fault::Fail(ErrorReason::FeatureUnsupported); 100]);
    let mut follower = world.synchronizer().follow(NO_PAUSE);
    for _ in 0..3 {
        let started = Instant::now();
        follower.next(Some(&report)).await;
        assert!(started.elapsed() <= WATCH_POLL_INTERVAL + 2 * WATCH_PAUSE_MAX, "{:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_replaced_by_another_watcher_polls_and_does_not_come_back_at_once() {
    let world = World::new().with_hub_rows(1..3);
    let report = world.run().await.unwrap();
    world.faults.plan("watch", &[Fault::Fail(ErrorReason::CallReplaced); 4]);
    world.faults.calls();
    let mut follower = world.synchronizer().follow(NO_PAUSE);
    for _ in 0..3 {
        let started = Instant::now();
        assert_eq!(follower.next(Some(&report)).await, Due::Perhaps);
        assert_eq!(started.elapsed().as_secs(), WATCH_POLL_INTERVAL.as_secs());
    }
    // Once in each interval; the next may be on its way.
    let calls = world.faults.calls().len();
    assert!((3..=4).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn after_a_run_that_failed_a_while_is_waited() {
    let world = World::new();
    let started = Instant::now();
    world.synchronizer().follow(NO_PAUSE).next(None).await;
    assert_eq!(started.elapsed(), WATCH_POLL_INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn news_end_the_wait_after_a_run_that_failed_but_not_at_once() {
    let world = World::new().with_hub_rows(1..3);
    let report = world.run().await.unwrap();
    let mut follower = listening(&world, &report).await;
    world.hub.edit(7, Some("news"));
    let started = Instant::now();
    follower.next(None).await;
    assert!((FAILED_PAUSE..WATCH_POLL_INTERVAL).contains(&started.elapsed()), "{:?}", started.elapsed());
    // They count once.
    let started = Instant::now();
    follower.next(None).await;
    assert_eq!(started.elapsed(), WATCH_POLL_INTERVAL);
}

/// A follower that listens, and has nothing to tell yet.
async fn listening(world: &World, last: &SyncReport) -> Follower {
    let mut follower = world.synchronizer().follow(NO_PAUSE);
    let waited = tokio::time::timeout(Duration::from_millis(1), follower.next(Some(last))).await;
    assert!(waited.is_err(), "{waited:?}");
    follower
}

#[tokio::test(start_paused = true)]
async fn told_of_news_a_run_does_not_ask_first() {
    let world = World::new().with_hub_rows(1..3);
    let report = world.run().await.unwrap();
    let mut follower = listening(&world, &report).await;
    world.hub.edit(7, Some("news"));
    let due = follower.next(Some(&report)).await;
    assert_eq!(due, Due::News);

    world.faults.calls();
    let brought = world.run_due(due).await.unwrap();
    assert!(!world.faults.calls().contains(&"poll"));
    assert_eq!(brought.downloaded.upserts, 1);
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn news_that_came_during_a_run_may_be_what_it_brought() {
    let world = World::new().with_hub_rows(1..3);
    let report = world.run().await.unwrap();
    let mut follower = listening(&world, &report).await;
    world.hub.edit(7, Some("news"));
    let brought = world.run().await.unwrap();
    let due = follower.next(Some(&brought)).await;
    assert_eq!(due, Due::Perhaps);

    world.faults.calls();
    assert!(world.run_due(due).await.unwrap().up_to_date);
    assert_eq!(world.faults.calls(), ["poll"]);
}

#[tokio::test(start_paused = true)]
async fn news_after_an_upload_may_be_the_upload() {
    let world = World::new().with_hub_rows(1..3);
    world.run().await.unwrap();
    world.leaf.edit(9, Some("made here"));
    let report = world.run().await.unwrap();
    assert_eq!(report.uploaded.upserts, 1);
    let mut follower = listening(&world, &report).await;
    world.hub.edit(7, Some("news"));
    assert_eq!(follower.next(Some(&report)).await, Due::Perhaps);
}
