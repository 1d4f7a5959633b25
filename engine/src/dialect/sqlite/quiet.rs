//! Our triggers on tables that an apply writes many rows of: taken away while it does, and put back before it is
//! committed.
//!
//! At a leaf they do nothing while the engine writes, and at a hub they say what the engine knows by itself, where nothing
//! but the engine writes to the table. But on a table with triggers SQLite looks at their conditions and keeps a journal
//! for each single statement, which takes as long as the insert itself.
//!
//! **Invariant:** the transaction has the file's write lock from before they go until after they are back, and if it is
//! rolled back they never went: no write of the application's passes by unseen.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline::batch::Block;
use syncline::error::Result;
use syncline::ids::TableId;

use super::errors::DatabaseResult as _;
use super::plan::TablePlan;
use super::statements::quote;
use super::tracking;
use crate::limits::QUIET_ROWS_MIN;

/// What makes triggers again that were taken away.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    tables: BTreeSet<TableId>,
    texts: Vec<String>,
}

impl Quiet {
    /// Takes away our triggers on a table, if the block is worth it. Blocks.
    pub(super) fn begin(&mut self, connection: &Connection, plan: &TablePlan, block: &Block) -> Result<()> {
        if block.rows() < QUIET_ROWS_MIN || !self.tables.insert(plan.id) {
            return Ok(());
        }
        for (name, text) in tracking::present_triggers(connection, &plan.catalog.name)? {
            connection.execute_batch(&format!("DROP TRIGGER {}", quote(&name))).db()?;
            self.texts.push(text);
        }
        Ok(())
    }

    /// Whether the triggers of a table are away.
    pub(super) fn has(&self, table: TableId) -> bool {
        self.tables.contains(&table)
    }

    /// Makes them again, each as it was. Blocks.
    pub(super) fn end(&mut self, connection: &Connection) -> Result<()> {
        self.tables.clear();
        std::mem::take(&mut self.texts).iter().try_for_each(|text| connection.execute_batch(text).db())
    }
}
