//! The application that a database belongs to, with a connection of its own that stays open.

use anyhow::Result;
use rusqlite::Connection;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::database::{Database, open};
use crate::rows::TABLE;

/// A connection; its commits are durable.
pub(crate) enum Application {
    Postgres(PgConnection),
    Sqlite(Connection),
}

impl Application {
    /// Connects.
    pub(crate) async fn connect(database: &Database) -> Result<Self> {
        Ok(match database {
            Database::Postgres(url) => Self::Postgres(PgConnection::connect(url).await?),
            Database::Sqlite(path) => Self::Sqlite(open(path)?),
        })
    }

    /// Runs a statement in a transaction of its own, whose commit was acknowledged when this returns.
    pub(crate) async fn execute(&mut self, statement: &str) -> Result<()> {
        match self {
            Self::Postgres(connection) => {
                sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await?;
            }
            Self::Sqlite(connection) => connection.execute_batch(statement)?,
        }
        Ok(())
    }

    /// Gives a row another quantity.
    pub(crate) async fn change(&mut self, key: &str, quantity: i64) -> Result<()> {
        self.execute(&format!("UPDATE {TABLE} SET quantity = {quantity} WHERE id = '{key}'")).await
    }
}
