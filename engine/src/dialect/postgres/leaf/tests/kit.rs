//! What the tests share: a leaf's database, schemas and downloads made by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use syncline::batch::{Block, Operation};
use syncline::column::Column;
use syncline::conflict::RowError;
use syncline::error::Result;
use syncline::ids::{ColumnId, Incarnation, Mark, ReplicaId, SessionId, TableId, Tick};
use syncline::knowledge::Clock;
use syncline::schema::{
    ColumnSchema, ConflictPolicy, Direction, ForeignKey, RowErrorPolicy, ScopeSchema, TableSchema,
};
use syncline::value::{CanonicalType, Value};

use crate::dialect::meta::MetaStore as _;
use crate::dialect::meta::conflicts::{self, ConflictEntry};
use crate::dialect::postgres::PostgresDatabase;
use crate::replica::{ChangesBegin, ChangesEnd, ChangesMode};
use crate::store::{
    BatchSource, DownloadJob, DownloadReport, DownloadSource, LeafStore as _, LeafUpload, Subscription,
};
use crate::throwaway::ThrowawayCluster;

pub(super) const DELTA: ChangesMode = ChangesMode::Delta { whole_tables: Vec::new() };
pub(super) const WHOLE: ChangesMode = ChangesMode::WholeView;

/// A leaf: its database, and a connection as an application has one.
pub(super) struct Leaf {
    pub(super) url: String,
    pub(super) store: Arc<PostgresDatabase>,
    pub(super) schema: ScopeSchema,
    pub(super) application: PgConnection,
}

impl Leaf {
    /// A fresh database in which `sql` was run, not subscribed yet.
    pub(super) async fn unsubscribed(schema: ScopeSchema, sql: &str) -> Self {
        Self::in_cluster(ThrowawayCluster::shared(), schema, sql).await
    }

    /// As [`unsubscribed`](Self::unsubscribed), in a cluster that other tests don't use.
    pub(super) async fn in_cluster(cluster: &ThrowawayCluster, schema: ScopeSchema, sql: &str) -> Self {
        let url = cluster.fresh_database();
        let mut application = PgConnection::connect(&url).await.unwrap();
        application.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
        let store = PostgresDatabase::open(&url).await.unwrap();
        Self { url, store, schema, application }
    }

    /// A fresh database that is subscribed to the scope.
    pub(super) async fn subscribed(schema: ScopeSchema) -> Self {
        let leaf = Self::unsubscribed(schema, "").await;
        leaf.subscribe().await.unwrap();
        leaf
    }

    pub(super) async fn subscribe(&self) -> Result<Subscription> {
        self.store.subscribe(&self.schema, ReplicaId::fresh()).await
    }

    pub(super) async fn subscription(&self) -> Subscription {
        self.store.subscription(&self.schema.name).await.unwrap().unwrap()
    }

    /// What `pg_dump` says of the database, less the lines that are new each time.
    pub(super) fn dump(&self, arguments: &[&str]) -> String {
        let dump = ThrowawayCluster::shared().dump(&self.url, arguments);
        let kept =
            dump.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        kept.collect::<Vec<_>>().join("\n")
    }

    /// Runs statements as the application.
    pub(super) async fn run(&mut self, sql: &str) {
        run(&mut self.application, sql).await;
    }

    /// All rows that a query answers, as text: cells joined by `|`, rows by a space.
    pub(super) async fn rows(&mut self, sql: &str) -> String {
        rows(&mut self.application, sql).await
    }

    /// What is dirty: operation, key and cells, whether it was born here; and the clock.
    pub(super) async fn dirty(&self) -> (Vec<String>, Vec<Block>, Clock) {
        let subscription = self.subscription().await;
        let upload = LeafUpload { block_bytes_max: 1 << 20, row_bytes_max: 8 << 20 };
        let mut snapshot = self.store.enumerate_dirty(&subscription, upload).await.unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = snapshot.blocks.recv().await {
            blocks.push(block.unwrap());
        }
        (self.described(&blocks), blocks, snapshot.clock)
    }

    fn described(&self, blocks: &[Block]) -> Vec<String> {
        let mut all = Vec::new();
        for block in blocks {
            let table = self.schema.table(block.table).unwrap();
            for row in 0..block.rows() {
                let cells: Vec<_> =
                    block.columns.iter().map(|column| column.cell(row).to_json().to_string()).collect();
                let operation = if block.operation.removes() { "-" } else { "+" };
                let born = if block.births[row] != Tick(0) { "*" } else { "" };
                all.push(format!("{operation}{} {}{born}", table.name, cells.join(",")));
            }
        }
        all
    }

    /// Acknowledges an upload of these blocks.
    pub(super) async fn acknowledge(&self, blocks: Vec<Block>, failed: &[RowError]) {
        let after = self.subscription().await;
        self.store.acknowledge_upload(&after, Arc::new(Batches::of(vec![blocks])), failed).await.unwrap();
    }

    /// Applies a download of one batch.
    pub(super) async fn download(&self, mode: ChangesMode, blocks: Vec<Block>) -> DownloadReport {
        self.try_download(self.job(mode), vec![blocks]).await.unwrap()
    }

    pub(super) fn job(&self, mode: ChangesMode) -> DownloadJob {
        DownloadJob {
            session: SessionId::fresh(),
            begin: ChangesBegin { mode, made_with: Bytes::new(), resumed: false },
            per_batch: false,
            clock_offset_us: 0,
        }
    }

