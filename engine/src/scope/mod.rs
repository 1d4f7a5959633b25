//! What a scope file says, before any database has looked at it.

mod file;
mod nearest;
mod order;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use syncline::error::SyncError;
use syncline::ids::ScopeName;
use syncline::schema::{ConflictPolicy, Direction, RowErrorPolicy};
use syncline::value::CanonicalType;

pub use file::parse;
pub use nearest::nearest;
pub use order::{in_cycle, parents_first};

/// A part of a scope file, with the bytes of the file that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The part.
    pub value: T,
    /// Where it stands.
    pub span: Range<usize>,
}

/// A scope as its file defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeDefinition {
    /// The name.
    pub name: ScopeName,
    /// The policy of tables that have none of their own.
    pub conflict_policy: ConflictPolicy,
    /// What happens to rows that can't be applied.
    pub row_error_policy: RowErrorPolicy,
    /// The tables, in the file's order.
    pub tables: Vec<TableDefinition>,
}

/// A table of a scope file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDefinition {
    /// The table in the hub's database: `name`, or `schema.name`.
    pub name: Spanned<String>,
    /// Its name at leaves, if it is to differ.
    pub leaf_name: Option<Spanned<String>>,
    /// The columns that are carried; `None` for all.
    pub columns: Option<Vec<Spanned<String>>>,
    /// Canonical types that are to differ, by column.
    pub types: BTreeMap<String, Spanned<CanonicalType>>,
    /// Which way rows travel.
    pub direction: Direction,
    /// The table's own policy.
    pub conflict_policy: Option<ConflictPolicy>,
    /// Whether leaves are to compare it as a whole though nothing says that they must: rows were changed past the triggers.
    pub compare: bool,
}

impl ScopeDefinition {
    /// Has leaves compare a table as a whole, as if its tracking had been broken. Answers whether the scope has a table of
    /// this name: as it is in the hub's database, or at leaves.
    pub fn compare(&mut self, name: &str) -> bool {
        let is_it = |table: &&mut TableDefinition| {
            table.name.value == name
                || table.leaf_name.as_ref().is_some_and(|leaf_name| leaf_name.value == name)
        };
        self.tables.iter_mut().find(is_it).map(|table| table.compare = true).is_some()
    }
}

/// Something in a scope file that can't be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands in the file.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Why a scope could not be defined. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DefineError {
    /// The definition does not fit: all problems at once.
    #[error("the scope file has {} problem(s)", .0.len())]
    Problems(Vec<Problem>),
    /// The database failed.
    #[error(transparent)]
    Failed(#[from] SyncError),
}
