//! Uploads: exactly once, judged by versions, never losing a concurrent write.

use std::sync::Arc;

use syncline::batch::Operation;
use syncline::error::ErrorReason;
use syncline::ids::{Mark, Tick};
use syncline::knowledge::Knowledge;
use syncline::schema::ConflictPolicy;
use syncline::value::Value;

use super::kit::{Database, Shop, born, changed, definition, deleted, int, run, text};
use crate::dialect::meta::sessions;
use crate::store::HubStore as _;

const ITEMS: &str = "CREATE TABLE item (id int PRIMARY KEY, name text, price numeric(10,2))";

fn price(value: &str) -> Value {
    Value::Decimal(value.to_owned())
}

async fn shop(policy: ConflictPolicy) -> (Database, Shop) {
    let database = Database::with(ITEMS).await;
    database.run("INSERT INTO item VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)").await;
    let mut definition = definition(&["item"]);
    definition.conflict_policy = policy;
    let shop = database.scope_of(definition).await;
    (database, shop)
}

async fn rows(database: &Database) -> String {
    database.cell("SELECT string_agg(id || name || price, ' ' ORDER BY id) FROM item").await
}

#[tokio::test]
async fn an_upload_is_written_and_not_echoed_but_others_hear_of_it() {
    let (database, mut shop) = shop(ConflictPolicy::ServerWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let report = shop
        .upload(
            &known,
            &[
                born("item", [int(9), text("new"), price("9.99")]),
                changed("item", [int(1), text("edited"), Value::Null]),
                deleted("item", [int(2)]),
            ],
        )
        .await
        .unwrap();
    assert_eq!((report.result.upserts, report.result.deletes, report.result.conflicts), (2, 1, 0));
    assert_eq!(
        database.cell("SELECT string_agg(id || name, ' ' ORDER BY id) FROM item").await,
        "1edited 3c 9new"
    );
    assert!(shop.changes(&known).await.1.is_empty(), "no echo");
    let (_, rows) = shop.other_leaf().changes(&known).await;
    let heard: Vec<_> = rows.iter().map(|row| (row.1, row.2[0].clone())).collect();
    let upsert = Operation::Upsert;
    assert_eq!(heard, [(upsert, int(1)), (upsert, int(9)), (Operation::Delete, int(2))]);
    // Edited again before it heard anything: no conflict with itself.
    let again = shop.upload(&known, &[changed("item", [int(1), text("twice"), price("1")])]).await.unwrap();
    assert_eq!((again.result.upserts, again.result.conflicts), (1, 0));
}

#[tokio::test]
async fn an_upload_is_applied_once_whatever_is_repeated() {
    let (database, mut shop) = shop(ConflictPolicy::ServerWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let blocks = shop.blocks(&[changed("item", [int(1), text("edited"), price("1")])]);
    let job = shop.job(&known);
    let shop = Arc::new(shop);
    let both: Vec<_> = (0..2)
        .map(|_| {
            let (shop, job, blocks) = (Arc::clone(&shop), job.clone(), blocks.clone());
            tokio::spawn(async move { shop.apply(job, blocks).await.unwrap() })
        })
        .collect();
    let mut reports = Vec::new();
    for task in both {
        reports.push(task.await.unwrap());
    }
    assert_eq!(reports.iter().filter(|report| report.applied_now).count(), 1);
    assert_eq!(reports[0].result, reports[1].result);
    let mut other_list = job.clone();
    other_list.list_digest = [8; 32];
    let error = shop.apply(other_list, blocks.clone()).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::ReplicaDiverged);
    // A new session with the same rows (the answer was lost): the leaf's clock knows them.
    let mut again = job.clone();
    (again.session, again.upload_mark) = (syncline::ids::SessionId::fresh(), Mark::fresh());
    let report = shop.apply(again, blocks).await.unwrap();
    assert_eq!((report.result.upserts, report.result.unchanged, report.result.conflicts), (0, 1, 0));
    assert_eq!(database.cell("SELECT name FROM item WHERE id = 1").await, "edited");
}

/// Two copies of a leaf count the same ticks for different rows.
#[tokio::test]
async fn an_upload_whose_session_has_not_seen_the_last_one_is_refused() {
    let (database, mut shop) = shop(ConflictPolicy::ServerWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let first = shop.blocks(&[born("item", [int(7), text("of the one"), price("1")])]);
    let job = shop.job(&known);
    shop.apply(job.clone(), first.clone()).await.unwrap();
    shop.leaf.tick -= 1;
    let second = shop.blocks(&[born("item", [int(8), text("of the other"), price("1")])]);
    let other = shop.job(&known);
    sessions::open_for_test(&*shop.hub, shop.scope.id, other.session, shop.leaf.id).await;
    let error = shop.apply_as_begun(other, second).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::ReplicaDiverged);
    assert_eq!(database.cell("SELECT count(*) FROM item WHERE id = 8").await, "0");
    // The same upload again is none of another's, whatever the session found.
    let mut again = job;
    again.session = syncline::ids::SessionId::fresh();
    sessions::open_for_test(&*shop.hub, shop.scope.id, again.session, shop.leaf.id).await;
    assert_eq!(shop.apply_as_begun(again, first).await.unwrap().result.unchanged, 1);
}

#[tokio::test]
async fn conflicts_are_settled_by_policy_and_both_sides_logged() {
    for (policy, wins) in [(ConflictPolicy::ServerWins, false), (ConflictPolicy::ClientWins, true)] {
        let (database, mut shop) = shop(policy).await;
        let (known, _) = shop.changes(&Knowledge::new()).await;
        database.run("UPDATE item SET name = 'hub' WHERE id = 1; DELETE FROM item WHERE id = 2; INSERT INTO item VALUES (4, 'hub', 4); UPDATE item SET name = 'hub' WHERE id = 3").await;
        let report = shop
            .upload(
                &known,
                &[
                    changed("item", [int(1), text("leaf"), price("1.00")]),
                    changed("item", [int(2), text("leaf"), price("2.00")]),
                    born("item", [int(4), text("leaf"), price("4.00")]),
                    deleted("item", [int(3)]),
                ],
            )
            .await
            .unwrap();
        assert_eq!(report.result.conflicts, 4);
        let kinds: Vec<_> = shop.conflicts().await.iter().map(|entry| entry.summary.kind.name()).collect();
        assert_eq!(kinds, ["update_update", "delete_update", "insert_insert", "update_delete"]);
        let first = &shop.conflicts().await[0];
        assert_eq!(first.local_row.as_ref().unwrap()["name"], "hub");
        assert_eq!(first.remote_row.as_ref().unwrap()["name"], "leaf");
        let expect = if wins { "1leaf1.00 2leaf2.00 4leaf4.00" } else { "1hub1.00 3hub3.00 4hub4.00" };
        assert_eq!(rows(&database).await, expect, "{policy:?}");
        // The sender hears of what the hub kept.
        let heard = shop.changes(&known).await.1.len();
        assert_eq!(heard, if wins { 0 } else { 4 });
    }
}

#[tokio::test]
async fn the_last_writer_wins_by_time() {
    let (database, mut shop) = shop(ConflictPolicy::LastWriterWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database.run("UPDATE item SET name = 'hub' WHERE id IN (1, 2)").await;
    let mut late = changed("item", [int(1), text("late"), price("1.00")]);
    let mut early = changed("item", [int(2), text("early"), price("2.00")]);
    (late.changed_at, early.changed_at) = (i64::MAX, 1);
    let report = shop.upload(&known, &[late, early]).await.unwrap();
    assert_eq!(report.result.conflicts, 2);
    assert_eq!(rows(&database).await, "1late1.00 2hub2.00 3c3.00");
}

#[tokio::test]
async fn equal_content_and_delete_delete_are_no_conflicts() {
    let (database, mut shop) = shop(ConflictPolicy::ServerWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database
        .run("UPDATE item SET name = 'same', price = 1.5 WHERE id = 1; DELETE FROM item WHERE id = 2")
        .await;
    let rows = [changed("item", [int(1), text("same"), price("1.5")]), deleted("item", [int(2)])];
    let report = shop.upload(&known, &rows).await.unwrap();
    assert_eq!((report.result.conflicts, report.result.unchanged), (0, 2));
}

#[tokio::test]
async fn an_update_of_a_row_that_the_hub_never_had_leaves_a_tombstone() {
    let (_database, mut shop) = shop(ConflictPolicy::ServerWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let report = shop.upload(&known, &[changed("item", [int(77), text("?"), price("1")])]).await.unwrap();
    assert_eq!(report.result.conflicts, 1);
    let (_, rows) = shop.changes(&known).await;
    assert_eq!(rows, [("item".to_owned(), Operation::Delete, vec![int(77)])]);
}

#[tokio::test]
async fn a_key_twice_and_null_keys_are_invalid() {
    let (database, mut shop) = shop(ConflictPolicy::ServerWins).await;
    let row = born("item", [int(50), text("x"), price("1")]);
    let error = shop.upload(&Knowledge::new(), &[row.clone(), row]).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowInvalid);
    let null = born("item", [Value::Null, text("x"), price("1")]);
    let error = shop.upload(&Knowledge::new(), &[null]).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowInvalid);
    assert_eq!(rows(&database).await, "1a1.00 2b2.00 3c3.00");
}

#[tokio::test]
async fn a_lock_that_does_not_come_fails_the_apply_and_not_the_row() {
    let (database, mut shop) = shop(ConflictPolicy::ServerWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let mut open = database.application().await;
    run(&mut open, "BEGIN; UPDATE item SET name = 'held' WHERE id = 1").await;
    let blocks = shop.blocks(&[changed("item", [int(1), text("leaf"), price("1")])]);
    let job = shop.job(&known);
    let error = shop.apply(job.clone(), blocks.clone()).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::LockTimeout);
    run(&mut open, "COMMIT").await;
    let report = shop.apply(job, blocks).await.unwrap();
    assert_eq!(report.result.conflicts, 1, "the write that it waited for was not known to the leaf");
    assert_eq!(database.cell("SELECT name FROM item WHERE id = 1").await, "held");
}

#[tokio::test]
async fn no_concurrent_write_is_lost() {
    let (database, mut shop) = shop(ConflictPolicy::ServerWins).await;
    let (mut known, _) = shop.changes(&Knowledge::new()).await;
    let url = database.url.clone();
    let writer = tokio::spawn(async move {
        let mut connection = super::kit::connect(&url).await;
        for round in 0..60 {
            run(&mut connection, &format!("UPDATE item SET price = price + 1 WHERE id = {}", round % 3 + 1))
                .await;
        }
    });
    let mut settled = 0;
    while !writer.is_finished() {
        let rows: Vec<_> = (1..=3).map(|id| changed("item", [int(id), text("leaf"), price("0")])).collect();
        let report = shop.upload(&known, &rows).await.unwrap();
        settled += report.result.upserts + report.result.conflicts + report.result.unchanged;
        let (learned, _) = shop.changes(&known).await;
        known = learned;
    }
    writer.await.unwrap();
    // Each write of the hub's either was overwritten knowingly, or won: what a leaf hears at the end is what is there.
    let (_, whole) = shop.changes(&Knowledge::new()).await;
    assert!(settled > 0 && whole.len() == 3);
    let log = format!("SELECT count(*) FROM syncline.log_{}", shop.id("item"));
    shop.hub.fold(&shop.scope).await.unwrap();
    assert_eq!(database.cell(&log).await, "0");
}

/// Another session inserts the key, and deletes it again, between the judgement and the insert: both orders of events
/// must end as one of the two would alone.
#[tokio::test]
async fn concurrent_births_of_one_key_never_fail_an_upload() {
    let (database, mut shop) = shop(ConflictPolicy::ServerWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let url = database.url.clone();
    let writer = tokio::spawn(async move {
        let mut connection = super::kit::connect(&url).await;
        for _ in 0..150 {
            run(&mut connection, "INSERT INTO item VALUES (500, 'hub', 1) ON CONFLICT DO NOTHING").await;
            run(&mut connection, "DELETE FROM item WHERE id = 500").await;
        }
    });
    let mut uploads = 0;
    while !writer.is_finished() {
        let row = born("item", [int(500), text("leaf"), price("5.00")]);
        match shop.upload(&known, &[row]).await {
            Ok(report) => {
                assert_eq!(report.result.row_errors, 0);
                uploads += 1;
            }
            Err(error) => assert_eq!(error.reason(), ErrorReason::LockTimeout),
        }
    }
    writer.await.unwrap();
    assert!(uploads > 0);
    // Whatever became of it, a leaf that compares the whole and one that was told of changes agree.
    let (_, whole) = shop.other_leaf().changes(&Knowledge::new()).await;
    let (_, told) = shop.other_leaf().changes(&known).await;
    let there = whole.iter().any(|row| row.2[0] == int(500));
    assert_eq!(told.iter().any(|row| row.1 == Operation::Upsert && row.2[0] == int(500)), there);
}

/// The hub took the row, its answer was lost, and TRUNCATE forgot that it was there: to the leaf the row is born still.
/// The hub knows the tick of its birth, so it must not come back without a word.
#[tokio::test]
async fn a_row_that_the_hub_has_had_is_not_born_again_by_an_edit() {
    let (database, mut shop) = shop(ConflictPolicy::ServerWins).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let row = |name| born("item", [int(9), text(name), price("1")]);
    shop.upload(&known, &[row("new")]).await.unwrap();
    let birth = Tick(shop.leaf.tick);
    database.run("TRUNCATE item").await;
    let mut edited = shop.blocks(&[row("edited")]);
    edited[0].births = vec![birth];
    let report = shop.apply(shop.job(&known), edited).await.unwrap();
    assert_eq!((report.result.upserts, report.result.conflicts), (0, 1));
    assert_eq!(shop.conflicts().await[0].summary.kind.name(), "delete_update");
    assert_eq!(database.cell("SELECT count(*)::text FROM item").await, "0");
}

#[tokio::test]
async fn conflicts_over_large_rows_are_judged_some_at_a_time() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, name text)").await;
    database.run("INSERT INTO item SELECT n, repeat(md5(n::text), 40000) FROM generate_series(1, 9) n").await;
    let mut shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database.run("UPDATE item SET name = name || '!'").await;
    let rows: Vec<_> = (1..=9).map(|id| changed("item", [int(id), text("small")])).collect();
    let report = shop.upload(&known, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.conflicts), (0, 9));
    assert_eq!(shop.conflicts().await.len(), 9);
}
