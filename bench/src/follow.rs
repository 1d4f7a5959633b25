//! A client that follows its hub, as `syncline sync --watch` does.

use anyhow::{Result, ensure};
use syncline_client::Progress;
use syncline_engine::limits::WATCH_INTERVAL_DEFAULT;
use tokio_util::sync::CancellationToken;

use crate::children::{input_ended, synchronizer};
use crate::leaf::Leaf;

/// Synchronises at once and then whenever the hub has news, until the input ends.
pub(crate) async fn run(server: String, leaf: &Leaf) -> Result<()> {
    tokio::select! {
        followed = follow(server, leaf) => followed,
        () = input_ended() => Ok(()),
    }
}

async fn follow(server: String, leaf: &Leaf) -> Result<()> {
    let synchronizer = synchronizer(server, leaf).await?;
    let (progress, cancel) = (Progress::unseen(), CancellationToken::new());
    let mut report = synchronizer.run(&progress, &cancel).await?;
    let mut follower = synchronizer.follow(WATCH_INTERVAL_DEFAULT);
    loop {
        ensure!(report.conflicts == 0 && report.row_errors == 0, "conflicts or row errors: {report:?}");
        let due = follower.next(Some(&report)).await;
        report = synchronizer.run_due(due, &progress, &cancel).await?;
    }
}
