//! What the children of this program do: the service and the client by their public interfaces, and the limits.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use syncline_client::{PartsDirectory, Progress, RemoteHub, RemoteOptions, SyncOptions, Synchronizer};
use syncline_engine::hub::{Hub, HubConfig};
use syncline_engine::spool::Spool;
use syncline_service::ServeConfig;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::database::Database;
use crate::leaf::Leaf;
use crate::limit::{self, Limit};
use crate::processes::{Ending, peak_kib};
use crate::scope::SCOPE;
use crate::store;

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Serves a hub until its input ends; says its port first.
    Serve { database: Database, spool: PathBuf },
    /// Synchronises once.
    Sync { server: String, leaf: Leaf },
    /// Asks a service whether it is healthy.
    Health { server: String },
    /// Runs a limit.
    Limit(Limit),
}

/// Does the job.
pub(crate) fn run(job: &str) -> Result<()> {
    let moved = match serde_json::from_str(job)? {
        Job::Serve { database, spool } => {
            runtime()?.block_on(serve(&database, spool))?;
            return Ok(());
        }
        Job::Sync { server, leaf } => Some(runtime()?.block_on(sync(server, &leaf))?),
        Job::Health { server } => {
            runtime()?.block_on(health(server))?;
            None
        }
        Job::Limit(limit) => {
            limit::run(limit)?;
            None
        }
    };
    let ending = Ending { peak_kib: peak_kib("/proc/self/status")?, moved };
    println!("{}", serde_json::to_string(&ending)?);
    Ok(())
}

/// As the command line makes it.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

async fn serve(database: &Database, spool: PathBuf) -> Result<()> {
    let store = store::open_hub(database).await?;
    let hub = Hub::open(store, Spool::directory(&spool)?, HubConfig::default()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    let parent_is_gone = async {
        let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    };
    Ok(syncline_service::serve(ServeConfig::default(), Arc::new(hub), listener, parent_is_gone).await?)
}

async fn sync(server: String, leaf: &Leaf) -> Result<(u64, u64)> {
    let store = store::open_leaf(&leaf.database).await?;
    let parts = PartsDirectory::open(&leaf.parts)?;
    let hub = RemoteHub::new(&RemoteOptions::plain(server))?;
    let options = SyncOptions::of_scope(SCOPE.parse()?);
    let synchronizer = Synchronizer::new(store, Arc::new(hub), parts, options);
    let report = synchronizer.run(&Progress::unseen(), &CancellationToken::new()).await?;
    ensure!(report.conflicts == 0 && report.row_errors == 0, "conflicts or row errors: {report:?}");
    Ok((report.uploaded.upserts, report.downloaded.upserts))
}

async fn health(server: String) -> Result<()> {
    let channel = tonic::transport::Endpoint::from_shared(server)?.connect().await?;
    let request = HealthCheckRequest { service: String::new() };
    HealthClient::new(channel).check(request).await.context("the service is not healthy")?;
    Ok(())
}
