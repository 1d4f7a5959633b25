//! Ctrl-C: the first asks for an orderly end, the second ends at once.

use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::output::Output;

/// Listens for Ctrl-C and SIGTERM from now on; the token is cancelled by the first.
pub(crate) fn listen(output: Output) -> CancellationToken {
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        signalled().await;
        output.aside("stopping; what was transferred is kept (Ctrl-C again: stop at once)");
        asked.cancel();
        signalled().await;
        std::process::exit(Exit::Interrupted.code().into());
    });
    token
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        // Without the one there is still the other.
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

#[cfg(not(unix))]
async fn signalled() {
    drop(tokio::signal::ctrl_c().await);
}
