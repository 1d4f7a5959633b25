//! Many clients in one process.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use syncline_client::{Progress, SyncReport, Synchronizer};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::children::synchronizer;
use crate::leaf::Leaf;

/// What they have done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    /// Rows uploaded and downloaded, by all of them.
    pub(crate) moved: (u64, u64),
    /// From when all began at once until the last had committed and ended its session.
    pub(crate) elapsed: Duration,
}

/// Synchronises each leaf once, all at the same time. Their files are open before the clock starts and closed after it has
/// stopped; their connections to the service are not open before. As many threads as there are processors drive them.
pub(crate) async fn sync(server: &str, leaves: &[Leaf]) -> Result<Done> {
    let threads = std::thread::available_parallelism()?.get();
    let mut shares: Vec<Vec<Synchronizer>> = (0..threads).map(|_| Vec::new()).collect();
    for (place, leaf) in leaves.iter().enumerate() {
        shares[place % threads].push(synchronizer(server, leaf).await?);
    }
    let started = Instant::now();
    let mut running = JoinSet::new();
    for clients in shares {
        let runtime = Handle::current();
        running.spawn_blocking(move || {
            let reports = runtime.block_on(try_join_all(clients.iter().map(run)))?;
            anyhow::Ok((reports, clients))
        });
    }
    let (mut moved, mut open) = ((0, 0), Vec::new());
    while let Some(done) = running.join_next().await {
        let (reports, clients) = done??;
        open.push(clients);
        for report in reports {
            moved = (moved.0 + report.uploaded.upserts, moved.1 + report.downloaded.upserts);
        }
    }
    let elapsed = started.elapsed();
    drop(open);
    Ok(Done { moved, elapsed })
}

/// Synchronises once.
pub(crate) async fn run(client: &Synchronizer) -> Result<SyncReport> {
    let report = client.run(&Progress::unseen(), &CancellationToken::new()).await?;
    ensure!(report.conflicts == 0 && report.row_errors == 0, "conflicts or row errors: {report:?}");
    Ok(report)
}
