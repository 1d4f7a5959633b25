//! Runs the statements of our own tables.

use async_trait::async_trait;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};
use syncline::error::{Result, SyncError};

use super::SqliteDatabase;
use super::commits::SqliteCommits;
use super::connection::{WriteTransaction, blocking};
use super::errors::DatabaseResult as _;
use crate::dialect::meta::{Commits, MetaRow, MetaStore, MetaTx, MetaValue, Statement};

#[async_trait]
impl MetaStore for SqliteDatabase {
    async fn begin(&self) -> Result<Box<dyn MetaTx>> {
        let transaction = self.connections().begin().await?;
        Ok(Box::new(SqliteMetaTx { transaction: Some(transaction) }))
    }

    async fn begin_losable(&self) -> Result<Box<dyn MetaTx>> {
        let transaction = self.connections().begin_losable().await?;
        Ok(Box::new(SqliteMetaTx { transaction: Some(transaction) }))
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

struct SqliteMetaTx {
    // `None` while statements run, and after one was cancelled.
    transaction: Option<WriteTransaction>,
}

#[async_trait]
impl MetaTx for SqliteMetaTx {
    async fn run_all(&mut self, statements: Vec<Statement>) -> Result<Vec<Vec<MetaRow>>> {
        let transaction = self.take()?;
        let (transaction, rows) = blocking(move || {
            let rows = statements.iter().map(|statement| run(transaction.connection(), statement)).collect();
            Ok((transaction, rows))
        })
        .await?;
        self.transaction = Some(transaction);
        rows
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let transaction = self.take()?;
        blocking(move || transaction.commit()).await
    }
}

impl SqliteMetaTx {
    fn take(&mut self) -> Result<WriteTransaction> {
        self.transaction.take().ok_or_else(|| SyncError::internal("a transaction is used after it ended"))
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
