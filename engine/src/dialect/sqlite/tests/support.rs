//! A file with a small schema, an application's connection to it, and what tests ask of the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::Connection;
use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::conflict::RowError;
use syncline::error::Result;
use syncline::ids::{Mark, ReplicaId, SessionId, TableId, Tick};
use syncline::knowledge::{Clock, Knowledge, ViewId, ViewKnowledge};
use syncline::schema::{ConflictPolicy, Direction, RowErrorPolicy, TableSchema};
use syncline::value::{Cell, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::SqliteDatabase;
use crate::dialect::meta::conflicts::{self, ConflictEntry};
use crate::dialect::meta::{MetaStore, Statement, row_errors, sessions};
use crate::replica::{ChangesBegin, ChangesEnd, ChangesMode};
use crate::scope::{ScopeDefinition, Spanned, TableDefinition};
use crate::store::*;

/// Parents, children that refer to them and to each other, a composite key, a cycle, a second unique index.
pub(super) const SCHEMA: &str = "\
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT UNIQUE, \
      boss INTEGER REFERENCES customer (id), points INTEGER DEFAULT 0); \
    CREATE TABLE invoice (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer (id), \
      total DECIMAL(10,2)); \
    CREATE TABLE line (invoice_id INTEGER NOT NULL REFERENCES invoice (id) ON DELETE CASCADE, \
      number INTEGER NOT NULL, text TEXT CHECK (text <> 'forbidden'), PRIMARY KEY (invoice_id, number)); \
    CREATE TABLE chicken (id INTEGER PRIMARY KEY, egg INTEGER REFERENCES egg (id) DEFERRABLE INITIALLY DEFERRED); \
    CREATE TABLE egg (id INTEGER PRIMARY KEY, chicken INTEGER REFERENCES chicken (id));";

/// A database file, an application beside the engine.
pub(super) struct File {
    pub(super) _directory: tempfile::TempDir,
    pub(super) path: PathBuf,
    /// The application's own connection.
    pub(super) app: Connection,
    pub(super) database: Arc<SqliteDatabase>,
}

impl File {
    pub(super) async fn new(schema: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        let app = application(&path);
        app.execute_batch(schema).unwrap();
        let database = SqliteDatabase::open(&path).await.unwrap();
        Self { _directory: directory, path, app, database }
    }

    /// A hub of all tables.
    pub(super) async fn hub(schema: &str, tables: &[&str]) -> (Self, StoredScope) {
        let file = Self::new(schema).await;
        file.database.open_hub().await.unwrap();
        let scope = file.define(&definition(tables)).await;
        (file, scope)
    }

    pub(super) async fn define(&self, definition: &ScopeDefinition) -> StoredScope {
        self.database.define_scope(definition, false).await.unwrap().scope
    }

    pub(super) fn run(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap();
    }

    /// Rows as text, for comparing: cells joined by `|`, rows by newline.
    pub(super) fn ask(&self, sql: &str) -> String {
        rows_of(&self.app, sql)
    }

    pub(super) async fn conflicts(&self) -> Vec<ConflictEntry> {
        let rows = self.database.read(conflicts::list(None, 1_000, 0)).await.unwrap();
        rows.iter().map(|row| conflicts::from_row(row).unwrap()).collect()
    }

    pub(super) async fn row_errors(&self, session: SessionId) -> Vec<RowError> {
        let rows = self.database.read(row_errors::of_session(session)).await.unwrap();
        rows.iter().map(|row| row_errors::from_row(row).unwrap()).collect()
    }

    /// One number that one of our own statements answers.
    pub(super) async fn number(&self, sql: &'static str) -> i64 {
        self.database.read(Statement::new(sql, [])).await.unwrap()[0].int(0).unwrap()
    }

    /// What a hub sends to someone who knows this.
    pub(super) async fn changes(
        &self,
        scope: &StoredScope,
        known: &Knowledge,
        echo: Option<ReplicaId>,
    ) -> Sent {
        let tables = scope.tables.iter().map(|table| table.id);
        let parts: Vec<Part> = if known.is_empty() {
            tables.map(|table| Part::Whole { table, after: None }).collect()
        } else {
            let upserts = tables.clone().map(|table| Part::Upserts { table, after: None });
            upserts.chain(tables.rev().map(|table| Part::Deletes { table, after: None })).collect()
        };
        self.enumerate(scope, plan(parts, known.clone(), echo)).await.unwrap()
    }

    pub(super) async fn enumerate(&self, scope: &StoredScope, plan: EnumerationPlan) -> Result<Sent> {
        let mut snapshot = self.database.snapshot(scope).await?;
        let knowledge = snapshot.knowledge().clone();
        let (sender, mut receiver) = mpsc::channel(2);
        let task = tokio::spawn(async move { snapshot.enumerate(plan, sender).await });
        let mut blocks = Vec::new();
        while let Some(block) = receiver.recv().await {
            blocks.push(block?);
        }
        task.await.unwrap();
        Ok(Sent { knowledge, blocks, scope: scope.clone() })
    }
}

pub(super) fn application(path: &std::path::Path) -> Connection {
    let app = Connection::open(path).unwrap();
    app.pragma_update(None, "foreign_keys", true).unwrap();
    app.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    app
}

pub(super) fn rows_of(connection: &Connection, sql: &str) -> String {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let cells = (0..columns).map(|column| {
            Ok(match row.get_ref(column)? {
                rusqlite::types::ValueRef::Null => "~".to_owned(),
                rusqlite::types::ValueRef::Integer(value) => value.to_string(),
                rusqlite::types::ValueRef::Real(value) => format!("{value:?}"),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                rusqlite::types::ValueRef::Blob(bytes) => format!("{bytes:02x?}"),
            })
        });
        Ok(cells.collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
    });
    rows.unwrap().collect::<rusqlite::Result<Vec<_>>>().unwrap().join("\n")
}

