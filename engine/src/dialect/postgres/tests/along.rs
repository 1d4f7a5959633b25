//! Goal: an uploaded delete takes no row along by the hub's cascades that its leaf did not know. Method: rows of an
//! imagined leaf against a real PostgreSQL; a second connection beside it.

use sqlx::Executor as _;
use syncline::conflict::Outcome;
use syncline::knowledge::{Clocks, Knowledge, RowKey};
use syncline::schema::ConflictPolicy;

use super::kit::*;

/// Parents 4 and 5, children 41 and 51, grandchildren 411 and 511.
async fn hub(policy: ConflictPolicy) -> (Database, Shop, Knowledge) {
    let database = Database::with(
        "CREATE TABLE p (id int PRIMARY KEY, u text UNIQUE);
         CREATE TABLE c (id int PRIMARY KEY, pu text REFERENCES p (u) ON DELETE CASCADE, name text);
         CREATE TABLE g (id int PRIMARY KEY, c int REFERENCES c ON DELETE CASCADE, name text);
         INSERT INTO p VALUES (4, 'four'), (5, 'five');
         INSERT INTO c VALUES (41, 'four', 'old'), (51, 'five', 'old');
         INSERT INTO g VALUES (411, 41, 'old'), (511, 51, 'old')",
    )
    .await;
    let mut definition = definition(&["p", "c", "g"]);
    definition.conflict_policy = policy;
    let shop = database.scope_of(definition).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    (database, shop, known)
}

async fn everything(database: &Database) -> String {
    let all = "SELECT id FROM p UNION SELECT id FROM c UNION SELECT id FROM g";
    database.cell(&format!("SELECT COALESCE(string_agg(id::text, ' ' ORDER BY id), '') FROM ({all}) x")).await
}

async fn conflicts(shop: &Shop) -> Vec<String> {
    let mut all: Vec<_> = shop
        .conflicts()
        .await
        .iter()
        .map(|entry| {
            let row = entry.local_row.as_ref().unwrap();
            format!("{} {row} {}", entry.summary.table_name, entry.summary.outcome.as_str())
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn what_the_leaf_knew_goes_along() {
    let (database, mut shop, known) = hub(ConflictPolicy::ServerWins).await;
    let report = shop.upload(&known, &[deleted("p", [int(4)])]).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (1, 0));
    assert_eq!(everything(&database).await, "5 51 511");
    // The sender hears of what went along.
    assert_eq!(shop.changes(&known).await.1.len(), 2);
}

#[tokio::test]
async fn a_row_that_the_leaf_did_not_know_keeps_what_it_refers_to() {
    for newer in ["UPDATE c SET name = 'new' WHERE id = 41", "INSERT INTO g VALUES (412, 41, 'new')"] {
        let (database, mut shop, known) = hub(ConflictPolicy::ServerWins).await;
        database.run(newer).await;
        let before = everything(&database).await;
        let both = [deleted("p", [int(4)]), deleted("p", [int(5)])];
        let report = shop.upload(&known, &both).await.unwrap();
        assert_eq!((report.result.deletes, report.result.conflicts), (1, 1), "{newer}");
        let left = before.replace("5 ", "").replace("51 ", "").replace(" 511", "");
        assert_eq!(everything(&database).await, left, "{newer}");
        assert_eq!(conflicts(&shop).await, ["p {\"id\":4,\"u\":\"four\"} local"], "{newer}");
        // The sender gets its row back.
        let (known, back) = shop.changes(&known).await;
        assert!(format!("{back:?}").contains("four"), "{back:?}");
        // Deleted again, in the knowledge of what there is.
        let report = shop.upload(&known, &[deleted("p", [int(4)])]).await.unwrap();
        assert_eq!((report.result.deletes, report.result.conflicts), (1, 0), "{newer}");
        assert_eq!(everything(&database).await, "");
    }
}

#[tokio::test]
async fn one_that_loses_is_in_the_log() {
    let (database, mut shop, known) = hub(ConflictPolicy::ClientWins).await;
    database.run("UPDATE c SET name = 'new' WHERE id = 41; INSERT INTO g VALUES (412, 41, 'new')").await;
    let report = shop.upload(&known, &[deleted("p", [int(4)])]).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (1, 2));
    assert_eq!(everything(&database).await, "5 51 511");
    let expected = [
        "c {\"id\":41,\"name\":\"new\",\"pu\":\"four\"} remote",
        "g {\"c\":41,\"id\":412,\"name\":\"new\"} remote",
    ];
    assert_eq!(conflicts(&shop).await, expected);
}

#[tokio::test]
async fn a_child_that_won_for_itself_keeps_its_parent() {
    let (database, mut shop, known) = hub(ConflictPolicy::ServerWins).await;
    database.run("UPDATE c SET name = 'new' WHERE id = 41").await;
    let rows = [deleted("g", [int(411)]), deleted("c", [int(41)]), deleted("p", [int(4)])];
    let report = shop.upload(&known, &rows).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (1, 2));
    assert_eq!(everything(&database).await, "4 5 41 51 511");
    assert!(shop.conflicts().await.iter().all(|entry| entry.summary.outcome == Outcome::Local));
}

