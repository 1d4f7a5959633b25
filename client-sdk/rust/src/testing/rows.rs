//! Rows of the one table as blocks, and back.

use std::collections::BTreeMap;

use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::ids::{ColumnId, Incarnation, TableId};
use syncline::knowledge::RowKey;
use syncline::schema::{ColumnSchema, ConflictPolicy, Direction, RowErrorPolicy, ScopeSchema, TableSchema};
use syncline::value::{CanonicalType, Cell, key_bytes};

pub(crate) const SCOPE: &str = "shop";
pub(super) const TABLE: TableId = TableId(1);
const ID: ColumnId = ColumnId(1);
const NAME: ColumnId = ColumnId(2);

/// A row, or that it is gone.
pub(super) type Change = (i64, Option<String>);
pub(super) type Rows = BTreeMap<i64, String>;

pub(crate) fn schema(version: u32) -> ScopeSchema {
    let column = |id, name: &str, ty| ColumnSchema {
        id,
        name: name.to_owned(),
        ty,
        not_null: true,
        precision_scale: None,
        default: None,
    };
    ScopeSchema {
        name: SCOPE.parse().unwrap(),
        incarnation: Incarnation::from_uuid(uuid::Uuid::from_u128(7)),
        version,
        tables: vec![TableSchema {
            id: TABLE,
            name: "customer".to_owned(),
            columns: vec![column(ID, "id", CanonicalType::Int64), column(NAME, "name", CanonicalType::Text)],
            key: vec![ID],
            foreign_keys: Vec::new(),
            unique: Vec::new(),
            direction: Direction::Both,
            conflict_policy: None,
        }],
        conflict_policy: ConflictPolicy::ServerWins,
        row_error_policy: RowErrorPolicy::Skip,
    }
}

/// Upserts, then deletes; a block each.
pub(super) fn blocks(changes: &[Change]) -> Vec<Block> {
    let (upserts, deletes): (Vec<_>, Vec<_>) = changes.iter().partition(|(_, name)| name.is_some());
    let mut blocks = Vec::new();
    for (operation, changes) in [(Operation::Upsert, upserts), (Operation::Delete, deletes)] {
        if changes.is_empty() {
            continue;
        }
        let mut ids = Column::new(ID, CanonicalType::Int64);
        let mut names = Column::new(NAME, CanonicalType::Text);
        for (id, name) in changes {
            ids.push(Cell::Int64(*id)).unwrap();
            names.push(Cell::Text(name.as_deref().unwrap_or(""))).unwrap();
        }
        let columns = if operation == Operation::Upsert { vec![ids, names] } else { vec![ids] };
        blocks.push(Block::new(TABLE, operation, columns));
    }
    blocks
}

pub(super) fn changes(block: &Block) -> Vec<Change> {
    let change = |row| {
        let Cell::Int64(id) = block.cell(ID, row) else { panic!("an id") };
        let name = match block.cell(NAME, row) {
            Cell::Text(name) if block.operation == Operation::Upsert => Some(name.to_owned()),
            _ => None,
        };
        (id, name)
    };
    (0..block.rows()).map(change).collect()
}

pub(super) fn row_key(id: i64) -> RowKey {
    RowKey { table: TABLE, key: key_bytes([Cell::Int64(id)]).unwrap() }
}
