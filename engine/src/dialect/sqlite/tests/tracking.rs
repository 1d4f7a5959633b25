//! Goal: every way in which an application changes rows is seen. Method: statements of an application, then what a hub
//! sends to someone who knew the state before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use syncline::knowledge::Knowledge;

use super::support::*;
use crate::store::{HubStore, StoredScope};

async fn hub() -> (File, StoredScope, Knowledge) {
    let (file, scope) = File::hub(SCHEMA, &["customer", "invoice", "line"]).await;
    file.run(
        "INSERT INTO customer (id, name, email) VALUES (1, 'Ada', 'a@x'), (2, 'Bob', 'b@x'), (3, 'Cyd', 'c@x'); \
         INSERT INTO invoice VALUES (10, 1, 1.5), (11, 1, 2); INSERT INTO line VALUES (10, 1, 'x'), (10, 2, 'y')",
    );
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    (file, scope, known)
}

async fn check(sql: &str, expected: &[&str]) {
    let (file, scope, known) = hub().await;
    file.run(sql);
    let mut rows = file.changes(&scope, &known, None).await.rows();
    rows.sort();
    let mut expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
    expected.sort();
    assert_eq!(rows, expected, "{sql}");
}

#[tokio::test]
async fn inserts_updates_and_deletes_are_seen() {
    check("INSERT INTO customer (id, name) VALUES (4, 'Dan')", &["+customer(4,Dan,~,~,0)"]).await;
    check("UPDATE customer SET name = 'Bo' WHERE id = 2", &["+customer(2,Bo,b@x,~,0)"]).await;
    check("DELETE FROM customer WHERE id = 3", &["-customer(3)"]).await;
    check(
        "INSERT INTO customer (id, name) VALUES (4, 'x'); DELETE FROM customer WHERE id = 4",
        &["-customer(4)"],
    )
    .await;
    check(
        "DELETE FROM customer WHERE id = 3; INSERT INTO customer (id, name) VALUES (3, 'C')",
        &["+customer(3,C,~,~,0)"],
    )
    .await;
}

#[tokio::test]
async fn statements_of_many_rows_are_seen_whole() {
    check(
        "UPDATE customer SET points = points + id",
        &["+customer(1,Ada,a@x,~,1)", "+customer(2,Bob,b@x,~,2)", "+customer(3,Cyd,c@x,~,3)"],
    )
    .await;
}

#[tokio::test]
async fn upserts_are_seen() {
    check(
        "INSERT INTO customer (id, name) VALUES (2, 'new') ON CONFLICT (id) DO UPDATE SET name = 'up'",
        &["+customer(2,up,b@x,~,0)"],
    )
    .await;
    check("INSERT OR IGNORE INTO customer (id, name) VALUES (2, 'new')", &[]).await;
    check("INSERT OR REPLACE INTO customer (id, name) VALUES (3, 'new')", &["+customer(3,new,~,~,0)"]).await;
}

#[tokio::test]
async fn a_row_that_replace_removes_over_a_second_unique_index_is_seen() {
    check(
        "INSERT OR REPLACE INTO customer (id, name, email) VALUES (9, 'new', 'c@x')",
        &["+customer(9,new,c@x,~,0)", "-customer(3)"],
    )
    .await;
    check(
        "UPDATE OR REPLACE customer SET email = 'c@x' WHERE id = 2",
        &["+customer(2,Bob,c@x,~,0)", "-customer(3)"],
    )
    .await;
    check(
        "REPLACE INTO customer (id, name, email) VALUES (NULL, 'new', 'c@x')",
        &["+customer(4,new,c@x,~,0)", "-customer(3)"],
    )
    .await;
    // Left alone: it is not marked either, and the note of it does not come to anything later.
    check("INSERT OR IGNORE INTO customer (id, name, email) VALUES (9, 'new', 'c@x')", &[]).await;
    check(
        "INSERT OR IGNORE INTO customer (id, name, email) VALUES (9, 'new', 'c@x'); \
         INSERT INTO customer (id, name) VALUES (8, 'h')",
        &["+customer(8,h,~,~,0)"],
    )
    .await;
}

#[tokio::test]
async fn a_changed_key_is_a_delete_and_an_insert() {
    check("UPDATE customer SET id = 30 WHERE id = 3", &["+customer(30,Cyd,c@x,~,0)", "-customer(3)"]).await;
    check("UPDATE customer SET rowid = 30 WHERE id = 3", &["+customer(30,Cyd,c@x,~,0)", "-customer(3)"])
        .await;
    check(
        "UPDATE line SET number = number + 10",
        &["+line(10,11,x)", "+line(10,12,y)", "-line(10,1)", "-line(10,2)"],
    )
    .await;
}

