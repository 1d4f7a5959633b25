//! What an enumeration passes over has nothing to be found, whatever has happened; and it does pass over it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, PgConnection};
use syncline::batch::Operation;
use syncline::ids::TableId;
use syncline::knowledge::Knowledge;
use syncline::value::Value;

use super::kit::{Database, Rows, Shop, cell, int, run, text};
use crate::dialect::postgres::statements;
use crate::dialect::postgres::survey;
use crate::limits::{LOG_ENTRIES_READ_MAX, SURVEY_ROWS_MAX};
use crate::store::{HubStore as _, Part};
use crate::testing::random::Random;

const TABLES: &str = "CREATE TABLE item (id int PRIMARY KEY, name text);
     CREATE TABLE line (a int, b text, name text, PRIMARY KEY (a, b));
     CREATE TABLE part (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
     CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
     CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (1000)";
const NAMES: [&str; 3] = ["item", "line", "part"];

/// Which parts a survey says may find something, for who has this knowledge.
async fn surveyed(shop: &Shop, known: &Knowledge) -> String {
    let mut snapshot = shop.hub.open_snapshot(&shop.scope).await.unwrap();
    let plan = shop.plan(&snapshot, known);
    let survey = survey::survey(&mut snapshot, &plan).await.unwrap();
    let name = |id: &TableId| shop.scope.schema.table(*id).unwrap().name.clone();
    let mut found = String::new();
    for part in plan.parts.iter().filter(|part| survey.may_find(part)) {
        let (what, table) = match part {
            Part::Whole { table, .. } => ("whole", table),
            Part::Upserts { table, .. } => ("upserts", table),
            Part::Deletes { table, .. } => ("deletes", table),
            Part::Keys { table, .. } => ("keys", table),
        };
        write!(found, "{what} of {}, ", name(table)).unwrap();
    }
    found
}

#[tokio::test]
async fn tables_that_have_nothing_new_are_passed_over() {
    let database = Database::with(TABLES).await;
    database.run("INSERT INTO item SELECT n, 'i' FROM generate_series(1, 500) n; INSERT INTO line VALUES (1, 'x', 'l')").await;
    let shop = database.scope(&NAMES).await;
    let whole = "whole of item, whole of line, whole of part, ";
    assert_eq!(surveyed(&shop, &Knowledge::new()).await, whole);
    let (known, _) = shop.changes(&Knowledge::new()).await;
    assert_eq!(surveyed(&shop, &known).await, "");
    for (written, found) in [
        ("UPDATE item SET name = 'j' WHERE id = 7", "upserts of item, "),
        ("DELETE FROM line", "deletes of line, "),
        ("INSERT INTO part VALUES (7, 'p'), (700, 'q')", "upserts of part, "),
        ("UPDATE part SET id = 8 WHERE id = 7", "upserts of part, deletes of part, "),
        ("UPDATE item SET name = 'k' WHERE id < 50", "upserts of item, "),
        ("UPDATE item SET name = 'l'", "upserts of item, deletes of item, "),
    ] {
        let (known, _) = shop.changes(&known).await;
        database.run(written).await;
        assert_eq!(surveyed(&shop, &known).await, found, "{written}");
        shop.hub.fold(&shop.scope).await.unwrap();
        assert_eq!(surveyed(&shop, &known).await, found, "{written}, folded");
    }
    // The last two are on either side of it.
    const { assert!(SURVEY_ROWS_MAX < 500 && SURVEY_ROWS_MAX > 50) };
}

/// What a replica holds, by table and key.
type Mirror = BTreeMap<(String, String), Vec<Value>>;

fn key_of(table: &str, cells: &[Value]) -> String {
    let columns = if table == "line" { 2 } else { 1 };
    format!("{:?}", &cells[..columns])
}

fn bring(mirror: &mut Mirror, rows: Rows) {
    for (table, operation, cells) in rows {
        let key = (table.clone(), key_of(&table, &cells));
        match operation {
            Operation::Upsert => mirror.insert(key, cells),
            _ => mirror.remove(&key),
        };
    }
}

fn random_write(random: &mut Random) -> String {
    let longest = if random.chance(10) { 150 } else { 3 };
    let (id, span) = (random.below(300), 1 + random.below(longest));
    let (to, letter) = (id + span, random.below(4));
    match random.below(9) {
        0 => format!("DELETE FROM item WHERE id >= {id} AND id < {to}"),
        1 | 2 => format!(
            "INSERT INTO item SELECT n, 'n{letter}' FROM generate_series({id}, {to}) n \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        ),
        3 => format!("DELETE FROM line WHERE a = {id}"),
        4 | 5 => format!(
            "INSERT INTO line VALUES ({id}, 'b{letter}', 'n{to}') ON CONFLICT (a, b) DO UPDATE SET name = excluded.name"
        ),
        6 => format!("DELETE FROM part WHERE id BETWEEN {id} AND {to}"),
        7 => format!(
            "INSERT INTO part VALUES ({id}, 'p{to}') ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        ),
        _ => format!("UPDATE part SET id = id + 500 WHERE id = {id}"),
    }
}

#[tokio::test]
async fn a_replica_that_lacks_what_is_surveyed_lacks_nothing() {
    for seed in 1..=3 {
        let database = Database::with(TABLES).await;
        let shop = database.scope(&NAMES).await;
        let (mut random, mut mirror) = (Random::from_seed(seed), Mirror::new());
        let mut known = Knowledge::new();
        let (mut application, mut open) = (database.application().await, database.application().await);
        let mut is_open = false;
        for step in 0..60 {
            for _ in 0..random.below(3) {
                run(&mut application, &random_write(&mut random)).await;
            }
            // A transaction that is open while somebody looks: what it has written is missing until it commits.
            if random.chance(30) {
                let line = 1_000 + step;
                let end = if is_open {
                    "COMMIT".to_owned()
                } else {
                    format!("BEGIN; INSERT INTO line VALUES ({line}, 'o', 'open')")
                };
                run(&mut open, &end).await;
                is_open = !is_open;
            }
            if random.chance(3) {
                run(&mut application, "TRUNCATE part_1").await;
            }
            let (learned, rows) = if random.chance(40) {
                shop.changes(&known).await
            } else {
                shop.changes_unfolded(&known).await
            };
            let whole: Vec<String> = whole_tables(&shop, &known).await;
            mirror.retain(|(table, _), _| !whole.contains(table));
            bring(&mut mirror, rows);
            known = learned;
            assert_eq!(mirror, everything(&shop).await, "seed {seed}, step {step}");
        }
    }
}

/// The tables that who knows this compares as a whole.
async fn whole_tables(shop: &Shop, known: &Knowledge) -> Vec<String> {
    let snapshot = shop.hub.open_snapshot(&shop.scope).await.unwrap();
    let parts = shop.plan(&snapshot, known).parts;
    let whole = parts
        .iter()
        .filter_map(|part| if let Part::Whole { table, .. } = part { Some(*table) } else { None });
    whole.map(|id| shop.scope.schema.table(id).unwrap().name.clone()).collect()
}

async fn everything(shop: &Shop) -> Mirror {
    let mut mirror = Mirror::new();
    bring(&mut mirror, shop.changes_unfolded(&Knowledge::new()).await.1);
    mirror
}

/// A plan that was made when there were no rows.
async fn plan_of(connection: &mut PgConnection, execute: &str) -> String {
    let lines: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN {execute}"))).fetch_all(connection).await.unwrap();
    lines.join("\n")
}

#[tokio::test]
async fn a_survey_that_was_planned_for_empty_tables_goes_by_indexes() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, name text)").await;
    database.run("INSERT INTO item VALUES (1, 'a'); ANALYZE item").await;
    let shop = database.scope(&["item"]).await;
    let snapshot = shop.hub.open_snapshot(&shop.scope).await.unwrap();
    let survey = statements::survey::survey(&[&snapshot.tables[&shop.id("item")].tracked]);
    drop(snapshot);
    let mut connection = database.application().await;
    let begin = statements::reading::begin_snapshot(&["item".to_owned()]);
    run(
        &mut connection,
        &format!("{begin}; PREPARE survey (bytea, bigint[], bigint[], bigint[]) AS {survey}"),
    )
    .await;
    let execute = "EXECUTE survey ('', '{1}', '{0}', '{9000000000000}')";
    let plan = plan_of(&mut connection, execute).await;
    let id = shop.id("item").0;
    assert!(
        !plan.contains("Seq Scan on item") && !plan.contains(&format!("Seq Scan on record_{id}")),
        "{plan}"
    );
    // And what comes after it is planned as it is best.
    run(&mut connection, execute).await;
    assert_eq!(cell(&mut connection, "current_setting('enable_seqscan')").await, "on");
}

#[tokio::test]
async fn sessions_fold_what_is_long_and_read_what_is_short() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, name text)").await;
    let shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let log = format!("SELECT count(*) FROM syncline.log_{}", shop.id("item").0);
    database.run("INSERT INTO item VALUES (0, 'zero')").await;
    for (written, left) in [(LOG_ENTRIES_READ_MAX - 1, LOG_ENTRIES_READ_MAX), (1, 0)] {
        let more = format!(
            "INSERT INTO item SELECT max(id) + n, 'n' FROM item, generate_series(1, {written}) n GROUP BY n"
        );
        database.run(&more).await;
        let snapshot = shop.hub.folded_snapshot(&shop.scope).await.unwrap();
        assert_eq!(database.cell(&log).await, left.to_string());
        let (_, rows) = shop.read(snapshot, &known).await;
        assert_eq!(rows[0].2, [int(0), text("zero")]);
        assert_eq!(rows.len().to_string(), database.cell("SELECT count(*) FROM item").await);
    }
}
