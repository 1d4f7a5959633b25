//! Rows that wait for others: tried again once those may have come or gone.
//!
//! What mere order does not mend is a knot: rows of several tables that refer to each other (references that may be NULL
//! are cut, and set afterwards), and unique values that are swapped (parked for a moment).

use std::collections::BTreeSet;

use syncline::conflict::RowErrorReason;
use syncline::error::{Result, SyncError};
use syncline::knowledge::RowKey;
use syncline::limits::ROW_ERRORS_MAX;
use syncline::value::{Value, key_bytes};

use super::apply::{Apply, Set};
use super::conflicts::staged;
use super::fold::number;
use super::write::try_statement;
use crate::dialect::postgres::copy::{CopyRow, CopyRows};
use crate::dialect::postgres::errors;
use crate::dialect::postgres::statements::copy_out;

impl Apply<'_> {
    /// Tries what is postponed, until nothing moves any more. What is left stays postponed.
    pub(super) async fn settle(&mut self) -> Result<()> {
        if self.progress.late.is_empty() {
            return Ok(());
        }
        self.retry().await?;
        self.cut_cycles().await?;
        self.rename_keys().await?;
        self.swap_unique().await?;
        self.loosen_deletes().await?;
        self.retry().await
    }

    pub(super) async fn retry(&mut self) -> Result<()> {
        let mut waiting = self.count_late().await?;
        while waiting > 0 {
            for removes in [false, true] {
                if removes {
                    self.find_what_goes().await?;
                }
                for index in self.late_tables(removes) {
                    self.recall(index, removes).await?;
                    self.apply_set(&self.late_set(index, removes)).await?;
                }
            }
            self.nothing_goes().await?;
            let left = self.count_late().await?;
            if left >= waiting {
                break;
            }
            waiting = left;
        }
        Ok(())
    }

    /// Tables with postponed rows, in the order in which they are applied.
    pub(super) fn late_tables(&self, removes: bool) -> Vec<usize> {
        let tables = self.progress.late.iter().filter(|(_, late)| *late == removes).map(|(index, _)| *index);
        if removes { tables.rev().collect() } else { tables.collect() }
    }

    pub(super) fn late_set(&self, index: usize, removes: bool) -> Set {
        let all = || (0..self.context.tables[index].tracked.columns.len()).collect();
        let places = if removes {
            self.context.tables[index].tracked.key.clone()
        } else {
            self.progress.places.get(&index).cloned().unwrap_or_else(all)
        };
        Set { table: index, removes, places, unnamed: false, again: true }
    }

    async fn recall(&mut self, index: usize, removes: bool) -> Result<()> {
        for statement in self.context.tables[index].recall_late(removes) {
            self.run(&statement).await?;
        }
        self.progress.late.remove(&(index, removes));
        Ok(())
    }

    async fn count_late(&mut self) -> Result<i64> {
        let mut waiting = 0;
        for (index, removes) in self.progress.late.clone() {
            waiting += number(self.connection, &self.context.tables[index].count_late(removes)).await?;
        }
        Ok(waiting)
    }

    async fn late_of(&mut self, index: usize, removes: bool) -> Result<i64> {
        number(self.connection, &self.context.tables[index].count_late(removes)).await
    }

    /// Rows that go and hold a unique value that a row of a new key wants, while others refer to it: a key that changed.
    async fn rename_keys(&mut self) -> Result<()> {
        for index in self.late_tables(false) {
            let table = &self.context.tables[index];
            let rename = table.rename();
            if rename.is_empty() || !self.progress.late.contains(&(index, true)) {
                continue;
            }
            let (before, waiting) = (self.progress.clone(), self.late_of(index, false).await?);
            self.run("SAVEPOINT syncline_rename").await?;
            self.recall(index, false).await?;
            let mut renamed = 0;
            for statement in &rename {
                renamed += try_statement(self.connection, statement).await?.unwrap_or(0);
            }
            let set = self.late_set(index, false);
            self.postpone_again(&set, &table.is_absent()).await?;
            self.apply_set(&set).await?;
            // A row that has a new key, and not the values that came with it, must not stay so.
            let left = self.late_of(index, false).await?;
            if self.progress.errors.len() > before.errors.len() || waiting - left != renamed.cast_signed() {
                self.run("ROLLBACK TO SAVEPOINT syncline_rename").await?;
                self.progress = before;
            }
            self.run("RELEASE SAVEPOINT syncline_rename").await?;
        }
        Ok(())
    }

    /// Rows that want each other's unique values: the holders give theirs up for a moment.
    async fn swap_unique(&mut self) -> Result<()> {
        for index in self.late_tables(false) {
            let table = &self.context.tables[index];
            let park = table.park();
            if park.is_empty() {
                continue;
            }
            let (before, waiting) = (self.progress.clone(), self.late_of(index, false).await?);
            self.run("SAVEPOINT syncline_swap").await?;
            self.recall(index, false).await?;
            let mut parked = true;
            for statement in &park {
                parked &= try_statement(self.connection, statement).await?.is_ok();
            }
            if parked {
                self.apply_set(&self.late_set(index, false)).await?;
            }
            // A row that gave its value up and did not get its new one must not stay so.
            let failed = self.progress.errors.len() > before.errors.len();
            if !parked || failed || self.late_of(index, false).await? > 0 {
                self.run("ROLLBACK TO SAVEPOINT syncline_swap").await?;
                self.progress = before;
                debug_assert_eq!(self.late_of(index, false).await?, waiting);
            }
            self.run("RELEASE SAVEPOINT syncline_swap").await?;
        }
        Ok(())
    }

    /// Rows of several tables that refer to each other and all go: their references become NULL first.
    async fn loosen_deletes(&mut self) -> Result<()> {
        let context = self.context;
        let tables = self.late_tables(true);
        if tables.is_empty() {
            return Ok(());
        }
        let before = self.progress.clone();
        self.run("SAVEPOINT syncline_loosen").await?;
        let mut loosened = BTreeSet::new();
        for index in tables {
            let statements = context.tables[index].loosen(&context.references[index]);
            self.recall(index, true).await?;
            for statement in &statements {
                if try_statement(self.connection, statement).await?.is_ok() {
                    loosened.insert(index);
                }
            }
            self.apply_set(&self.late_set(index, true)).await?;
        }
        self.retry().await?;
        let mut left = 0;
        for index in loosened {
            left += self.late_of(index, true).await?;
        }
        if left > 0 {
            // A row that stays keeps its references.
            self.run("ROLLBACK TO SAVEPOINT syncline_loosen").await?;
            self.progress = before;
        }
        self.run("RELEASE SAVEPOINT syncline_loosen").await
    }

    /// Nothing mends what is still postponed: row errors.
    pub(super) async fn fail_postponed(&mut self) -> Result<()> {
        for (index, removes) in self.progress.late.clone() {
            for failed in self.read_postponed(index, removes).await? {
                let reason = RowErrorReason::from_name(&failed.reason).unwrap_or(RowErrorReason::Other);
                self.fail(index, removes, &failed.key, reason, failed.message)?;
            }
        }
        self.progress.late.clear();
        Ok(())
    }

    /// The rows that are postponed.
    pub(super) async fn postponed_keys(&mut self) -> Result<Vec<RowKey>> {
        let mut keys = Vec::new();
        for (index, removes) in self.progress.late.clone() {
            let table = self.context.tables[index].schema.id;
            for postponed in self.read_postponed(index, removes).await? {
                let key = key_bytes(postponed.key.iter().map(Value::cell)).map_err(SyncError::internal)?;
                keys.push(RowKey { table, key });
            }
        }
        Ok(keys)
    }

    /// At most one more than a session may have row errors.
    async fn read_postponed(&mut self, index: usize, removes: bool) -> Result<Vec<Postponed>> {
        let table = &self.context.tables[index];
        let sql = table.late_keys(removes, ROW_ERRORS_MAX + 1);
        let stream = copy_out(self.connection, &sql).await.map_err(errors::database)?;
        let (mut rows, mut row) = (CopyRows::new(stream), CopyRow::new());
        let mut all = Vec::new();
        while rows.next(&mut row).await? {
            let text = |at: usize| String::from_utf8_lossy(row.cell(at).unwrap_or_default()).into_owned();
            let mut key = Vec::with_capacity(table.tracked.key.len());
            for (at, place) in table.tracked.key.iter().enumerate() {
                key.push(staged(table, *place, row.cell(at + 2))?.to_value());
            }
            all.push(Postponed { key, reason: text(0), message: text(1) });
        }
        Ok(all)
    }
}

/// A row that is postponed, and why.
struct Postponed {
    key: Vec<Value>,
    reason: String,
    message: String,
}
