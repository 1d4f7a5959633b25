//! A service of one's own, a client that speaks the bare protocol, and how everything stands.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use sqlx::{Connection as _, Row as _};
use syncline::batch::{Block, Codec, EncodedBatch, Operation, encode};
use syncline::column::Column;
use syncline::ids::{BatchSequence, Mark, ReplicaId, SessionId, Tick};
use syncline::pb::sync_service_client::SyncServiceClient;
use syncline::pb::{self, apply_changes_response::Event as ApplyEvent};
use syncline::schema::{ScopeSchema, TableSchema};
use syncline::value::Value;
use syncline_tests::database::{self, Database, Kind, Rows};
use syncline_tests::{binary, service, shop};
use tokio::process::{Child, Command};
use tonic::Status;
use tonic::transport::Channel;

pub(super) type Client = SyncServiceClient<Channel>;

/// The largest row, and so (with [`FRAMING`]) what bounds the content of a batch: small, so that what is beyond it shows.
pub(super) const ROW_BYTES_MAX: u64 = 4 << 20;
/// What framing may add.
pub(super) const FRAMING: u64 = syncline::limits::BATCH_OVERHEAD_BYTES_MAX;

/// A service, and a client that speaks the bare protocol.
pub(super) struct Bare {
    pub(super) directory: tempfile::TempDir,
    pub(super) process: Process,
    pub(super) hub: Database,
    pub(super) client: Client,
    pub(super) schema: ScopeSchema,
    /// All sessions are of this replica, so that a new one ends the one before.
    pub(super) replica: Bytes,
}

/// An open session.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) id: Bytes,
    pub(super) token: Bytes,
}

/// All that must not change.
#[derive(Debug, PartialEq)]
pub(super) struct Standing {
    rows: Vec<(&'static str, Rows)>,
    /// Rows of each of our own tables.
    ours: BTreeMap<String, i64>,
    spool_bytes: u64,
}

impl Bare {
    pub(super) async fn start(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(kind, directory.path(), "hub").await;
        shop::fill(&hub, 3).await;
        service::apply_scope(&hub, shop::SCOPE, directory.path()).await;
        let process = Process::start(&hub, directory.path()).await;
        let mut client = SyncServiceClient::connect(process.url()).await.unwrap();
        let request = pb::GetScopeRequest { scope: "shop".into(), with_local_sql: false };
        let answer = client.get_scope(request).await.unwrap().into_inner();
        let schema = ScopeSchema::try_from(answer.schema.unwrap()).unwrap();
        let replica = bytes(ReplicaId::fresh().as_bytes());
        let mut bare = Self { directory, process, hub, client, schema, replica };
        // The replica is registered with its first session.
        let session = bare.open().await;
        bare.abandon(&session).await;
        bare
    }

    pub(super) fn begin_request(&self) -> pb::BeginSessionRequest {
        pb::BeginSessionRequest {
            session_id: bytes(SessionId::fresh().as_bytes()),
            replica_id: self.replica.clone(),
            replica_kind: pb::ReplicaKind::Leaf as i32,
            scope: "shop".into(),
            schema_fingerprint: bytes(&self.schema.fingerprint()),
            ..Default::default()
        }
    }

    pub(super) async fn open(&mut self) -> Open {
        let request = self.begin_request();
        let id = request.session_id.clone();
        let begun = self.client.begin_session(request).await.unwrap().into_inner();
        Open { id, token: begun.session_token }
    }

    /// Gives a session up, by whatever token it has now.
    pub(super) async fn abandon(&mut self, session: &Open) {
        let request = pb::EndSessionRequest {
            session_id: session.id.clone(),
            session_token: session.token.clone(),
            outcome: pb::SessionOutcome::Abandoned as i32,
            ..Default::default()
        };
        self.client.end_session(request).await.unwrap();
    }

    pub(super) fn table(&self, name: &str) -> &TableSchema {
        self.schema.tables.iter().find(|table| table.name == name).unwrap()
    }

    /// A batch of rows of `product`, not compressed.
    pub(super) fn products(&self, rows: &[(Value, Value, Value)]) -> EncodedBatch {
        let table = self.table("product");
        let mut columns: Vec<_> =
            table.columns.iter().map(|column| Column::new(column.id, column.ty)).collect();
        for (id, name, price) in rows {
            columns[0].push(id.cell()).unwrap();
            columns[1].push(name.cell()).unwrap();
            columns[2].push(price.cell()).unwrap();
        }
        let mut block = Block::new(table.id, Operation::Upsert, columns);
        block.ticks = (1..=rows.len() as u64).map(Tick).collect();
        block.changed_at = vec![1; rows.len()];
        block.births = block.ticks.clone();
        encode(&[block], BatchSequence::FIRST, Codec::Identity, self.schema.version).unwrap()
    }