pub(super) fn definition(tables: &[&str]) -> ScopeDefinition {
    let tables = tables.iter().map(|name| TableDefinition {
        name: Spanned { value: (*name).to_owned(), span: 0..1 },
        leaf_name: None,
        columns: None,
        types: BTreeMap::new(),
        direction: Direction::Both,
        conflict_policy: None,
        compare: false,
    });
    ScopeDefinition {
        name: "shop".parse().unwrap(),
        conflict_policy: ConflictPolicy::ServerWins,
        row_error_policy: RowErrorPolicy::Skip,
        tables: tables.collect(),
    }
}

pub(super) fn plan(parts: Vec<Part>, known: Knowledge, echo: Option<ReplicaId>) -> EnumerationPlan {
    EnumerationPlan {
        parts,
        known,
        echo,
        changed_at_tables: Vec::new(),
        block_bytes_max: 1 << 20,
        row_bytes_max: 1 << 20,
    }
}

/// What an enumeration sent.
pub(super) struct Sent {
    pub(super) knowledge: Knowledge,
    pub(super) blocks: Vec<EnumeratedBlock>,
    scope: StoredScope,
}

impl Sent {
    /// Each row as `+table(cell,...)` or `-table(key,...)`, in order.
    pub(super) fn rows(&self) -> Vec<String> {
        self.blocks.iter().flat_map(|block| block_rows(&self.scope, &block.block)).collect()
    }
}

pub(super) fn block_rows(scope: &StoredScope, block: &Block) -> Vec<String> {
    let name = &scope.schema.table(block.table).unwrap().name;
    let sign = if block.operation.removes() { '-' } else { '+' };
    (0..block.rows())
        .map(|row| {
            let cells: Vec<_> = block.columns.iter().map(|column| cell_text(column.cell(row))).collect();
            format!("{sign}{name}({})", cells.join(","))
        })
        .collect()
}

