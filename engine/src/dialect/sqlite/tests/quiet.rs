//! Goal: where our triggers are away while many rows of a table are applied, all is as it would be with them. Method:
//! blocks of several rows, which in tests are many ([`crate::limits::QUIET_ROWS_MIN`]), beside single ones.

use syncline::conflict::RowErrorReason;
use syncline::error::ErrorReason;
use syncline::knowledge::Knowledge;
use syncline::value::Value;

use super::support::*;
use crate::store::StoredScope;

const SCHEMA: &str = "\
    CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE, amount NUMERIC, free); \
    CREATE TABLE word (w TEXT PRIMARY KEY); \
    CREATE TABLE parent (id INTEGER PRIMARY KEY); \
    CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent ON DELETE CASCADE); \
    INSERT INTO item VALUES (1, 'a', 1, 1), (2, 'b', 2, 2), (3, 'c', 3, 3); INSERT INTO word VALUES ('there'); \
    INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (11, 1), (12, 2)";
const TRIGGERS: &str = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name";

async fn hub() -> (File, StoredScope, Knowledge) {
    let (file, scope) = File::hub(SCHEMA, &["item", "word", "parent", "child"]).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    (file, scope, known)
}

fn item(id: i64, name: &str) -> Vec<Value> {
    vec![int(id), text(name), int(id), int(id)]
}

#[tokio::test]
async fn each_row_has_its_record_and_the_triggers_are_as_they_were() {
    let (file, scope, known) = hub().await;
    let triggers = file.ask(TRIGGERS);
    let sender = Sender::new(&known);
    let rows = [
        upsert("item", item(1, "A")),
        insert("item", item(4, "d")),
        delete("item", vec![int(2)]),
        delete("item", vec![int(3)]),
    ];
    let report = sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.deletes, report.result.row_errors), (2, 2, 0));
    assert_eq!(file.ask("SELECT id, name FROM item"), "1|A\n4|d");
    assert_eq!(file.ask(TRIGGERS), triggers);
    // The sender hears nothing of its own rows, all others do.
    assert!(file.changes(&scope, &known, Some(sender.leaf)).await.rows().is_empty());
    let others = file.changes(&scope, &known, None).await;
    assert_eq!(others.rows(), ["+item(1,A,1,1)", "+item(4,d,4,4)", "-item(2)", "-item(3)"]);
    file.run("UPDATE item SET name = 'mine' WHERE id = 4");
    assert_eq!(file.changes(&scope, &others.knowledge, None).await.rows(), ["+item(4,mine,4,4)"]);
}

#[tokio::test]
async fn a_value_that_the_column_makes_another_of_goes_back_to_the_sender() {
    let (file, scope, known) = hub().await;
    let sender = Sender::new(&known);
    let odd =
        |id, amount: &str, free| upsert("item", vec![int(id), Value::Null, Value::Text(amount.into()), free]);
    let rows = [odd(1, "1e2", text("1e2")), odd(2, "no number", text("x"))];
    sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!(file.ask("SELECT amount, free FROM item WHERE id < 3"), "100|1e2\nno number|x");
    let back = file.changes(&scope, &known, Some(sender.leaf)).await.rows();
    assert_eq!(back, ["+item(1,~,100,1e2)"]);
}

#[tokio::test]
async fn a_key_that_the_column_would_make_another_of_is_refused_here_too() {
    let (file, scope) = File::hub("CREATE TABLE odd (id STRING PRIMARY KEY NOT NULL, n INT)", &["odd"]).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    let row = |id, n| insert("odd", vec![text(id), int(n)]);
    let rows = [row("00123", 1), row("1e3", 2), row("one", 3), row("two", 4)];
    let report = Sender::new(&known).upload(&file, &scope, &rows).await.unwrap();
    assert_eq!(report.result.row_errors, 2);
    assert_eq!(file.ask("SELECT id FROM odd"), file.ask("SELECT k1 FROM syncline_record_1"));
    assert_eq!(file.changes(&scope, &known, None).await.rows(), ["+odd(one,3)", "+odd(two,4)"]);
}

