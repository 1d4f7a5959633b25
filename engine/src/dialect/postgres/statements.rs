//! All SQL that is made at run time: pure functions that quote identifiers; values are bound, or travel by COPY.
//!
//! The only place that tells sqlx to trust a text. Numbers (ticks, ordinals, our own ids) may stand in it as digits.

pub(super) mod applying;
mod functions;
pub(super) mod glance;
pub(super) mod reading;
pub(super) mod sequence;
pub(super) mod survey;
pub(super) mod tracking;

use std::time::Duration;

use futures_util::stream::BoxStream;
use sqlx::postgres::{PgArguments, PgCopyIn};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Postgres};
use syncline::error::{Result, SyncError};

use crate::dialect::meta::MetaValue;

/// Inserts that [`insert_from_arrays`] runs as one statement.
pub(super) const INSERTS_AT_ONCE: usize = 500;

/// An identifier, quoted.
pub(super) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A name within a schema, quoted.
pub(super) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

/// A text literal, quoted: for what can't be bound (the body of a function, for example).
pub(super) fn literal(text: &str) -> String {
    let quoted = format!("'{}'", text.replace('\'', "''"));
    if text.contains('\\') { format!("E{}", quoted.replace('\\', "\\\\")) } else { quoted }
}

/// Names joined by commas.
pub(super) fn list<T: AsRef<str>>(parts: impl IntoIterator<Item = T>) -> String {
    joined(parts, ", ")
}

/// Parts joined by a separator.
pub(super) fn joined<T: AsRef<str>>(parts: impl IntoIterator<Item = T>, separator: &str) -> String {
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() {
            text.push_str(separator);
        }
        text.push_str(part.as_ref());
    }
    text
}

/// A statement whose parameters are bound.
pub(super) fn query(sql: &str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(sql.to_owned()))
}

/// As [`query`], for a text that is not used again: it is not kept as a prepared statement.
pub(super) fn query_once(sql: &str) -> Query<'static, Postgres, PgArguments> {
    query(sql).persistent(false)
}

/// Runs statements without parameters. Answers how many rows they touched.
pub(super) async fn run(connection: &mut PgConnection, sql: &str) -> sqlx::Result<u64> {
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await?;
    Ok(done.rows_affected())
}

/// Begins a COPY ... TO STDOUT.
pub(super) async fn copy_out<'c>(
    connection: &'c mut PgConnection,
    sql: &str,
) -> sqlx::Result<BoxStream<'c, sqlx::Result<bytes::Bytes>>> {
    connection.copy_out_raw(sql).await
}

/// Begins a COPY ... FROM STDIN.
pub(super) async fn copy_in<'c>(
    connection: &'c mut PgConnection,
    sql: &str,
) -> sqlx::Result<PgCopyIn<&'c mut PgConnection>> {
    connection.copy_in_raw(sql).await
}

/// Sets how long a transaction waits for a lock.
pub(super) async fn set_lock_timeout(connection: &mut PgConnection, timeout: Duration) -> sqlx::Result<()> {
    run(connection, &format!("SET LOCAL lock_timeout = {}", timeout.as_millis())).await.map(drop)
}

/// `INSERT ... VALUES ($1, ...) ...` as an insert of as many rows as the arrays hold that are bound instead.
///
/// # Errors
/// INTERNAL if the text has no such VALUES list.
pub(super) fn insert_from_arrays(sql: &str, parameters: &[MetaValue]) -> Result<String> {
    let values = format!("VALUES ({})", list((1..=parameters.len()).map(|at| format!("${at}"))));
    let arrays = list(parameters.iter().enumerate().map(|(at, parameter)| {
        let ty = match parameter {
            MetaValue::Int(_) => "bigint",
            MetaValue::Text(_) => "text",
            MetaValue::Bytes(_) => "bytea",
        };
        format!("${}::{ty}[]", at + 1)
    }));
    if !sql.contains(&values) {
        return Err(SyncError::internal("an insert without a list of parameters"));
    }
    Ok(sql.replace(&values, &format!("SELECT * FROM unnest({arrays})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_literals_are_quoted() {
        assert_eq!(qualified("a\"b", "c d"), "\"a\"\"b\".\"c d\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }

    #[test]
    fn an_insert_takes_its_values_from_arrays() {
        let sql = "INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let parameters = [MetaValue::Int(None), MetaValue::Text(None)];
        assert_eq!(
            insert_from_arrays(sql, &parameters).ok().as_deref(),
            Some(
                "INSERT INTO t (a, b) SELECT * FROM unnest($1::bigint[], $2::text[]) ON CONFLICT DO NOTHING"
            )
        );
        assert!(insert_from_arrays("INSERT INTO t DEFAULT VALUES", &parameters).is_err());
    }
}
