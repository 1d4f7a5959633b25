//! Keys: a refused row is named by the key that was sent, and keys whose equality is not that of their bytes are refused.

use syncline::ids::Tick;
use syncline::knowledge::{Knowledge, RowKey, Version};
use syncline::value::Value;

use super::kit::{Database, Shop, born, definition, deleted, int, key, text};
use crate::scope::DefineError;
use crate::store::HubStore as _;

fn decimal(value: &str) -> Value {
    Value::Decimal(value.to_owned())
}

/// Whether the hub takes the leaf's change of this key for known.
async fn is_known(shop: &Shop, sent: &[Value], tick: u64) -> bool {
    let row = RowKey { table: shop.id("item"), key: key(sent) };
    shop.leaf_clock().await.contains(&row, Version { replica: shop.leaf.id, tick: Tick(tick) })
}

#[tokio::test]
async fn a_key_that_the_column_cannot_hold_is_refused_under_the_name_that_the_leaf_knows_it_by() {
    let database = Database::with("CREATE TABLE item (id uuid PRIMARY KEY, name text)").await;
    let mut shop = database.scope(&["item"]).await;
    let fits = text("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    let rows = [born("item", [text("not-a-uuid"), text("a")]), born("item", [fits, text("b")])];
    let report = shop.upload(&Knowledge::new(), &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (1, 1));
    assert_eq!(shop.row_errors().await, [(r#"{"id":"not-a-uuid"}"#.to_owned(), "TYPE")]);
    assert!(!is_known(&shop, &[text("not-a-uuid")], 1).await, "it is sent again");
    // Until the leaf deletes it: the hub does not have it either.
    let report = shop.upload(&Knowledge::new(), &[deleted("item", [text("not-a-uuid")])]).await.unwrap();
    assert_eq!((report.result.unchanged, report.result.row_errors), (1, 0));
    assert!(shop.leaf_clock().await.exceptions().is_empty());
}

#[tokio::test]
async fn a_key_that_would_be_kept_in_another_form_is_refused() {
    let database =
        Database::with("CREATE TABLE item (id numeric(10,2) PRIMARY KEY, n int CHECK (n > 0))").await;
    database.run("INSERT INTO item VALUES (1.50, 5)").await;
    let mut shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let rows = [
        born("item", [decimal("1.5"), int(7)]),
        born("item", [decimal("2.50"), int(-1)]),
        born("item", [decimal("3.50"), int(1)]),
        deleted("item", [decimal("1.500")]),
    ];
    let report = shop.upload(&known, &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.deletes, report.result.row_errors), (1, 0, 2));
    let mut errors = shop.row_errors().await;
    errors.sort();
    assert_eq!(errors, [(r#"{"id":"1.5"}"#.to_owned(), "TYPE"), (r#"{"id":"2.50"}"#.to_owned(), "CHECK")]);
    for (sent, tick, expect) in [("1.5", 1, false), ("2.50", 2, false), ("3.50", 3, true), ("1.500", 4, true)]
    {
        assert_eq!(is_known(&shop, &[decimal(sent)], tick).await, expect, "{sent}");
    }
    assert_eq!(
        database.cell("SELECT string_agg(id || '=' || n, ' ' ORDER BY id) FROM item").await,
        "1.50=5 3.50=1"
    );
}

#[tokio::test]
async fn a_key_of_a_type_outside_the_catalogue_takes_part_both_ways() {
    let database = Database::with(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE item (id mood PRIMARY KEY, name text)",
    )
    .await;
    let mut shop = database.scope(&["item"]).await;
    let report = shop.upload(&Knowledge::new(), &[born("item", [text("ok"), text("a")])]).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (1, 0));
    assert_eq!(database.cell("SELECT id || name FROM item").await, "oka");
    let (_, rows) = shop.other_leaf().changes(&Knowledge::new()).await;
    assert_eq!(rows[0].2, [text("ok"), text("a")]);
}

/// Types of keys that are refused, by what is said of them.
const REFUSED: &[(&str, &str)] = &[
    ("citext", "may take different values for equal"),
    ("pair", "may take different values for equal"),
    ("char(5)", "pads"),
    ("code", "pads"),
    ("numeric", "1.0 and 1.00"),
    ("real", "rounds"),
    ("time(3)", "rounds"),
    ("timestamp(0)", "rounds"),
    ("timestamptz(5)", "rounds"),
    ("interval", "different texts"),
    ("timetz", "different texts"),
    ("money", "different texts"),
    ("numrange", "different texts"),
    ("text[]", "different texts"),
    ("jsonb", "document"),
    ("text COLLATE folded", "collation"),
    ("label", "collation"),
];

/// Types of keys that are taken.
const TAKEN: &[&str] = &[
    "boolean",
    "smallint",
    "int",
    "bigint",
    "double precision",
    "numeric(10,2)",
    "numeric(5)",
    "text",
    "varchar(10)",
    "bytea",
    "date",
    "time",
    "timestamp(6)",
    "timestamptz",
    "uuid",
    "inet",
    "mood",
    "small",
    "text COLLATE \"C\"",
];

#[tokio::test]
async fn keys_that_are_equal_without_being_the_same_are_refused() {
    let database = Database::with(
        "CREATE EXTENSION citext; CREATE TYPE pair AS (a int, b text); CREATE TYPE mood AS ENUM ('sad', 'ok');
         CREATE DOMAIN small AS int CHECK (VALUE < 100); CREATE DOMAIN code AS char(5);
         CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE DOMAIN label AS text COLLATE folded",
    )
    .await;
    for (at, (ty, _)) in REFUSED.iter().enumerate() {
        // Beside the key such a column is welcome, also as unique.
        let unique = if matches!(*ty, "jsonb") { "" } else { "UNIQUE" };
        database
            .run(&format!("CREATE TABLE no_{at} (id {ty} PRIMARY KEY); CREATE TABLE beside_{at} (id int PRIMARY KEY, v {ty} {unique})"))
            .await;
    }
    let names: Vec<_> = (0..REFUSED.len()).map(|at| format!("no_{at}")).collect();
    let refused = definition(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let Err(DefineError::Problems(problems)) = database.hub.define_scope(&refused, true).await else {
        panic!("it was taken")
    };
    assert_eq!(problems.len(), REFUSED.len(), "{problems:?}");
    for ((ty, what), problem) in REFUSED.iter().zip(&problems) {
        assert!(problem.message.starts_with("column \"id\" can't be a key: "), "{ty}: {problem:?}");
        assert!(problem.message.contains(what) && !problem.remedy.is_empty(), "{ty}: {problem:?}");
    }
    let beside: Vec<_> = (0..REFUSED.len()).map(|at| format!("beside_{at}")).collect();
    let beside = definition(&beside.iter().map(String::as_str).collect::<Vec<_>>());
    database.hub.define_scope(&beside, true).await.unwrap();
    let mut names = Vec::new();
    for (at, ty) in TAKEN.iter().enumerate() {
        database.run(&format!("CREATE TABLE yes_{at} (id {ty} PRIMARY KEY)")).await;
        names.push(format!("yes_{at}"));
    }
    database.scope(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn columns_that_a_primary_key_includes_are_not_of_it() {
    let database =
        Database::with("CREATE TABLE item (id int, note text, PRIMARY KEY (id) INCLUDE (note))").await;
    let shop = database.scope(&["item"]).await;
    database
        .run("INSERT INTO item VALUES (1, NULL), (2, 'b'); UPDATE item SET note = 'c' WHERE id = 2")
        .await;
    let log = format!("syncline.log_{}", shop.id("item").0);
    let logged = format!("SELECT string_agg(k1 || operation::text, ' ' ORDER BY seq) FROM {log}");
    assert_eq!(database.cell(&logged).await, "1I 2I 2U");
}