    pub(super) async fn try_download(
        &self,
        job: DownloadJob,
        batches: Vec<Vec<Block>>,
    ) -> Result<DownloadReport> {
        let mut subscription = self.subscription().await;
        if subscription.applied {
            // As the driver begins a session.
            subscription = Subscription { applied: false, batches_applied: 0, ..subscription };
            self.store.save(&subscription).await.unwrap();
        }
        let rows: usize = batches.iter().flatten().map(Block::rows).sum();
        let skipped: usize = if job.per_batch {
            batches.iter().take(subscription.batches_applied as usize).flatten().map(Block::rows).sum()
        } else {
            0
        };
        let done = Arc::new(AtomicU64::new(0));
        let source = Arc::new(Batches::of(batches));
        let report = self.store.apply_download(&subscription, job, source, Arc::clone(&done)).await?;
        assert_eq!(done.load(Ordering::Relaxed), (rows - skipped) as u64);
        Ok(report)
    }

    /// The conflict log, oldest first: kind, outcome, key, and both rows.
    pub(super) async fn conflicts(&self) -> Vec<String> {
        let rows = self.store.read(conflicts::list(None, 100, 0)).await.unwrap();
        let mut entries: Vec<ConflictEntry> =
            rows.iter().map(|row| conflicts::from_row(row).unwrap()).collect();
        entries.reverse();
        let side =
            |row: &Option<serde_json::Value>| row.as_ref().map_or("gone".to_owned(), ToString::to_string);
        let line = |entry: &ConflictEntry| {
            format!(
                "{} {} {}: {} / {}",
                entry.summary.kind.name(),
                entry.summary.outcome.as_str(),
                entry.summary.key_json,
                side(&entry.local_row),
                side(&entry.remote_row)
            )
        };
        entries.iter().map(line).collect()
    }
}

pub(super) async fn run(connection: &mut PgConnection, sql: &str) {
    if let Err(error) = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await {
        panic!("{sql}: {error}");
    }
}

pub(super) async fn rows(connection: &mut PgConnection, sql: &str) -> String {
    let text = format!(
        "SELECT COALESCE(string_agg(line, ' '), '') FROM (SELECT concat_ws('|', VARIADIC ARRAY(SELECT COALESCE(v, \
         'NULL') FROM json_each_text(row_to_json(q)) AS e (k, v))) AS line FROM ({sql}) q) x"
    );
    sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection).await.unwrap()
}

/// The batches of an upload or a download.
pub(super) struct Batches {
    batches: Vec<Vec<Block>>,
}

impl Batches {
    pub(super) fn of(batches: Vec<Vec<Block>>) -> Self {
        Self { batches }
    }
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
        Ok(ChangesEnd {
            learned: Bytes::from_static(b"learned"),
            download_mark: Mark::fresh(),
            batches: u32::try_from(self.batches.len()).unwrap(),
            rows: self.batches.iter().flatten().map(|block| block.rows() as u64).sum(),
        })
    }
}

/// A scope named `shop`.
pub(super) fn scope(tables: Vec<TableSchema>) -> ScopeSchema {
    ScopeSchema {
        name: "shop".parse().unwrap(),
        incarnation: Incarnation::fresh(),
        version: 1,
        tables,
        conflict_policy: ConflictPolicy::ServerWins,
        row_error_policy: RowErrorPolicy::Skip,
    }
}

/// A table whose first column is its key; nothing else is NOT NULL.
pub(super) fn table(id: u32, name: &str, columns: &[(&str, CanonicalType)]) -> TableSchema {
    let column = |(at, (name, ty)): (usize, &(&str, CanonicalType))| ColumnSchema {
        id: ColumnId(at as u32 + 1),
        name: (*name).to_owned(),
        ty: *ty,
        not_null: at == 0,
        precision_scale: None,
        default: None,
    };
    TableSchema {
        id: TableId(id),
        name: name.to_owned(),
        columns: columns.iter().enumerate().map(column).collect(),
        key: vec![ColumnId(1)],
        foreign_keys: Vec::new(),
        unique: Vec::new(),
        direction: Direction::Both,
        conflict_policy: None,
    }
}

/// A reference of the column numbered `column` to the key of another table.
pub(super) fn refers(column: u32, parent: u32) -> ForeignKey {
    ForeignKey {
        columns: vec![ColumnId(column)],
        referenced_table: TableId(parent),
        referenced_columns: vec![ColumnId(1)],
    }
}

/// `item (id int64, name text)`.
pub(super) fn items() -> ScopeSchema {
    scope(vec![table(11, "item", &[("id", CanonicalType::Int64), ("name", CanonicalType::Text)])])
}

pub(super) fn int(value: i64) -> Value {
    Value::Int64(value)
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// A block of upserts.
pub(super) fn up<const N: usize>(schema: &ScopeSchema, table: &str, rows: &[[Value; N]]) -> Block {
    block(schema, table, Operation::Upsert, &rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>())
}

/// A block of deletes, by keys of one column.
pub(super) fn gone(schema: &ScopeSchema, table: &str, keys: &[i64]) -> Block {
    block(schema, table, Operation::Delete, &keys.iter().map(|key| vec![int(*key)]).collect::<Vec<_>>())
}

pub(super) fn block(schema: &ScopeSchema, table: &str, operation: Operation, rows: &[Vec<Value>]) -> Block {
    let table = schema.tables.iter().find(|one| one.name == table).unwrap();
    let wanted: Vec<&ColumnSchema> = match operation {
        Operation::Upsert => table.columns.iter().collect(),
        _ => table.key_columns().collect(),
    };
    let columns = wanted.iter().enumerate().map(|(at, column)| {
        let mut cells = Column::new(column.id, column.ty);
        rows.iter().for_each(|row| cells.push(row[at].cell()).unwrap());
        cells
    });
    Block::new(table.id, operation, columns.collect())
}
