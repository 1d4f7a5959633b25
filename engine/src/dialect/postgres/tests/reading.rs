//! What a snapshot sees, and that nothing is lost or sent twice, whatever transactions were open meanwhile.

use syncline::batch::Operation;
use syncline::error::ErrorReason;
use syncline::knowledge::Knowledge;
use syncline::value::Value;

use super::kit::{Database, Rows, cell, enumerate, int, key, run, text};
use crate::replica::Pending;
use crate::store::{HubStore as _, Part};

const ITEMS: &str = "CREATE TABLE item (id int PRIMARY KEY, name text)";

pub(super) fn upserts(rows: &Rows) -> Vec<Vec<Value>> {
    rows.iter().filter(|row| row.1 == Operation::Upsert).map(|row| row.2.clone()).collect()
}

fn deletes(rows: &Rows) -> Vec<Vec<Value>> {
    rows.iter().filter(|row| row.1 == Operation::Delete).map(|row| row.2.clone()).collect()
}

#[tokio::test]
async fn a_first_download_holds_everything_and_the_next_nothing() {
    let database = Database::with(ITEMS).await;
    database.run("INSERT INTO item SELECT n, 'item ' || n FROM generate_series(1, 1000) n").await;
    let shop = database.scope(&["item"]).await;
    let (known, rows) = shop.changes(&Knowledge::new()).await;
    assert_eq!(rows.len(), 1000);
    assert_eq!(rows[0].2, [int(1), text("item 1")]);
    let (known, rows) = shop.changes(&known).await;
    assert!(rows.is_empty());
    database.run("UPDATE item SET name = 'new' WHERE id = 5; DELETE FROM item WHERE id = 6; INSERT INTO item VALUES (0, 'zero')").await;
    for folded in [false, true] {
        let (_, rows) = if folded { shop.changes(&known).await } else { shop.changes_unfolded(&known).await };
        assert_eq!(upserts(&rows), [[int(0), text("zero")], [int(5), text("new")]], "folded: {folded}");
        assert_eq!(deletes(&rows), [[int(6)]]);
    }
}

/// Vector 7: transaction 100 writes x and stays open; 101 writes y and commits.
#[tokio::test]
async fn an_open_transaction_delays_its_own_rows_and_nothing_else() {
    let database = Database::with(ITEMS).await;
    let shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let mut open = database.application().await;
    run(&mut open, "BEGIN; INSERT INTO item VALUES (1, 'x')").await;
    database.run("INSERT INTO item VALUES (2, 'y')").await;
    let (known, rows) = shop.changes(&known).await;
    assert_eq!(upserts(&rows), [[int(2), text("y")]]);
    assert_eq!(shop.hub.probe(&shop.scope, shop.leaf.id, &known).await.unwrap().pending, Pending::None);
    run(&mut open, "COMMIT").await;
    assert_eq!(shop.hub.probe(&shop.scope, shop.leaf.id, &known).await.unwrap().pending, Pending::Some);
    let (known, rows) = shop.changes(&known).await;
    assert_eq!(upserts(&rows), [[int(1), text("x")]]);
    assert!(shop.changes(&known).await.1.is_empty());
}

/// Restored from a backup, the hub gives out ticks again that its leaves have seen.
#[tokio::test]
async fn the_poll_rules_nothing_out_for_a_leaf_that_knows_more_than_the_hub() {
    let database = Database::with(ITEMS).await;
    let shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let (hub, clock) = known.clocks().iter().next().map(|(hub, clock)| (*hub, clock.tick())).unwrap();
    let ahead = syncline::knowledge::Clock::up_to(syncline::ids::Tick(clock.0 + 1_000));
    let known = Knowledge::from_clocks([(hub, ahead)].into());
    database.run("INSERT INTO item VALUES (1, 'since the restore')").await;
    shop.hub.fold(&shop.scope).await.unwrap();
    assert_eq!(shop.hub.probe(&shop.scope, shop.leaf.id, &known).await.unwrap().pending, Pending::Some);
}

