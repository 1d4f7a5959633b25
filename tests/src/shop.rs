//! A small shop: what makes trouble, in few tables.

use crate::database::{Database, Rows};

/// The tables, in SQL that both kinds of database read. `employee` refers to itself, `line` has a composite key and goes
/// with its order, `customer.email` is unique, `product.price` is checked.
pub const SCHEMA: &str = "
CREATE TABLE employee (id INTEGER PRIMARY KEY, name VARCHAR(80) NOT NULL, boss INTEGER REFERENCES employee (id));
CREATE TABLE customer (id INTEGER PRIMARY KEY, name VARCHAR(80) NOT NULL, email VARCHAR(80) UNIQUE,
  credit DECIMAL(10,2), employee_id INTEGER REFERENCES employee (id));
CREATE TABLE product (id INTEGER PRIMARY KEY, name VARCHAR(80) NOT NULL,
  price DECIMAL(10,2) NOT NULL CHECK (price >= 0));
CREATE TABLE orders (id VARCHAR(36) PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer (id),
  placed_at TIMESTAMP NOT NULL, note TEXT);
CREATE TABLE line (order_id VARCHAR(36) NOT NULL REFERENCES orders (id) ON DELETE CASCADE, number INTEGER NOT NULL,
  product_id INTEGER NOT NULL REFERENCES product (id), quantity INTEGER NOT NULL, PRIMARY KEY (order_id, number));
";

/// A scope of all tables.
pub const SCOPE: &str = r#"name = "shop"
[[tables]]
name = "employee"
[[tables]]
name = "customer"
[[tables]]
name = "product"
[[tables]]
name = "orders"
[[tables]]
name = "line"
"#;

/// The scope with another policy.
#[must_use]
pub fn scope_with(policy: &str) -> String {
    SCOPE.replacen("name = \"shop\"", &format!("name = \"shop\"\nconflict = \"{policy}\""), 1)
}

/// Makes tables and `customers` customers, each with an order of two lines.
pub async fn fill(database: &Database, customers: u32) {
    database.execute(SCHEMA).await;
    let mut script = String::from(
        "INSERT INTO employee VALUES (1, 'Ada', NULL), (2, 'Ben', 1);
         INSERT INTO product VALUES (1, 'pen', 1.50), (2, 'ink', 12.25);",
    );
    for id in 1..=customers {
        script.push_str(&format!(
            "INSERT INTO customer VALUES ({id}, 'customer {id}', 'c{id}@example.org', {id}.25, {});
             INSERT INTO orders VALUES ('o{id}', {id}, '2026-01-01 10:00:00', 'first');
             INSERT INTO line VALUES ('o{id}', 1, 1, {id}), ('o{id}', 2, 2, 1);",
            1 + id % 2
        ));
    }
    database.execute(&script).await;
}

/// All rows of all tables.
pub async fn contents(database: &Database) -> Vec<(&'static str, Rows)> {
    let tables: [(&str, &[&str], &[&str]); 5] = [
        ("employee", &["id"], &["name", "boss"]),
        ("customer", &["id"], &["name", "email", "credit", "employee_id"]),
        ("product", &["id"], &["name", "price"]),
        ("orders", &["id"], &["customer_id", "placed_at", "note"]),
        ("line", &["order_id", "number"], &["product_id", "quantity"]),
    ];
    let mut contents = Vec::new();
    for (table, key, columns) in tables {
        contents.push((table, database.rows(table, key, columns).await));
    }
    contents
}

/// Asserts that two databases hold the same rows.
///
/// # Panics
/// If they don't, naming the first table that differs.
pub async fn assert_same(left: &Database, right: &Database) {
    for ((table, left), (_, right)) in contents(left).await.into_iter().zip(contents(right).await) {
        assert_eq!(left, right, "{table} differs");
    }
}

/// Products that do not compress well, so that they take some hundred kilobytes in many small batches.
#[must_use]
pub fn bulk(rows: u32) -> String {
    let mut next = numbers();
    let values: Vec<_> = (1..=rows)
        .map(|row| {
            format!("({}, '{:016x}{:016x}{:016x}', {}.25)", 1_000 + row, next(), next(), next(), row % 1_000)
        })
        .collect();
    format!("INSERT INTO product VALUES {}", values.join(", "))
}

/// Orders with notes of 8,000 characters that compress to half of that.
#[must_use]
pub fn bulk_notes(rows: u32) -> String {
    let mut next = numbers();
    let values: Vec<_> = (1..=rows)
        .map(|row| {
            let note: String = (0..500).map(|_| format!("{:016x}", next())).collect();
            format!("('b{row}', 1, '2026-01-01 10:00:00', '{note}')")
        })
        .collect();
    format!("INSERT INTO orders VALUES {}", values.join(", "))
}

/// SplitMix64: the same numbers in every run.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
