//! Whether the blocks of an upload are of the scope's tables and columns: decided before a row is touched, the same for
//! every kind of database.

use syncline::batch::{Block, Operation};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::schema::{ScopeSchema, TableSchema};
use syncline::value::CanonicalType;

/// Checks blocks that were made for this version of the scope.
///
/// # Errors
/// `ROW_INVALID`, naming the table and what is wrong with it; `SCOPE_VERSION_UNSUPPORTED` if that may be for another version
/// of the scope: then its schema is to be fetched, and the upload to be made anew.
pub(super) fn check(scope: &ScopeSchema, scope_version: u32, blocks: &[Block]) -> Result<()> {
    let checked = check_blocks(scope, scope_version == scope.version, blocks);
    if scope_version == scope.version {
        return checked;
    }
    checked.map_err(|error| {
        let problem = format!("the upload was made for another version of the scope: {}", error.message());
        SyncError::new(ErrorReason::ScopeVersionUnsupported, problem).with("scope_version", scope.version)
    })
}

/// `whole_rows`: a column that joined the scope meanwhile is not in batches of an older version.
fn check_blocks(scope: &ScopeSchema, whole_rows: bool, blocks: &[Block]) -> Result<()> {
    for block in blocks {
        let table = scope.table(block.table).ok_or_else(|| {
            row_invalid(&format!("{}", block.table), "is not a table of the scope; fetch its schema again")
        })?;
        check_shape(table, block)?;
        check_columns(table, block, whole_rows)?;
    }
    Ok(())
}

fn check_shape(table: &TableSchema, block: &Block) -> Result<()> {
    if !table.direction.uploads() {
        return Err(row_invalid(&table.name, "its rows are downloaded only; leave them out"));
    }
    if block.operation == Operation::Leave {
        return Err(row_invalid(&table.name, "a leaf can't say that a row left the view; delete it"));
    }
    let rows = block.rows();
    if [block.ticks.len(), block.changed_at.len(), block.births.len()].iter().any(|count| *count != rows) {
        return Err(row_invalid(&table.name, "an upload's rows need ticks, changed_at and births"));
    }
    Ok(())
}

fn check_columns(table: &TableSchema, block: &Block, whole_rows: bool) -> Result<()> {
    for found in &block.columns {
        let Some(column) = table.column(found.id()) else {
            let problem = format!("column {} is not in the scope; fetch its schema again", found.id());
            return Err(row_invalid(&table.name, &problem));
        };
        if found.ty() != column.ty && found.ty() != CanonicalType::Any {
            let (expected, found) = (column.ty.wire().as_str_name(), found.ty().wire().as_str_name());
            let problem = format!("column \"{}\" has the type {expected}, not {found}", column.name);
            return Err(row_invalid(&table.name, &problem));
        }
    }
    let wanted = |key: bool| key || (whole_rows && block.operation == Operation::Upsert);
    let missing = table
        .columns
        .iter()
        .find(|column| wanted(table.is_key(column.id)) && block.column(column.id).is_none());
    match missing {
        Some(column) => {
            let problem = format!("column \"{}\" is missing: uploads carry whole rows", column.name);
            Err(row_invalid(&table.name, &problem))
        }
        None => Ok(()),
    }
}

fn row_invalid(table: &str, problem: &str) -> SyncError {
    SyncError::new(ErrorReason::RowInvalid, format!("table \"{table}\": {problem}")).with("table", table)
}