#[tokio::test]
async fn cascades_are_seen() {
    check("DELETE FROM invoice WHERE id = 10", &["-invoice(10)", "-line(10,1)", "-line(10,2)"]).await;
}

#[tokio::test]
async fn what_triggers_of_the_user_change_is_seen() {
    check(
        "CREATE TRIGGER t AFTER INSERT ON line BEGIN UPDATE invoice SET total = 99 WHERE id = NEW.invoice_id; END; \
         INSERT INTO line VALUES (11, 1, 'z')",
        &["+invoice(11,1,99.00)", "+line(11,1,z)"],
    )
    .await;
}

#[tokio::test]
async fn a_rolled_back_statement_leaves_nothing() {
    check("BEGIN; INSERT INTO customer (id, name) VALUES (5, 'x'); ROLLBACK", &[]).await;
}

#[tokio::test]
async fn keys_that_differ_in_case_alone_are_different_keys() {
    let (file, scope) =
        File::hub("CREATE TABLE word (w TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, n INTEGER)", &["word"])
            .await;
    file.run("INSERT INTO word VALUES ('a', 1), ('b', 2)");
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    file.run("UPDATE word SET w = 'A' WHERE w = 'a'");
    let sent = file.changes(&scope, &known, None).await;
    assert_eq!(sent.rows(), ["+word(A,1)", "-word(a)"]);
    file.run("INSERT OR REPLACE INTO word VALUES ('B', 3)");
    let sent = file.changes(&scope, &sent.knowledge, None).await;
    assert_eq!(sent.rows(), ["+word(B,3)", "-word(b)"]);
}

#[tokio::test]
async fn a_log_that_grows_long_folds_itself_whatever_the_statement_says_of_conflicts() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    file.run(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 140000) \
              INSERT OR REPLACE INTO customer (id, name) SELECT i, 'n' FROM n",
    );
    file.run("UPDATE OR IGNORE customer SET points = 1");
    let waiting = file.number("SELECT count(*) FROM syncline_log_1").await;
    assert_eq!(waiting, 2 * 140_000 - i64::from(crate::limits::SQLITE_LOG_ENTRIES_MAX));
    let sent = file.changes(&scope, &known, None).await;
    assert_eq!(sent.rows().len(), 140_000);
    assert!(file.changes(&scope, &sent.knowledge, None).await.rows().is_empty());
}

#[tokio::test]
async fn a_long_log_is_folded_in_pieces_from_its_beginning() {
    let (file, scope, known) = hub().await;
    let piece = i64::from(crate::limits::SQLITE_FOLD_ENTRIES_MAX);
    let first = file.number("SELECT tick FROM syncline_state").await;
    // Row 1 has entries in the first piece and in the last.
    file.run(
        "UPDATE customer SET points = 1; INSERT INTO customer (id, name) VALUES (4, 'd'), (5, 'e'), (6, 'f')",
    );
    file.run("INSERT INTO invoice VALUES (12, 1, 3); DELETE FROM line; UPDATE customer SET points = 2 WHERE id = 1");
    file.database.fold(&scope).await.unwrap();
    assert_eq!(
        file.ask("SELECT count(*) FROM syncline_log_1 UNION ALL SELECT count(*) FROM syncline_log_3"),
        "0\n0"
    );
    assert_eq!(
        file.number("SELECT tick FROM syncline_state").await,
        first + (7 + 1 + 2_i64).div_euclid(piece) + 1
    );
    let ticks = |table: i64, key: i64| {
        file.ask(&format!("SELECT tick - {first} FROM syncline_record_{table} WHERE k1 = {key} LIMIT 1"))
    };
    let ticks = [ticks(1, 2), ticks(1, 4), ticks(1, 5), ticks(1, 1), ticks(2, 12), ticks(3, 10)];
    assert_eq!(ticks, ["1", "1", "2", "2", "2", "3"]);
    let mut rows = file.changes(&scope, &known, None).await.rows();
    rows.sort();
    assert_eq!(rows.iter().filter(|row| row.starts_with("+customer")).count(), 6);
    assert_eq!(rows.len(), 9, "{rows:?}");
}

