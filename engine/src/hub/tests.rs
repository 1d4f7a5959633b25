//! What is enumerated, and in which order: decisions without a database.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::error::ErrorReason;
use syncline::ids::{ColumnId, Incarnation, ReplicaId, TableId, Tick};
use syncline::knowledge::{Clock, Clocks, Knowledge, RowKey, Version};
use syncline::schema::{ColumnSchema, ConflictPolicy, Direction, RowErrorPolicy, ScopeSchema, TableSchema};
use syncline::value::{CanonicalType, Cell};

use super::apply::made_with_nothing;
use super::batcher::Batcher;
use super::plan;
use super::session::EnumerationState;
use crate::replica::{ChangesBegin, ChangesMode};
use crate::store::{EnumeratedBlock, Part, Position, StoredScope, StoredTable, TableState};

const PARENT: TableId = TableId(1);
const CHILD: TableId = TableId(2);
const INBOX: TableId = TableId(3);

fn hub() -> ReplicaId {
    ReplicaId::from_uuid(uuid::Uuid::from_u128(1))
}

fn knows(tick: u64) -> Knowledge {
    Knowledge::from_clocks(Clocks::from([(hub(), Clock::up_to(Tick(tick)))]))
}

/// Parent and child, and an inbox that only uploads. The child has been in the scope since tick 50.
fn scope() -> StoredScope {
    let table = |id: TableId, direction| TableSchema {
        id,
        name: format!("t{id}"),
        columns: vec![ColumnSchema {
            id: ColumnId(1),
            name: "id".into(),
            ty: CanonicalType::Int64,
            not_null: true,
            precision_scale: None,
            default: None,
        }],
        key: vec![ColumnId(1)],
        foreign_keys: Vec::new(),
        unique: Vec::new(),
        direction,
        conflict_policy: (id == CHILD).then_some(ConflictPolicy::LastWriterWins),
    };
    let stored = |id, since| StoredTable {
        id,
        source_schema: String::new(),
        source_name: format!("t{id}"),
        since: Version { replica: hub(), tick: Tick(since) },
        reshaped: Version { replica: hub(), tick: Tick(since) },
        columns_since: Vec::new(),
        columns_left: Vec::new(),
        baseline: Version { replica: hub(), tick: Tick(3) },
        baseline_changed_at: 0,
    };
    StoredScope {
        id: 1,
        schema: ScopeSchema {
            name: "shop".parse().unwrap(),
            incarnation: Incarnation::fresh(),
            version: 1,
            tables: vec![
                table(PARENT, Direction::Both),
                table(CHILD, Direction::Both),
                table(INBOX, Direction::Upload),
            ],
            conflict_policy: ConflictPolicy::ServerWins,
            row_error_policy: RowErrorPolicy::Skip,
        },
        tables: vec![stored(PARENT, 3), stored(CHILD, 50), stored(INBOX, 3)],
    }
}

fn state(mode: ChangesMode, known: Knowledge) -> EnumerationState {
    EnumerationState {
        noted: true,
        asked: [0; 32],
        known,
        excepted: Vec::new(),
        begin: ChangesBegin { mode, made_with: Bytes::new(), resumed: false },
        echo_rule: true,
        since: None,
        first_snapshot: knows(100),
        position: None,
        batches: 0,
        rows: 0,
        end: None,
    }
}

fn no_state(_: TableId) -> Option<TableState> {
    None
}

fn delta(whole: &[TableId]) -> ChangesMode {
    ChangesMode::Delta { whole_tables: whole.to_vec() }
}

#[test]
fn who_knows_nothing_gets_everything() {
    assert_eq!(plan::mode(&scope(), &Knowledge::new(), no_state), ChangesMode::WholeView);
}

#[test]
fn a_table_that_joined_later_is_compared_as_a_whole() {
    assert_eq!(plan::mode(&scope(), &knows(49), no_state), delta(&[CHILD]));
    assert_eq!(plan::mode(&scope(), &knows(50), no_state), delta(&[]));
}

#[test]
fn a_table_that_was_truncated_is_compared_by_who_lacks_that() {
    let truncated = |id: TableId| {
        let truncated = (id == PARENT).then_some(Version { replica: hub(), tick: Tick(70) });
        Some(TableState { truncated, empty: false })
    };
    assert_eq!(plan::mode(&scope(), &knows(69), truncated), delta(&[PARENT]));
    assert_eq!(plan::mode(&scope(), &knows(70), truncated), delta(&[]));
}

#[test]
fn upserts_come_parents_first_then_deletes_children_first_then_excepted_rows() {
    let mut state = state(delta(&[]), knows(60));
    state.excepted = vec![RowKey { table: CHILD, key: Bytes::from_static(b"k") }];
    let expected = [
        Part::Upserts { table: PARENT, after: None },
        Part::Upserts { table: CHILD, after: None },
        Part::Deletes { table: CHILD, after: None },
        Part::Deletes { table: PARENT, after: None },
        Part::Keys { table: CHILD, keys: vec![Bytes::from_static(b"k")] },
    ];
    assert_eq!(plan::pass(&scope(), &state), expected);
}

