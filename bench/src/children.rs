//! What the children of this program do: the service and the client by their public interfaces, and the limits.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use syncline_client::{PartsDirectory, RemoteHub, RemoteOptions, SyncOptions, SyncReport, Synchronizer};
use syncline_engine::hub::{Hub, HubConfig};
use syncline_engine::spool::Spool;
use syncline_service::ServeConfig;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::database::Database;
use crate::leaf::Leaf;
use crate::limit::{self, Limit};
use crate::polls::{self, Asking, Load};
use crate::processes::{Ending, peak_kib};
use crate::scope::SCOPE;
use crate::{follow, many, store};

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Serves a hub until its input ends, with batches of so many bytes if it is said; says its port first.
    Serve { database: Database, spool: PathBuf, batch_bytes: Option<u64> },
    /// Synchronises once.
    Sync { server: String, leaf: Leaf },
    /// Synchronises whenever the hub has news, until its input ends.
    Follow { server: String, leaf: Leaf },
    /// Synchronises many leaves at the same time.
    SyncMany { server: String, leaves: Vec<Leaf> },
    /// Asks a service whether it is healthy.
    Health { server: String },
    /// Asks a service the same, over many connections for a while.
    Calls { server: String, asking: Asking, load: Load },
    /// Upserts every nth of the first rows of the sequence, from one of them on, into each of these files, a durable commit for each.
    Commits { files: Vec<PathBuf>, rows: u64, nth: usize, first: usize },
    /// Runs a limit.
    Limit(Limit),
}

/// Does the job.
pub(crate) fn run(job: &Path) -> Result<()> {
    let text = std::fs::read(job)?;
    std::fs::remove_file(job)?;
    let (mut moved, mut batches, mut figure) = (None, None, None);
    match serde_json::from_slice(&text)? {
        Job::Serve { database, spool, batch_bytes } => {
            let default = HubConfig::default();
            let batch_bytes_max = batch_bytes.unwrap_or(default.batch_bytes_max);
            runtime()?.block_on(serve(&database, spool, HubConfig { batch_bytes_max, ..default }))?;
            return Ok(());
        }
        Job::Sync { server, leaf } => {
            let report = runtime()?.block_on(sync(server, &leaf))?;
            moved = Some((report.uploaded.upserts, report.downloaded.upserts));
            batches = Some((report.downloaded.batches, report.downloaded.bytes));
        }
        Job::Follow { server, leaf } => runtime()?.block_on(follow::run(server, &leaf))?,
        Job::SyncMany { server, leaves } => {
            let done = runtime()?.block_on(many::sync(&server, &leaves))?;
            (moved, figure) = (Some(done.moved), Some(done.elapsed.as_secs_f64()));
        }
        Job::Health { server } => runtime()?.block_on(health(server))?,
        Job::Calls { server, asking, load } => {
            figure = Some(runtime()?.block_on(polls::calls_a_second(&server, &asking, load))?);
        }
        Job::Commits { files, rows, nth, first } => {
            figure = Some(limit::commit_each(&files, rows, nth, first)?.as_secs_f64());
        }
        Job::Limit(limit) => limit::run(limit)?,
    }
    let ending = Ending { peak_kib: peak_kib("/proc/self/status")?, moved, batches, figure };
    println!("{}", serde_json::to_string(&ending)?);
    Ok(())
}

/// As the command line makes it.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

async fn serve(database: &Database, spool: PathBuf, config: HubConfig) -> Result<()> {
    let store = store::open_hub(database).await?;
    let hub = Hub::open(store, Spool::directory(&spool)?, config).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    Ok(syncline_service::serve(ServeConfig::default(), Arc::new(hub), listener, input_ended()).await?)
}

/// The parent says that it is enough, or is gone.
pub(crate) async fn input_ended() {
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
}

/// A client of a service, for a leaf.
pub(crate) async fn synchronizer(server: impl Into<String>, leaf: &Leaf) -> Result<Synchronizer> {
    let store = store::open_leaf(&leaf.database).await?;
    let parts = PartsDirectory::open(&leaf.parts)?;
    let hub = RemoteHub::new(&RemoteOptions::plain(server))?;
    Ok(Synchronizer::new(store, Arc::new(hub), parts, SyncOptions::of_scope(SCOPE.parse()?)))
}

async fn sync(server: String, leaf: &Leaf) -> Result<SyncReport> {
    many::run(&synchronizer(server, leaf).await?).await
}

async fn health(server: String) -> Result<()> {
    let channel = tonic::transport::Endpoint::from_shared(server)?.connect().await?;
    let request = HealthCheckRequest { service: String::new() };
    HealthClient::new(channel).check(request).await.context("the service is not healthy")?;
    Ok(())
}