#[tokio::test]
async fn a_key_that_comes_twice_is_found_whichever_way_it_came() {
    let (file, scope, known) = hub().await;
    let one = || vec![text("there")];
    let cases: [&[Row]; 5] = [
        &[insert("item", item(5, "x")), insert("item", item(5, "y"))],
        &[insert("item", item(5, "x")), insert("item", item(6, "y")), delete("item", vec![int(5)])],
        // A single row comes by the log, those after it not, nor what comes after them.
        &[delete("item", vec![int(1)]), insert("item", item(5, "x")), upsert("item", item(1, "y"))],
        // Nothing is written of these.
        &[upsert("word", one()), upsert("word", one())],
        &[delete("item", vec![int(8)]), delete("item", vec![int(8)])],
    ];
    for rows in cases {
        let error = Sender::new(&known).upload(&file, &scope, rows).await.unwrap_err();
        assert_eq!(
            (error.reason(), file.ask("SELECT count(*) FROM item")),
            (ErrorReason::RowInvalid, "3".into())
        );
    }
}

#[tokio::test]
async fn rows_that_swap_values_fail_or_conflict_are_told_apart() {
    let (file, scope, known) = hub().await;
    file.run("UPDATE item SET free = 'hub' WHERE id = 3");
    let sender = Sender::new(&known);
    let rows = [
        upsert("item", item(1, "b")),
        upsert("item", item(2, "a")),
        upsert("item", item(3, "leaf")),
        insert("item", item(7, "a")),
    ];
    let report = sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.conflicts, report.result.row_errors), (2, 1, 1));
    assert_eq!(file.ask("SELECT id, name, free FROM item"), "1|b|1\n2|a|2\n3|c|hub");
    let errors = file.row_errors(sender.session).await;
    assert_eq!((errors[0].key_json.as_str(), errors[0].reason), (r#"{"id":7}"#, RowErrorReason::Unique));
    assert_eq!(file.changes(&scope, &known, Some(sender.leaf)).await.rows(), ["+item(3,c,3,hub)"]);
}

#[tokio::test]
async fn what_a_cascade_takes_along_is_seen() {
    let (file, scope, known) = hub().await;
    let rows = [
        insert("child", vec![int(13), int(2)]),
        insert("child", vec![int(14), int(2)]),
        delete("parent", vec![int(1)]),
        delete("parent", vec![int(9)]),
    ];
    let sender = Sender::new(&known);
    sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!(file.ask("SELECT id FROM child"), "12\n13\n14");
    assert_eq!(file.changes(&scope, &known, Some(sender.leaf)).await.rows(), ["-child(11)"]);
}

#[tokio::test]
async fn what_a_trigger_of_the_user_does_is_seen() {
    let (file, scope, known) = hub().await;
    file.run("CREATE TRIGGER t AFTER INSERT ON item BEGIN INSERT OR IGNORE INTO word VALUES (NEW.name); END");
    let rows = [insert("item", item(5, "x")), insert("item", item(6, "y"))];
    let sender = Sender::new(&known);
    sender.upload(&file, &scope, &rows).await.unwrap();
    assert_eq!(file.changes(&scope, &known, Some(sender.leaf)).await.rows(), ["+word(x)", "+word(y)"]);
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_is_blamed_on_its_row_alone() {
    for deferred in ["", " DEFERRABLE INITIALLY DEFERRED"] {
        let schema = format!(
            "CREATE TABLE node (id INTEGER PRIMARY KEY, up INTEGER REFERENCES node (id){deferred}); \
             INSERT INTO node VALUES (1, NULL), (2, NULL), (3, 2)"
        );
        let (file, scope) = File::hub(&schema, &["node"]).await;
        let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
        // A circle, a chain whose children come first, one that leads nowhere, and a parent that is still referred to.
        let node = |id, up| insert("node", vec![int(id), int(up)]);
        let chain = (100..120).map(|id| node(id, if id == 119 { 1 } else { id + 1 }));
        let rows: Vec<_> =
            [node(10, 11), node(11, 10)].into_iter().chain(chain).chain([node(20, 99)]).collect();
        let gone = [delete("node", vec![int(2)]), delete("node", vec![int(77)])];
        let sender = Sender::new(&known);
        let rows: Vec<_> = rows.into_iter().chain(gone).collect();
        let report = sender.upload(&file, &scope, &rows).await.unwrap();
        assert_eq!((report.result.upserts, report.result.row_errors), (22, 2), "{deferred}");
        let errors = file.row_errors(sender.session).await;
        let failed: Vec<_> = errors.iter().map(|error| (error.key_json.as_str(), error.reason)).collect();
        assert!(failed.contains(&(r#"{"id":20}"#, RowErrorReason::ForeignKey)), "{failed:?}");
        assert!(failed.contains(&(r#"{"id":2}"#, RowErrorReason::ForeignKey)), "{failed:?}");
        assert_eq!(file.ask("PRAGMA foreign_key_check"), "");
    }
}
