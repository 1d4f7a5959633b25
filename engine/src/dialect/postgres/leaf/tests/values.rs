//! Cells come down and go up again as they were, in tables that we made and in tables that were there.

use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::conflict::{RowError, RowErrorReason};
use syncline::schema::ScopeSchema;
use syncline::value::{CanonicalType as T, NEGATIVE_INFINITY, POSITIVE_INFINITY, Value};

use super::kit::{DELTA, Leaf, WHOLE, block, int, items, scope, table, text, up};

fn every_type() -> ScopeSchema {
    let columns = [
        ("id", T::Uuid),
        ("b", T::Bool),
        ("i", T::Int64),
        ("f", T::Float64),
        ("d", T::Decimal),
        ("t", T::Text),
        ("y", T::Bytes),
        ("day", T::Date),
        ("at", T::Time),
        ("ts", T::Timestamp),
        ("tz", T::Timestamptz),
        ("j", T::Json),
    ];
    scope(vec![table(1, "every", &columns)])
}

fn edges() -> Vec<Vec<Value>> {
    let row = |id: u8, cells: [Value; 11]| {
        let mut row = vec![Value::Uuid([id; 16])];
        row.extend(cells);
        row
    };
    let decimal = |text: &str| Value::Decimal(text.to_owned());
    let json = |text: &str| Value::Json(text.to_owned());
    vec![
        row(
            1,
            [
                Value::Bool(true),
                int(i64::MIN),
                Value::Float64(f64::NAN),
                decimal("123456789012345678901234567890.10"),
                text(""),
                Value::Bytes(vec![0, 255, 0]),
                Value::Date(POSITIVE_INFINITY),
                Value::Time(86_399_999_999),
                Value::Timestamp(NEGATIVE_INFINITY),
                Value::Timestamptz(-62_135_596_800_000_001),
                json("{\"b\": 1,  \"a\": 1.0}"),
            ],
        ),
        row(
            2,
            [
                Value::Bool(false),
                int(i64::MAX),
                Value::Float64(-f64::INFINITY),
                decimal("NaN"),
                text("ä\n'\\"),
                Value::Bytes(Vec::new()),
                Value::Date(-800_000),
                Value::Time(0),
                Value::Timestamp(1),
                Value::Timestamptz(POSITIVE_INFINITY),
                json("null"),
            ],
        ),
        row(3, std::array::from_fn(|_| Value::Null)),
    ]
}

fn cells(blocks: &[Block]) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for block in blocks {
        for row in 0..block.rows() {
            all.push(block.columns.iter().map(|column| column.cell(row).to_value()).collect());
        }
    }
    all
}

#[tokio::test]
async fn every_type_comes_back_as_it_was() {
    for columns in [
        "",
        "CREATE TABLE every (id uuid PRIMARY KEY, b boolean, i bigint, f float8, d numeric, \
                         t varchar, y bytea, day date, at time, ts timestamp, tz timestamptz, j json)",
    ] {
        let mut leaf = Leaf::unsubscribed(every_type(), columns).await;
        leaf.subscribe().await.unwrap();
        let rows = edges();
        let report = leaf.download(WHOLE, vec![block(&leaf.schema, "every", Operation::Upsert, &rows)]).await;
        assert_eq!((report.upserts, report.row_errors.len()), (3, 0), "{report:?}");
        leaf.run("UPDATE every SET id = id").await;
        let (_, blocks, _) = leaf.dirty().await;
        assert_eq!(cells(&blocks), rows);
        // What comes down as it is here already is no conflict.
        let report = leaf.download(DELTA, vec![block(&leaf.schema, "every", Operation::Upsert, &rows)]).await;
        assert_eq!((report.upserts, report.conflicts), (0, 0));
        assert!(leaf.dirty().await.0.is_empty());
    }
}

/// Rounded here, a value would go back to the hub with the next edit of its row.
#[tokio::test]
async fn values_that_a_coarser_column_would_make_others_of() {
    let columns = [("id", T::Int64), ("at", T::Timestamp), ("size", T::Float64)];
    for (first, size, refused) in [(DELTA, "real", "2 4"), (WHOLE, "double precision", "2")] {
        let sql = format!("CREATE TABLE item (id bigint PRIMARY KEY, at timestamp(0), size {size})");
        let schema = scope(vec![table(11, "item", &columns)]);
        let mut leaf = Leaf::unsubscribed(schema, &sql).await;
        leaf.subscribe().await.unwrap();
        let row = |id, at, size| [int(id), Value::Timestamp(at), Value::Float64(size)];
        let rows = [
            row(1, 2_000_000, 0.5),
            row(2, 2_000_001, 0.5),
            row(3, POSITIVE_INFINITY, f64::from(0.1_f32)),
            row(4, 0, 0.1),
            row(5, 0, f64::NAN),
            row(6, 0, f64::INFINITY),
        ];
        let report = leaf.download(first, vec![up(&leaf.schema, "item", &rows)]).await;
        let id = |error: &RowError| error.key_json.replace("{\"id\":", "").replace('}', "");
        let errors: Vec<_> = report.row_errors.iter().map(id).collect();
        assert_eq!(errors.join(" "), refused, "{size}");
        assert!(report.row_errors.iter().all(|error| error.reason == RowErrorReason::Type));
        let taken = if size == "real" { "1 3 5 6" } else { "1 3 4 5 6" };
        assert_eq!(leaf.rows("SELECT id FROM item ORDER BY id").await, taken);
    }
}

