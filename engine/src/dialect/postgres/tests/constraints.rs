//! Rows that break a constraint don't stop the others.

use syncline::error::ErrorReason;
use syncline::ids::Tick;
use syncline::knowledge::{Knowledge, RowKey, Version};
use syncline::schema::{ConflictPolicy, RowErrorPolicy};
use syncline::value::Value;

use super::kit::{Database, born, changed, definition, deleted, int, key, text};

const TABLES: &str = "CREATE TABLE parent (id int PRIMARY KEY, code varchar(3) UNIQUE);
    CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent, n int CHECK (n > 0))";

#[tokio::test]
async fn rows_that_fail_are_found_among_many_and_stay_dirty() {
    let database = Database::with(TABLES).await;
    let mut shop = database.scope(&["parent", "child"]).await;
    let mut rows: Vec<_> = (1..=200).map(|id| born("child", [int(id), int(1), int(1)])).collect();
    rows[9] = born("child", [int(10), int(99), int(1)]);
    rows[99] = born("child", [int(100), int(1), int(0)]);
    rows[100] = born("child", [int(101), Value::Null, int(1)]);
    rows.push(born("parent", [int(1), text("one")]));
    rows.push(born("parent", [int(2), text("one")]));
    rows.push(born("parent", [int(3), text("too long")]));
    rows.push(born("parent", [int(4), text("a\0b")]));
    rows.push(born("parent", [int(1 << 40), text("big")]));
    let report = shop.upload(&Knowledge::new(), &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (198, 7));
    let mut errors = shop.row_errors().await;
    errors.sort();
    let expect = [
        (r#"{"id":100}"#, "CHECK"),
        (r#"{"id":101}"#, "NOT_NULL"),
        (r#"{"id":1099511627776}"#, "TYPE"),
        (r#"{"id":10}"#, "FOREIGN_KEY"),
        (r#"{"id":2}"#, "UNIQUE"),
        (r#"{"id":3}"#, "TYPE"),
        (r#"{"id":4}"#, "TYPE"),
    ];
    assert_eq!(errors, expect.map(|(key, reason)| (key.to_owned(), reason)));
    let clock = shop.leaf_clock().await;
    let leaf = shop.leaf.id;
    let tick = |tick| Version { replica: leaf, tick: Tick(tick) };
    let child = shop.id("child");
    let row = |id| RowKey { table: child, key: key(&[int(id)]) };
    assert!(clock.contains(&row(9), tick(9)) && !clock.contains(&row(10), tick(10)));
    // Mended and sent again: the exception is gone.
    let report = shop.upload(&Knowledge::new(), &[born("child", [int(10), int(1), int(1)])]).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (1, 0));
    assert!(shop.leaf_clock().await.contains(&row(10), tick(10)));
}

#[tokio::test]
async fn a_conflict_that_the_leaf_wins_is_logged_only_if_its_row_could_be_written() {
    let database = Database::with(TABLES).await;
    database.run("INSERT INTO parent VALUES (1, 'a'); INSERT INTO child VALUES (1, 1, 1), (2, 1, 1)").await;
    let mut definition = definition(&["parent", "child"]);
    definition.conflict_policy = ConflictPolicy::ClientWins;
    let mut shop = database.scope_of(definition).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database.run("UPDATE child SET n = 5").await;
    let rows = [changed("child", [int(1), int(1), int(-1)]), changed("child", [int(2), int(1), int(7)])];
    let report = shop.upload(&known, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.conflicts, report.result.row_errors), (1, 1, 1));
    let logged: Vec<_> = shop.conflicts().await.into_iter().map(|entry| entry.summary.key_json).collect();
    assert_eq!(logged, [r#"{"id":2}"#]);
    assert_eq!(
        database.cell("SELECT string_agg(id || '=' || n, ' ' ORDER BY id) FROM child").await,
        "1=5 2=7"
    );
}

#[tokio::test]
async fn where_the_scope_aborts_nothing_is_applied() {
    let database = Database::with(TABLES).await;
    let mut definition = definition(&["parent", "child"]);
    definition.row_error_policy = RowErrorPolicy::Abort;
    let mut shop = database.scope_of(definition).await;
    let rows = [born("parent", [int(1), text("a")]), born("child", [int(1), int(7), int(1)])];
    let error = shop.upload(&Knowledge::new(), &rows).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowErrors);
    assert_eq!(error.metadata()["row_error"], "FOREIGN_KEY");
    assert_eq!(database.cell("SELECT count(*) FROM parent").await, "0");
}

#[tokio::test]
async fn a_unique_value_that_a_deleted_row_frees_is_taken() {
    let database = Database::with(TABLES).await;
    database.run("INSERT INTO parent VALUES (1, 'a'), (2, 'b')").await;
    let mut shop = database.scope(&["parent", "child"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let rows = [born("parent", [int(3), text("a")]), deleted("parent", [int(1)])];
    let report = shop.upload(&known, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.deletes, report.result.row_errors), (1, 1, 0));
}

#[tokio::test]
async fn swapped_unique_values_are_parked() {
    let database = Database::with(
        "CREATE TABLE item (id int PRIMARY KEY, slot int UNIQUE);
         CREATE TABLE strict (id int PRIMARY KEY, slot int NOT NULL UNIQUE);
         INSERT INTO item VALUES (1, 1), (2, 2), (3, 3); INSERT INTO strict SELECT * FROM item",
    )
    .await;
    let mut shop = database.scope(&["item", "strict"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let swapped = |table| {
        [changed(table, [int(1), int(2)]), changed(table, [int(2), int(3)]), changed(table, [int(3), int(1)])]
    };
    let rows = [swapped("item"), swapped("strict")].concat();
    let report = shop.upload(&known, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (6, 0));
    for table in ["item", "strict"] {
        let sql = format!("SELECT string_agg(id || '=' || slot, ' ' ORDER BY id) FROM {table}");
        assert_eq!(database.cell(&sql).await, "1=2 2=3 3=1");
    }
    assert!(shop.changes(&known).await.1.is_empty(), "no echo");
}

#[tokio::test]
async fn a_swap_changes_no_rows_that_follow_the_swapped_values() {
    for action in ["CASCADE", "SET NULL"] {
        let database = Database::with(&format!(
            "CREATE TABLE p (id int PRIMARY KEY, u int UNIQUE); INSERT INTO p VALUES (1, 1), (2, 2);
             CREATE TABLE ch (id int PRIMARY KEY, r int REFERENCES p (u) ON UPDATE {action});
             INSERT INTO ch VALUES (11, 1), (12, 2)"
        ))
        .await;
        let mut shop = database.scope(&["p", "ch"]).await;
        let (known, _) = shop.changes(&Knowledge::new()).await;
        let rows = [
            changed("p", [int(1), int(2)]),
            changed("p", [int(2), int(1)]),
            changed("ch", [int(11), int(2)]),
            changed("ch", [int(12), int(1)]),
        ];
        let report = shop.upload(&known, &rows).await.unwrap();
        // The swap is refused, row by row; nothing is lost to it.
        assert_eq!((report.result.upserts, report.result.row_errors), (2, 2), "{action}");
        let rows = |table: &str, cell: &str| {
            format!("SELECT string_agg({cell}::text, ' ' ORDER BY id) FROM {table}")
        };
        assert_eq!(database.cell(&rows("ch", "r")).await, "2 1", "{action}");
        assert_eq!(database.cell(&rows("p", "u")).await, "1 2", "{action}");
    }
}

#[tokio::test]
async fn references_in_a_cycle_are_set_afterwards() {
    let database = Database::with(
        "CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
         ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b;
         CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree)",
    )
    .await;
    let mut shop = database.scope(&["a", "b", "tree"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let rows = [
        born("a", [int(1), int(1)]),
        born("b", [int(1), int(1)]),
        born("tree", [int(1), int(2)]),
        born("tree", [int(2), int(3)]),
        born("tree", [int(3), Value::Null]),
        born("tree", [int(4), int(44)]),
    ];
    let report = shop.upload(&known, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (5, 1));
    assert_eq!(database.cell("SELECT a.b + b.a FROM a, b").await, "2");
    assert!(shop.changes(&known).await.1.is_empty(), "no echo");
}

#[tokio::test]
async fn identity_values_travel_and_the_sequence_moves_past_them() {
    let database =
        Database::with("CREATE TABLE item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)")
            .await;
    let mut shop = database.scope(&["item"]).await;
    shop.upload(&Knowledge::new(), &[born("item", [int(41), text("a")])]).await.unwrap();
    database.run("INSERT INTO item (name) VALUES ('b')").await;
    assert_eq!(database.cell("SELECT max(id) FROM item").await, "42");
}

#[tokio::test]
async fn a_sequence_of_a_range_stays_in_it_and_one_of_a_text_is_left_alone() {
    let database = Database::with(
        "CREATE SEQUENCE words; CREATE TABLE item (id int GENERATED ALWAYS AS IDENTITY (MAXVALUE 999) PRIMARY KEY, \
         name text DEFAULT 'word ' || nextval('words')); ALTER SEQUENCE words OWNED BY item.name",
    )
    .await;
    let mut shop = database.scope(&["item"]).await;
    let rows = [born("item", [int(41), text("a")]), born("item", [int(5000), text("b")])];
    shop.upload(&Knowledge::new(), &rows).await.unwrap();
    database.run("INSERT INTO item DEFAULT VALUES").await;
    assert_eq!(database.cell("SELECT name FROM item WHERE id = 42").await, "word 1");
}
