//! Goal: an enumeration sends just what is asked for, in order, from any position, within its bounds. Method: plans
//! against a hub's file.

use syncline::batch::Operation;
use syncline::error::ErrorReason;
use syncline::ids::ReplicaId;
use syncline::knowledge::{Clock, Knowledge};
use syncline::value::{Cell, key_bytes};
use tokio::sync::mpsc;

use super::support::*;
use crate::replica::Pending;
use crate::store::{HubStore, Part};

const WORDS: &str =
    "CREATE TABLE word (a TEXT NOT NULL COLLATE NOCASE, b INTEGER NOT NULL, v, PRIMARY KEY (a, b))";

#[tokio::test]
async fn a_whole_table_goes_on_after_any_position_in_its_own_order() {
    let (file, scope) = File::hub(WORDS, &["word"]).await;
    file.run("INSERT INTO word VALUES ('b', 1, 'x'), ('A', 2, 2.5), ('a', 10, NULL), ('C', 1, x'00ff')");
    let table = scope.tables[0].id;
    let mut one = plan(vec![Part::Whole { table, after: None }], Knowledge::new(), None);
    one.block_bytes_max = 1;
    let all = file.enumerate(&scope, one.clone()).await.unwrap();
    assert_eq!(all.rows(), ["+word(A,2,2.5)", "+word(a,10,~)", "+word(b,1,x)", "+word(C,1,AP8=)"]);
    assert_eq!(all.blocks.len(), 4);
    for (place, block) in all.blocks.iter().enumerate() {
        let position = block.position.clone().unwrap();
        assert_eq!((position.operation, position.table), (Operation::Upsert, table));
        one.parts = vec![Part::Whole { table, after: Some(position.after) }];
        let rest = file.enumerate(&scope, one.clone()).await.unwrap();
        assert_eq!(rest.rows(), all.rows()[place + 1..]);
    }
}

#[tokio::test]
async fn a_table_goes_on_in_the_order_of_its_key_though_its_column_has_another() {
    let schema = "CREATE TABLE part (code TEXT COLLATE NOCASE NOT NULL, PRIMARY KEY (code COLLATE BINARY)); \
                  INSERT INTO part VALUES ('a'), ('B'), ('A'), ('b')";
    let (file, scope) = File::hub(schema, &["part"]).await;
    let table = scope.tables[0].id;
    let mut one = plan(vec![Part::Whole { table, after: None }], Knowledge::new(), None);
    one.block_bytes_max = 1;
    let all = file.enumerate(&scope, one.clone()).await.unwrap();
    assert_eq!(all.rows(), ["+part(A)", "+part(B)", "+part(a)", "+part(b)"]);
    for (place, block) in all.blocks.iter().enumerate() {
        one.parts = vec![Part::Whole { table, after: block.position.clone().map(|position| position.after) }];
        let rest = file.enumerate(&scope, one.clone()).await.unwrap();
        assert_eq!(rest.rows(), all.rows()[place + 1..]);
    }
}

#[tokio::test]
async fn changes_go_on_after_any_position_too() {
    let (file, scope) = File::hub(WORDS, &["word"]).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    file.run("INSERT INTO word VALUES ('b', 1, 1), ('A', 2, 2), ('a', 10, 3), ('C', 1, 4), ('d', 1, 5)");
    file.run("DELETE FROM word WHERE a IN ('b', 'd')");
    let table = scope.tables[0].id;
    for deletes in [false, true] {
        let part =
            |after| if deletes { Part::Deletes { table, after } } else { Part::Upserts { table, after } };
        let mut one = plan(vec![part(None)], known.clone(), None);
        one.block_bytes_max = 1;
        let all = file.enumerate(&scope, one.clone()).await.unwrap();
        let expected: &[&str] = if deletes {
            &["-word(b,1)", "-word(d,1)"]
        } else {
            &["+word(A,2,2)", "+word(C,1,4)", "+word(a,10,3)"]
        };
        assert_eq!(all.rows(), expected);
        for (place, block) in all.blocks.iter().enumerate() {
            one.parts = vec![part(Some(block.position.clone().unwrap().after))];
            assert_eq!(file.enumerate(&scope, one.clone()).await.unwrap().rows(), expected[place + 1..]);
        }
    }
}

