//! Our own tables: statements that both databases read, run in transactions of their own or in those of others.

use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Column as _, PgConnection, Postgres, Row as _, Transaction, TypeInfo as _};
use syncline::error::{Result, SyncError};

use super::commits::PostgresCommits;
use super::{PostgresDatabase, errors, statements};
use crate::dialect::meta::{Commits, MetaRow, MetaStore, MetaTx, MetaValue, Statement};

/// A transaction over our own tables.
struct PostgresMetaTx(Transaction<'static, Postgres>);

#[async_trait]
impl MetaStore for PostgresDatabase {
    async fn begin(&self) -> Result<Box<dyn MetaTx>> {
        Ok(Box::new(PostgresMetaTx(self.begin_durable().await?)))
    }

    async fn begin_losable(&self) -> Result<Box<dyn MetaTx>> {
        Ok(Box::new(PostgresMetaTx(self.begin_losable_transaction().await?)))
    }

    async fn read(&self, statement: Statement) -> Result<Vec<MetaRow>> {
        let mut connection = self.pool.acquire().await.map_err(errors::database)?;
        run_if_there(&mut connection, statement).await
    }

    async fn commits(&self) -> Result<Box<dyn Commits>> {
        // Taken out of the pool: whoever watches keeps it for long.
        let connection = self.pool.acquire().await.map_err(errors::database)?.detach();
        Ok(Box::new(PostgresCommits::new(connection)))
    }
}

#[async_trait]
impl MetaTx for PostgresMetaTx {
    async fn run_all(&mut self, statements: Vec<Statement>) -> Result<Vec<Vec<MetaRow>>> {
        let mut answers = Vec::with_capacity(statements.len());
        for statement in statements {
            answers.push(run(&mut self.0, statement).await?);
        }
        Ok(answers)
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.0.commit().await.map_err(errors::commit)
    }
}

/// Runs a statement over our own tables and answers its rows.
pub(super) async fn run(connection: &mut PgConnection, statement: Statement) -> Result<Vec<MetaRow>> {
    let text = statement.sql_with_schema();
    let rows = bind(statements::query(&text), statement.parameters)
        .fetch_all(connection)
        .await
        .map_err(errors::database)?;
    rows.iter().map(meta_row).collect()
}

/// As [`run`], for a statement that only reads: where nothing of ours was provisioned yet, there are no rows.
async fn run_if_there(connection: &mut PgConnection, statement: Statement) -> Result<Vec<MetaRow>> {
    let text = statement.sql_with_schema();
    match bind(statements::query(&text), statement.parameters).fetch_all(connection).await {
        Ok(rows) => rows.iter().map(meta_row).collect(),
        Err(error) if errors::is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(errors::database(error)),
    }
}

/// Runs many inserts of one text as one statement: its `VALUES ($1, ...)` are taken from arrays instead.
pub(super) async fn run_many(connection: &mut PgConnection, all: Vec<Statement>) -> Result<()> {
    for chunk in all.chunks(statements::INSERTS_AT_ONCE) {
        let Some(first) = chunk.first() else { return Ok(()) };
        if chunk.iter().any(|statement| statement.sql != first.sql) {
            return Err(SyncError::internal("inserts of different tables in one list"));
        }
        let text = statements::insert_from_arrays(&first.sql_with_schema(), &first.parameters)?;
        let mut query = statements::query(&text);
        for column in 0..first.parameters.len() {
            query = bind_array(query, chunk, column);
        }
        query.execute(&mut *connection).await.map_err(errors::database)?;
    }
    Ok(())
}

fn bind_array<'q>(
    query: Query<'q, Postgres, PgArguments>,
    chunk: &[Statement],
    column: usize,
) -> Query<'q, Postgres, PgArguments> {
    let cells = chunk.iter().map(|statement| statement.parameters[column].clone());
    match &chunk[0].parameters[column] {
        MetaValue::Int(_) => query.bind(
            cells.map(|cell| if let MetaValue::Int(value) = cell { value } else { None }).collect::<Vec<_>>(),
        ),
        MetaValue::Text(_) => query.bind(
            cells
                .map(|cell| if let MetaValue::Text(value) = cell { value } else { None })
                .collect::<Vec<_>>(),
        ),
        MetaValue::Bytes(_) => query.bind(
            cells
                .map(|cell| if let MetaValue::Bytes(value) = cell { value } else { None })
                .collect::<Vec<_>>(),
        ),
    }
}

fn bind<'q>(
    mut query: Query<'q, Postgres, PgArguments>,
    parameters: Vec<MetaValue>,
) -> Query<'q, Postgres, PgArguments> {
    for parameter in parameters {
        query = match parameter {
            MetaValue::Int(value) => query.bind(value),
            MetaValue::Text(value) => query.bind(value),
            MetaValue::Bytes(value) => query.bind(value),
        };
    }
    query
}

fn meta_row(row: &PgRow) -> Result<MetaRow> {
    let cells = row.columns().iter().enumerate().map(|(at, column)| {
        Ok(match column.type_info().name() {
            "INT8" => MetaValue::Int(row.try_get(at).map_err(errors::database)?),
            "INT4" => {
                MetaValue::Int(row.try_get::<Option<i32>, _>(at).map_err(errors::database)?.map(i64::from))
            }
            "BOOL" => {
                MetaValue::Int(row.try_get::<Option<bool>, _>(at).map_err(errors::database)?.map(i64::from))
            }
            "TEXT" | "VARCHAR" => MetaValue::Text(row.try_get(at).map_err(errors::database)?),
            "BYTEA" => MetaValue::Bytes(row.try_get(at).map_err(errors::database)?),
            other => return Err(SyncError::internal(format!("a column of ours has the type {other}"))),
        })
    });
    Ok(MetaRow(cells.collect::<Result<_>>()?))
}