#[tokio::test]
async fn an_application_gets_its_turn_between_two_pieces_and_nothing_of_it_is_lost() {
    let (file, scope, known) = hub().await;
    let entries = crate::limits::SQLITE_FOLD_ENTRIES_MAX * (crate::limits::SQLITE_FOLD_PIECES_MAX - 1);
    file.run(&format!(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {entries}) \
         INSERT INTO customer (id, name) SELECT 100 + i, 'n' FROM n"
    ));
    let first = file.number("SELECT tick FROM syncline_state").await;
    let (path, folding) = (file.path.clone(), Arc::new(AtomicBool::new(true)));
    let goes_on = Arc::clone(&folding);
    let writer = std::thread::spawn(move || {
        let app = application(&path);
        let tick =
            || app.query_row("SELECT tick FROM syncline_state", [], |row| row.get::<_, i64>(0)).unwrap();
        let mut seen = vec![tick()];
        // Once a piece: whoever writes without a pause would keep the fold from the lock.
        while goes_on.load(Ordering::SeqCst) {
            if seen.last() == Some(&tick()) {
                std::thread::yield_now();
                continue;
            }
            app.execute_batch("BEGIN IMMEDIATE; INSERT INTO customer (name) VALUES ('between')").unwrap();
            seen.push(tick());
            app.execute_batch("COMMIT").unwrap();
        }
        seen
    });
    file.database.fold(&scope).await.unwrap();
    folding.store(false, Ordering::SeqCst);
    let last = file.number("SELECT tick FROM syncline_state").await;
    let seen = writer.join().unwrap();
    assert!(seen.iter().any(|tick| first < *tick && *tick < last), "{first} {seen:?} {last}");
    let sent = file.changes(&scope, &known, None).await.rows();
    assert_eq!(sent.len(), entries as usize + seen.len() - 1);
}

#[tokio::test]
async fn what_replace_removes_is_seen_where_a_before_trigger_sees_other_values() {
    // A rowid that is not chosen yet is -1 there, and a NULL that a default takes the place of is NULL.
    let rowid = "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, v TEXT)";
    let text = "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT NOT NULL DEFAULT 'd''x' UNIQUE, v TEXT)";
    let number = "CREATE TABLE t (id INTEGER PRIMARY KEY, u INTEGER NOT NULL DEFAULT -7 UNIQUE, v TEXT)";
    let key = "CREATE TABLE t (id TEXT COLLATE NOCASE NOT NULL DEFAULT 'dk' PRIMARY KEY, v TEXT)";
    for (schema, before, sql, expected) in [
        (
            rowid,
            "INSERT INTO t VALUES (-1, 'a', 'x')",
            "INSERT OR REPLACE INTO t (u, v) VALUES ('a', 'y'); UPDATE t SET u = 'c'",
            "-t(-1)",
        ),
        (
            text,
            "INSERT INTO t (id, v) VALUES (12, 'x')",
            "INSERT OR REPLACE INTO t VALUES (20, NULL, 'y'); UPDATE t SET u = 'c'",
            "-t(12)",
        ),
        (
            text,
            "INSERT INTO t (id, v) VALUES (12, 'x'); INSERT INTO t VALUES (20, 'q', 'y')",
            "UPDATE OR REPLACE t SET u = NULL WHERE id = 20; UPDATE t SET u = 'c'",
            "-t(12)",
        ),
        (
            number,
            "INSERT INTO t (id, v) VALUES (12, 'x')",
            "INSERT OR REPLACE INTO t VALUES (20, NULL, 'y'); UPDATE t SET u = 1",
            "-t(12)",
        ),
        (
            key,
            "INSERT INTO t VALUES ('DK', 'x')",
            "INSERT OR REPLACE INTO t VALUES (NULL, 'y'); UPDATE t SET id = 'z'",
            "-t(DK)",
        ),
    ] {
        let (file, scope) = File::hub(schema, &["t"]).await;
        file.run(before);
        let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
        file.run(sql);
        let rows = file.changes(&scope, &known, None).await.rows();
        assert!(rows.iter().any(|row| row == expected), "{sql}: {rows:?}");
        assert_eq!(file.ask("SELECT count(*) FROM t"), "1", "{sql}");
    }
}

#[tokio::test]
async fn an_empty_fold_draws_no_tick_and_times_never_go_back() {
    let (file, scope, known) = hub().await;
    file.database.fold(&scope).await.unwrap();
    assert_eq!(file.changes(&scope, &known, None).await.knowledge, known);
    file.run("UPDATE syncline_record_1 SET changed_at = 9000000000000000 WHERE k1 = 1");
    file.run("UPDATE customer SET points = 5 WHERE id = 1");
    file.database.fold(&scope).await.unwrap();
    assert_eq!(file.ask("SELECT changed_at FROM syncline_record_1 WHERE k1 = 1"), "9000000000000001");
}

#[tokio::test]
async fn what_a_transaction_writes_that_is_open_during_a_session_comes_with_the_next() {
    let (file, scope, known) = hub().await;
    file.run("BEGIN; UPDATE customer SET name = 'open' WHERE id = 1");
    let sent = file.changes(&scope, &known, None).await;
    assert!(sent.rows().is_empty());
    file.run("COMMIT");
    let sent = file.changes(&scope, &sent.knowledge, None).await;
    assert_eq!(sent.rows(), ["+customer(1,open,a@x,~,0)"]);
}