#[tokio::test]
async fn values_that_a_type_of_the_users_refuses() {
    let sql = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE item (id bigint PRIMARY KEY, name mood)";
    let mut leaf = Leaf::unsubscribed(items(), sql).await;
    leaf.subscribe().await.unwrap();
    leaf.run("INSERT INTO item VALUES (1, 'sad'), (2, 'sad')").await;
    let rows =
        [[int(1), text("great")], [int(2), text("ok")], [int(3), text("sad")], [int(4), text("great")]];
    let report = leaf.download(DELTA, vec![up(&leaf.schema, "item", &rows)]).await;
    assert_eq!((report.upserts, report.conflicts), (2, 2));
    let errors: Vec<_> =
        report.row_errors.iter().map(|error| (error.key_json.as_str(), error.reason)).collect();
    assert_eq!(errors, [("{\"id\":1}", RowErrorReason::Type), ("{\"id\":4}", RowErrorReason::Type)]);
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|sad 2|ok 3|sad");
}

#[tokio::test]
async fn keys_of_several_columns_and_odd_names() {
    let mut schema =
        scope(vec![table(1, "Odd \"name\"", &[("a b", T::Text), ("c'd", T::Decimal), ("x%", T::Text)])]);
    schema.tables[0].key = vec![syncline::ids::ColumnId(2), syncline::ids::ColumnId(1)];
    schema.tables[0].columns[1].not_null = true;
    schema.tables[0].columns[1].precision_scale = Some((10, 2));
    let mut leaf = Leaf::subscribed(schema).await;
    let name = "Odd \"name\"";
    let decimal = |text: &str| Value::Decimal(text.to_owned());
    let rows = [[text("k"), decimal("1.50"), text("v")], [text("l"), decimal("2.00"), text("w")]];
    leaf.download(DELTA, vec![up(&leaf.schema, name, &rows)]).await;
    leaf.run("UPDATE \"Odd \"\"name\"\"\" SET \"x%\" = 'edited' WHERE \"a b\" = 'k'").await;
    leaf.run("DELETE FROM \"Odd \"\"name\"\"\" WHERE \"a b\" = 'l'").await;
    let (dirty, blocks, _) = leaf.dirty().await;
    assert_eq!(dirty, ["+Odd \"name\" \"k\",\"1.50\",\"edited\"", "-Odd \"name\" \"2.00\",\"l\""]);
    leaf.run("TRUNCATE \"Odd \"\"name\"\"\"").await;
    leaf.acknowledge(blocks, &[]).await;
    assert_eq!(leaf.dirty().await.0, ["-Odd \"name\" \"1.50\",\"k\""]);
}

#[tokio::test]
async fn cells_of_type_any_are_taken_where_nothing_is_lost() {
    let mut leaf = Leaf::subscribed(items()).await;
    let ids = leaf.schema.tables[0].columns.iter().map(|column| column.id).collect::<Vec<_>>();
    let mut id = Column::new(ids[0], T::Int64);
    let mut name = Column::new(ids[1], T::Any);
    for (key, value) in [(1, text("a")), (2, int(5)), (3, Value::Null)] {
        id.push(int(key).cell()).unwrap();
        name.push(value.cell()).unwrap();
    }
    let block = Block::new(leaf.schema.tables[0].id, Operation::Upsert, vec![id, name]);
    let report = leaf.download(DELTA, vec![block]).await;
    assert_eq!(report.upserts, 2);
    assert_eq!(report.row_errors[0].key_json, "{\"id\":2}");
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|a 3|NULL");
}

#[tokio::test]
async fn a_column_that_is_not_listed_keeps_its_value() {
    let mut leaf = Leaf::subscribed(items()).await;
    leaf.download(DELTA, vec![up(&leaf.schema, "item", &[[int(1), text("a")]])]).await;
    let mut id = Column::new(leaf.schema.tables[0].columns[0].id, T::Int64);
    id.push(int(1).cell()).unwrap();
    let block = Block::new(leaf.schema.tables[0].id, Operation::Upsert, vec![id]);
    leaf.download(DELTA, vec![block]).await;
    assert_eq!(leaf.rows("SELECT * FROM item").await, "1|a");
}