fn cell_text(cell: Cell<'_>) -> String {
    match cell.to_json() {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => "~".to_owned(),
        other => other.to_string(),
    }
}

/// A row of an upload.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) table: &'static str,
    pub(super) operation: Operation,
    /// All carried columns, or the key for deletes.
    pub(super) cells: Vec<Value>,
    pub(super) tick: u64,
    /// The tick of its birth at the leaf; 0 if it was not born there.
    pub(super) birth: u64,
    pub(super) changed_at: i64,
}

pub(super) fn upsert(table: &'static str, cells: Vec<Value>) -> Row {
    Row { table, operation: Operation::Upsert, cells, tick: 1, birth: 0, changed_at: 0 }
}

pub(super) fn insert(table: &'static str, cells: Vec<Value>) -> Row {
    Row { birth: 1, ..upsert(table, cells) }
}

pub(super) fn delete(table: &'static str, cells: Vec<Value>) -> Row {
    Row { operation: Operation::Delete, ..upsert(table, cells) }
}

pub(super) fn int(value: i64) -> Value {
    Value::Int64(value)
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// Blocks in memory, in one batch each.
pub(super) struct Batches {
    pub(super) batches: Vec<Vec<Block>>,
    pub(super) end: Option<ChangesEnd>,
}

#[async_trait]
impl BatchSource for Batches {
    async fn blocks(&self, index: usize) -> Result<Option<Vec<Block>>> {
        Ok(self.batches.get(index).cloned())
    }
}

#[async_trait]
impl DownloadSource for Batches {
    async fn end(&self) -> Result<ChangesEnd> {
        Ok(self.end.clone().unwrap())
    }
}

/// Rows of one table, operation and types that follow each other are one block.
pub(super) fn blocks(schema: &[TableSchema], rows: &[Row]) -> Vec<Block> {
    let mut all: Vec<Block> = Vec::new();
    for row in rows.iter().map(|row| block_of(schema, row)) {
        match all.last_mut().filter(|last| is_alike(last, &row)) {
            Some(last) => {
                for (column, cell) in last.columns.iter_mut().zip(&row.columns) {
                    column.push(cell.cell(0)).unwrap();
                }
                last.changed_at.extend(row.changed_at);
                last.ticks.extend(row.ticks);
                last.births.extend(row.births);
            }
            None => all.push(row),
        }
    }
    all
}

fn is_alike(one: &Block, other: &Block) -> bool {
    let form =
        |block: &Block| -> Vec<_> { block.columns.iter().map(|column| (column.id(), column.ty())).collect() };
    (one.table, one.operation) == (other.table, other.operation) && form(one) == form(other)
}

fn block_of(schema: &[TableSchema], row: &Row) -> Block {
    let table = schema.iter().find(|table| table.name == row.table).unwrap();
    let columns: Vec<_> =
        if row.operation.removes() { table.key_columns().collect() } else { table.columns.iter().collect() };
    assert_eq!(columns.len(), row.cells.len(), "cells of {}", row.table);
    let columns = columns.iter().zip(&row.cells).map(|(column, value)| {
        let mut cells = Column::new(column.id, column.ty);
        if cells.push(value.cell()).is_err() {
            cells = Column::new(column.id, syncline::value::CanonicalType::Any);
            cells.push(value.cell()).unwrap();
        }
        cells
    });
    let mut block = Block::new(table.id, row.operation, columns.collect());
    block.changed_at = vec![row.changed_at];
    block.ticks = vec![Tick(row.tick)];
    block.births = vec![Tick(row.birth)];
    block
}

/// A leaf as a hub sees it.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) leaf: ReplicaId,
    pub(super) session: SessionId,
    pub(super) made_with: Knowledge,
    pub(super) leaf_tick: u64,
}

impl Sender {
    pub(super) fn new(made_with: &Knowledge) -> Self {
        Self {
            leaf: ReplicaId::fresh(),
            session: SessionId::fresh(),
            made_with: made_with.clone(),
            leaf_tick: 1,
        }
    }