#[tokio::test]
async fn single_keys_are_answered_by_their_present_state() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    file.run("INSERT INTO customer (id, name) VALUES (1, 'Ada')");
    let key = |id| key_bytes([Cell::Int64(id)]).unwrap();
    let part = Part::Keys { table: scope.tables[0].id, keys: vec![key(1), key(2)] };
    let sent = file.enumerate(&scope, plan(vec![part], Knowledge::new(), None)).await.unwrap();
    assert_eq!(sent.rows(), ["+customer(1,Ada,~,~,0)", "-customer(2)"]);
    assert!(sent.blocks.iter().all(|block| block.position.is_none()));
    let wrong = Part::Keys { table: scope.tables[0].id, keys: vec![bytes::Bytes::from_static(b"\xff")] };
    let error = file.enumerate(&scope, plan(vec![wrong], Knowledge::new(), None)).await.err().unwrap();
    assert_eq!(error.reason(), ErrorReason::RequestInvalid);
}

#[tokio::test]
async fn blocks_keep_their_bounds_and_a_row_beyond_them_is_named() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    file.run(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
         INSERT INTO customer (id, name) SELECT i, 'name' FROM n",
    );
    let mut bounded =
        plan(vec![Part::Whole { table: scope.tables[0].id, after: None }], Knowledge::new(), None);
    bounded.block_bytes_max = 1_000;
    let sent = file.enumerate(&scope, bounded.clone()).await.unwrap();
    assert_eq!(sent.rows().len(), 1_000);
    assert!(sent.blocks.len() > 20 && sent.blocks.iter().all(|block| block.block.encoded_bytes() <= 1_000));
    file.run("UPDATE customer SET name = zeroblob(2000) WHERE id = 500");
    let larger = file.enumerate(&scope, bounded.clone()).await.unwrap();
    assert!(larger.blocks.iter().any(|block| block.block.rows() == 1 && block.block.encoded_bytes() > 2_000));
    bounded.row_bytes_max = 1_500;
    let error = file.enumerate(&scope, bounded).await.err().unwrap();
    assert_eq!(error.reason(), ErrorReason::RowTooLarge);
    assert_eq!(error.metadata()["key"], r#"{"id":500}"#);
}

#[tokio::test]
async fn an_enumeration_ends_when_nobody_listens() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    file.run("INSERT INTO customer (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')");
    let mut small =
        plan(vec![Part::Whole { table: scope.tables[0].id, after: None }], Knowledge::new(), None);
    small.block_bytes_max = 1;
    let mut snapshot = file.database.snapshot(&scope).await.unwrap();
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    snapshot.enumerate(small, sender).await;
}

#[tokio::test]
async fn a_snapshot_stays_as_it_was_opened() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    file.run("INSERT INTO customer (id, name) VALUES (1, 'before')");
    let mut snapshot = file.database.snapshot(&scope).await.unwrap();
    file.run("UPDATE customer SET name = 'after'; INSERT INTO customer (id, name) VALUES (2, 'new')");
    let known = snapshot.knowledge().clone();
    let (sender, mut receiver) = mpsc::channel(4);
    let whole = plan(vec![Part::Whole { table: scope.tables[0].id, after: None }], Knowledge::new(), None);
    snapshot.enumerate(whole, sender).await;
    let block = receiver.recv().await.unwrap().unwrap().block;
    assert_eq!(block_rows(&scope, &block), ["+customer(1,before,~,~,0)"]);
    drop(snapshot);
    let next = file.changes(&scope, &known, None).await;
    assert_eq!(next.rows(), ["+customer(1,after,~,~,0)", "+customer(2,new,~,~,0)"]);
}

#[tokio::test]
async fn times_come_along_where_they_are_asked_for() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    file.run("INSERT INTO customer (id, name) VALUES (1, 'a')");
    let table = scope.tables[0].id;
    let mut timed = plan(vec![Part::Whole { table, after: None }], Knowledge::new(), None);
    timed.changed_at_tables = vec![table];
    let sent = file.enumerate(&scope, timed).await.unwrap();
    let at = sent.blocks[0].block.changed_at[0];
    assert_eq!(file.ask("SELECT changed_at FROM syncline_record_1"), at.to_string());
    assert!(at > 1_600_000_000_000_000, "microseconds since 1970: {at}");
}

