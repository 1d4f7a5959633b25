//! Goal: an upload is judged and applied as the algebra says, exactly once. Method: rows of an imagined leaf against a
//! hub's file.

use syncline::conflict::RowErrorReason;
use syncline::error::ErrorReason;
use syncline::ids::Tick;
use syncline::knowledge::Knowledge;
use syncline::schema::{ConflictPolicy, RowErrorPolicy};
use syncline::value::Value;

use super::support::*;
use crate::dialect::meta::sessions;
use crate::scope::Spanned;
use crate::store::{HubStore, StoredScope};

const ALL: &[&str] = &["customer", "invoice", "line", "chicken", "egg"];

async fn hub() -> (File, StoredScope, Knowledge) {
    let (file, scope) = File::hub(SCHEMA, ALL).await;
    file.run(
        "INSERT INTO customer (id, name, email) VALUES (1, 'Ada', 'a@x'), (2, 'Bob', 'b@x'); \
         INSERT INTO invoice VALUES (10, 1, 1.5); INSERT INTO line VALUES (10, 1, 'x')",
    );
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    (file, scope, known)
}

fn customer(id: i64, name: &str, email: Value) -> Vec<Value> {
    vec![int(id), text(name), email, Value::Null, int(0)]
}

async fn reason(file: &File, sender: &Sender) -> Vec<(String, RowErrorReason)> {
    let errors = file.row_errors(sender.session).await;
    errors.into_iter().map(|error| (error.key_json, error.reason)).collect()
}

#[tokio::test]
async fn plain_rows_are_applied_and_not_echoed() {
    let (file, scope, known) = hub().await;
    let sender = Sender::new(&known);
    let rows = [
        insert("customer", customer(3, "Cyd", Value::Null)),
        upsert("customer", customer(2, "Bo", text("b@x"))),
        insert("invoice", vec![int(11), int(3), Value::Decimal("2.50".into())]),
        delete("line", vec![int(10), int(1)]),
    ];
    let report = sender.upload(&file, &scope, &rows).await.unwrap();
    assert!(report.applied_now);
    assert_eq!((report.result.upserts, report.result.deletes, report.result.conflicts), (3, 1, 0));
    assert_eq!(file.ask("SELECT id, name FROM customer"), "1|Ada\n2|Bo\n3|Cyd");
    assert_eq!(file.ask("SELECT total FROM invoice WHERE id = 11"), "2.5");
    assert!(file.changes(&scope, &known, Some(sender.leaf)).await.rows().is_empty());
    let others = file.changes(&scope, &known, None).await.rows();
    assert_eq!(others.len(), 4, "{others:?}");
    assert_eq!(file.ask("SELECT writing FROM syncline_state"), "0");
    assert_eq!(file.ask("SELECT count(*) FROM syncline_log_1"), "0");
}

#[tokio::test]
async fn an_upload_that_is_repeated_is_applied_once() {
    let (file, scope, known) = hub().await;
    let sender = Sender::new(&known);
    let rows = [insert("customer", customer(3, "Cyd", Value::Null))];
    let first = sender.upload(&file, &scope, &rows).await.unwrap();
    let again = sender.upload(&file, &scope, &rows).await.unwrap();
    assert!(!again.applied_now);
    assert_eq!(first.result, again.result);
    // In another session: the tick is known, whatever happened to the row since.
    file.run("DELETE FROM customer WHERE id = 3");
    let report = sender.again(&known, 1).upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.unchanged, report.result.conflicts), (0, 1, 0));
    assert_eq!(file.ask("SELECT count(*) FROM customer"), "2");
}

