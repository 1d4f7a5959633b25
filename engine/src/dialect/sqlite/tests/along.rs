//! Goal: an uploaded delete takes no row along by the hub's cascades that its leaf did not know. Method: rows of an
//! imagined leaf against a hub's file.

use syncline::conflict::Outcome;
use syncline::knowledge::{Clocks, Knowledge, RowKey};
use syncline::schema::ConflictPolicy;
use syncline::value::key_bytes;

use super::support::*;
use crate::store::StoredScope;

const TABLES: &[&str] = &["p", "c", "g"];

/// Parents 4 and 5, children 41 and 51, grandchildren 411 and 511.
async fn hub(policy: ConflictPolicy) -> (File, StoredScope, Knowledge) {
    let schema = "CREATE TABLE p (id INTEGER PRIMARY KEY, u TEXT UNIQUE); \
        CREATE TABLE c (id INTEGER PRIMARY KEY, pu TEXT COLLATE NOCASE REFERENCES p (u) ON DELETE CASCADE, name TEXT); \
        CREATE TABLE g (id INTEGER PRIMARY KEY, c INTEGER REFERENCES c ON DELETE CASCADE, name TEXT); \
        INSERT INTO p VALUES (4, 'four'), (5, 'five'); \
        INSERT INTO c VALUES (41, 'four', 'old'), (51, 'five', 'old'); \
        INSERT INTO g VALUES (411, 41, 'old'), (511, 51, 'old')";
    let (file, mut scope) = File::hub(schema, TABLES).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    scope.schema.conflict_policy = policy;
    (file, scope, known)
}

fn everything(file: &File) -> String {
    file.ask("SELECT group_concat(id, ' ') FROM (SELECT id FROM p UNION SELECT id FROM c UNION SELECT id FROM g ORDER BY 1)")
}

async fn conflicts(file: &File) -> Vec<String> {
    let entries = file.conflicts().await;
    let mut all: Vec<_> = entries
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
    let (file, scope, known) = hub(ConflictPolicy::ServerWins).await;
    let sender = Sender::new(&known);
    let report = sender.upload(&file, &scope, &[delete("p", vec![int(4)])]).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (1, 0));
    assert_eq!(everything(&file), "5 51 511");
    // The sender hears of what went along.
    let back = file.changes(&scope, &known, Some(sender.leaf)).await.rows();
    assert_eq!(back, ["-g(411)", "-c(41)"]);
}

#[tokio::test]
async fn a_row_that_the_leaf_did_not_know_keeps_what_it_refers_to() {
    for newer in ["UPDATE c SET name = 'new' WHERE id = 41", "INSERT INTO g VALUES (412, 41, 'new')"] {
        let (file, scope, known) = hub(ConflictPolicy::ServerWins).await;
        file.run(newer);
        let before = everything(&file);
        let sender = Sender::new(&known);
        let both = [delete("p", vec![int(4)]), delete("p", vec![int(5)])];
        let report = sender.upload(&file, &scope, &both).await.unwrap();
        assert_eq!((report.result.deletes, report.result.conflicts), (1, 1), "{newer}");
        assert_eq!(
            everything(&file),
            before.replace("5 ", "").replace("51 ", "").replace(" 511", ""),
            "{newer}"
        );
        assert_eq!(conflicts(&file).await, ["p {\"id\":4,\"u\":\"four\"} local"], "{newer}");
        // The sender gets its row back, and others are not told anything wrong.
        let back = file.changes(&scope, &known, Some(sender.leaf)).await.rows();
        assert!(back.contains(&"+p(4,four)".to_owned()), "{back:?}");
        // Deleted again, in the knowledge of what there is.
        let known = file.changes(&scope, &known, Some(sender.leaf)).await.knowledge;
        let again = sender.again(&known, 2);
        let report =
            again.upload(&file, &scope, &[Row { tick: 2, ..delete("p", vec![int(4)]) }]).await.unwrap();
        assert_eq!((report.result.deletes, report.result.conflicts), (1, 0), "{newer}");
        assert_eq!(everything(&file), "~");
    }
}

#[tokio::test]
async fn one_that_loses_is_in_the_log() {
    let (file, scope, known) = hub(ConflictPolicy::ClientWins).await;
    file.run("UPDATE c SET name = 'new' WHERE id = 41; INSERT INTO g VALUES (412, 41, 'new')");
    let report = Sender::new(&known).upload(&file, &scope, &[delete("p", vec![int(4)])]).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (1, 2));
    assert_eq!(everything(&file), "5 51 511");
    let expected = [
        "c {\"id\":41,\"name\":\"new\",\"pu\":\"four\"} remote",
        "g {\"c\":41,\"id\":412,\"name\":\"new\"} remote",
    ];
    assert_eq!(conflicts(&file).await, expected);
}

#[tokio::test]
async fn a_child_that_won_for_itself_keeps_its_parent() {
    let (file, scope, known) = hub(ConflictPolicy::ServerWins).await;
    file.run("UPDATE c SET name = 'new' WHERE id = 41");
    let rows = [delete("g", vec![int(411)]), delete("c", vec![int(41)]), delete("p", vec![int(4)])];
    let report = Sender::new(&known).upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (1, 2));
    assert_eq!(everything(&file), "4 5 41 51 511");
    assert!(file.conflicts().await.iter().all(|entry| entry.summary.outcome == Outcome::Local));
}

#[tokio::test]
async fn a_row_that_the_leaf_could_not_apply_counts_as_unknown() {
    let (file, scope, mut known) = hub(ConflictPolicy::ServerWins).await;
    let key = key_bytes([int(41).cell()].into_iter()).unwrap();
    known.except(RowKey { table: table_id(&scope, "c"), key }, Clocks::new());
    let rows = [delete("p", vec![int(4)]), delete("p", vec![int(5)])];
    let report = Sender::new(&known).upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (1, 1));
    assert_eq!(everything(&file), "4 41 411");
}

#[tokio::test]
async fn a_delete_that_fails_leaves_no_conflict_behind() {
    let (file, scope, known) = hub(ConflictPolicy::ClientWins).await;
    file.run(
        "UPDATE c SET name = 'new' WHERE id = 41; \
         CREATE TRIGGER t BEFORE DELETE ON g BEGIN SELECT RAISE(ABORT, 'protected'); END",
    );
    let report = Sender::new(&known).upload(&file, &scope, &[delete("p", vec![int(4)])]).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts, report.result.row_errors), (0, 0, 1));
    assert!(file.conflicts().await.is_empty());
}

#[tokio::test]
async fn rows_that_refer_to_their_own_table_in_a_circle_go_along() {
    let schema = "CREATE TABLE n (id INTEGER PRIMARY KEY, up INTEGER REFERENCES n ON DELETE CASCADE); \
        INSERT INTO n VALUES (1, NULL), (2, 1), (3, 2); UPDATE n SET up = 3 WHERE id = 1";
    let (file, scope) = File::hub(schema, &["n"]).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    let report = Sender::new(&known).upload(&file, &scope, &[delete("n", vec![int(1)])]).await.unwrap();
    assert_eq!((report.result.deletes, report.result.conflicts), (1, 0));
    assert_eq!(file.ask("SELECT count(*) FROM n"), "0");
}