#[tokio::test]
async fn a_prepared_transaction_is_missing_until_it_commits() {
    let database = Database::with(ITEMS).await;
    let shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database.run("BEGIN; INSERT INTO item VALUES (1, 'prepared'); PREPARE TRANSACTION 'one'").await;
    database.run("INSERT INTO item VALUES (2, 'y')").await;
    let (known, rows) = shop.changes(&known).await;
    assert_eq!(upserts(&rows), [[int(2), text("y")]]);
    database.run("COMMIT PREPARED 'one'").await;
    let (_, rows) = shop.changes(&known).await;
    assert_eq!(upserts(&rows), [[int(1), text("prepared")]]);
}

#[tokio::test]
async fn a_subtransaction_counts_as_its_transaction() {
    let database = Database::with(ITEMS).await;
    let shop = database.scope(&["item"]).await;
    let mut open = database.application().await;
    run(&mut open, "BEGIN; SAVEPOINT a; INSERT INTO item VALUES (1, 'x'); RELEASE a").await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    run(&mut open, "COMMIT").await;
    assert_eq!(upserts(&shop.changes(&known).await.1), [[int(1), text("x")]]);
}

#[tokio::test]
async fn a_changed_key_is_a_delete_and_an_insert() {
    let database = Database::with(ITEMS).await;
    database.run("INSERT INTO item VALUES (1, 'a'), (2, 'b')").await;
    let shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database.run("UPDATE item SET id = id + 10 WHERE id = 1").await;
    let (_, rows) = shop.changes(&known).await;
    assert_eq!((upserts(&rows), deletes(&rows)), (vec![vec![int(11), text("a")]], vec![vec![int(1)]]));
}

/// The trigger that logs old keys sees them whichever statement changes them, and whoever does.
#[tokio::test]
async fn keys_change_in_many_ways() {
    let database = Database::with(
        "CREATE TABLE owner (id int PRIMARY KEY);
         CREATE TABLE item (a int REFERENCES owner ON UPDATE CASCADE, b int, name text, PRIMARY KEY (a, b));
         INSERT INTO owner VALUES (1), (2); INSERT INTO item VALUES (1, 1, 'x'), (1, 2, 'y'), (1, 3, 'z');
         CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.b := 9; RETURN NEW; END $$;
         CREATE TRIGGER move BEFORE UPDATE ON item FOR EACH ROW WHEN (NEW.name = 'moved') EXECUTE FUNCTION move()",
    )
    .await;
    let shop = database.scope(&["owner", "item"]).await;
    let (mut known, _) = shop.changes(&Knowledge::new()).await;
    // What changes the keys of items, which of them there are now, and which are gone.
    let ways = [
        ("UPDATE item SET b = b - 1", "1/0 1/1 1/2", "1/3"),
        ("UPDATE item SET name = 'moved' WHERE b = 0", "1/9", "1/0"),
        ("INSERT INTO item VALUES (1, 1) ON CONFLICT (a, b) DO UPDATE SET b = 5", "1/5", "1/1"),
        ("UPDATE owner SET id = 7 WHERE id = 1", "7/2 7/5 7/9", "1/2 1/5 1/9"),
        ("SET session_replication_role = replica; UPDATE item SET a = 2 WHERE b = 5", "2/5", "7/5"),
    ];
    for (way, there, gone) in ways {
        database.run(way).await;
        let (now, rows) = shop.changes(&known).await;
        let items: Vec<_> = rows.into_iter().filter(|row| row.0 == "item").collect();
        assert_eq!((keys(&upserts(&items)), keys(&deletes(&items))), (there.into(), gone.into()), "{way}");
        known = now;
    }
}

/// `a/b a/b ...`, in order.
fn keys(rows: &[Vec<Value>]) -> String {
    let number = |value: &Value| if let Value::Int64(number) = value { number.to_string() } else { panic!() };
    let mut keys: Vec<_> =
        rows.iter().map(|row| format!("{}/{}", number(&row[0]), number(&row[1]))).collect();
    keys.sort();
    keys.join(" ")
}