    /// A good batch of two new products.
    pub(super) fn good(&self) -> EncodedBatch {
        self.products(&[row(50, "new", "1.25"), row(51, "new too", "1.25")])
    }

    pub(super) fn apply_request(&self, session: &Open, batch: &EncodedBatch) -> pb::ApplyChangesRequest {
        pb::ApplyChangesRequest {
            session_id: session.id.clone(),
            session_token: session.token.clone(),
            batches: vec![pb::BatchInfo { inline_data: batch.stored.clone(), ..batch.info.to_wire() }],
            leaf_clock: Some(pb::ReplicaClock {
                replica_id: self.replica.clone(),
                tick: 10,
                missing: Vec::new(),
            }),
            upload_mark: bytes(Mark::fresh().as_bytes()),
            ..Default::default()
        }
    }

    /// How everything stands.
    pub(super) async fn standing(&self) -> Standing {
        let mut ours = BTreeMap::new();
        // A leaf gets its number with its first upload, whether that is applied or not.
        let counted = |table: &String| !table.ends_with("replicas");
        let tables: Vec<_> = self.our_tables().await.into_iter().filter(counted).collect();
        for (table, rows) in tables.iter().zip(self.counts(&tables).await) {
            ours.insert(table.clone(), rows);
        }
        let spool_bytes = bytes_below(&self.directory.path().join("spool"));
        Standing { rows: shop::contents(&self.hub).await, ours, spool_bytes }
    }

    /// Rows of each table, by one connection.
    async fn counts(&self, tables: &[String]) -> Vec<i64> {
        let each: Vec<_> = tables.iter().map(|table| format!("(SELECT count(*) FROM {table})")).collect();
        match &self.hub {
            Database::Sqlite(path) => {
                let connection = database::open(path);
                let count = |query: &String| {
                    connection.query_row(&format!("SELECT {query}"), [], |row| row.get(0)).unwrap()
                };
                each.iter().map(count).collect()
            }
            Database::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                let query = sqlx::AssertSqlSafe(format!("SELECT ARRAY[{}]", each.join(", ")));
                sqlx::query(query).fetch_one(&mut connection).await.unwrap().get(0)
            }
        }
    }

    async fn our_tables(&self) -> Vec<String> {
        match &self.hub {
            Database::Sqlite(path) => {
                let connection = database::open(path);
                let mut statement = connection
                    .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'syncline%'")
                    .unwrap();
                let names = statement.query_map([], |row| row.get(0)).unwrap();
                names.collect::<Result<_, _>>().unwrap()
            }
            Database::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                let query = "SELECT 'syncline.' || tablename FROM pg_tables WHERE schemaname = 'syncline'";
                let rows = sqlx::query(query).fetch_all(&mut connection).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }
}

/// Calls ApplyChanges to its end.
pub(super) async fn apply(
    client: &mut Client,
    request: pb::ApplyChangesRequest,
) -> Result<pb::ApplyResult, Status> {
    let mut events = client.apply_changes(request).await?.into_inner();
    while let Some(message) = events.message().await? {
        if let Some(ApplyEvent::Result(result)) = message.event {
            return Ok(result);
        }
    }
    Err(Status::internal("no result"))
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => bytes_below(&entry.path()),
        metadata => metadata.len(),
    });
    sizes.sum()
}

/// `syncline serve` with its log in a file.
pub(super) struct Process {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Process {
    async fn start(database: &Database, directory: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = directory.join("syncline.toml");
        let text = format!("[session]\nbatch_bytes_max = 1048576\nrow_bytes_max = {ROW_BYTES_MAX}\n");
        std::fs::write(&config, text).unwrap();
        let log = directory.join("service.log");
        let written = || Stdio::from(std::fs::File::options().create(true).append(true).open(&log).unwrap());
        let child = Command::new(binary())
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--database", &database.url()])
            .arg("--config")
            .arg(&config)
            .arg("--spool")
            .arg(directory.join("spool"))
            .env("SYNCLINE_LOG__FILTER", "info")
            .stdin(Stdio::null())
            .stdout(written())
            .stderr(written())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut process = Self { child, port, log };
        process.wait_until_up().await;
        process
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn wait_until_up(&mut self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while !self.log().contains("listening") {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the service ended with {status}: {}", self.log());
            }
            assert!(tokio::time::Instant::now() < deadline, "the service does not listen: {}", self.log());
            pause.tick().await;
        }
    }

    /// All that it has logged.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The most memory that it ever had, in bytes.
    pub(super) fn memory_peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// Asserts that the service runs, and that nothing in it has panicked.
    pub(super) fn assert_sound(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the service has ended: {}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }
}

pub(super) fn bytes(slice: &[u8]) -> Bytes {
    Bytes::copy_from_slice(slice)
}

pub(super) fn row(id: i64, name: &str, price: &str) -> (Value, Value, Value) {
    (Value::Int64(id), Value::Text(name.into()), Value::Decimal(price.into()))
}
