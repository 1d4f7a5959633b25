//! Goal: docs/TYPES.md holds: each type is carried down to a leaf and up again as it was, or refused by name when the
//! scope is defined. By tables with a column of each type, and rows that are copied at the leaf.

use syncline::value::CanonicalType as T;
use syncline_engine::scope;
use syncline_tests::database::{Database, Kind, open};
use syncline_tests::world::{Reach, World, WorldOptions};

/// A type of PostgreSQL, what it is to the protocol, and a literal of it.
const POSTGRES_TYPES: &[(&str, T, &str)] = &[
    ("boolean", T::Bool, "true"),
    ("smallint", T::Int64, "-32768"),
    ("double precision", T::Float64, "0.1"),
    ("numeric(10,2)", T::Decimal, "1.50"),
    ("numeric", T::Decimal, "123456789012345678901234567890.50"),
    ("citext", T::Text, "MiXed"),
    ("hstore", T::Text, r#""a"=>"1", "b"=>NULL"#),
    ("mood", T::Text, "it's \"ok\""),
    ("small", T::Int64, "99"),
    ("short", T::Text, "ab"),
    ("pair", T::Text, "(1,\"a, b\")"),
    ("text[]", T::Text, r#"{NULL,"NULL","a\"b","{}"}"#),
    ("int[][]", T::Text, "{{1,2},{3,NULL}}"),
    ("mood[]", T::Text, "{sad}"),
    ("int4range", T::Text, "[1,10)"),
    ("tstzrange", T::Text, "[\"2000-01-01 00:00:00+00\",)"),
    ("money", T::Text, "-1.50"),
    ("xml", T::Text, "<a>b</a>"),
    ("interval", T::Text, "1 year -3 days 04:05:06.789"),
    ("timetz", T::Text, "04:05:06.789-08"),
    ("inet", T::Text, "192.168.0.1/24"),
    ("bit(3)", T::Text, "101"),
    ("date", T::Date, "0044-03-15 BC"),
    ("timestamptz", T::Timestamptz, "infinity"),
    ("time", T::Time, "23:59:59.999999"),
    ("uuid", T::Uuid, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    ("jsonb", T::Json, r#"{"a": 1.0}"#),
    ("bytea", T::Bytes, "\\x00ff"),
    ("char(4)", T::Text, " a"),
];

const SCOPE: &str = "name = \"shop\"\n[[tables]]\nname = \"every\"\n";

async fn world(hub: Kind, leaf: Kind, schema: &str, scope: &str) -> World {
    World::new(WorldOptions { hub, leaf, leaves: 1, reach: Reach::Near, schema, scope }).await
}

fn postgres_schema() -> String {
    let columns: Vec<_> =
        POSTGRES_TYPES.iter().enumerate().map(|(at, (ty, ..))| format!("v{at} {ty}")).collect();
    let values: Vec<_> =
        POSTGRES_TYPES.iter().map(|(.., value)| format!("'{}'", value.replace('\'', "''"))).collect();
    format!(
        "CREATE EXTENSION citext; CREATE EXTENSION hstore; \
         CREATE TYPE mood AS ENUM ('sad', 'it''s \"ok\"'); CREATE TYPE pair AS (a int, b text); \
         CREATE DOMAIN small AS int CHECK (VALUE < 100); CREATE DOMAIN short AS varchar(3); \
         CREATE TABLE every (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, touched int, \
           twice int GENERATED ALWAYS AS (touched * 2) STORED, {}); \
         INSERT INTO every VALUES (DEFAULT, 1, DEFAULT, {}); INSERT INTO every (touched) VALUES (1)",
        columns.join(", "),
        values.join(", ")
    )
}

#[tokio::test]
async fn every_type_of_postgresql_goes_down_and_comes_up_again() {
    for leaf in [Kind::Sqlite, Kind::Postgres] {
        let world = world(Kind::Postgres, leaf, &postgres_schema(), SCOPE).await;
        let names: Vec<_> = (0..POSTGRES_TYPES.len()).map(|at| format!("v{at}")).collect();
        let stored = world.hub_store.scope(&"shop".parse().unwrap()).await.unwrap().unwrap();
        let table = &stored.schema.tables[0];
        for ((ty, canonical, _), name) in POSTGRES_TYPES.iter().zip(&names) {
            let column = table.columns.iter().find(|column| column.name == *name).unwrap();
            assert_eq!(column.ty, *canonical, "{ty}");
        }
        // Each side computes its own.
        assert!(!table.columns.iter().any(|column| column.name == "twice"));

        let columns: Vec<_> = names.iter().map(String::as_str).collect();
        let before = world.hub.rows("every", &["id"], &columns).await;
        let down = world.sync(0).await;
        assert!(down.row_errors_here.is_empty(), "{:?}", down.row_errors_here);
        let copied = format!(
            "UPDATE every SET touched = 5; \
             INSERT INTO every (id, touched, {0}) SELECT id + 100, 7, {0} FROM every",
            names.join(", ")
        );
        world.leaves[0].execute(&copied).await;
        let up = world.sync(0).await;
        assert!(up.row_errors_at_hub.is_empty(), "{leaf:?}: {:?}", up.row_errors_at_hub);
        let after = world.hub.rows("every", &["id"], &columns).await;
        for (copy, original) in [("101", "1"), ("102", "2"), ("1", "1"), ("2", "2")] {
            for (at, (ty, ..)) in POSTGRES_TYPES.iter().enumerate() {
                assert_eq!(after[copy][at], before[original][at], "{leaf:?}: {ty} of row {copy}");
            }
        }
        assert_eq!(world.hub.count("SELECT twice::bigint FROM every WHERE id = 101").await, 14);
        // Drawn values go on past what came.
        world.hub.execute("INSERT INTO every (touched) VALUES (1)").await;
        assert_eq!(world.hub.count("SELECT max(id) FROM every").await, 103);
    }
}

const SQLITE_SCHEMA: &str = "\
    CREATE TABLE exact (id INTEGER PRIMARY KEY, n INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;
    CREATE TABLE pair (a TEXT, b INTEGER, v TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE typed (id INTEGER PRIMARY KEY, d DATE, f BOOLEAN, m DECIMAL(10,2), s TIMESTAMP, u UUID, n INTEGER,
      twice INTEGER AS (n * 2) STORED);
    INSERT INTO exact VALUES (1, 1, 2.0, '3', x'04', 5), (2, NULL, NULL, NULL, NULL, '5'), (3, 9, 1.5, '', x'', 5.0);
    INSERT INTO pair VALUES ('a', 1, 'x'), ('A', 1, 'y');
    INSERT INTO typed (id, d, f, m, s, u, n) VALUES
      (1, '2024-02-29', 1, 1.5, '2024-02-29 12:00:00', '6ba7b810-9dad-11d1-80b4-00c04fd430c8', 5),
      (2, 'one day', 'yes', 'dear', 20240229, x'00ff', 'five'), (3, 2024.5, -1, 1e300, '12:00', 'U', 1.5)";

/// Every cell with its storage class.
fn content(database: &Database) -> Vec<String> {
    let Database::Sqlite(path) = database else { unreachable!("it was made as one") };
    let connection = open(path);
    let mut all = Vec::new();
    for (table, columns) in [("exact", "id n r t b a"), ("pair", "a b v"), ("typed", "id d f m s u n")] {
        let cells: Vec<_> = columns.split(' ').map(|column| format!("quote({column})")).collect();
        let sql = format!("SELECT '{table} ' || {} FROM {table} ORDER BY 1", cells.join(" || ', ' || "));
        let mut statement = connection.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        all.extend(rows.map(Result::unwrap));
    }
    all
}

const SQLITE_SCOPE: &str = "name = \"shop\"\n[[tables]]\nname = \"exact\"\n[[tables]]\nname = \"pair\"\n[[tables]]\nname = \"typed\"\n";

#[tokio::test]
async fn whatever_a_sqlite_column_holds_goes_down_and_comes_up_again() {
    let world = world(Kind::Sqlite, Kind::Sqlite, SQLITE_SCHEMA, SQLITE_SCOPE).await;
    let stored = world.hub_store.scope(&"shop".parse().unwrap()).await.unwrap().unwrap();
    let types = |table: usize| stored.schema.tables[table].columns.iter().map(|column| column.ty);
    let expected = [T::Int64, T::Int64, T::Float64, T::Text, T::Bytes, T::Any];
    assert!(types(0).eq(expected), "{:?}", types(0).collect::<Vec<_>>());
    let expected = [T::Int64, T::Date, T::Bool, T::Decimal, T::Timestamp, T::Uuid, T::Int64];
    assert!(types(2).eq(expected), "{:?}", types(2).collect::<Vec<_>>());

    world.sync(0).await;
    assert_eq!(content(&world.leaves[0]), content(&world.hub));
    world.leaves[0]
        .execute(
            "INSERT INTO exact SELECT id + 100, n, r, t, b, a FROM exact; INSERT INTO pair SELECT a, b + 100, v FROM pair;
             INSERT INTO typed (id, d, f, m, s, u, n) SELECT id + 100, d, f, m, s, u, n FROM typed",
        )
        .await;
    let up = world.sync(0).await;
    assert!(up.row_errors_at_hub.is_empty(), "{:?}", up.row_errors_at_hub);
    assert_eq!(content(&world.leaves[0]), content(&world.hub));
    assert_eq!(world.hub.count("SELECT twice FROM typed WHERE id = 101").await, 10);

    // What a STRICT table refuses is a row error, and stays at the leaf.
    world.leaves[0].execute("UPDATE exact SET n = 'many' WHERE id = 1").await;
    let refused = world.sync(0).await;
    let reasons: Vec<_> = refused.row_errors_at_hub.iter().map(|error| error.reason.as_str()).collect();
    assert_eq!((reasons, world.hub.count("SELECT n FROM exact WHERE id = 1").await), (vec!["TYPE"], 1));
}

#[tokio::test]
async fn declared_types_of_sqlite_fit_postgresql_and_what_has_none_is_refused_by_name() {
    let clean = "CREATE TABLE typed (id INTEGER PRIMARY KEY, d DATE, f BOOLEAN, m DECIMAL(10,2), s TIMESTAMP, u UUID);
        INSERT INTO typed VALUES
          (1, '2024-02-29', 1, 1.5, '2024-02-29 12:00:00', '6ba7b810-9dad-11d1-80b4-00c04fd430c8'), (2, 0, 0, 0, 0, 0)";
    let scope_of_typed = "name = \"shop\"\n[[tables]]\nname = \"typed\"\n";
    let world = world(Kind::Sqlite, Kind::Postgres, clean, scope_of_typed).await;
    let down = world.sync(0).await;
    // Row 2 holds numbers where dates should be.
    assert_eq!(down.row_errors_here.len(), 1, "{:?}", down.row_errors_here);
    let rows = world.leaves[0].rows("typed", &["id"], &["d", "f", "m", "s", "u"]).await;
    let row: Vec<_> = rows["1"].iter().map(|cell| cell.clone().unwrap()).collect();
    let expected =
        ["2024-02-29", "true", "1.50", "2024-02-29 12:00:00", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"];
    assert_eq!((row, rows.len()), (expected.map(str::to_owned).to_vec(), 1));

    let without = "CREATE TABLE loose (id INTEGER PRIMARY KEY, thing)";
    let world =
        self::world(Kind::Sqlite, Kind::Postgres, without, "name = \"shop\"\n[[tables]]\nname = \"loose\"\n")
            .await;
    let error = world.try_sync(0).await.unwrap_err().to_string();
    assert!(error.contains("thing") && error.contains("any"), "{error}");
}

#[tokio::test]
async fn what_can_not_be_carried_is_refused_by_name_when_the_scope_is_defined() {
    // (kind, schema, lines of the table in the scope file, what the problem names)
    let cases = [
        (Kind::Postgres, "CREATE TABLE every (id int)", "", "primary key"),
        (
            Kind::Postgres,
            "CREATE TABLE every (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (n) STORED)",
            "columns = [\"id\", \"g\"]",
            "\"g\" is generated",
        ),
        (
            Kind::Postgres,
            "CREATE TABLE every (id int PRIMARY KEY, m money)",
            "types = { m = \"int64\" }",
            "\"m\"",
        ),
        (Kind::Postgres, "CREATE VIEW every AS SELECT 1 AS id", "", "view"),
        (Kind::Sqlite, "CREATE TABLE every (id INTEGER)", "", "primary key"),
        (
            Kind::Sqlite,
            "CREATE TABLE every (id INTEGER PRIMARY KEY, n INT, g INT AS (n))",
            "columns = [\"id\", \"g\"]",
            "\"g\" is generated",
        ),
        (Kind::Sqlite, "CREATE VIEW every AS SELECT 1 AS id", "", "view"),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (number, (kind, schema, lines, named)) in cases.into_iter().enumerate() {
        let hub = Database::new(kind, directory.path(), &format!("hub{number}")).await;
        hub.execute(schema).await;
        let store = syncline_tests::world::hub_store(&hub).await;
        store.open_hub().await.unwrap();
        let definition = scope::parse(&format!("{SCOPE}{lines}\n")).unwrap();
        let error = format!("{:?}", store.define_scope(&definition, false).await.unwrap_err());
        assert!(error.contains(&named.replace('"', "\\\"")), "{schema}: {error}");
    }
}
