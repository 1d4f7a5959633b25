//! The demo's shop: what an application would have in its database, and what it does there with plain SQL.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

/// The scope file of the demo.
pub(super) const SCOPE: &str = include_str!("shop.toml");
const SCHEMA: &str = include_str!("shop.sql");

/// Rows that the shop begins with.
pub(super) const CUSTOMERS: u32 = 600;
pub(super) const PRODUCTS: u32 = 200;
pub(super) const ORDERS: u32 = 2_400;

/// The tables, in the order in which they are compared and counted.
const TABLES: [&str; 4] = ["customer", "product", "purchase", "purchase_line"];

/// Any failure of the application's own database.
pub(super) type Result<T> = rusqlite::Result<T>;

/// Opens a database as an application does: through its own connection, knowing nothing of Syncline.
pub(super) fn open(file: &Path) -> Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// Makes the tables, and fills them.
pub(super) fn create(file: &Path) -> Result<u64> {
    let mut connection = open(file)?;
    connection.execute_batch(SCHEMA)?;
    let writing = connection.transaction()?;
    customers(&writing)?;
    products(&writing)?;
    purchases(&writing)?;
    writing.commit()?;
    count(&connection)
}

fn customers(writing: &Transaction<'_>) -> Result<()> {
    const FIRST: [&str; 8] = ["Ada", "Grace", "Edsger", "Barbara", "Donald", "Frances", "Alan", "Radia"];
    const LAST: [&str; 5] = ["Keller", "Okafor", "Lindqvist", "Marino", "Tanaka"];
    let mut insert =
        writing.prepare("INSERT INTO customer (id, name, email, city) VALUES (?1, ?2, ?3, ?4)")?;
    for id in 1..=CUSTOMERS {
        let at = id as usize;
        let (first, last) = (FIRST[at % FIRST.len()], LAST[at / FIRST.len() % LAST.len()]);
        let city = ["Basel", "Lagos", "Uppsala", "Torino"][at % 4];
        insert.execute(params![id, format!("{first} {last}"), format!("customer{id}@example.org"), city])?;
    }
    Ok(())
}

fn products(writing: &Transaction<'_>) -> Result<()> {
    let mut insert =
        writing.prepare("INSERT INTO product (id, name, price, stock) VALUES (?1, ?2, ?3, ?4)")?;
    for id in 1..=PRODUCTS {
        let price = f64::from(id * 37 % 9_000 + 100) / 100.0;
        insert.execute(params![id, format!("Product {id:03}"), price, id * 7 % 90])?;
    }
    Ok(())
}

fn purchases(writing: &Transaction<'_>) -> Result<()> {
    let mut purchase = writing
        .prepare("INSERT INTO purchase (id, customer, ordered_on, reference) VALUES (?1, ?2, date('2024-01-01', ?3), ?4)")?;
    let mut line = writing.prepare(
        "INSERT INTO purchase_line (purchase, line, product, quantity, serial) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for id in 1..=ORDERS {
        purchase.execute(params![id, id * 13 % CUSTOMERS + 1, format!("+{} days", id % 700), code(id)])?;
        for number in 1..=(id % 3 + 1) {
            line.execute(params![
                id,
                number,
                (id * 31 + number * 7) % PRODUCTS + 1,
                number,
                code(id * 4 + number)
            ])?;
        }
    }
    Ok(())
}

/// A code that looks drawn, and is the same every time: real data does not compress to nothing either.
fn code(number: u32) -> String {
    let mixed = |salt: u64| {
        let mut bits = (u64::from(number) + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits ^ (bits >> 27)
    };
    format!("{:016x}{:016x}", mixed(0), mixed(1 << 40))
}

/// An application's work, in one transaction.
pub(super) fn write<T>(file: &Path, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let mut connection = open(file)?;
    let writing = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&writing)?;
    writing.commit()?;
    Ok(done)
}

/// 40 products become dearer.
pub(super) fn raise_prices(shop: &Connection) -> Result<usize> {
    shop.execute("UPDATE product SET price = round(price * 1.05, 2) WHERE id % 5 = 0", [])
}

