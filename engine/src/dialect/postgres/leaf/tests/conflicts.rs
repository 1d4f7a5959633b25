//! Incoming rows that meet dirty ones, by policy; and what others write while a download is applied.

use std::time::Duration;

use sqlx::Connection as _;
use syncline::batch::{Block, Operation};
use syncline::schema::ConflictPolicy;

use super::kit::{DELTA, Leaf, block, gone, int, items, run, text, up};
use crate::store::LeafStore as _;

/// A leaf with items 1 and 2 downloaded, 1 edited, 2 deleted and 3 born.
async fn edited(policy: ConflictPolicy) -> Leaf {
    let mut schema = items();
    schema.conflict_policy = policy;
    let mut leaf = Leaf::subscribed(schema).await;
    leaf.download(DELTA, vec![up(&leaf.schema, "item", &[[int(1), text("a")], [int(2), text("b")]])]).await;
    leaf.run("UPDATE item SET name = 'mine' WHERE id = 1; DELETE FROM item WHERE id = 2").await;
    leaf.run("INSERT INTO item VALUES (3, 'new')").await;
    leaf
}

fn incoming(leaf: &Leaf) -> Block {
    up(
        &leaf.schema,
        "item",
        &[[int(1), text("x")], [int(2), text("y")], [int(3), text("z")], [int(4), text("w")]],
    )
}

const KINDS: [&str; 3] = [
    ": {\"id\":1,\"name\":\"mine\"} / {\"id\":1,\"name\":\"x\"}",
    ": gone / {\"id\":2,\"name\":\"y\"}",
    ": {\"id\":3,\"name\":\"new\"} / {\"id\":3,\"name\":\"z\"}",
];

#[tokio::test]
async fn the_server_wins() {
    let mut leaf = edited(ConflictPolicy::ServerWins).await;
    let report = leaf.download(DELTA, vec![incoming(&leaf)]).await;
    assert_eq!((report.upserts, report.conflicts), (4, 3));
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|x 2|y 3|z 4|w");
    assert!(leaf.dirty().await.0.is_empty());
    let mut log = leaf.conflicts().await;
    log.sort();
    let expected = [
        format!("delete_update remote {{\"id\":2}}{}", KINDS[1]),
        format!("insert_insert remote {{\"id\":3}}{}", KINDS[2]),
        format!("update_update remote {{\"id\":1}}{}", KINDS[0]),
    ];
    assert_eq!(log, expected);
}

#[tokio::test]
async fn the_client_wins_and_uploads_again_under_a_new_tick() {
    let mut leaf = edited(ConflictPolicy::ClientWins).await;
    let (_, before, _) = leaf.dirty().await;
    let report = leaf.download(DELTA, vec![incoming(&leaf)]).await;
    assert_eq!((report.upserts, report.conflicts), (1, 3));
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|mine 3|new 4|w");
    let (dirty, after, clock) = leaf.dirty().await;
    assert_eq!(dirty, ["+item 1,\"mine\"", "+item 3,\"new\"*", "-item 2"]);
    assert!(after[0].ticks[0] > before[0].ticks[0] && clock.contains(after[0].ticks[0]));
    assert_eq!(after[0].changed_at[0], before[0].changed_at[0]);
    // What was uploaded before does not clear what was kept since.
    leaf.acknowledge(before, &[]).await;
    assert_eq!(leaf.dirty().await.0.len(), 3);
}

#[tokio::test]
async fn each_time_that_a_row_conflicts_in_a_session_its_loser_is_logged() {
    let mut leaf = edited(ConflictPolicy::ClientWins).await;
    // As from an enumeration that went on under a later snapshot: the row came, and comes again as it is by then.
    let [first, again] = ["v2", "v3"].map(|name| up(&leaf.schema, "item", &[[int(1), text(name)]]));
    let mut job = leaf.job(DELTA);
    job.per_batch = true;
    let report = leaf.try_download(job, vec![vec![first], vec![again]]).await.unwrap();
    assert_eq!(report.conflicts, 2);
    let told = |name: &str| {
        format!(
            "update_update local {{\"id\":1}}: {{\"id\":1,\"name\":\"mine\"}} / {{\"id\":1,\"name\":\"{name}\"}}"
        )
    };
    assert_eq!(leaf.conflicts().await, [told("v2"), told("v3")]);
    assert_eq!(leaf.rows("SELECT name FROM item WHERE id = 1").await, "mine");
}

#[tokio::test]
async fn a_kept_row_that_the_hub_deleted_is_born_again() {
    let mut leaf = edited(ConflictPolicy::ClientWins).await;
    let report = leaf.download(DELTA, vec![gone(&leaf.schema, "item", &[1, 2])]).await;
    assert_eq!((report.deletes, report.conflicts), (0, 1));
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|mine 3|new");
    assert_eq!(leaf.dirty().await.0, ["+item 1,\"mine\"*", "+item 3,\"new\"*"]);
}

#[tokio::test]
async fn a_row_that_left_the_view_is_judged_like_a_delete() {
    let mut leaf = edited(ConflictPolicy::ServerWins).await;
    let left = block(&leaf.schema, "item", Operation::Leave, &[vec![int(1)], vec![int(9)]]);
    let report = leaf.download(DELTA, vec![left]).await;
    assert_eq!((report.deletes, report.conflicts), (1, 1));
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "3|new");
    assert_eq!(
        leaf.conflicts().await,
        ["update_delete remote {\"id\":1}: {\"id\":1,\"name\":\"mine\"} / gone"]
    );
}

