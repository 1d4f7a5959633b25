//! Goal: what is stored comes back byte for byte, whatever it is and whatever the column is declared as. Method: random
//! and odd values in every column of one file, carried to another.

use proptest::prelude::*;
use rusqlite::types::{Value as Stored, ValueRef};
use syncline::ids::ReplicaId;
use syncline::knowledge::Knowledge;
use syncline::value::{CanonicalType, Cell};

use super::super::types::{Affinity, Form, as_ref, canonical_type, declared_type, stored, typed_cell};
use super::support::*;
use crate::replica::ChangesMode;
use crate::store::LeafStore;

/// All but JSON: a column declared so keeps numbers as numbers, and is created as text at a leaf.
const DECLARED: &[&str] = &[
    "INTEGER",
    "INT",
    "BIGINT",
    "BOOLEAN",
    "REAL",
    "DOUBLE PRECISION",
    "DECIMAL(10,2)",
    "NUMERIC(15,4)",
    "NUMERIC",
    "DECIMAL(30,5)",
    "TEXT",
    "VARCHAR(20)",
    "BLOB",
    "DATE",
    "TIME",
    "DATETIME",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "UUID",
    "",
];

fn odd() -> Vec<Stored> {
    let texts = [
        "",
        "a",
        "ü\u{0}x",
        "12",
        "1.50",
        "-0",
        "1e3",
        "2009-1-1",
        "2009-01-01",
        "2009-01-01 10:00:00",
        "2009-01-01 10:00:00.5",
        "2009-01-01 10:00:00.50",
        "2009-01-01 10:00:00+00:00",
        "23:59:59.999999",
        "24:00:00",
        "infinity",
        "-infinity",
        "+10000-01-01",
        "-0044-03-15",
        "true",
        "NaN",
        "Infinity",
        "{\"a\": 1.0}",
        "6f2c1b1e-0000-4000-8000-00000000000a",
        "6F2C1B1E-0000-4000-8000-00000000000A",
    ];
    let reals = [0.0, -0.0, 1.5, 0.1, 1e15, 1e300, -1e-300, 123_456.78, 1.005, f64::INFINITY, 5.0, 99.99];
    let integers = [0, 1, 2, -1, i64::MAX, i64::MIN, 1 << 53];
    let blobs = [vec![], vec![0], b"text".to_vec(), vec![255; 16]];
    texts
        .iter()
        .map(|text| Stored::Text((*text).to_owned()))
        .chain(reals.iter().map(|real| Stored::Real(*real)))
        .chain(integers.iter().map(|integer| Stored::Integer(*integer)))
        .chain(blobs.into_iter().map(Stored::Blob))
        .chain([Stored::Null])
        .collect()
}

fn create() -> String {
    let columns = DECLARED.iter().enumerate().map(|(place, declared)| format!("c{place} {declared}"));
    format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {})", columns.collect::<Vec<_>>().join(", "))
}

/// Every value in every column, carried to a file that the schema creates.
async fn carry(values: &[Stored]) {
    let (hub, scope) = File::hub(&create(), &["t"]).await;
    for (row, value) in values.iter().enumerate() {
        let bound = vec!["?2"; DECLARED.len()].join(", ");
        let sql = format!("INSERT INTO t VALUES (?1, {bound})");
        hub.app.execute(&sql, rusqlite::params![row as i64, value]).unwrap();
    }
    let leaf = File::new("").await;
    leaf.database.subscribe(&scope.schema, ReplicaId::fresh()).await.unwrap();
    // One row a block, and all rows in one block: columns are typed in the one, and often `any` in the other.
    for block_bytes_max in [1, 1 << 20] {
        let mut all = plan(
            vec![crate::store::Part::Whole { table: scope.tables[0].id, after: None }],
            Knowledge::new(),
            None,
        );
        all.block_bytes_max = block_bytes_max;
        let sent = hub.enumerate(&scope, all).await.unwrap();
        let blocks = sent.blocks.into_iter().map(|block| block.block).collect();
        leaf.run(
            "UPDATE syncline_state SET writing = 1; DELETE FROM t; UPDATE syncline_state SET writing = 0",
        );
        let report =
            download(&leaf, &scope, ChangesMode::WholeView, vec![blocks], &sent.knowledge).await.unwrap();
        assert!(report.row_errors.is_empty(), "{:?}", report.row_errors);
        for (place, declared) in DECLARED.iter().enumerate() {
            let sql = format!("SELECT id, typeof(c{place}), quote(c{place}) FROM t ORDER BY id");
            assert_eq!(leaf.ask(&sql), hub.ask(&sql), "declared {declared:?}");
        }
    }
}

#[tokio::test]
async fn odd_values_come_back_byte_for_byte_in_any_column() {
    carry(&odd()).await;
}