#[test]
fn a_whole_table_has_no_deletes_for_what_is_not_named_is_gone() {
    let state = state(delta(&[CHILD]), knows(49));
    let expected = [
        Part::Upserts { table: PARENT, after: None },
        Part::Whole { table: CHILD, after: None },
        Part::Deletes { table: PARENT, after: None },
    ];
    assert_eq!(plan::pass(&scope(), &state), expected);
}

#[test]
fn an_enumeration_goes_on_after_its_position() {
    let mut state = state(delta(&[]), knows(60));
    let after = Bytes::from_static(b"k");
    state.position = Some(Position { operation: Operation::Upsert, table: CHILD, after: after.clone() });
    let expected = [
        Part::Upserts { table: CHILD, after: Some(after.clone()) },
        Part::Deletes { table: CHILD, after: None },
        Part::Deletes { table: PARENT, after: None },
    ];
    assert_eq!(plan::pass(&scope(), &state), expected);
    state.position = Some(Position { operation: Operation::Delete, table: PARENT, after: after.clone() });
    assert_eq!(plan::pass(&scope(), &state), [Part::Deletes { table: PARENT, after: Some(after) }]);
}

#[test]
fn a_later_pass_enumerates_what_changed_since_the_one_before_began() {
    let mut state = state(delta(&[CHILD]), knows(60));
    state.excepted = vec![RowKey { table: CHILD, key: Bytes::from_static(b"k") }];
    state.position = Some(Position { operation: Operation::Delete, table: PARENT, after: Bytes::new() });
    state.begin_pass(knows(120));
    assert_eq!((state.known_in_pass(), state.first_snapshot.clone()), (knows(100), knows(120)));
    let expected = [
        Part::Upserts { table: PARENT, after: None },
        Part::Upserts { table: CHILD, after: None },
        Part::Deletes { table: CHILD, after: None },
        Part::Deletes { table: PARENT, after: None },
    ];
    assert_eq!(plan::pass(&scope(), &state), expected);
    let after = Bytes::from_static(b"k");
    state.position = Some(Position { operation: Operation::Delete, table: CHILD, after: after.clone() });
    let rest =
        [Part::Deletes { table: CHILD, after: Some(after) }, Part::Deletes { table: PARENT, after: None }];
    assert_eq!(plan::pass(&scope(), &state), rest);
}

#[test]
fn only_tables_judged_by_time_carry_times() {
    let plan = plan::plan(&scope(), Vec::new(), &knows(60), None, 1 << 20, 1 << 20);
    assert_eq!(plan.changed_at_tables, [CHILD]);
}

#[test]
fn of_tables_that_do_not_download_a_leaf_knows_nothing() {
    assert_eq!(made_with_nothing(&scope(), &knows(100)), [INBOX]);
    assert_eq!(made_with_nothing(&scope(), &knows(49)), [CHILD, INBOX]);
}

fn block(cells: i64) -> EnumeratedBlock {
    let mut column = Column::new(ColumnId(1), CanonicalType::Int64);
    (0..cells).for_each(|cell| column.push(Cell::Int64(cell)).unwrap());
    let position =
        Position { operation: Operation::Upsert, table: PARENT, after: Bytes::from(cells.to_string()) };
    EnumeratedBlock { block: Block::new(PARENT, Operation::Upsert, vec![column]), position: Some(position) }
}

#[tokio::test]
async fn batches_hold_as_many_blocks_as_fit_and_know_where_to_go_on() {
    let mut batcher = Batcher::new(1_000);
    assert!(batcher.push(block(50)).await.unwrap().is_none());
    assert!(batcher.push(block(60)).await.unwrap().is_none());
    let full = batcher.push(block(70)).await.unwrap().expect("880 and 560 bytes are more than 1,000");
    assert_eq!(full.encoder.blocks(), 2);
    assert_eq!(full.position.unwrap().after, "60");
    // A block that is larger than a batch makes one of its own.
    assert_eq!(batcher.push(block(500)).await.unwrap().unwrap().encoder.blocks(), 1);
    assert_eq!(batcher.push(block(1)).await.unwrap().unwrap().encoder.blocks(), 1);
    assert_eq!(batcher.take().unwrap().position.unwrap().after, "1");
    assert!(batcher.take().is_none());
}

#[test]
fn an_upload_that_is_of_another_version_is_not_blamed_on_its_rows() {
    let (scope, gone) = (scope(), Block::new(TableId(9), Operation::Delete, Vec::new()));
    let check = |version| {
        super::upload_block::check(&scope.schema, version, std::slice::from_ref(&gone)).unwrap_err().reason()
    };
    assert_eq!(check(scope.schema.version), ErrorReason::RowInvalid);
    assert_eq!(check(scope.schema.version + 1), ErrorReason::ScopeVersionUnsupported);
}