#[tokio::test]
async fn truncation_asks_for_a_comparison_of_the_whole_table() {
    let database = Database::with(ITEMS).await;
    database.run("INSERT INTO item VALUES (1, 'a')").await;
    let shop = database.scope(&["item"]).await;
    database.run("UPDATE item SET name = 'b'").await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database.run("TRUNCATE item; INSERT INTO item VALUES (2, 'c')").await;
    let snapshot = shop.hub.snapshot(&shop.scope).await.unwrap();
    let truncated = snapshot.table(shop.id("item")).unwrap().truncated.unwrap();
    assert!(!known.contains_version(truncated));
    assert_eq!(shop.hub.probe(&shop.scope, shop.leaf.id, &known).await.unwrap().pending, Pending::Some);
    let (known, rows) = shop.read(snapshot, &known).await;
    assert_eq!(upserts(&rows), [[int(2), text("c")]]);
    assert!(shop.changes(&known).await.1.is_empty());
}

#[tokio::test]
async fn rows_written_directly_to_partitions_are_seen() {
    let database = Database::with(
        "CREATE TABLE item (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
         CREATE TABLE item_a PARTITION OF item FOR VALUES IN ('a');
         CREATE TABLE item_b PARTITION OF item FOR VALUES IN ('b')",
    )
    .await;
    let shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database.run("INSERT INTO item_a VALUES (1, 'a'); INSERT INTO item VALUES (2, 'b'), (3, 'a')").await;
    let (known, rows) = shop.changes(&known).await;
    assert_eq!(rows.len(), 3);
    database.run("UPDATE item SET region = 'b' WHERE id = 1").await;
    let (known, rows) = shop.changes(&known).await;
    assert_eq!(upserts(&rows), [[int(1), text("b")]]);
    assert_eq!(deletes(&rows), [[int(1), text("a")]]);
    // Another transaction has written another partition, and is still open: its rows must not be lost.
    let mut open = database.application().await;
    run(&mut open, "BEGIN; INSERT INTO item_b VALUES (9, 'b')").await;
    database.run("TRUNCATE item_a").await;
    let (known, rows) = shop.changes(&known).await;
    assert_eq!(upserts(&rows).len(), 2, "a comparison of the whole");
    run(&mut open, "COMMIT").await;
    assert_eq!(upserts(&shop.changes(&known).await.1), [[int(9), text("b")]]);
    database.run("CREATE TABLE item_c PARTITION OF item FOR VALUES IN ('c')").await;
    let error = shop.hub.snapshot(&shop.scope).await.err().unwrap();
    assert_eq!(error.reason(), ErrorReason::TrackingBroken);
    let shop = database.scope(&["item"]).await;
    assert_eq!(shop.changes(&known).await.1.len(), 3, "compared as a whole");
}

#[tokio::test]
async fn tracking_that_was_tampered_with_is_noticed_and_mended() {
    let database = Database::with(ITEMS).await;
    let mut shop = database.scope(&["item"]).await;
    for harm in [
        "ALTER TABLE item DISABLE TRIGGER syncline_update",
        "DROP TRIGGER syncline_truncate ON item",
        "DROP TRIGGER syncline_key ON item",
        "ALTER TABLE item ENABLE TRIGGER syncline_insert",
        "DROP TABLE item; CREATE TABLE item (id int PRIMARY KEY, name text)",
    ] {
        database.run(harm).await;
        let error = shop.hub.snapshot(&shop.scope).await.err().unwrap();
        assert_eq!(error.reason(), ErrorReason::TrackingBroken, "{harm}");
        let mended = database.scope(&["item"]).await;
        assert_ne!(mended.scope.tables[0].since, shop.scope.tables[0].since);
        mended.changes(&Knowledge::new()).await;
        shop = mended;
    }
    database.run("ALTER TABLE item RENAME COLUMN name TO title").await;
    assert_eq!(shop.hub.snapshot(&shop.scope).await.err().unwrap().reason(), ErrorReason::TrackingBroken);
}