#[test]
fn declared_names_are_read_as_users_write_them() {
    use CanonicalType as T;
    let table = [
        ("INTEGER", T::Int64),
        ("unsigned big int", T::Int64),
        ("int8", T::Int64),
        ("INTERVAL", T::Any),
        ("POINT", T::Any),
        ("boolean", T::Bool),
        ("nvarchar(100)", T::Text),
        ("double precision", T::Float64),
        ("FLOAT", T::Float64),
        ("DECIMAL(10,2)", T::Decimal),
        ("NUMERIC", T::Any),
        ("NUMERIC(20, 4)", T::Any),
        ("datetime", T::Timestamp),
        ("TIMESTAMP WITH TIME ZONE", T::Timestamptz),
        ("UUID", T::Uuid),
        ("JSON", T::Json),
        ("", T::Any),
        ("geometry", T::Any),
    ];
    for (declared, expected) in table {
        assert_eq!(canonical_type(declared).0, expected, "{declared}");
    }
    // What we declare is read as what we meant, but for types that have to be kept as text.
    for ty in T::ALL.iter().filter(|ty| !matches!(ty, T::Uint64 | T::Decimal | T::Json)) {
        assert_eq!(canonical_type(&declared_type(*ty, None)).0, *ty);
    }
    assert_eq!(canonical_type(&declared_type(T::Decimal, Some((10, 2)))), (T::Decimal, Some((10, 2))));
}

#[test]
fn decimals_are_stored_as_numbers_only_where_that_is_exact() {
    let form = Form { ty: CanonicalType::Decimal, affinity: Affinity::Numeric, scale: Some(2) };
    let check = |digits: &str, expected: Option<ValueRef<'_>>| {
        let value = stored(form, Cell::Decimal(digits));
        assert_eq!(value.as_ref().ok().map(as_ref), expected, "{digits}");
    };
    check("1.50", Some(ValueRef::Real(1.5)));
    check("2.00", Some(ValueRef::Integer(2)));
    check("-0.01", Some(ValueRef::Real(-0.01)));
    check("1.5", Some(ValueRef::Real(1.5)));
    check("0.12345678901234567", None);
    check("99999999999999999999", None);
    check("NaN", None);
    let mut scratch = String::new();
    let cell = typed_cell(form, ValueRef::Real(1.5), &mut scratch);
    assert_eq!(cell, Some(Cell::Decimal("1.50")));
}

fn any_value() -> impl Strategy<Value = Stored> {
    prop_oneof![
        any::<i64>().prop_map(Stored::Integer),
        (-1_000_i64..1_000).prop_map(Stored::Integer),
        any::<f64>().prop_filter("SQLite has no NaN", |real| !real.is_nan()).prop_map(Stored::Real),
        (-100_000_i64..100_000).prop_map(|cents| Stored::Real(cents as f64 / 100.0)),
        ".{0,12}".prop_map(Stored::Text),
        "[-+]?[0-9]{1,6}(\\.[0-9]{0,4})?".prop_map(Stored::Text),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,6})?(\\+00:00)?)?"
            .prop_map(Stored::Text),
        proptest::collection::vec(any::<u8>(), 0..8).prop_map(Stored::Blob),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The invariant of the module, against SQLite itself: what it stored for a value is what comes back.
    #[test]
    fn a_typed_cell_is_stored_as_the_very_same_value(value in any_value(), declared in 0..DECLARED.len()) {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let declared = DECLARED[declared];
        connection.execute_batch(&format!("CREATE TABLE t (c {declared})")).unwrap();
        connection.execute("INSERT INTO t VALUES (?1)", [&value]).unwrap();
        let held: Stored = connection.query_row("SELECT c FROM t", [], |row| row.get(0)).unwrap();
        let (ty, precision_scale) = canonical_type(declared);
        let scale = precision_scale.map(|(_, scale)| scale);
        let form = Form { ty, affinity: Affinity::of(declared), scale };
        // At a leaf whose table we created.
        let there = declared_type(ty, precision_scale);
        let leaf = Form { affinity: Affinity::of(&there), ..form };
        connection.execute_batch(&format!("CREATE TABLE l (c {there})")).unwrap();
        let mut scratch = String::new();
        if let Some(cell) = typed_cell(form, (&held).into(), &mut scratch) {
            for (form, table) in [(form, "t"), (leaf, "l")] {
                let bound = stored(form, cell).unwrap();
                connection.execute(&format!("DELETE FROM {table}"), []).unwrap();
                connection.execute(&format!("INSERT INTO {table} VALUES (?1)"), [&bound]).unwrap();
                let back: Stored = connection.query_row(&format!("SELECT c FROM {table}"), [], |row| row.get(0)).unwrap();
                prop_assert_eq!(&back, &held, "declared {} as {:?}", declared, ty);
            }
        }
    }
}
