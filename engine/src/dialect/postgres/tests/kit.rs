//! What the tests share: a database, a scope, a leaf that uploads and asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::error::Result;
use syncline::ids::{Mark, ReplicaId, SessionId, TableId, Tick};
use syncline::knowledge::{Clock, Knowledge};
use syncline::schema::{ConflictPolicy, Direction, RowErrorPolicy, TableSchema};
use syncline::value::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::dialect::meta::conflicts::{self, ConflictEntry};
use crate::dialect::meta::{MetaStore as _, leaves, row_errors, sessions};
use crate::dialect::postgres::PostgresDatabase;
use crate::scope::{ScopeDefinition, Spanned, TableDefinition};
use crate::store::{
    ApplyReport, BatchSource, EnumerationPlan, HubStore as _, Part, Snapshot, StoredScope, UploadJob,
};
use crate::throwaway::ThrowawayCluster;

/// A database, and how to reach it beside the engine.
pub(super) struct Database {
    pub(super) url: String,
    pub(super) hub: Arc<PostgresDatabase>,
}

impl Database {
    /// A fresh database with these tables, and the engine over it.
    pub(super) async fn with(sql: &str) -> Self {
        Self::in_cluster(ThrowawayCluster::shared(), sql).await
    }

    /// As [`with`](Self::with), in a cluster that other tests don't use.
    pub(super) async fn in_cluster(cluster: &ThrowawayCluster, sql: &str) -> Self {
        let url = cluster.fresh_database();
        run(&mut connect(&url).await, sql).await;
        let hub = PostgresDatabase::open(&url).await.unwrap();
        Self { url, hub }
    }

    /// A connection as an application has one.
    pub(super) async fn application(&self) -> PgConnection {
        connect(&self.url).await
    }

    /// Runs statements as an application.
    pub(super) async fn run(&self, sql: &str) {
        run(&mut self.application().await, sql).await;
    }

    /// The only cell of a query, as text.
    pub(super) async fn cell(&self, sql: &str) -> String {
        cell(&mut self.application().await, sql).await
    }

    /// Defines a scope named `shop` over these tables.
    pub(super) async fn scope(&self, tables: &[&str]) -> Shop {
        self.scope_of(definition(tables)).await
    }

    pub(super) async fn scope_of(&self, definition: ScopeDefinition) -> Shop {
        let change = match self.hub.define_scope(&definition, false).await {
            Ok(change) => change,
            Err(error) => panic!("{error:?}"),
        };
        Shop { hub: Arc::clone(&self.hub), scope: Arc::new(change.scope), leaf: Leaf::fresh() }
    }
}

pub(super) async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

pub(super) async fn run(connection: &mut PgConnection, sql: &str) {
    if let Err(error) = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await {
        panic!("{sql}: {error}");
    }
}

pub(super) async fn cell(connection: &mut PgConnection, sql: &str) -> String {
    let text: Option<String> = sqlx::query_scalar(AssertSqlSafe(format!("SELECT ({sql})::text")))
        .fetch_one(connection)
        .await
        .unwrap();
    text.unwrap_or_else(|| "NULL".to_owned())
}

/// A database whose tables another one subscribes to, with rows from now on.
pub(in crate::dialect::postgres) struct Publisher {
    application: PgConnection,
    subscriber: PgConnection,
}

impl Publisher {
    /// Has these tables; the database at `subscriber` has them too.
    pub(in crate::dialect::postgres) async fn of(tables: &str, subscriber: &str) -> Self {
        let url = ThrowawayCluster::shared().fresh_database();
        let slot = format!("slot_{}", uuid::Uuid::new_v4().simple());
        let (mut application, mut subscriber) = (connect(&url).await, connect(subscriber).await);
        run(&mut application, tables).await;
        run(&mut application, "CREATE PUBLICATION everything FOR ALL TABLES").await;
        // Both are in one cluster: a subscription that makes its own slot would wait for its own transaction.
        run(&mut application, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
            .await;
        let subscription = format!(
            "CREATE SUBSCRIPTION {slot} CONNECTION '{url}' PUBLICATION everything \
             WITH (create_slot = false, slot_name = '{slot}', copy_data = false)"
        );
        run(&mut subscriber, &subscription).await;
        Self { application, subscriber }
    }

    /// Runs statements where rows come from.
    pub(in crate::dialect::postgres) async fn run(&mut self, sql: &str) {
        run(&mut self.application, sql).await;
    }

    /// Waits until this query is true where rows arrive.
    pub(in crate::dialect::postgres) async fn arrives(&mut self, query: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while cell(&mut self.subscriber, query).await != "true" {
            assert!(std::time::Instant::now() < deadline, "it never came true: {query}");
            tokio::task::yield_now().await;
        }
    }
}

/// A definition named `shop`, all columns, both ways, server_wins.
pub(super) fn definition(tables: &[&str]) -> ScopeDefinition {
    let table = |name: &&str| TableDefinition {
        name: Spanned { value: (*name).to_owned(), span: 0..1 },
        leaf_name: None,
        columns: None,
        types: BTreeMap::new(),
        direction: Direction::Both,
        conflict_policy: None,
        compare: false,
    };
    ScopeDefinition {
        name: "shop".parse().unwrap(),
        conflict_policy: ConflictPolicy::ServerWins,
        row_error_policy: RowErrorPolicy::Skip,
        tables: tables.iter().map(table).collect(),
    }
}

/// A leaf, as the hub sees one.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) id: ReplicaId,
    pub(super) tick: u64,
}

