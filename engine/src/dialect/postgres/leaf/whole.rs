//! Comparing whole tables: clean rows that the download does not name go.

use sqlx::PgConnection;
use syncline::error::Result;

use super::apply::{Apply, Set};
use super::fold::flag;
use super::statements::knots::Reference;
use super::tables::LeafTable;
use crate::dialect::postgres::catalog;
use crate::dialect::postgres::statements::{literal, quote};

/// The foreign keys of each table over carried columns, whether they refer to a table of the scope or another.
pub(super) async fn references(
    connection: &mut PgConnection,
    tables: &[LeafTable],
) -> Result<Vec<Vec<Reference>>> {
    let keys = || tables.iter().flat_map(|table| &table.tracked.catalog.foreign_keys);
    let oids: Vec<i64> = keys().map(|key| key.table).collect();
    let parents = catalog::load(connection, &oids).await?;
    let place = |table: &LeafTable, number: i16| {
        table.tracked.columns.iter().position(|column| column.number == number)
    };
    let mut all = Vec::with_capacity(tables.len());
    for table in tables {
        let mut references = Vec::new();
        for key in &table.tracked.catalog.foreign_keys {
            let places: Option<Vec<usize>> = key.columns.iter().map(|number| place(table, *number)).collect();
            let parent = parents.iter().find(|parent| parent.oid == key.table);
            let (Some(places), Some(parent)) = (places, parent) else { continue };
            let names = key.referenced.iter().filter_map(|number| parent.column_numbered(*number));
            let columns: Vec<String> = names.map(|column| quote(&column.name)).collect();
            let in_scope = tables.iter().position(|other| other.tracked.catalog.oid == key.table);
            let in_scope = in_scope.and_then(|at| {
                let places: Option<Vec<usize>> =
                    key.referenced.iter().map(|number| place(&tables[at], *number)).collect();
                Some((at, places?))
            });
            references.push(Reference { places, parent: parent.quoted(), columns, in_scope });
        }
        all.push(references);
    }
    Ok(all)
}

/// Whether a comparison of this table was begun in an earlier run of the program.
pub(super) async fn is_compared(connection: &mut PgConnection, table: &LeafTable) -> Result<bool> {
    flag(connection, &format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", literal(&table.seen(true))))
        .await
}

impl Apply<'_> {
    /// Makes the tables that note what was seen; empty ones at the beginning of a download.
    pub(super) async fn prepare_comparison(&mut self, begins: bool) -> Result<()> {
        let lasting = self.context.job.per_batch;
        for index in 0..self.context.tables.len() {
            let table = &self.context.tables[index];
            if begins && lasting {
                self.run(&format!("DROP TABLE IF EXISTS {}", table.seen(true))).await?;
            }
            if self.context.is_compared(index) {
                self.run(&table.create_seen(lasting)).await?;
            }
        }
        Ok(())
    }

    /// Notes the staged keys.
    pub(super) async fn note_seen(&mut self, index: usize) -> Result<()> {
        let table = &self.context.tables[index];
        self.run(&table.note_seen(self.context.job.per_batch)).await
    }

    /// Removes clean rows that were not named, children first.
    pub(super) async fn remove_unnamed(&mut self) -> Result<()> {
        let context = self.context;
        for index in (0..context.tables.len()).rev().filter(|index| context.is_compared(*index)) {
            let table = &context.tables[index];
            self.run(&table.clear_stage()).await?;
            self.run(&table.stage_unseen(self.context.job.per_batch)).await?;
            let places = table.tracked.key.clone();
            self.apply_set(&Set { table: index, removes: true, places, unnamed: true, again: false }).await?;
        }
        Ok(())
    }

    /// Removes the tables that outlive a transaction.
    pub(super) async fn drop_comparison(&mut self) -> Result<()> {
        if self.context.job.per_batch {
            for table in self.context.tables {
                self.run(&format!("DROP TABLE IF EXISTS {}", table.seen(true))).await?;
            }
        }
        Ok(())
    }
}