#[tokio::test]
async fn the_poll_says_whether_there_is_something_and_writes_nothing() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    let leaf = ReplicaId::fresh();
    let probe = |known: Knowledge| {
        let (database, scope) = (file.database.clone(), scope.clone());
        async move { database.probe(&scope, leaf, &known).await.unwrap().pending }
    };
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    assert_eq!(probe(known.clone()).await, Pending::None);
    file.run("INSERT INTO customer (id, name) VALUES (1, 'a')");
    assert_eq!(probe(known.clone()).await, Pending::Some);
    assert_eq!(file.ask("SELECT count(*) FROM syncline_log_1"), "1");
    let known = file.changes(&scope, &known, None).await.knowledge;
    assert_eq!(probe(known.clone()).await, Pending::None);
    assert_eq!(probe(Knowledge::new()).await, Pending::Some);
    // A leaf's own rows are no news to it.
    let sender = Sender { leaf, ..Sender::new(&known) };
    let cells = vec![int(2), text("b"), syncline::value::Value::Null, syncline::value::Value::Null, int(0)];
    sender.upload(&file, &scope, &[insert("customer", cells)]).await.unwrap();
    assert_eq!(probe(known.clone()).await, Pending::None);
    let since = scope.tables[0].since;
    let before = Clock::up_to(syncline::ids::Tick(since.tick.0 - 1));
    assert_eq!(probe(Knowledge::from_clocks([(since.replica, before)].into())).await, Pending::Some);
}

/// It has no form that travels. Nobody was ever sent the row, so once it is gone there is nothing to tell.
#[tokio::test]
async fn text_that_is_not_utf8_is_named_and_forgotten_when_it_is_gone() {
    let (file, scope) = File::hub("CREATE TABLE word (k TEXT PRIMARY KEY NOT NULL, v TEXT)", &["word"]).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    let whole = || plan(vec![Part::Whole { table: scope.tables[0].id, after: None }], Knowledge::new(), None);
    for (row, named) in [
        ("CAST(x'ff41' AS TEXT), 'v'", "{\"k\":\"\u{fffd}A\"}"),
        ("'b', CAST(x'ff' AS TEXT)", "{\"k\":\"b\"}"),
    ] {
        file.run(&format!("INSERT INTO word VALUES ('a', '1'), ({row})"));
        file.database.fold(&scope).await.unwrap();
        let error = file.enumerate(&scope, whole()).await.err().unwrap();
        assert_eq!(error.reason(), ErrorReason::RowInvalid);
        assert!(error.message().contains(named), "{}", error.message());
        file.run("DELETE FROM word WHERE k <> 'a'");
        let rows = file.changes(&scope, &known, None).await.rows();
        assert!(rows.contains(&"+word(a,1)".to_owned()), "{rows:?}");
        file.run("DELETE FROM word");
    }
}

/// What changes in such a table leaves no trace: nobody may hear of nothing new, until its tracking is made anew.
#[tokio::test]
async fn the_poll_says_that_tracking_is_broken() {
    for harm in [
        "DROP TRIGGER syncline_update_1",
        "DROP TRIGGER syncline_fold_1",
        "ALTER TABLE customer RENAME TO buyer",
        "DROP TABLE customer; CREATE TABLE customer (id INTEGER PRIMARY KEY, name text)",
    ] {
        let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
        let glance = async || file.database.glance(&scope.schema.name, &Knowledge::new()).await;
        assert!(glance().await.unwrap().unwrap().whole);
        file.run(harm);
        assert_eq!(glance().await.unwrap_err().reason(), ErrorReason::TrackingBroken, "{harm}");
        if harm.starts_with("DROP TRIGGER") {
            file.define(&definition(&["customer"])).await;
            assert!(glance().await.unwrap().unwrap().whole, "{harm}");
        }
    }
}

/// Restored from a backup, the hub gives out ticks again that its leaves have seen.
#[tokio::test]
async fn the_poll_rules_nothing_out_for_a_leaf_that_knows_more_than_the_hub() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    let known = file.changes(&scope, &Knowledge::new(), None).await.knowledge;
    let (hub, clock) = known.clocks().iter().next().map(|(hub, clock)| (*hub, clock.tick())).unwrap();
    let ahead = Clock::up_to(syncline::ids::Tick(clock.0 + 3));
    let known = Knowledge::from_clocks([(hub, ahead)].into());
    file.run("INSERT INTO customer (id, name) VALUES (1, 'since the restore')");
    file.database.fold(&scope).await.unwrap();
    let pending = file.database.probe(&scope, ReplicaId::fresh(), &known).await.unwrap().pending;
    assert_eq!(pending, Pending::Some);
}