#[tokio::test]
async fn the_matrix_of_conflicts() {
    // (what the hub did, what the leaf sends, kind, name at the hub under server_wins and under client_wins)
    let matrix = [
        ("UPDATE customer SET name = 'hub' WHERE id = 2", 'u', "update_update", "hub", "leaf"),
        ("UPDATE customer SET name = 'hub' WHERE id = 2", 'd', "update_delete", "hub", "~"),
        ("DELETE FROM customer WHERE id = 2", 'u', "delete_update", "~", "leaf"),
        ("DELETE FROM customer WHERE id = 2", 'd', "", "~", "~"),
        ("UPDATE customer SET name = 'hub' WHERE id = 2", 'i', "insert_insert", "hub", "leaf"),
        ("DELETE FROM customer WHERE id = 2", 'i', "delete_update", "~", "leaf"),
        ("UPDATE customer SET name = 'leaf' WHERE id = 2", 'u', "", "leaf", "leaf"),
        ("SELECT 1", 'u', "", "leaf", "leaf"),
        ("SELECT 1", 'd', "", "~", "~"),
    ];
    for (sql, operation, kind, server, client) in matrix {
        for policy in [ConflictPolicy::ServerWins, ConflictPolicy::ClientWins] {
            let (file, stored, known) = hub().await;
            let mut scope = stored.clone();
            scope.schema.conflict_policy = policy;
            file.run(sql.replace("SELECT 1", "").as_str());
            let row = match operation {
                'u' => upsert("customer", customer(2, "leaf", text("b@x"))),
                'i' => insert("customer", customer(2, "leaf", text("b@x"))),
                _ => delete("customer", vec![int(2)]),
            };
            let sender = Sender::new(&known);
            let report = sender.upload(&file, &scope, &[row]).await.unwrap();
            let name = file.ask("SELECT coalesce((SELECT name FROM customer WHERE id = 2), '~')");
            let expected = if policy == ConflictPolicy::ServerWins { server } else { client };
            assert_eq!(name, expected, "{sql} against {operation} under {policy:?}");
            let conflicts = file.conflicts().await;
            let kinds: Vec<_> = conflicts.iter().map(|entry| entry.summary.kind.name()).collect();
            let expected: Vec<_> = (!kind.is_empty()).then(|| kind.to_owned()).into_iter().collect();
            assert_eq!(kinds, expected, "{sql} against {operation}");
            assert_eq!(report.result.conflicts as usize, expected.len());
            // Whoever loses hears of it.
            let sent = file.changes(&stored, &known, Some(sender.leaf)).await.rows();
            let lost = policy == ConflictPolicy::ServerWins && !kind.is_empty();
            assert!(!lost || !sent.is_empty(), "{sql} against {operation}: {sent:?}");
        }
    }
}

#[tokio::test]
async fn an_update_of_a_row_that_the_hub_never_had_is_a_conflict_and_leaves_a_tombstone() {
    let (file, scope, known) = hub().await;
    let sender = Sender::new(&known);
    sender.upload(&file, &scope, &[upsert("customer", customer(99, "ghost", Value::Null))]).await.unwrap();
    assert_eq!(file.ask("SELECT count(*) FROM customer"), "2");
    let conflicts = file.conflicts().await;
    assert_eq!(conflicts[0].summary.kind.name(), "delete_update");
    assert_eq!(conflicts[0].remote_row.as_ref().unwrap()["name"], "ghost");
    assert_eq!(file.changes(&scope, &known, Some(sender.leaf)).await.rows(), ["-customer(99)"]);
}

#[tokio::test]
async fn the_last_writer_wins_by_time() {
    for (leaf_at, winner) in [(0, "hub"), (i64::MAX, "leaf")] {
        let (file, mut scope, known) = hub().await;
        scope.schema.conflict_policy = ConflictPolicy::LastWriterWins;
        file.run("UPDATE customer SET name = 'hub' WHERE id = 2");
        file.database.fold(&scope).await.unwrap();
        let mut row = upsert("customer", customer(2, "leaf", text("b@x")));
        row.changed_at = leaf_at;
        Sender::new(&known).upload(&file, &scope, &[row]).await.unwrap();
        assert_eq!(file.ask("SELECT name FROM customer WHERE id = 2"), winner);
    }
}

#[tokio::test]
async fn a_leaf_is_in_no_conflict_with_its_own_earlier_upload() {
    let (file, scope, known) = hub().await;
    let sender = Sender::new(&known);
    sender.upload(&file, &scope, &[upsert("customer", customer(2, "one", text("b@x")))]).await.unwrap();
    let mut second = upsert("customer", customer(2, "two", text("b@x")));
    second.tick = 2;
    let report = sender.again(&known, 2).upload(&file, &scope, &[second]).await.unwrap();
    assert_eq!((report.result.upserts, report.result.conflicts), (1, 0));
    assert_eq!(file.ask("SELECT name FROM customer WHERE id = 2"), "two");
}

