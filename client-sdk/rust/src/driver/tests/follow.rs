//! When the next run is due.

use std::time::Duration;

use syncline::error::ErrorReason;
use tokio::time::Instant;

use super::World;
use crate::limits::{WATCH_PAUSE_MAX, WATCH_POLL_INTERVAL};
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
async fn after_a_run_that_failed_a_while_is_waited() {
    let world = World::new();
    let started = Instant::now();
    world.synchronizer().follow(NO_PAUSE).next(None).await;
    assert_eq!(started.elapsed(), WATCH_POLL_INTERVAL);
}