impl Leaf {
    pub(super) fn fresh() -> Self {
        Self { id: ReplicaId::fresh(), tick: 0 }
    }
}

/// A scope of a hub, and a leaf of it.
pub(super) struct Shop {
    pub(super) hub: Arc<PostgresDatabase>,
    pub(super) scope: Arc<StoredScope>,
    pub(super) leaf: Leaf,
}

/// Rows as they were enumerated, by table and operation: each as its JSON.
pub(super) type Rows = Vec<(String, Operation, Vec<Value>)>;

/// A row of an upload.
#[derive(Debug, Clone)]
pub(super) struct Up {
    pub(super) table: &'static str,
    pub(super) operation: Operation,
    pub(super) cells: Vec<Value>,
    pub(super) born: bool,
    pub(super) changed_at: i64,
}

pub(super) fn int(value: i64) -> Value {
    Value::Int64(value)
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// A row that was born at the leaf.
pub(super) fn born(table: &'static str, cells: impl Into<Vec<Value>>) -> Up {
    Up { table, operation: Operation::Upsert, cells: cells.into(), born: true, changed_at: i64::MAX }
}

/// A row that the leaf had and changed.
pub(super) fn changed(table: &'static str, cells: impl Into<Vec<Value>>) -> Up {
    Up { born: false, ..born(table, cells) }
}

/// A row that the leaf had and deleted; the key's cells.
pub(super) fn deleted(table: &'static str, cells: impl Into<Vec<Value>>) -> Up {
    Up { operation: Operation::Delete, ..changed(table, cells) }
}

pub(super) struct Batches(pub(super) Vec<Vec<Block>>);

#[async_trait]
impl BatchSource for Batches {
    async fn blocks(&self, index: usize) -> Result<Option<Vec<Block>>> {
        Ok(self.0.get(index).cloned())
    }
}

impl Shop {
    pub(super) fn table(&self, name: &str) -> &TableSchema {
        self.scope.schema.tables.iter().find(|table| table.name == name).unwrap()
    }

    pub(super) fn id(&self, name: &str) -> TableId {
        self.table(name).id
    }

    /// As another leaf of the same scope.
    pub(super) fn other_leaf(&self) -> Self {
        Self { hub: Arc::clone(&self.hub), scope: Arc::clone(&self.scope), leaf: Leaf::fresh() }
    }

    /// Folds, opens a snapshot, and answers its knowledge and what `known` lacks, as the planner asks for it.
    pub(super) async fn changes(&self, known: &Knowledge) -> (Knowledge, Rows) {
        self.hub.fold(&self.scope).await.unwrap();
        self.changes_unfolded(known).await
    }

    pub(super) async fn changes_unfolded(&self, known: &Knowledge) -> (Knowledge, Rows) {
        let snapshot = self.hub.snapshot(&self.scope).await.unwrap();
        self.read(snapshot, known).await
    }

    pub(super) async fn read(&self, snapshot: Box<dyn Snapshot>, known: &Knowledge) -> (Knowledge, Rows) {
        let knowledge = snapshot.knowledge().clone();
        let plan = self.plan(&*snapshot, known);
        let rows = enumerate(snapshot, plan).await.unwrap();
        (knowledge, self.named(rows))
    }

    pub(super) fn plan(&self, snapshot: &dyn Snapshot, known: &Knowledge) -> EnumerationPlan {
        let whole = |id: TableId| {
            let (_, stored) = self.scope.table(id).unwrap();
            let truncated = snapshot.table(id).unwrap().truncated;
            [Some(stored.since), Some(stored.baseline), truncated]
                .iter()
                .flatten()
                .any(|version| !known.contains_version(*version))
        };
        let ids: Vec<_> = self.scope.tables.iter().map(|table| table.id).collect();
        let upserts = ids.iter().map(|id| {
            if whole(*id) {
                Part::Whole { table: *id, after: None }
            } else {
                Part::Upserts { table: *id, after: None }
            }
        });
        let deletes = ids.iter().rev().filter(|id| !whole(**id));
        let deletes = deletes.map(|id| Part::Deletes { table: *id, after: None });
        EnumerationPlan {
            parts: upserts.chain(deletes).collect(),
            known: known.clone(),
            echo: (!known.is_empty()).then_some(self.leaf.id),
            changed_at_tables: Vec::new(),
            block_bytes_max: 1 << 20,
            row_bytes_max: 8 << 20,
        }
    }

    pub(super) fn named(&self, blocks: Vec<Block>) -> Rows {
        let mut rows = Vec::new();
        for block in blocks {
            let table = self.scope.schema.table(block.table).unwrap();
            for row in 0..block.rows() {
                let cells = block.columns.iter().map(|column| column.cell(row).to_value()).collect();
                rows.push((table.name.clone(), block.operation, cells));
            }
        }
        rows
    }

    pub(super) fn blocks(&mut self, rows: &[Up]) -> Vec<Block> {
        let first_tick = self.leaf.tick + 1;
        self.leaf.tick += rows.len() as u64;
        let blocks = rows.iter().enumerate().map(|(at, row)| {
            let table = self.table(row.table);
            let columns: Vec<_> = match row.operation {
                Operation::Upsert => table.columns.iter().collect(),
                _ => table.key_columns().collect(),
            };
            let mut built = Vec::new();
            for (column, value) in columns.iter().zip(&row.cells) {
                let mut cells = Column::new(column.id, column.ty);
                if cells.push(value.cell()).is_err() {
                    cells = Column::new(column.id, syncline::value::CanonicalType::Any);
                    cells.push(value.cell()).unwrap();
                }
                built.push(cells);
            }
            assert_eq!(built.len(), columns.len(), "a cell for each column of {}", row.table);
            Block {
                table: table.id,
                operation: row.operation,
                columns: built,
                changed_at: vec![row.changed_at],
                ticks: vec![Tick(first_tick + at as u64)],
                births: vec![Tick(if row.born { first_tick + at as u64 } else { 0 })],
            }
        });
        blocks.collect()
    }

    pub(super) fn job(&self, made_with: &Knowledge) -> UploadJob {
        UploadJob {
            scope: Arc::clone(&self.scope),
            session: SessionId::fresh(),
            leaf: self.leaf.id,
            list_digest: [7; 32],
            batches: Vec::new(),
            made_with: made_with.clone(),
            made_with_nothing: Vec::new(),
            columns_kept: Default::default(),
            leaf_clock: Clock::up_to(Tick(self.leaf.tick)),
            upload_mark: Mark::fresh(),
            upload_mark_begun: None,
            clock_offset_us: 0,
            stop: CancellationToken::new(),
        }
    }

    /// Uploads rows that were made with this knowledge.
    pub(super) async fn upload(&mut self, made_with: &Knowledge, rows: &[Up]) -> Result<ApplyReport> {
        let blocks = self.blocks(rows);
        let job = self.job(made_with);
        self.apply(job, blocks).await
    }

    /// In a session that begins right before.
    pub(super) async fn apply(&self, mut job: UploadJob, blocks: Vec<Block>) -> Result<ApplyReport> {
        let open = sessions::open_for_test(&*self.hub, job.scope.id, job.session, job.leaf);
        job.upload_mark_begun = open.await;
        self.apply_as_begun(job, blocks).await
    }

    pub(super) async fn apply_as_begun(&self, job: UploadJob, blocks: Vec<Block>) -> Result<ApplyReport> {
        let count = blocks.iter().map(|block| block.rows() as u64).sum::<u64>();
        let done = Arc::new(AtomicU64::new(0));
        let report = self.hub.apply_upload(job, Arc::new(Batches(vec![blocks])), Arc::clone(&done)).await?;
        assert!(!report.applied_now || done.load(Ordering::Relaxed) == count);
        Ok(report)
    }

    /// The conflict log, oldest first.
    pub(super) async fn conflicts(&self) -> Vec<ConflictEntry> {
        let rows = self.hub.read(conflicts::list(None, 100, 0)).await.unwrap();
        let mut entries: Vec<_> = rows.iter().map(|row| conflicts::from_row(row).unwrap()).collect();
        entries.reverse();
        entries
    }

    /// The row errors: key and reason.
    pub(super) async fn row_errors(&self) -> Vec<(String, &'static str)> {
        let rows = self.hub.read(row_errors::of_scope(&self.scope.schema.name, 100)).await.unwrap();
        let errors = rows.iter().map(|row| row_errors::from_row(row).unwrap());
        errors.map(|error| (error.key_json, error.reason.as_str())).collect()
    }

    /// What the hub knows of the leaf's ticks.
    pub(super) async fn leaf_clock(&self) -> Knowledge {
        let rows = self.hub.read(leaves::load(self.scope.id, self.leaf.id)).await.unwrap();
        leaves::from_row(&rows[0]).unwrap().clock
    }
}

pub(super) async fn enumerate(mut snapshot: Box<dyn Snapshot>, plan: EnumerationPlan) -> Result<Vec<Block>> {
    let (sender, mut receiver) = mpsc::channel(2);
    let task = tokio::spawn(async move { snapshot.enumerate(plan, sender).await });
    let mut blocks = Vec::new();
    let mut failure = None;
    while let Some(block) = receiver.recv().await {
        match block {
            Ok(block) => blocks.push(block.block),
            Err(error) => failure = Some(error),
        }
    }
    task.await.unwrap();
    failure.map_or(Ok(blocks), Err)
}

/// The key of a row, as canonical bytes.
pub(super) fn key(cells: &[Value]) -> Bytes {
    syncline::value::key_bytes(cells.iter().map(Value::cell)).unwrap()
}