#[tokio::test]
async fn what_a_trigger_makes_of_a_row_comes_back_and_is_no_conflict() {
    let (file, scope, known) = hub().await;
    file.run("CREATE TRIGGER t AFTER UPDATE OF name ON customer BEGIN UPDATE customer SET points = 7 WHERE id = NEW.id; END");
    let sender = Sender::new(&known);
    sender.upload(&file, &scope, &[upsert("customer", customer(2, "one", text("b@x")))]).await.unwrap();
    let sent = file.changes(&scope, &known, Some(sender.leaf)).await;
    assert_eq!(sent.rows(), ["+customer(2,one,b@x,~,7)"]);
    let mut second = upsert("customer", customer(2, "two", text("b@x")));
    second.tick = 2;
    let report = sender.again(&known, 2).upload(&file, &scope, &[second]).await.unwrap();
    assert_eq!(report.result.conflicts, 0);
}

#[tokio::test]
async fn a_write_that_a_trigger_swallows_is_answered_with_the_hubs_row() {
    let (file, scope, known) = hub().await;
    file.run("CREATE TRIGGER t BEFORE UPDATE ON customer BEGIN SELECT RAISE(IGNORE); END");
    let sender = Sender::new(&known);
    sender.upload(&file, &scope, &[upsert("customer", customer(2, "one", text("b@x")))]).await.unwrap();
    assert_eq!(file.changes(&scope, &known, Some(sender.leaf)).await.rows(), ["+customer(2,Bob,b@x,~,0)"]);
}

#[tokio::test]
async fn what_a_cascade_removes_reaches_the_sender() {
    let (file, scope, known) = hub().await;
    let sender = Sender::new(&known);
    sender.upload(&file, &scope, &[delete("invoice", vec![int(10)])]).await.unwrap();
    assert_eq!(file.changes(&scope, &known, Some(sender.leaf)).await.rows(), ["-line(10,1)"]);
}

