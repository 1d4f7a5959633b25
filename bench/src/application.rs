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

    /// Gives a row another quantity, with a prepared statement, as drivers do it.
    pub(crate) async fn change(&mut self, key: &str, quantity: i64) -> Result<()> {
        match self {
            Self::Postgres(connection) => {
                let update = format!("UPDATE {TABLE} SET quantity = $1 WHERE id = $2::text::uuid");
                sqlx::query(AssertSqlSafe(update)).bind(quantity).bind(key).execute(connection).await?;
            }
            Self::Sqlite(connection) => {
                let update = format!("UPDATE {TABLE} SET quantity = ?1 WHERE id = ?2");
                connection.prepare_cached(&update)?.execute(rusqlite::params![quantity, key])?;
            }
        }
        Ok(())
    }
}
