//! Every type comes back as it was: from one database through the protocol's cells into another.

use syncline::error::ErrorReason;
use syncline::knowledge::Knowledge;
use syncline::value::Value;

use super::kit::{Database, born, enumerate, int, text};
use crate::store::HubStore as _;

const KINDS: &str =
    "CREATE TYPE mood AS ENUM ('sad', 'it''s \"ok\"'); CREATE DOMAIN small AS int CHECK (VALUE < 100);
    CREATE TYPE pair AS (a int, b text)";

/// A column's type, and literals of it.
const TYPES: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767"]),
    ("integer", &["-2147483648", "2147483647", "0"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("real", &["NaN", "Infinity", "-Infinity", "1.1", "-0", "3.4028235e38", "1e-45"]),
    ("double precision", &["NaN", "Infinity", "-Infinity", "0.1", "-0", "1.7976931348623157e308", "5e-324"]),
    (
        "numeric",
        &["NaN", "1.000", "-0.00", "123456789012345678901234567890.123456789", "0.00000000000000000001"],
    ),
    ("numeric(10,2)", &["1.50", "-99999999.99", "NaN"]),
    ("text", &["", "a\nb\t\\", "\u{1F600}", "'quoted' \"twice\" \\x41", "NULL"]),
    ("varchar(5)", &["", "  a  ", "abcde"]),
    ("char(5)", &["", "a", " b "]),
    ("bytea", &["\\x", "\\x00ff0041", "\\x5c78"]),
    ("date", &["2024-02-29", "0001-01-01", "4714-11-24 BC", "5874897-12-31", "infinity", "-infinity"]),
    ("time", &["00:00:00", "23:59:59.999999", "24:00:00"]),
    (
        "timestamp",
        &[
            "4714-11-24 00:00:00 BC",
            "294247-01-10 04:00:54.775806",
            "infinity",
            "-infinity",
            "1969-12-31 23:59:59.999999",
        ],
    ),
    ("timestamptz", &["4714-11-24 00:00:00+00 BC", "infinity", "-infinity", "2000-01-01 00:00:00.5+03"]),
    ("timestamp(0)", &["2000-01-01 00:00:01"]),
    ("uuid", &["00000000-0000-0000-0000-000000000000", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"]),
    ("json", &["{\"a\" : 1.0, \"a\":2}", "null", "[]"]),
    ("jsonb", &["{\"a\" : 1.0, \"b\":[null, \"\\u00e9\"]}", "null"]),
    ("mood", &["sad", "it's \"ok\""]),
    ("small", &["99", "-5"]),
    ("pair", &["(1,\"a, b\")", "(,)"]),
    ("text[]", &["{}", "{NULL,\"NULL\",\"a\\\"b\",\"{}\"}", "[0:1]={a,b}"]),
    ("int[][]", &["{{1,2},{3,NULL}}"]),
    ("interval", &["1 year 2 mons -3 days 04:05:06.789", "-1 mons", "0", "178000000 years"]),
    ("timetz", &["04:05:06.789-08", "24:00:00+14"]),
    ("inet", &["192.168.0.1/24", "::1"]),
    ("cidr", &["10.0.0.0/8"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("int4range", &["[1,10)", "empty", "(,5)"]),
    ("tsvector", &["'a':1 'b':2A"]),
    ("xml", &["<a>b</a>", "text only"]),
    ("money", &["-92233720368547758.08", "1.50"]),
    ("bit(3)", &["101"]),
    ("varbit", &["", "10101"]),
    ("point", &["(1.5,-2)"]),
    ("oid", &["4294967295"]),
];

#[tokio::test]
async fn every_type_comes_back_as_it_was() {
    let columns: Vec<_> = TYPES.iter().enumerate().map(|(at, (ty, _))| format!("v{at} {ty}")).collect();
    let tables = format!("{KINDS}; CREATE TABLE item (id int PRIMARY KEY, {})", columns.join(", "));
    let (from, to) = (Database::with(&tables).await, Database::with(&tables).await);
    let longest = TYPES.iter().map(|(_, literals)| literals.len()).max().unwrap();
    for row in 0..=longest {
        let cells = TYPES.iter().map(|(_, literals)| {
            literals
                .get(row)
                .map_or("NULL".to_owned(), |literal| format!("'{}'", literal.replace('\'', "''")))
        });
        from.run(&format!("INSERT INTO item VALUES ({row}, {})", cells.collect::<Vec<_>>().join(", "))).await;
    }
    let (source, mut sink) = (from.scope(&["item"]).await, to.scope(&["item"]).await);
    let (_, rows) = source.changes(&Knowledge::new()).await;
    let uploads: Vec<_> = rows.into_iter().map(|row| born("item", row.2)).collect();
    let report = sink.upload(&Knowledge::new(), &uploads).await.unwrap();
    assert_eq!(sink.row_errors().await, []);
    assert_eq!(report.result.upserts as usize, longest + 1);
    for (at, (ty, _)) in TYPES.iter().enumerate() {
        let sql = format!("SELECT string_agg(COALESCE(v{at}::text, '-'), E'\\n' ORDER BY id) FROM item");
        assert_eq!(to.cell(&sql).await, from.cell(&sql).await, "{ty}");
    }
    assert_eq!(
        to.cell("SELECT octet_length(v10) FROM item WHERE id = 1").await,
        "5",
        "char(5) keeps its blanks"
    );
    // What came in is what is there: nothing is echoed.
    let origin = format!(
        "SELECT string_agg(DISTINCT (origin = via AND via > 0)::text, ',') FROM syncline.record_{}",
        sink.id("item")
    );
    assert_eq!(to.cell(&origin).await, "true");
}

#[tokio::test]
async fn random_values_come_back_as_they_were() {
    let tables = "CREATE TABLE item (id int PRIMARY KEY, f double precision, n numeric, t timestamptz, d date, b bytea, i interval, s text, a text[])";
    let (from, to) = (Database::with(tables).await, Database::with(tables).await);
    from.run(
        "SELECT setseed(0.5);
         INSERT INTO item SELECT n, (random() - 0.5) * 10 ^ (random() * 600 - 300), (random() * 10 ^ (random() * 30)::int)::numeric,
           timestamptz '2000-01-01' + (random() - 0.3) * interval '20000 years', date '2000-01-01' + ((random() - 0.3) * 7000000)::int,
           decode(md5(n::text), 'hex'), (random() - 0.5) * interval '1000 years 3 months 5 days', chr(1 + (random() * 50000)::int) || md5(n::text),
           ARRAY[md5(n::text), NULL, chr(1 + (random() * 200)::int)]
         FROM generate_series(1, 3000) n",
    )
    .await;
    let (source, mut sink) = (from.scope(&["item"]).await, to.scope(&["item"]).await);
    let (_, rows) = source.changes(&Knowledge::new()).await;
    let uploads: Vec<_> = rows.into_iter().map(|row| born("item", row.2)).collect();
    let mut blocks = Vec::new();
    for block in sink.blocks(&uploads) {
        merge(&mut blocks, block);
    }
    let job = sink.job(&Knowledge::new());
    let report = sink.apply(job, blocks).await.unwrap();
    assert_eq!(report.result.upserts, 3000);
    let digest = "SELECT md5(string_agg(item::text, '|' ORDER BY id)) FROM item";
    assert_eq!(to.cell(digest).await, from.cell(digest).await);
}

/// One block of all rows, as an enumeration makes them.
fn merge(blocks: &mut Vec<syncline::batch::Block>, row: syncline::batch::Block) {
    let Some(whole) = blocks.first_mut() else { return blocks.push(row) };
    for (all, one) in whole.columns.iter_mut().zip(&row.columns) {
        all.push(one.cell(0)).unwrap();
    }
    whole.ticks.extend(row.ticks);
    whole.births.extend(row.births);
    whole.changed_at.extend(row.changed_at);
}

#[tokio::test]
async fn a_time_beyond_64_bits_is_an_error_with_its_key() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, at timestamp)").await;
    database.run("INSERT INTO item VALUES (5, '294276-12-31')").await;
    let shop = database.scope(&["item"]).await;
    let snapshot = shop.hub.snapshot(&shop.scope).await.unwrap();
    let plan = shop.plan(&*snapshot, &Knowledge::new());
    let error = enumerate(snapshot, plan).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowInvalid);
    assert_eq!(error.metadata()["key"], r#"{"id":5}"#);
}

#[tokio::test]
async fn times_that_the_database_can_not_hold_are_row_errors() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, at timestamp, d date)").await;
    let mut shop = database.scope(&["item"]).await;
    let rows = [
        born("item", [int(1), Value::Timestamp(i64::MIN + 1), Value::Null]),
        born("item", [int(2), Value::Null, Value::Date(i64::MAX - 1)]),
        born("item", [int(3), Value::Timestamp(i64::MAX), Value::Date(i64::MIN)]),
    ];
    let report = shop.upload(&Knowledge::new(), &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (1, 2));
    assert_eq!(database.cell("SELECT at || ' ' || d FROM item").await, "infinity -infinity");
}

#[tokio::test]
async fn cells_of_type_any_are_taken_where_nothing_is_lost() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY, n numeric(8,2), d date)").await;
    let mut shop = database.scope(&["item"]).await;
    let rows = [
        born("item", [int(1), Value::Float64(1.5), text("2009-01-01")]),
        born("item", [int(2), int(3), text("2009-1-1")]),
        born("item", [text("x"), int(3), text("2009-01-01")]),
    ];
    let report = shop.upload(&Knowledge::new(), &rows).await.unwrap();
    assert_eq!((report.result.upserts, report.result.row_errors), (1, 2));
    assert_eq!(database.cell("SELECT id || ' ' || n || ' ' || d FROM item").await, "1 1.50 2009-01-01");
}