#[tokio::test]
async fn rows_that_break_a_constraint_are_refused_alone_and_taken_when_they_come_again() {
    let (file, scope, known) = hub().await;
    let sender = Sender::new(&known);
    let rows = [
        insert("customer", customer(3, "ok", Value::Null)),
        insert("customer", customer(4, "taken", text("a@x"))),
        insert("customer", vec![int(5), Value::Null, Value::Null, Value::Null, int(0)]),
        insert("line", vec![int(10), int(2), text("forbidden")]),
        insert("invoice", vec![int(12), int(77), Value::Null]),
        insert("customer", vec![text("no number"), text("n"), Value::Null, Value::Null, int(0)]),
    ];
    let report = sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (1, 5));
    let mut reasons = reason(&file, &sender).await;
    reasons.sort_by_key(|(key, _)| key.clone());
    assert_eq!(
        reasons,
        [
            (r#"{"id":"no number"}"#.to_owned(), RowErrorReason::Type),
            (r#"{"id":12}"#.to_owned(), RowErrorReason::ForeignKey),
            (r#"{"id":4}"#.to_owned(), RowErrorReason::Unique),
            (r#"{"id":5}"#.to_owned(), RowErrorReason::NotNull),
            (r#"{"invoice_id":10,"number":2}"#.to_owned(), RowErrorReason::Check),
        ]
    );
    file.run("UPDATE customer SET email = NULL WHERE id = 1");
    let again = [insert("customer", customer(4, "taken", text("a@x")))];
    let report = sender.again(&known, 1).upload(&file, &scope, &again).await.unwrap();
    assert_eq!((report.result.upserts, report.result.unchanged), (1, 0));
}

#[tokio::test]
async fn cycles_swapped_unique_values_and_children_before_parents_are_applied() {
    let (file, scope, known) = hub().await;
    let rows = [
        insert("chicken", vec![int(1), int(1)]),
        insert("egg", vec![int(1), int(1)]),
        insert("line", vec![int(20), int(1), text("early")]),
        insert("invoice", vec![int(20), int(1), Value::Null]),
        insert("customer", vec![int(5), text("self"), Value::Null, int(5), int(0)]),
        upsert("customer", customer(1, "Ada", text("b@x"))),
        upsert("customer", customer(2, "Bob", text("a@x"))),
    ];
    let sender = Sender::new(&known);
    let report = sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.row_errors, reason(&file, &sender).await), (0, vec![]));
    assert_eq!(file.ask("SELECT id, email, boss FROM customer"), "1|b@x|~\n2|a@x|~\n5|~|5");
    assert_eq!(file.ask("SELECT count(*) FROM egg JOIN chicken ON egg.chicken = chicken.id"), "1");
    assert_eq!(file.ask("PRAGMA foreign_key_check"), "");
}

#[tokio::test]
async fn a_parent_that_is_still_referred_to_is_not_deleted() {
    let (file, scope, known) = hub().await;
    let sender = Sender::new(&known);
    let rows = [delete("customer", vec![int(1)]), delete("customer", vec![int(2)])];
    let report = sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.deletes, report.result.row_errors), (1, 1));
    assert_eq!(reason(&file, &sender).await, [(r#"{"id":1}"#.to_owned(), RowErrorReason::ForeignKey)]);
    assert_eq!(file.ask("SELECT id FROM customer"), "1");
}

#[tokio::test]
async fn a_trigger_that_raises_refuses_its_row_alone() {
    for (action, name) in [("ABORT", "abort"), ("FAIL", "fail"), ("ROLLBACK", "rollback")] {
        let (file, scope, known) = hub().await;
        file.run(&format!(
            "CREATE TABLE seen (n); CREATE TRIGGER t AFTER INSERT ON customer WHEN NEW.name = 'bad' BEGIN \
             INSERT INTO seen VALUES (1); SELECT RAISE({action}, 'no'); END"
        ));
        let sender = Sender::new(&known);
        let rows = [
            insert("customer", customer(3, "good", Value::Null)),
            insert("customer", customer(4, "bad", Value::Null)),
            insert("customer", customer(5, "good", Value::Null)),
        ];
        let report = sender.upload(&file, &scope, &rows).await.unwrap();
        assert_eq!((report.result.upserts, report.result.row_errors), (2, 1), "{name}");
        assert_eq!(file.ask("SELECT id FROM customer ORDER BY id"), "1\n2\n3\n5", "{name}");
        assert_eq!(file.ask("SELECT count(*) FROM seen"), "0", "{name}");
        assert_eq!(reason(&file, &sender).await[0].1, RowErrorReason::Trigger);
    }
}

#[tokio::test]
async fn under_abort_one_row_error_fails_everything() {
    let (file, mut scope, known) = hub().await;
    scope.schema.row_error_policy = RowErrorPolicy::Abort;
    let rows = [
        insert("customer", customer(3, "ok", Value::Null)),
        insert("customer", customer(4, "taken", text("a@x"))),
    ];
    let error = Sender::new(&known).upload(&file, &scope, &rows).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowErrors);
    assert_eq!(file.ask("SELECT count(*) FROM customer"), "2");
}

#[tokio::test]
async fn rows_that_can_not_be_meant_fail_the_upload() {
    let (file, mut scope, known) = hub().await;
    let twice = [
        insert("customer", customer(3, "a", Value::Null)),
        insert("customer", customer(3, "b", Value::Null)),
    ];
    let nameless = [insert("customer", vec![Value::Null, text("x"), Value::Null, Value::Null, int(0)])];
    for rows in [&twice[..], &nameless[..]] {
        let error = Sender::new(&known).upload(&file, &scope, rows).await.unwrap_err();
        assert_eq!(error.reason(), ErrorReason::RowInvalid);
    }
    scope.schema.tables[0].direction = syncline::schema::Direction::Download;
    let name: &'static str = if scope.schema.tables[0].name == "customer" { "customer" } else { "chicken" };
    let cells = if name == "customer" { customer(3, "a", Value::Null) } else { vec![int(1), Value::Null] };
    let error = Sender::new(&known).upload(&file, &scope, &[insert(name, cells)]).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowInvalid);
    assert_eq!(file.ask("SELECT count(*) FROM customer"), "2");
}

#[tokio::test]
async fn a_row_that_a_trigger_changed_in_the_same_upload_is_judged_by_what_it_is_now() {
    let (file, scope, known) = hub().await;
    file.run(
        "CREATE TRIGGER t AFTER INSERT ON invoice BEGIN UPDATE customer SET points = 9 WHERE id = 2; END",
    );
    let rows = [
        insert("invoice", vec![int(30), int(1), Value::Null]),
        upsert("customer", customer(2, "leaf", text("b@x"))),
    ];
    Sender::new(&known).upload(&file, &scope, &rows).await.unwrap();
    assert_eq!(file.conflicts().await.len(), 1);
    assert_eq!(file.ask("SELECT name, points FROM customer WHERE id = 2"), "Bob|9");
}

#[tokio::test]
async fn a_key_that_failed_keeps_the_clock_that_it_had() {
    let (file, scope, known) = hub().await;
    let sender = Sender::new(&known);
    let rows = [insert("customer", customer(4, "taken", text("a@x")))];
    sender.upload(&file, &scope, &rows).await.unwrap();
    let leaf = crate::dialect::meta::leaves::load(scope.id, sender.leaf);
    use crate::dialect::meta::MetaStore;
    let row = file.database.read(leaf).await.unwrap();
    let leaf = crate::dialect::meta::leaves::from_row(&row[0]).unwrap();
    assert!(leaf.clock.clock(sender.leaf).unwrap().contains(Tick(1)));
    let (_, clocks) = leaf.clock.exceptions().iter().next().unwrap();
    assert!(!clocks.get(&sender.leaf).unwrap().contains(Tick(1)));
    assert!(leaf.upload_mark.is_some());
}

/// The hub took the row, its answer was lost, the row was deleted at the hub and the tombstone forgotten: to the leaf the
/// row is born still. The hub knows the tick of its birth, so it must not come back without a word.
#[tokio::test]
async fn a_row_that_the_hub_has_had_is_not_born_again_by_an_edit() {
    let (file, scope, known) = hub().await;
    let sender = Sender::new(&known);
    sender.upload(&file, &scope, &[insert("customer", customer(9, "new", Value::Null))]).await.unwrap();
    file.run("DELETE FROM customer WHERE id = 9");
    file.database.fold(&scope).await.unwrap();
    file.run(&format!("DELETE FROM syncline_record_{} WHERE k1 = 9", table_id(&scope, "customer")));
    let mut edited = upsert("customer", customer(9, "edited", Value::Null));
    (edited.tick, edited.birth) = (2, 1);
    sender.again(&known, 2).upload(&file, &scope, &[edited]).await.unwrap();
    assert_eq!(file.ask("SELECT count(*) FROM customer WHERE id = 9"), "0");
    assert_eq!(file.conflicts().await[0].summary.kind.name(), "delete_update");
    // A birth that the hub has not heard of is one.
    let mut again = upsert("customer", customer(8, "again", Value::Null));
    (again.tick, again.birth) = (4, 3);
    sender.again(&known, 4).upload(&file, &scope, &[again]).await.unwrap();
    assert_eq!(file.ask("SELECT name FROM customer WHERE id = 8"), "again");
}

/// Two copies of a leaf count the same ticks for different rows.
#[tokio::test]
async fn an_upload_whose_session_has_not_seen_the_last_one_is_refused() {
    let (file, scope, known) = hub().await;
    let one = Sender::new(&known);
    one.upload(&file, &scope, &[insert("customer", customer(8, "of the one", Value::Null))]).await.unwrap();
    let other = one.again(&known, 1);
    sessions::open_for_test(&*file.database, scope.id, other.session, other.leaf).await;
    let rows = [insert("customer", customer(9, "of the other", Value::Null))];
    let error = other.upload_begun_after(None, &file, &scope, &rows).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::ReplicaDiverged);
    assert_eq!(file.ask("SELECT count(*) FROM customer WHERE id = 9"), "0");
}