#[tokio::test]
async fn the_last_writer_wins_by_the_hubs_clock() {
    for (offset, kept) in [(0, "mine"), (-3_600_000_000, "x")] {
        let mut leaf = edited(ConflictPolicy::LastWriterWins).await;
        let (_, dirty, _) = leaf.dirty().await;
        let mut incoming = up(&leaf.schema, "item", &[[int(1), text("x")]]);
        incoming.changed_at = vec![dirty[0].changed_at[0] - 1_000_000];
        let mut job = leaf.job(DELTA);
        job.clock_offset_us = offset;
        leaf.try_download(job, vec![vec![incoming]]).await.unwrap();
        assert_eq!(leaf.rows("SELECT name FROM item WHERE id = 1").await, kept);
    }
}

#[tokio::test]
async fn the_same_content_is_no_conflict_after_conversion() {
    let sql = "CREATE TABLE item (id bigint PRIMARY KEY, name char(5)); INSERT INTO item VALUES (1, 'ab'), (2, 'cd')";
    let mut leaf = Leaf::unsubscribed(items(), sql).await;
    leaf.subscribe().await.unwrap();
    let rows = [[int(1), text("ab")], [int(2), text("other")]];
    let report = leaf.download(DELTA, vec![up(&leaf.schema, "item", &rows)]).await;
    assert_eq!(report.conflicts, 1);
    assert!(leaf.dirty().await.0.is_empty());
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|ab    2|other");
}

#[tokio::test]
async fn an_edit_that_commits_while_we_wait_for_it_is_not_overwritten_unseen() {
    let leaf = Leaf::subscribed(items()).await;
    leaf.download(DELTA, vec![up(&leaf.schema, "item", &[[int(1), text("a")]])]).await;
    let mut other = sqlx::PgConnection::connect(&leaf.url).await.unwrap();
    run(
        &mut other,
        "BEGIN; UPDATE item SET name = 'theirs' WHERE id = 1; INSERT INTO item VALUES (2, 'born')",
    )
    .await;
    let rows = [[int(1), text("x")], [int(2), text("y")]];
    let download = leaf.download(DELTA, vec![up(&leaf.schema, "item", &rows)]);
    let commit = async {
        waits_for_lock(&leaf).await;
        run(&mut other, "COMMIT").await;
    };
    let (report, ()) = tokio::join!(download, commit);
    assert_eq!(report.conflicts, 2);
    let mut log = leaf.conflicts().await;
    log.sort();
    assert_eq!(
        log,
        [
            "insert_insert remote {\"id\":2}: {\"id\":2,\"name\":\"born\"} / {\"id\":2,\"name\":\"y\"}",
            "update_update remote {\"id\":1}: {\"id\":1,\"name\":\"theirs\"} / {\"id\":1,\"name\":\"x\"}"
        ]
    );
}

#[tokio::test]
async fn a_lock_that_does_not_come_is_no_row_error() {
    let leaf = Leaf::subscribed(items()).await;
    leaf.download(DELTA, vec![up(&leaf.schema, "item", &[[int(1), text("a")]])]).await;
    let mut other = sqlx::PgConnection::connect(&leaf.url).await.unwrap();
    run(&mut other, "BEGIN; UPDATE item SET name = 'theirs' WHERE id = 1").await;
    let blocks = vec![vec![up(&leaf.schema, "item", &[[int(1), text("x")]])]];
    let error = leaf.try_download(leaf.job(DELTA), blocks).await.unwrap_err();
    assert_eq!(error.reason(), syncline::error::ErrorReason::LockTimeout);
}

/// Waits until a session of the engine waits for a lock.
pub(super) async fn waits_for_lock(leaf: &Leaf) {
    let mut watcher = sqlx::PgConnection::connect(&leaf.url).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    tokio::time::timeout(Duration::from_secs(20), async {
        while super::kit::rows(&mut watcher, waiting).await == "0" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_diverged_leaf_keeps_its_changes_and_logs_what_is_replaced() {
    let mut leaf = edited(ConflictPolicy::ServerWins).await;
    leaf.download(DELTA, vec![up(&leaf.schema, "item", &[[int(5), text("e")], [int(6), text("f")]])]).await;
    let before = leaf.subscription().await;
    let diverged = leaf.store.diverge(&leaf.schema.name).await.unwrap();
    assert_ne!(diverged.replica, before.replica);
    assert!(diverged.diverged && diverged.reinitialize && diverged.knowledge.is_empty());
    assert_eq!(diverged.download_mark, None);
    assert_eq!(leaf.dirty().await.0, ["+item 1,\"mine\"", "+item 3,\"new\"*", "-item 2"]);
    let report =
        leaf.download(super::kit::WHOLE, vec![up(&leaf.schema, "item", &[[int(5), text("E")]])]).await;
    assert_eq!((report.upserts, report.deletes, report.conflicts), (1, 1, 2));
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|mine 3|new 5|E");
    let mut log = leaf.conflicts().await;
    log.sort();
    assert_eq!(
        log,
        [
            "update_delete remote {\"id\":6}: {\"id\":6,\"name\":\"f\"} / gone",
            "update_update remote {\"id\":5}: {\"id\":5,\"name\":\"e\"} / {\"id\":5,\"name\":\"E\"}"
        ]
    );
    let after = leaf.subscription().await;
    assert!(!after.diverged && !after.reinitialize && after.applied);
}
