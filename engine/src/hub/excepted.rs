//! Rows that a leaf could not apply, as it names them.

use syncline::error::{Result, SyncError};
use syncline::knowledge::{Clocks, Knowledge, RowKey};
use syncline::limits::ROW_EXCEPTIONS_MAX;

use super::view;
use crate::replica::ExceptedKey;
use crate::store::StoredScope;

/// The rows, checked (each of a table of the scope, each with a key of as many cells as the table's), with what the leaf
/// knows of each.
pub(super) fn excepted(keys: &[ExceptedKey], scope: &StoredScope) -> Result<Vec<(RowKey, Clocks)>> {
    if keys.len() > ROW_EXCEPTIONS_MAX {
        return Err(SyncError::invalid(
            "excepted_keys",
            format!("must be at most {ROW_EXCEPTIONS_MAX}; reinitialise instead"),
        ));
    }
    let check = |(index, excepted): (usize, &ExceptedKey)| {
        let field = format!("excepted_keys[{index}]");
        let Some((table, _)) = scope.table(excepted.row.table) else {
            return Err(SyncError::invalid(&format!("{field}.table_id"), "is no table of the scope"));
        };
        let cells = syncline::value::key_cells(&excepted.row.key)
            .map_err(|error| SyncError::invalid(&format!("{field}.key"), error.to_string()))?;
        if cells.len() != table.key.len() {
            return Err(SyncError::invalid(&format!("{field}.key"), "does not have the table's key columns"));
        }
        let before = view::known_of_view(&excepted.knowledge_before, scope)?;
        Ok((excepted.row.clone(), before.clocks_for(&excepted.row).clone()))
    };
    keys.iter().enumerate().map(check).collect()
}

/// What changes were made with. **Invariant:** a change of a row that the leaf could not apply was not made with the
/// version that failed, though the scope's clocks hold it: it would pass over the hub's row without a conflict.
pub(super) fn made_with(stored: Knowledge, keys: &[ExceptedKey], scope: &StoredScope) -> Result<Knowledge> {
    let mut made_with = stored;
    for (row, clocks) in excepted(keys, scope)? {
        made_with.except(row, clocks);
    }
    Ok(made_with)
}