/// A customer who was not there, and what she buys.
pub(super) fn new_purchase(shop: &Connection) -> Result<()> {
    shop.execute_batch(
        "INSERT INTO customer (id, name, email, city) VALUES (9001, 'Katherine Sousa', 'k@example.org', 'Porto');
         INSERT INTO purchase (id, customer, ordered_on, reference) VALUES (90001, 9001, '2026-01-15', 'web');
         INSERT INTO purchase_line (purchase, line, product, quantity, serial)
         VALUES (90001, 1, 11, 1, 'a'), (90001, 2, 23, 4, 'b'), (90001, 3, 42, 2, 'c');",
    )
}

/// 25 customers move.
pub(super) fn move_customers(shop: &Connection) -> Result<usize> {
    shop.execute("UPDATE customer SET city = 'Lisboa' WHERE id % 24 = 1", [])
}

/// The customer of the conflict moves.
pub(super) fn set_city(shop: &Connection, city: &str) -> Result<usize> {
    shop.execute("UPDATE customer SET city = ?1 WHERE id = 7", [city])
}

/// Purchases go, and their lines with them.
pub(super) fn delete_old_purchases(shop: &Connection) -> Result<usize> {
    shop.execute("DELETE FROM purchase WHERE id <= 30", [])
}

/// Purchases go, their lines before them: tables that were made at a leaf have no cascades.
pub(super) fn delete_recent_purchases(shop: &Connection) -> Result<usize> {
    shop.execute("DELETE FROM purchase_line WHERE purchase BETWEEN 2391 AND 2400", [])?;
    shop.execute("DELETE FROM purchase WHERE id BETWEEN 2391 AND 2400", [])
}

/// All rows of the shop.
pub(super) fn count(connection: &Connection) -> Result<u64> {
    let mut rows = 0;
    for table in TABLES {
        let query = format!("SELECT count(*) FROM {table}");
        rows += u64::from(connection.query_row(&query, [], |row| row.get::<_, u32>(0))?);
    }
    Ok(rows)
}

/// Every row of the shop as text, table by table in key order: equal texts are equal rows, types included.
pub(super) fn content(file: &Path) -> Result<Vec<String>> {
    let connection = open(file)?;
    let mut content = Vec::new();
    for table in TABLES {
        let mut query = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))?;
        let columns = query.column_count();
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let cells: Result<Vec<String>> =
                (0..columns).map(|column| Ok(format!("{:?}", row.get_ref(column)?))).collect();
            content.push(format!("{table} {}", cells?.join(" ")));
        }
    }
    Ok(content)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_shop_is_full_and_the_same_every_time() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("1.db"), directory.path().join("2.db"));
        let rows = create(&one).unwrap();
        assert_eq!(rows, u64::from(CUSTOMERS + PRODUCTS + ORDERS + 2 * ORDERS));
        create(&two).unwrap();
        assert_eq!(content(&one).unwrap(), content(&two).unwrap());
        assert_eq!(content(&one).unwrap().len() as u64, rows);
    }

    #[test]
    fn one_cell_that_differs_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("1.db");
        create(&file).unwrap();
        let before = content(&file).unwrap();
        open(&file).unwrap().execute("UPDATE product SET price = '1' WHERE id = 7", []).unwrap();
        assert_eq!(before.iter().zip(content(&file).unwrap()).filter(|(a, b)| **a != *b).count(), 1);
    }

    #[test]
    fn the_edits_change_what_the_demo_says() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("1.db");
        create(&file).unwrap();
        assert_eq!(write(&file, raise_prices).unwrap(), 40);
        assert_eq!(write(&file, move_customers).unwrap(), 25);
        assert_eq!(write(&file, |shop| set_city(shop, "Napoli")).unwrap(), 1);
        write(&file, new_purchase).unwrap();
        assert_eq!(write(&file, delete_old_purchases).unwrap(), 30);
        assert_eq!(write(&file, delete_recent_purchases).unwrap(), 10);
    }

    #[test]
    fn the_scope_file_is_good() {
        let scope = syncline_engine::scope::parse(SCOPE).unwrap();
        let tables: Vec<&str> = scope.tables.iter().map(|table| table.name.value.as_str()).collect();
        assert_eq!(tables, TABLES);
    }
}
