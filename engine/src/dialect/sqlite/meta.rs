//! Runs the statements of our own tables.

use async_trait::async_trait;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};
use syncline::error::{Result, SyncError};
use tokio::sync::OwnedMutexGuard;

use super::SqliteDatabase;
use super::commits::SqliteCommits;
use super::connection::{WriteTransaction, blocking};
use super::errors::DatabaseResult as _;
use crate::dialect::meta::{Commits, MetaRow, MetaStore, MetaTx, MetaValue, Statement};

#[async_trait]
impl MetaStore for SqliteDatabase {
    async fn begin(&self) -> Result<Box<dyn MetaTx>> {
        Ok(Box::new(SqliteMetaTx(Some(State::Durable(self.connections().writer().await)))))
    }

    async fn begin_losable(&self) -> Result<Box<dyn MetaTx>> {
        Ok(Box::new(SqliteMetaTx(Some(State::Losable(self.connections().writer().await)))))
    }

    async fn read(&self, statement: Statement) -> Result<Vec<MetaRow>> {
        let connections = self.connections().clone();
        blocking(move || {
            let reader = connections.begin_read()?;
            run(reader.connection(), &statement)
        })
        .await
    }

    async fn commits(&self) -> Result<Box<dyn Commits>> {
        let connections = self.connections().clone();
        let connection = blocking(move || connections.open_reader()).await?;
        Ok(Box::new(SqliteCommits::new(connection)))
    }
}

/// `None` while statements run, and after some were cancelled.
struct SqliteMetaTx(Option<State>);

/// A transaction begins with its first statement: both in one trip to another thread.
enum State {
    Durable(OwnedMutexGuard<Connection>),
    Losable(OwnedMutexGuard<Connection>),
    Begun(WriteTransaction),
}

impl State {
    /// Blocks.
    fn begin(self) -> Result<WriteTransaction> {
        match self {
            Self::Durable(writer) => WriteTransaction::begin(writer),
            Self::Losable(writer) => WriteTransaction::begin_losable(writer),
            Self::Begun(transaction) => Ok(transaction),
        }
    }
}

#[async_trait]
impl MetaTx for SqliteMetaTx {
    async fn run_all(&mut self, statements: Vec<Statement>) -> Result<Vec<Vec<MetaRow>>> {
        let state = self.take()?;
        let (transaction, rows) = blocking(move || {
            let transaction = state.begin()?;
            let rows = statements.iter().map(|statement| run(transaction.connection(), statement)).collect();
            Ok((transaction, rows))
        })
        .await?;
        self.0 = Some(State::Begun(transaction));
        rows
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        match self.take()? {
            State::Begun(transaction) => blocking(move || transaction.commit()).await,
            // Nothing was done in it.
            State::Durable(_) | State::Losable(_) => Ok(()),
        }
    }
}

impl SqliteMetaTx {
    fn take(&mut self) -> Result<State> {
        self.0.take().ok_or_else(|| SyncError::internal("a transaction is used after it ended"))
    }
}

impl ToSql for MetaValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Self::Int(value) => value.map_or(ValueRef::Null, ValueRef::Integer),
            Self::Text(value) => {
                value.as_ref().map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes()))
            }
            Self::Bytes(value) => value.as_ref().map_or(ValueRef::Null, |bytes| ValueRef::Blob(bytes)),
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

/// Runs a statement and answers its rows. Blocks.
pub(super) fn run(connection: &Connection, statement: &Statement) -> Result<Vec<MetaRow>> {
    let mut prepared = connection.prepare_cached(statement.sql).db()?;
    let columns = prepared.column_count();
    let mut rows = prepared.query(rusqlite::params_from_iter(&statement.parameters)).db()?;
    let mut answer = Vec::new();
    while let Some(row) = rows.next().db()? {
        let values =
            (0..columns).map(|column| row.get_ref(column).db().and_then(to_meta)).collect::<Result<_>>()?;
        answer.push(MetaRow(values));
    }
    Ok(answer)
}

fn to_meta(value: ValueRef<'_>) -> Result<MetaValue> {
    Ok(match value {
        ValueRef::Null => MetaValue::Int(None),
        ValueRef::Integer(value) => MetaValue::Int(Some(value)),
        ValueRef::Real(_) => return Err(SyncError::internal("a float in one of our own tables")),
        ValueRef::Text(text) => {
            MetaValue::Text(Some(std::str::from_utf8(text).map_err(SyncError::internal)?.to_owned()))
        }
        ValueRef::Blob(bytes) => MetaValue::Bytes(Some(bytes.to_owned())),
    })
}