#[tokio::test]
async fn rows_hidden_by_row_security_are_an_error_not_deletes() {
    let database = Database::with(
        "CREATE TABLE item (id int PRIMARY KEY, name text); INSERT INTO item VALUES (1, 'hidden');
         ALTER TABLE item ENABLE ROW LEVEL SECURITY;
         DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    )
    .await;
    let shop = database.scope(&["item"]).await;
    database
        .run("GRANT USAGE ON SCHEMA syncline TO reader; GRANT ALL ON ALL TABLES IN SCHEMA syncline TO reader; GRANT SELECT ON item TO reader")
        .await;
    let url = database.url.replace("postgres://postgres@", "postgres://reader@");
    let reader = crate::dialect::postgres::PostgresDatabase::open(&url).await.unwrap();
    assert_eq!(reader.snapshot(&shop.scope).await.err().unwrap().reason(), ErrorReason::PermissionDenied);
}

#[tokio::test]
async fn the_applications_role_needs_no_rights_on_our_tables() {
    let database = Database::with(
        "CREATE TABLE item (id int PRIMARY KEY, name text);
         DO $$ BEGIN CREATE ROLE application LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         GRANT ALL ON item TO application",
    )
    .await;
    let shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let url = database.url.replace("postgres://postgres@", "postgres://application@");
    run(&mut super::kit::connect(&url).await, "INSERT INTO item VALUES (1, 'mine')").await;
    assert_eq!(upserts(&shop.changes(&known).await.1), [[int(1), text("mine")]]);
}

#[tokio::test]
async fn a_second_writer_of_a_row_has_the_newer_version_whatever_its_tick() {
    let database = Database::with(ITEMS).await;
    database.run("INSERT INTO item VALUES (1, 'a')").await;
    let shop = database.scope(&["item"]).await;
    let mut older = database.application().await;
    run(&mut older, "BEGIN; INSERT INTO item VALUES (2, 'draws a transaction id')").await;
    let first = cell(&mut older, "pg_current_xact_id()").await;
    database.run("UPDATE item SET name = 'newer id, older write' WHERE id = 1").await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    run(&mut older, "UPDATE item SET name = 'older id, newer write' WHERE id = 1; COMMIT").await;
    let (_, rows) = shop.changes(&known).await;
    assert_eq!(upserts(&rows).len(), 2);
    let tick = format!("SELECT tick FROM syncline.record_{} WHERE k1 = 1", shop.id("item"));
    assert_eq!(database.cell(&tick).await, first);
}

#[tokio::test]
async fn enumeration_goes_on_after_a_key_and_closes_blocks_at_their_bound() {
    let database =
        Database::with("CREATE TABLE item (a text, b timestamptz, n int, PRIMARY KEY (a, b))").await;
    database
        .run("INSERT INTO item SELECT chr(97 + n % 5), timestamptz '0044-03-15 BC' + n * interval '1 day', n FROM generate_series(1, 300) n")
        .await;
    let shop = database.scope(&["item"]).await;
    let snapshot = shop.hub.snapshot(&shop.scope).await.unwrap();
    let mut plan = shop.plan(&*snapshot, &Knowledge::new());
    plan.block_bytes_max = 1000;
    let all = shop.named(enumerate(snapshot, plan.clone()).await.unwrap());
    assert_eq!(all.len(), 300);
    for at in [0, 57, 58, 299] {
        let after = key(&all[at].2[..2]);
        plan.parts = vec![Part::Whole { table: shop.id("item"), after: Some(after) }];
        let snapshot = shop.hub.snapshot(&shop.scope).await.unwrap();
        let blocks = enumerate(snapshot, plan.clone()).await.unwrap();
        assert!(blocks.iter().all(|block| block.encoded_bytes() <= 1000));
        assert_eq!(shop.named(blocks), all[at + 1..]);
    }
}