#[tokio::test]
async fn a_swap_of_unique_values_leaves_what_is_not_carried_and_tells_what_was_lost() {
    let schema = "CREATE TABLE seat (id INTEGER PRIMARY KEY, place TEXT UNIQUE, own TEXT UNIQUE, \
                  both TEXT GENERATED ALWAYS AS (place || own) VIRTUAL UNIQUE); \
                  INSERT INTO seat (id, place, own) VALUES (1, 'a', 'x'), (2, 'b', 'y')";
    let file = File::new(schema).await;
    let mut definition = definition(&["seat"]);
    let column = |name: &str| Spanned { value: name.to_owned(), span: 0..0 };
    definition.tables[0].columns = Some(vec![column("id"), column("place")]);
    definition.tables[0].conflict_policy = Some(ConflictPolicy::ClientWins);
    let scope = file.define(&definition).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    // A change that the sender does not know of: its row wins, and this one is told in the log as it was.
    file.run("UPDATE seat SET place = 'c' WHERE id = 1; UPDATE seat SET place = 'a' WHERE id = 1");
    let rows = [upsert("seat", vec![int(1), text("b")]), upsert("seat", vec![int(2), text("a")])];
    let report = Sender::new(&known).upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.row_errors, report.result.conflicts), (0, 1));
    assert_eq!(file.ask("SELECT id, place, own FROM seat"), "1|b|x\n2|a|y");
    let conflicts = file.conflicts().await;
    assert_eq!(conflicts[0].local_row.as_ref().unwrap()["place"], "a");
}

