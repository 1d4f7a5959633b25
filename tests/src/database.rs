//! A database that any program could write to: with plain SQL, and without knowing of us.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ValueRef;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use syncline_engine::throwaway::ThrowawayCluster;

/// The kind of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A SQLite file.
    Sqlite,
    /// A PostgreSQL database in a throw-away cluster.
    Postgres,
}

/// All pairings of a hub's and a leaf's kind.
pub const PAIRINGS: [(Kind, Kind); 4] = [
    (Kind::Sqlite, Kind::Sqlite),
    (Kind::Postgres, Kind::Sqlite),
    (Kind::Sqlite, Kind::Postgres),
    (Kind::Postgres, Kind::Postgres),
];

/// A database.
#[derive(Debug, Clone)]
pub enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// The URL of a PostgreSQL database.
    Postgres(String),
}

/// The rows of a table, by key: all cells as text.
pub type Rows = BTreeMap<String, Vec<Option<String>>>;

impl Database {
    /// A new, empty database; a file is made in `directory`.
    pub async fn new(kind: Kind, directory: &Path, name: &str) -> Self {
        match kind {
            Kind::Sqlite => Self::Sqlite(directory.join(format!("{name}.db"))),
            Kind::Postgres => Self::Postgres(ThrowawayCluster::shared().fresh_database()),
        }
    }

    /// As the command line names it.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(url) => url.clone(),
        }
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Sqlite(_) => Kind::Sqlite,
            Self::Postgres(_) => Kind::Postgres,
        }
    }

    /// Runs a script in one transaction, as an application does.
    ///
    /// # Panics
    /// If it fails.
    pub async fn execute(&self, script: &str) {
        self.try_execute(script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
    }

    /// Runs a script in one transaction.
    ///
    /// # Errors
    /// What the database says.
    pub async fn try_execute(&self, script: &str) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(path) => {
                let (path, script) = (path.clone(), script.to_owned());
                tokio::task::spawn_blocking(move || {
                    open(&path)
                        .execute_batch(&format!("BEGIN IMMEDIATE; {script}; COMMIT"))
                        .map_err(Into::into)
                })
                .await?
            }
            Self::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await?;
                let script = format!("BEGIN; {script}; COMMIT");
                sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await?;
                connection.close().await?;
                Ok(())
            }
        }
    }

    /// A table's rows, by key. Cells are compared as text, in a form that both kinds of database agree on.
    ///
    /// # Panics
    /// If the table can't be read.
    pub async fn rows(&self, table: &str, key: &[&str], columns: &[&str]) -> Rows {
        let all: Vec<&str> = key.iter().chain(columns).copied().collect();
        let cells = match self {
            Self::Sqlite(path) => sqlite_cells(path.clone(), table, &all).await,
            Self::Postgres(url) => postgres_cells(url, table, &all).await,
        };
        let by_key = |row: Vec<Option<String>>| {
            let (key, cells) = row.split_at(key.len());
            (
                key.iter().map(|cell| cell.clone().unwrap_or_default()).collect::<Vec<_>>().join("/"),
                cells.to_vec(),
            )
        };
        cells.into_iter().map(by_key).collect()
    }

    /// One number.
    ///
    /// # Panics
    /// If the query fails.
    pub async fn count(&self, query: &str) -> i64 {
        match self {
            Self::Sqlite(path) => open(path).query_row(query, [], |row| row.get(0)).unwrap(),
            Self::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                let row =
                    sqlx::query(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await.unwrap();
                row.get(0)
            }
        }
    }
}

/// A connection as an application opens it.
///
/// # Panics
/// If the file can't be opened.
#[must_use]
pub fn open(path: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    connection
}

async fn sqlite_cells(path: PathBuf, table: &str, columns: &[&str]) -> Vec<Vec<Option<String>>> {
    let query = format!("SELECT {} FROM \"{table}\"", columns.join(", "));
    let width = columns.len();
    tokio::task::spawn_blocking(move || {
        let connection = open(&path);
        let mut statement = connection.prepare(&query).unwrap();
        let rows =
            statement.query_map([], |row| (0..width).map(|cell| Ok(text(row.get_ref(cell)?))).collect());
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    })
    .await
    .unwrap()
}

fn text(cell: ValueRef<'_>) -> Option<String> {
    match cell {
        ValueRef::Null => None,
        ValueRef::Integer(value) => Some(value.to_string()),
        // Decimals of two digits are what the tests use.
        ValueRef::Real(value) => Some(format!("{value:.2}")),
        ValueRef::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

async fn postgres_cells(url: &str, table: &str, columns: &[&str]) -> Vec<Vec<Option<String>>> {
    let list: Vec<_> = columns.iter().map(|column| format!("{column}::text")).collect();
    let query = format!("SELECT {} FROM \"{table}\"", list.join(", "));
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| (0..columns.len()).map(|cell| row.get(cell)).collect()).collect()
}
