//! The session that is opened before it is needed.

use syncline::error::ErrorReason;

use super::*;
use crate::limits::AHEAD_KEPT;

/// Two sides in step, of which the hub sends what is small along with its list.
async fn in_step() -> World {
    let world = World::new().with_hub_rows(0..3);
    world.hub.set_inline();
    world.run().await.unwrap();
    world
}

impl World {
    /// A row is edited at the hub, and a run brings it. Answers the calls to the hub.
    async fn bring_news(&self, synchronizer: &Synchronizer, name: &str) -> Vec<&'static str> {
        self.hub.edit(1, Some(name));
        self.faults.calls();
        let run = synchronizer.run_due(Due::News, &Progress::unseen(), &CancellationToken::new()).await;
        assert_eq!(run.unwrap().downloaded.upserts, 1);
        self.assert_in_step();
        self.calls_to_hub()
    }

    fn calls_to_hub(&self) -> Vec<&'static str> {
        let local = ["save", "acknowledge", "apply_download", "release"];
        self.faults.calls().into_iter().filter(|call| !local.contains(call)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn news_find_the_session_of_their_run_open() {
    let world = in_step().await;
    let synchronizer = world.synchronizer();
    assert_eq!(world.bring_news(&synchronizer, "first").await, ["begin", "changes", "end", "begin"]);
    for name in ["second", "third"] {
        assert_eq!(world.bring_news(&synchronizer, name).await, ["changes", "end", "begin"]);
    }
    synchronizer.close().await;
    assert_eq!(world.calls_to_hub(), ["end"]);
    assert_eq!(world.hub.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_nobody_told_of_news_opens_none() {
    let world = in_step().await;
    let synchronizer = world.synchronizer();
    world.hub.edit(1, Some("found by asking"));
    synchronizer.run(&Progress::unseen(), &CancellationToken::new()).await.unwrap();
    assert_eq!(world.hub.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_with_the_session_that_is_open() {
    let world = in_step().await;
    let synchronizer = world.synchronizer();
    world.bring_news(&synchronizer, "first").await;
    world.leaf.edit(9, Some("made here"));
    let report = synchronizer.run(&Progress::unseen(), &CancellationToken::new()).await.unwrap();
    assert_eq!(report.uploaded.upserts, 1);
    assert!(!world.calls_to_hub().contains(&"begin"));
    world.assert_in_step();
}

#[tokio::test(start_paused = true)]
async fn it_is_given_up_if_nothing_comes() {
    let world = in_step().await;
    let synchronizer = world.synchronizer();
    let report = world.run().await.unwrap();
    world.bring_news(&synchronizer, "first").await;
    let mut follower = synchronizer.follow(Duration::ZERO);
    let mut waits = async |time| tokio::time::timeout(time, follower.next(Some(&report))).await;
    assert!(waits(AHEAD_KEPT / 2).await.is_err());
    assert_eq!(world.hub.sessions(), 1);
    assert!(waits(AHEAD_KEPT).await.is_err());
    assert_eq!(world.hub.sessions(), 0);
    assert_eq!(world.bring_news(&synchronizer, "second").await, ["begin", "changes", "end", "begin"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_the_hub_has_lost_is_replaced() {
    let world = in_step().await;
    let synchronizer = world.synchronizer();
    world.bring_news(&synchronizer, "first").await;
    world.hub.expire_sessions();
    let calls = world.bring_news(&synchronizer, "second").await;
    assert_eq!(calls, ["changes", "end", "poll", "begin", "changes", "end"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_begun_with_something_else_is_not_used() {
    let world = in_step().await;
    let synchronizer = world.synchronizer();
    world.bring_news(&synchronizer, "first").await;
    // Another process has synchronised meanwhile.
    world.hub.edit(2, Some("brought by another process"));
    world.run().await.unwrap();
    let calls = world.bring_news(&synchronizer, "second").await;
    assert_eq!(calls, ["begin", "changes", "end", "begin"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_of_no_use_is_ended() {
    let world = in_step().await;
    let synchronizer = world.synchronizer();
    world.hub.refuse_knowledge_ahead();
    let calls = world.bring_news(&synchronizer, "first").await;
    assert_eq!(calls, ["begin", "changes", "end", "begin", "end"]);
    assert_eq!(world.hub.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_has_no_room_for_it_is_left_alone() {
    let world = in_step().await;
    let synchronizer = world.synchronizer();
    world.faults.plan("begin", &[Fault::None, Fault::Fail(ErrorReason::Overloaded)]);
    assert_eq!(world.bring_news(&synchronizer, "first").await, ["begin", "changes", "end", "begin"]);
    assert_eq!(world.bring_news(&synchronizer, "second").await, ["begin", "changes", "end", "begin"]);
}

/// The process dies anywhere between two runs' news: what it held open is in nobody's way.
#[tokio::test(start_paused = true)]
async fn a_process_that_dies_with_it_is_followed_by_one_that_goes_on() {
    for point in 1..200 {
        let world = in_step().await;
        let synchronizer = world.synchronizer();
        world.bring_news(&synchronizer, "first").await;
        world.hub.edit(1, Some("second"));
        world.leaf.edit(9, Some("made here"));
        world.faults.kill_at(Some(point));
        let (progress, cancel) = (Progress::unseen(), CancellationToken::new());
        let died = tokio::select! {
            () = world.faults.killed() => true,
            run = synchronizer.run_due(Due::News, &progress, &cancel) => {
                run.unwrap();
                false
            }
        };
        world.faults.kill_at(None);
        world.parts.settle().await;
        drop(synchronizer);
        world.run().await.unwrap();
        world.assert_in_step();
        world.assert_never_diverged();
        if !died {
            assert!(point > 8, "it went through {point} points only");
            return;
        }
    }
    panic!("it never came to its end");
}
