//! Before anything is made for a scope on this side: is there such a scope?

use syncline_engine::replica::HubReplica;
use tokio_util::sync::CancellationToken;

use super::retry::retry;
use super::{Phase, Progress, ProgressState, RunError, SyncOptions};

/// Asks the hub for the scope of `options`, so that a wrong name or address is known before a database file, a directory
/// or a table is made for it. Changes nothing on either side; temporary failures are retried as in a run.
///
/// # Errors
/// [`RunError::Interrupted`] if it was cancelled, [`RunError::Temporary`] if a temporary failure outlasted the retries,
/// else [`RunError::Failed`]: SCOPE_NOT_FOUND for example.
pub async fn find_scope(
    hub: &dyn HubReplica,
    options: &SyncOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(), RunError> {
    progress.update(|state| *state = ProgressState { phase: Phase::Connecting, ..ProgressState::default() });
    let asked = retry(options.retry_for, progress, || hub.scope(&options.scope));
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(RunError::Interrupted),
        found = asked => found.map(|_| ()).map_err(RunError::from),
    }
}
