//! Our own tables whose shape is the same in every database: sessions, batches, leaves, conflicts, subscriptions.
//!
//! A [`Statement`] is a value: SQL that SQLite and PostgreSQL both read, with its parameters. Each dialect runs it, in a
//! transaction of its own ([`MetaTx`]) or in that of an apply. In the text our tables have the prefix `syncline_`; for
//! PostgreSQL it is turned into the schema `syncline`. Parameters are `$1`, `$2`, ... in the order in which they first
//! stand in the text (SQLite numbers them so). All integers are 64-bit, ids are 16 bytes, documents are JSON text.

pub mod applies;
pub mod batches;
pub mod conflicts;
pub mod leaves;
pub mod row_errors;
pub mod sessions;
pub mod state;
pub mod subscriptions;

use async_trait::async_trait;
use syncline::error::{Result, SyncError};

/// A parameter or a column of a row. NULL keeps its type: PostgreSQL wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaValue {
    /// A number.
    Int(Option<i64>),
    /// Text.
    Text(Option<String>),
    /// Bytes.
    Bytes(Option<Vec<u8>>),
}

/// A statement with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text; see the module on its form.
    pub sql: &'static str,
    /// The parameters, in order.
    pub parameters: Vec<MetaValue>,
}

impl Statement {
    /// A statement.
    #[must_use]
    pub fn new(sql: &'static str, parameters: impl Into<Vec<MetaValue>>) -> Self {
        Self { sql, parameters: parameters.into() }
    }

    /// The text for a database that has schemas.
    #[must_use]
    pub fn sql_with_schema(&self) -> String {
        self.sql.replace("syncline_", "syncline.")
    }
}

/// A row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRow(pub Vec<MetaValue>);

impl MetaRow {
    /// A number that is never NULL.
    ///
    /// # Errors
    /// INTERNAL if it is: our own tables are not as they should be.
    pub fn int(&self, column: usize) -> Result<i64> {
        self.int_or_null(column)?.ok_or_else(|| unexpected(column))
    }

    /// A number or NULL.
    ///
    /// # Errors
    /// INTERNAL if it is something else.
    pub fn int_or_null(&self, column: usize) -> Result<Option<i64>> {
        match self.0.get(column) {
            Some(MetaValue::Int(value)) => Ok(*value),
            // SQLite can't tell the type of a NULL.
            Some(MetaValue::Text(None) | MetaValue::Bytes(None)) => Ok(None),
            _ => Err(unexpected(column)),
        }
    }

    /// Text that is never NULL.
    ///
    /// # Errors
    /// INTERNAL if it is.
    pub fn text(&self, column: usize) -> Result<&str> {
        match self.0.get(column) {
            Some(MetaValue::Text(Some(value))) => Ok(value),
            _ => Err(unexpected(column)),
        }
    }

    /// Text or NULL.
    ///
    /// # Errors
    /// INTERNAL if it is something else.
    pub fn text_or_null(&self, column: usize) -> Result<Option<&str>> {
        match self.0.get(column) {
            Some(MetaValue::Text(value)) => Ok(value.as_deref()),
            Some(MetaValue::Int(None) | MetaValue::Bytes(None)) => Ok(None),
            _ => Err(unexpected(column)),
        }
    }

    /// Bytes that are never NULL.
    ///
    /// # Errors
    /// INTERNAL if they are.
    pub fn bytes(&self, column: usize) -> Result<&[u8]> {
        self.bytes_or_null(column)?.ok_or_else(|| unexpected(column))
    }

    /// Bytes or NULL.
    ///
    /// # Errors
    /// INTERNAL if it is something else.
    pub fn bytes_or_null(&self, column: usize) -> Result<Option<&[u8]>> {
        match self.0.get(column) {
            Some(MetaValue::Bytes(value)) => Ok(value.as_deref()),
            Some(MetaValue::Int(None) | MetaValue::Text(None)) => Ok(None),
            _ => Err(unexpected(column)),
        }
    }
}

fn unexpected(column: usize) -> SyncError {
    SyncError::internal(format!("column {column} of one of our own tables is not as it should be"))
}

impl From<i64> for MetaValue {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for MetaValue {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<String> for MetaValue {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<&str> for MetaValue {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<&[u8]> for MetaValue {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(value.to_owned()))
    }
}

impl From<Option<&[u8]>> for MetaValue {
    fn from(value: Option<&[u8]>) -> Self {
        Self::Bytes(value.map(<[u8]>::to_owned))
    }
}

/// A database that runs statements of ours.
#[async_trait]
pub trait MetaStore: Send + Sync {
    /// Opens a durable read-write transaction. SQLite holds the file's write lock from the first statement to its end.
    async fn begin(&self) -> Result<Box<dyn MetaTx>>;

    /// As [`begin`](Self::begin), but the commit does not wait for the disk. A crash of the database may lose it, and then
    /// loses whatever was committed after it too: the next durable commit makes both durable.
    async fn begin_losable(&self) -> Result<Box<dyn MetaTx>>;

    /// Runs one statement that only reads.
    async fn read(&self, statement: Statement) -> Result<Vec<MetaRow>>;

    /// Something that looks for commits, on a connection of its own.
    async fn commits(&self) -> Result<Box<dyn Commits>>;
}

/// Looks for commits, by whatever program. A look is cheap, and costs writers nothing.
#[async_trait]
pub trait Commits: Send {
    /// Whether something may have been committed since the last look; the first one says yes. Whatever was committed
    /// before the call is seen by it, or was by an earlier one.
    ///
    /// # Errors
    /// If the database can't be reached; then this can't be used any more.
    async fn look(&mut self) -> Result<bool>;
}

/// A transaction of ours. Dropped, it is rolled back.
#[async_trait]
pub trait MetaTx: Send {
    /// Runs a statement and answers its rows.
    async fn run(&mut self, statement: Statement) -> Result<Vec<MetaRow>> {
        let mut answers = self.run_all(vec![statement]).await?;
        answers.pop().ok_or_else(|| SyncError::internal("a statement has no answer"))
    }

    /// Runs statements, one after the other, and answers the rows of each.
    async fn run_all(&mut self, statements: Vec<Statement>) -> Result<Vec<Vec<MetaRow>>>;

    /// Commits. An error says whether the outcome is unknown.
    async fn commit(self: Box<Self>) -> Result<()>;
}
