//! Dirty records of rows that are gone, under keys that can't travel: the hub never had such a row, so there is nothing to
//! tell it, and the record is forgotten. Else it would wait for ever.

use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row};
use syncline::error::Result;
use syncline::ids::TableId;

use super::connection::{Connections, blocking};
use super::errors::DatabaseResult as _;
use super::plan::TablePlan;
use super::statements;

/// One of them.
pub(super) struct Unsendable {
    table: TableId,
    key: Vec<Part>,
    tick: i64,
}

/// A value of a key, byte for byte.
enum Part {
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Unsendable {
    /// From a row whose first columns are the key and its tick.
    pub(super) fn read(plan: &TablePlan, row: &Row<'_>) -> Result<Self> {
        let columns = plan.key_columns();
        let mut key = Vec::with_capacity(columns);
        for place in 0..columns {
            key.push(match row.get_ref(place).db()? {
                ValueRef::Integer(value) => Part::Integer(value),
                ValueRef::Real(value) => Part::Real(value),
                ValueRef::Text(text) => Part::Text(text.to_owned()),
                ValueRef::Blob(bytes) => Part::Blob(bytes.to_owned()),
                // Folds drop such entries.
                ValueRef::Null => Part::Blob(Vec::new()),
            });
        }
        Ok(Self { table: plan.local, key, tick: row.get(columns).db()? })
    }

    fn forget(&self, connection: &Connection) -> Result<()> {
        let sql = statements::acknowledge_dirty(self.table, self.key.len());
        let mut statement = connection.prepare_cached(&sql).db()?;
        for (place, part) in self.key.iter().enumerate() {
            let value = match part {
                Part::Integer(value) => ValueRef::Integer(*value),
                Part::Real(value) => ValueRef::Real(*value),
                Part::Text(text) => ValueRef::Text(text),
                Part::Blob(bytes) => ValueRef::Blob(bytes),
            };
            statement.raw_bind_parameter(place + 1, ToSqlOutput::Borrowed(value)).db()?;
        }
        statement.raw_bind_parameter(self.key.len() + 1, self.tick).db()?;
        statement.raw_execute().db()?;
        Ok(())
    }
}

/// Forgets them, unless their rows were written again meanwhile.
pub(super) async fn forget(connections: &Arc<Connections>, all: Vec<Unsendable>) -> Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let transaction = connections.begin().await?;
    blocking(move || {
        all.iter().try_for_each(|one| one.forget(transaction.connection()))?;
        transaction.commit()
    })
    .await
}