#[tokio::test]
async fn a_delete_that_won_against_its_own_row_may_lose_to_one_that_refers_to_it() {
    let (database, _, known) = hub(ConflictPolicy::ServerWins).await;
    let mut definition = definition(&["p", "c", "g"]);
    definition.tables[0].conflict_policy = Some(ConflictPolicy::ClientWins);
    let mut shop = database.scope_of(definition).await;
    database.run("UPDATE p SET u = u WHERE id = 4; UPDATE c SET name = 'new' WHERE id = 41").await;
    let report = shop.upload(&known, &[deleted("p", [int(4)])]).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (0, 1));
    assert_eq!(everything(&database).await, "4 5 41 51 411 511");
    assert_eq!(conflicts(&shop).await, ["p {\"id\":4,\"u\":\"four\"} local"]);
}

#[tokio::test]
async fn a_row_that_the_leaf_could_not_apply_counts_as_unknown() {
    let (database, mut shop, mut known) = hub(ConflictPolicy::ServerWins).await;
    let row = RowKey { table: shop.id("c"), key: key(&[int(41)]) };
    known.except(row, Clocks::new());
    let report = shop.upload(&known, &[deleted("p", [int(4)]), deleted("p", [int(5)])]).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (1, 1));
    assert_eq!(everything(&database).await, "4 41 411");
}

#[tokio::test]
async fn a_delete_that_fails_leaves_no_conflict_behind() {
    let (database, mut shop, known) = hub(ConflictPolicy::ClientWins).await;
    database
        .run(
            "UPDATE c SET name = 'new' WHERE id = 41;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE check_violation USING MESSAGE = 'protected'; END $$;
             CREATE TRIGGER t BEFORE DELETE ON g FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    let report = shop.upload(&known, &[deleted("p", [int(4)])]).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts, report.result.row_errors), (0, 0, 1));
    assert!(shop.conflicts().await.is_empty());
}

#[tokio::test]
async fn rows_that_refer_to_their_own_table_in_a_circle_go_along() {
    let database = Database::with(
        "CREATE TABLE n (id int PRIMARY KEY, up int REFERENCES n ON DELETE CASCADE);
         INSERT INTO n VALUES (1, NULL), (2, 1), (3, 2); UPDATE n SET up = 3 WHERE id = 1",
    )
    .await;
    let mut shop = database.scope(&["n"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let report = shop.upload(&known, &[deleted("n", [int(1)])]).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (1, 0));
    assert_eq!(database.cell("SELECT count(*)::text FROM n").await, "0");
}

#[tokio::test]
async fn a_row_that_is_being_edited_is_waited_for() {
    let (database, mut shop, known) = hub(ConflictPolicy::ServerWins).await;
    let mut application = database.application().await;
    application.execute("BEGIN; UPDATE c SET name = 'new' WHERE id = 41").await.unwrap();
    let rows = [deleted("p", [int(4)])];
    let mut upload = Box::pin(shop.upload(&known, &rows));
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock')::text";
    let waits = async { while database.cell(waiting).await != "true" {} };
    tokio::select! { _ = &mut upload => panic!("it did not wait"), () = waits => {} }
    application.execute("COMMIT").await.unwrap();
    let report = upload.await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (0, 1));
    assert_eq!(everything(&database).await, "4 5 41 51 411 511");
}