#[tokio::test]
async fn a_row_whose_write_is_dropped_in_a_swap_keeps_its_values() {
    let (file, scope, known) = hub().await;
    file.run(
        "CREATE TRIGGER t BEFORE UPDATE ON customer WHEN OLD.email IS NULL AND NEW.email = 'b@x' BEGIN \
         SELECT RAISE(IGNORE); END",
    );
    let rows = [
        upsert("customer", customer(1, "Ada", text("b@x"))),
        upsert("customer", customer(2, "Bob", text("a@x"))),
    ];
    let report = Sender::new(&known).upload(&file, &scope, &rows).await.unwrap();
    assert_eq!(report.result.row_errors, 2);
    assert_eq!(file.ask("SELECT id, email FROM customer"), "1|a@x\n2|b@x");
}

#[tokio::test]
async fn a_key_that_is_unique_by_another_collation_than_its_columns_is_exact() {
    for options in ["", " WITHOUT ROWID"] {
        let schema = format!(
            "CREATE TABLE part (code TEXT COLLATE NOCASE NOT NULL, n INTEGER, \
             PRIMARY KEY (code COLLATE BINARY)){options}; \
             INSERT INTO part VALUES ('a', 1), ('A', 2), ('b', 3), ('B', 4)"
        );
        let (file, scope) = File::hub(&schema, &["part"]).await;
        let first = file.changes(&scope, &Knowledge::new(), None).await;
        assert_eq!(first.rows(), ["+part(A,2)", "+part(B,4)", "+part(a,1)", "+part(b,3)"]);
        let rows = [upsert("part", vec![text("a"), int(10)]), delete("part", vec![text("B")])];
        let report = Sender::new(&first.knowledge).upload(&file, &scope, &rows).await.unwrap();
        assert_eq!(report.result.row_errors, 0);
        assert_eq!(file.ask("SELECT code, n FROM part ORDER BY n"), "A|2\nb|3\na|10");
        let plan = file.ask("EXPLAIN QUERY PLAN SELECT n FROM part WHERE code = 'a' COLLATE \"BINARY\"");
        assert!(plan.contains("SEARCH"), "{plan}");
    }
}

#[tokio::test]
async fn a_swap_changes_no_rows_that_follow_the_swapped_values() {
    for action in ["CASCADE", "SET NULL"] {
        let schema = format!(
            "CREATE TABLE p (id INTEGER PRIMARY KEY, u TEXT UNIQUE); INSERT INTO p VALUES (1, 'a'), (2, 'b'); \
             CREATE TABLE ch (id INTEGER PRIMARY KEY, r TEXT REFERENCES p (u) ON UPDATE {action}); \
             INSERT INTO ch VALUES (11, 'a'), (12, 'b')"
        );
        let (file, scope) = File::hub(&schema, &["p", "ch"]).await;
        let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
        let rows = [
            upsert("p", vec![int(1), text("b")]),
            upsert("p", vec![int(2), text("a")]),
            upsert("ch", vec![int(11), text("b")]),
            upsert("ch", vec![int(12), text("a")]),
        ];
        let sender = Sender::new(&known);
        let report = sender.upload(&file, &scope, &rows).await.unwrap();
        // The swap is refused, row by row; nothing is lost to it.
        assert_eq!((report.result.upserts, report.result.row_errors), (2, 2), "{action}");
        assert_eq!(file.ask("SELECT id, r FROM ch"), "11|b\n12|a");
        assert_eq!(file.ask("SELECT id, u FROM p"), "1|a\n2|b");
    }
}

