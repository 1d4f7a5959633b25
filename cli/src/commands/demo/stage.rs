//! What the demo plays on: a hub behind a real service, and two leaves that reach it over sockets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use syncline_client::{Due, PartsDirectory, RemoteHub, RemoteOptions, SyncOptions, SyncReport, Synchronizer};
use syncline_engine::hub::{Hub, HubConfig};
use syncline_engine::scope::{self, DefineError};
use syncline_engine::spool::Spool;
use syncline_engine::store::HubStore;
use syncline_service::{ServeConfig, ServeError, serve};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::shop;
use super::wire::Wire;
use crate::commands::sync::run_once;
use crate::database::DatabaseUrl;
use crate::failure::Failure;

/// Small batches, so that a broken transfer has some to keep.
const BATCH_BYTES: u64 = syncline::limits::BATCH_BYTES_MIN;

/// All that takes part.
pub(super) struct Stage {
    /// The hub's database, as an application finds it.
    pub(super) hub_file: PathBuf,
    /// The hub's database, as the engine sees it.
    pub(super) hub: Arc<dyn HubStore>,
    /// Where the service listens.
    pub(super) address: SocketAddr,
    /// A leaf with a good connection.
    pub(super) office: Leaf,
    /// A leaf behind the wire.
    pub(super) phone: Leaf,
    /// The phone's connection.
    pub(super) wire: Wire,
    shutdown: CancellationToken,
    service: JoinHandle<Result<(), ServeError>>,
}

/// A leaf.
pub(super) struct Leaf {
    /// Its file's name.
    pub(super) name: &'static str,
    /// Its file.
    pub(super) file: PathBuf,
    synchronizer: Synchronizer,
}

impl Stage {
    /// Makes the hub of a database that is full already, serves it, and sets up two empty leaves.
    pub(super) async fn build(directory: &Path, hub_file: &Path) -> Result<Self, Failure> {
        let hub = DatabaseUrl::Sqlite(hub_file.to_owned()).open_hub().await?;
        let definition = scope::parse(shop::SCOPE).map_err(refused)?;
        hub.define_scope(&definition, false).await.map_err(refused)?;

        let config = ServeConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            grace: Duration::from_secs(5),
            ..ServeConfig::default()
        };
        let spool = Spool::directory(&directory.join("spool"))?;
        let served = Hub::open(Arc::clone(&hub), spool, HubConfig::default()).await?;
        let listener = TcpListener::bind(config.listen).await.map_err(Failure::internal)?;
        let address = listener.local_addr().map_err(Failure::internal)?;
        let shutdown = CancellationToken::new();
        let stopped = shutdown.clone().cancelled_owned();
        let service = tokio::spawn(serve(config, Arc::new(served), listener, stopped));

        let wire = Wire::to(address).await.map_err(Failure::internal)?;
        let office = Leaf::new(directory, "office.db", format!("http://{address}")).await?;
        let phone = Leaf::new(directory, "phone.db", wire.url()).await?;
        Ok(Self { hub_file: hub_file.to_owned(), hub, address, office, phone, wire, shutdown, service })
    }

    /// An application at the hub writes, in one transaction.
    pub(super) fn hub_writes<T>(
        &self,
        work: impl FnOnce(&Connection) -> shop::Result<T>,
    ) -> Result<T, Failure> {
        shop::write(&self.hub_file, work).map_err(Failure::internal)
    }

    /// The service stops as it does on a signal.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.shutdown.cancel();
        self.service.await.map_err(Failure::internal)?.map_err(Failure::internal)
    }
}

impl Leaf {
    async fn new(directory: &Path, name: &'static str, address: String) -> Result<Self, Failure> {
        let file = directory.join(name);
        let store = DatabaseUrl::Sqlite(file.clone()).open_leaf().await?;
        let hub = RemoteHub::new(&RemoteOptions::plain(address))?;
        let parts = PartsDirectory::open(PartsDirectory::beside(&file))?;
        let scope = "shop".parse().map_err(Failure::internal)?;
        // The demo shows a failure as soon as there is one; `syncline sync` would wait it out.
        let options = SyncOptions {
            batch_bytes_max: Some(BATCH_BYTES),
            retry_for: Duration::ZERO,
            ..SyncOptions::of_scope(scope)
        };
        Ok(Self { name, file, synchronizer: Synchronizer::new(store, Arc::new(hub), parts, options) })
    }

    /// Synchronises once.
    pub(super) async fn sync(&self, interrupt: &CancellationToken) -> Result<(SyncReport, u64), Failure> {
        run_once(&self.synchronizer, Due::Perhaps, false, interrupt).await
    }

    /// An application at the leaf writes, in one transaction.
    pub(super) fn writes<T>(&self, work: impl FnOnce(&Connection) -> shop::Result<T>) -> Result<T, Failure> {
        shop::write(&self.file, work).map_err(Failure::internal)
    }
}

/// The scope of the demo is our own: if it is refused, that is a fault of ours.
fn refused(error: DefineError) -> Failure {
    match error {
        DefineError::Failed(error) => error.into(),
        DefineError::Problems(problems) => Failure::internal(format!("{problems:?}")),
    }
}
