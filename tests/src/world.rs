//! One hub and its leaves over real databases, in this process: what the conformance suite plays histories on.

use std::sync::Arc;

use syncline_client::{
    PartsDirectory, Progress, RemoteHub, RemoteOptions, RunError, SyncOptions, SyncReport, Synchronizer,
};
use syncline_engine::dialect::meta::conflicts::{self, ConflictEntry};
use syncline_engine::dialect::postgres::PostgresDatabase;
use syncline_engine::dialect::sqlite::SqliteDatabase;
use syncline_engine::hub::{Hub, HubConfig};
use syncline_engine::replica::HubReplica;
use syncline_engine::scope;
use syncline_engine::spool::Spool;
use syncline_engine::store::{HubStore, LeafStore};
use tokio_util::sync::CancellationToken;

use crate::database::{Database, Kind};

/// How leaves reach the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// By calls in this process.
    Near,
    /// Through gRPC over a socket.
    Grpc,
}

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct WorldOptions<'a> {
    /// The hub's database.
    pub hub: Kind,
    /// The leaves' databases.
    pub leaf: Kind,
    /// How many leaves there are.
    pub leaves: usize,
    /// How they reach the hub.
    pub reach: Reach,
    /// What is run at the hub before the scope is defined.
    pub schema: &'a str,
    /// The scope file.
    pub scope: &'a str,
}

/// One hub and its leaves.
pub struct World {
    _directory: tempfile::TempDir,
    /// The hub's database, as an application sees it.
    pub hub: Database,
    /// The leaves' databases, as applications see them.
    pub leaves: Vec<Database>,
    /// The hub's database, as the engine sees it.
    pub hub_store: Arc<dyn HubStore>,
    leaf_stores: Vec<Arc<dyn LeafStore>>,
    /// Held from one session to the next, as a client that goes on does.
    parts: Vec<Arc<PartsDirectory>>,
    replica: Arc<dyn HubReplica>,
    shutdown: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    /// Makes the databases, defines the scope at the hub, and serves it.
    ///
    /// # Panics
    /// If anything fails.
    pub async fn new(options: WorldOptions<'_>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hub = Database::new(options.hub, directory.path(), "hub").await;
        hub.execute(options.schema).await;
        let hub_store = hub_store(&hub).await;
        hub_store.open_hub().await.unwrap();
        let definition = scope::parse(options.scope).unwrap();
        hub_store.define_scope(&definition, false).await.unwrap();
        let spool = Spool::directory(&directory.path().join("spool")).unwrap();
        let served = Hub::open(hub_store.clone(), spool, HubConfig::default()).await.unwrap();
        let shutdown = CancellationToken::new();
        let replica: Arc<dyn HubReplica> = match options.reach {
            Reach::Near => Arc::new(served),
            Reach::Grpc => Arc::new(over_grpc(served, shutdown.clone()).await),
        };
        let mut leaves = Vec::new();
        let (mut leaf_stores, mut parts) = (Vec::new(), Vec::new());
        for number in 0..options.leaves {
            let database = Database::new(options.leaf, directory.path(), &format!("leaf{number}")).await;
            leaf_stores.push(leaf_store(&database).await);
            parts.push(PartsDirectory::open(directory.path().join(format!("parts{number}"))).unwrap());
            leaves.push(database);
        }
        Self { _directory: directory, hub, leaves, hub_store, leaf_stores, parts, replica, shutdown }
    }

    /// A leaf synchronises.
    ///
    /// # Panics
    /// If it fails.
    pub async fn sync(&self, leaf: usize) -> SyncReport {
        self.try_sync(leaf).await.unwrap()
    }

    /// A leaf synchronises.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn try_sync(&self, leaf: usize) -> Result<SyncReport, RunError> {
        let parts = self.parts[leaf].clone();
        let options = SyncOptions::of_scope("shop".parse().unwrap());
        let store = self.leaf_stores[leaf].clone();
        let synchronizer = Synchronizer::new(store, self.replica.clone(), parts, options);
        synchronizer.run(&Progress::unseen(), &CancellationToken::new()).await
    }

    /// The hub's conflict log.
    ///
    /// # Panics
    /// If it can't be read.
    pub async fn hub_conflicts(&self) -> Vec<ConflictEntry> {
        let rows = self.hub_store.read(conflicts::list(None, 1_000, 0)).await.unwrap();
        rows.iter().map(|row| conflicts::from_row(row).unwrap()).collect()
    }

    /// A leaf's conflict log.
    ///
    /// # Panics
    /// If it can't be read.
    pub async fn leaf_conflicts(&self, leaf: usize) -> Vec<ConflictEntry> {
        let rows = self.leaf_stores[leaf].read(conflicts::list(None, 1_000, 0)).await.unwrap();
        rows.iter().map(|row| conflicts::from_row(row).unwrap()).collect()
    }
}

/// The engine over a hub's database.
///
/// # Panics
/// If it can't be opened.
pub async fn hub_store(database: &Database) -> Arc<dyn HubStore> {
    match database {
        Database::Sqlite(path) => SqliteDatabase::open(path).await.unwrap(),
        Database::Postgres(url) => PostgresDatabase::open(url).await.unwrap(),
    }
}

async fn leaf_store(database: &Database) -> Arc<dyn LeafStore> {
    match database {
        Database::Sqlite(path) => SqliteDatabase::open(path).await.unwrap(),
        Database::Postgres(url) => PostgresDatabase::open(url).await.unwrap(),
    }
}

async fn over_grpc(hub: Hub, shutdown: CancellationToken) -> RemoteHub {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = crate::service::in_process_config();
    tokio::spawn(async move {
        let stopped = async move { shutdown.cancelled().await };
        syncline_service::serve(config, Arc::new(hub), listener, stopped).await.unwrap();
    });
    RemoteHub::new(&RemoteOptions::plain(&url)).unwrap()
}