#[tokio::test]
async fn a_trigger_that_rolls_back_while_values_are_freed_refuses_its_row_alone() {
    let (file, scope, known) = hub().await;
    file.run(
        "CREATE TRIGGER t BEFORE UPDATE ON customer WHEN OLD.id = 1 AND NEW.email IS NULL BEGIN \
         SELECT RAISE(ROLLBACK, 'protected'); END",
    );
    let rows = [
        upsert("customer", customer(1, "Ada", text("b@x"))),
        upsert("customer", customer(2, "Bob", text("a@x"))),
    ];
    let report = Sender::new(&known).upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (0, 2));
    assert_eq!(file.ask("SELECT id, email FROM customer"), "1|a@x\n2|b@x");
    assert_eq!(file.ask("SELECT writing FROM syncline_state"), "0");
}

/// Stored as 5, a row of the key '5' would come back to whoever sent it as another one.
#[tokio::test]
async fn a_key_that_the_column_would_store_as_another_value_is_refused() {
    let (file, scope) = File::hub("CREATE TABLE n (k NUMERIC PRIMARY KEY, v)", &["n"]).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    let real = |value: f64| Value::Float64(value);
    let rows = [
        insert("n", vec![text("5"), int(1)]),
        insert("n", vec![text(" 1e3 "), int(2)]),
        insert("n", vec![real(6.0), int(3)]),
        insert("n", vec![text("five"), int(4)]),
        insert("n", vec![text("inf"), int(5)]),
        insert("n", vec![int(7), int(6)]),
        insert("n", vec![real(0.5), int(7)]),
    ];
    let sender = Sender::new(&known);
    let report = sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!(report.result.row_errors, 3);
    assert!(reason(&file, &sender).await.iter().all(|(_, reason)| *reason == RowErrorReason::Type));
    assert_eq!(file.ask("SELECT v FROM n ORDER BY v"), "4\n5\n6\n7");
    assert_eq!(file.ask("SELECT count(*) FROM syncline_record_1"), "4");
}

/// References compare as the parent's column does, whatever the child's column says.
#[tokio::test]
async fn a_parent_is_referred_to_by_its_own_collation() {
    let schema = "CREATE TABLE p (k TEXT PRIMARY KEY COLLATE NOCASE NOT NULL); \
                  CREATE TABLE c (id INTEGER PRIMARY KEY, k TEXT REFERENCES p DEFERRABLE INITIALLY DEFERRED)";
    let (file, scope) = File::hub(schema, &["p", "c"]).await;
    file.run("INSERT INTO p VALUES ('A'), ('b'); INSERT INTO c VALUES (1, 'a')");
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    let rows = [delete("p", vec![text("A")]), delete("p", vec![text("b")])];
    let sender = Sender::new(&known);
    let report = sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.deletes, report.result.row_errors), (1, 1));
    assert_eq!(reason(&file, &sender).await, [(r#"{"k":"A"}"#.to_owned(), RowErrorReason::ForeignKey)]);
}

/// Such a row can't be compared with what came, nor kept in the conflict log.
#[tokio::test]
async fn a_row_that_meets_text_that_is_not_utf8_is_refused_alone() {
    let (file, scope, known) = hub().await;
    file.run("UPDATE customer SET name = CAST(x'ff' AS TEXT) WHERE id = 1");
    let rows = [
        upsert("customer", customer(1, "mine", Value::Null)),
        upsert("customer", customer(2, "other", Value::Null)),
    ];
    let sender = Sender::new(&known);
    let report = sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (1, 1));
    assert_eq!(reason(&file, &sender).await, [(r#"{"id":1}"#.to_owned(), RowErrorReason::Type)]);
    assert_eq!(file.ask("SELECT CAST(name AS BLOB) = x'ff' FROM customer WHERE id = 1"), "1");
}

#[tokio::test]
async fn a_trigger_that_makes_a_row_without_a_key_is_blamed_for_it() {
    let schema = "CREATE TABLE item (k TEXT PRIMARY KEY, v TEXT); CREATE TABLE audit (k TEXT PRIMARY KEY, v TEXT); \
                  CREATE TRIGGER t AFTER INSERT ON item BEGIN INSERT INTO audit VALUES (NULL, NEW.v); END";
    let (file, scope) = File::hub(schema, &["item", "audit"]).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    let error = Sender::new(&known)
        .upload(&file, &scope, &[insert("item", vec![text("a"), text("b")])])
        .await
        .unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowErrors);
    assert!(error.message().contains("trigger") && error.message().contains("audit"), "{}", error.message());
    assert_eq!(file.ask("SELECT count(*) FROM item"), "0");
}