#[tokio::test]
async fn asked_keys_are_answered_with_their_present_state() {
    let database = Database::with("CREATE TABLE item (a text, b int, c bytea, PRIMARY KEY (a, b))").await;
    database.run(r#"INSERT INTO item VALUES ('with "quotes" \ {,}', 1, '\x00ff'), ('', 2, NULL)"#).await;
    let shop = database.scope(&["item"]).await;
    let snapshot = shop.hub.snapshot(&shop.scope).await.unwrap();
    let mut plan = shop.plan(&*snapshot, &Knowledge::new());
    let quoted = "with \"quotes\" \\ {,}";
    let keys = [[text(quoted), int(1)], [text(""), int(2)], [text("gone"), int(3)]];
    plan.parts =
        vec![Part::Keys { table: shop.id("item"), keys: keys.iter().map(|cells| key(cells)).collect() }];
    let rows = shop.named(enumerate(snapshot, plan).await.unwrap());
    assert_eq!(
        upserts(&rows),
        [vec![text(""), int(2), Value::Null], vec![text(quoted), int(1), Value::Bytes(vec![0, 255])]]
    );
    assert_eq!(deletes(&rows), [[text("gone"), int(3)]]);
}

#[tokio::test]
async fn a_row_that_is_too_large_names_its_table_and_key() {
    let database = Database::with(ITEMS).await;
    database.run("INSERT INTO item VALUES (7, repeat('x', 100000))").await;
    let shop = database.scope(&["item"]).await;
    let snapshot = shop.hub.snapshot(&shop.scope).await.unwrap();
    let mut plan = shop.plan(&*snapshot, &Knowledge::new());
    plan.row_bytes_max = 10_000;
    let error = enumerate(snapshot, plan).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowTooLarge);
    assert_eq!(error.metadata()["table"], "item");
    assert_eq!(error.metadata()["key"], r#"{"id":7}"#);
}

#[tokio::test]
async fn a_receiver_that_goes_away_ends_the_enumeration() {
    let database = Database::with(ITEMS).await;
    database.run("INSERT INTO item SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) n").await;
    let shop = database.scope(&["item"]).await;
    let mut snapshot = shop.hub.snapshot(&shop.scope).await.unwrap();
    let plan = shop.plan(&*snapshot, &Knowledge::new());
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let task = tokio::spawn(async move { snapshot.enumerate(plan, sender).await });
    receiver.recv().await.unwrap().unwrap();
    drop(receiver);
    task.await.unwrap();
    // The connection did not go back with a COPY under way: others are not disturbed.
    assert_eq!(shop.changes(&Knowledge::new()).await.1.len(), 50_000);
}

#[tokio::test]
async fn folding_beside_writers_loses_nothing() {
    let database = Database::with(ITEMS).await;
    let shop = database.scope(&["item"]).await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let url = database.url.clone();
            tokio::spawn(async move {
                let mut connection = super::kit::connect(&url).await;
                for round in 0..60 {
                    let id = (round * 7 + writer) % 20;
                    let sql = format!("INSERT INTO item VALUES ({id}, 'w{writer} r{round}') ON CONFLICT (id) DO UPDATE SET name = excluded.name");
                    run(&mut connection, &sql).await;
                }
            })
        })
        .collect();
    let mut known = Knowledge::new();
    let mut leaf = std::collections::BTreeMap::new();
    let mut rounds = 0;
    loop {
        let finished = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let (learned, rows) = shop.changes(&known).await;
        for row in rows {
            leaf.insert(format!("{:?}", row.2[0]), row.2[1].clone());
        }
        known = learned;
        rounds += 1;
        if finished {
            break;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let whole: std::collections::BTreeMap<_, _> = shop
        .changes(&Knowledge::new())
        .await
        .1
        .into_iter()
        .map(|row| (format!("{:?}", row.2[0]), row.2[1].clone()))
        .collect();
    assert_eq!(leaf, whole, "after {rounds} rounds");
    assert_eq!(whole.len(), 20);
}