    /// The same leaf, in another session.
    pub(super) fn again(&self, made_with: &Knowledge, leaf_tick: u64) -> Self {
        Self { leaf: self.leaf, session: SessionId::fresh(), made_with: made_with.clone(), leaf_tick }
    }

    pub(super) async fn upload(&self, hub: &File, scope: &StoredScope, rows: &[Row]) -> Result<ApplyReport> {
        let begun = sessions::open_for_test(&*hub.database, scope.id, self.session, self.leaf).await;
        self.upload_begun_after(begun, hub, scope, rows).await
    }

    /// In a session that is open, whose begin found this upload mark.
    pub(super) async fn upload_begun_after(
        &self,
        upload_mark_begun: Option<Mark>,
        hub: &File,
        scope: &StoredScope,
        rows: &[Row],
    ) -> Result<ApplyReport> {
        let scope = Arc::new(scope.clone());
        let batches = Batches { batches: vec![blocks(&scope.schema.tables, rows)], end: None };
        let job = UploadJob {
            scope,
            session: self.session,
            leaf: self.leaf,
            list_digest: [7; 32],
            batches: Vec::new(),
            made_with: self.made_with.clone(),
            made_with_nothing: Vec::new(),
            columns_kept: Default::default(),
            leaf_clock: Clock::up_to(Tick(self.leaf_tick)),
            upload_mark: Mark::fresh(),
            upload_mark_begun,
            clock_offset_us: 0,
            stop: CancellationToken::new(),
        };
        hub.database.apply_upload(job, Arc::new(batches), Arc::new(AtomicU64::new(0))).await
    }
}

/// What a leaf stores of what it knows.
pub(super) fn learned(knowledge: &Knowledge) -> Bytes {
    ViewKnowledge { view: ViewId(Bytes::from_static(b"view")), knowledge: knowledge.clone() }
        .encode()
        .unwrap()
}

/// Downloads blocks into a leaf.
pub(super) async fn download(
    leaf: &File,
    scope: &StoredScope,
    mode: ChangesMode,
    batches: Vec<Vec<Block>>,
    learned_now: &Knowledge,
) -> Result<DownloadReport> {
    let end = ChangesEnd {
        learned: learned(learned_now),
        download_mark: Mark::fresh(),
        batches: u32::try_from(batches.len()).unwrap(),
        rows: 0,
    };
    let source = Batches { batches, end: Some(end) };
    let subscription = leaf.database.subscription(&scope.schema.name).await?.unwrap();
    let job = DownloadJob {
        session: SessionId::fresh(),
        begin: ChangesBegin { mode, made_with: learned(learned_now), resumed: false },
        per_batch: false,
        clock_offset_us: 0,
    };
    leaf.database.apply_download(&subscription, job, Arc::new(source), Arc::new(AtomicU64::new(0))).await
}

/// The dirty rows of a leaf, as blocks and as text with `*` for those born there.
pub(super) async fn dirty(leaf: &File, scope: &StoredScope) -> (Vec<Block>, Vec<String>, Clock) {
    let subscription = leaf.database.subscription(&scope.schema.name).await.unwrap().unwrap();
    let bounds = LeafUpload { block_bytes_max: 1 << 20, row_bytes_max: 1 << 20 };
    let mut snapshot = leaf.database.enumerate_dirty(&subscription, bounds).await.unwrap();
    let (mut blocks, mut rows) = (Vec::new(), Vec::new());
    while let Some(block) = snapshot.blocks.recv().await {
        let block = block.unwrap();
        for (row, born) in block_rows(scope, &block).into_iter().zip(&block.births) {
            rows.push(if *born != Tick(0) { format!("{row}*") } else { row });
        }
        blocks.push(block);
    }
    (blocks, rows, snapshot.clock)
}

pub(super) fn table_id(scope: &StoredScope, name: &str) -> TableId {
    scope.schema.tables.iter().find(|table| table.name == name).unwrap().id
}
