//! How logs are written: to standard error, as text or JSON, each line with its span's fields.
//!
//! Every rpc has a span named `sync.<rpc>` with `request_id`, `client` and, as far as the request names them,
//! `session`, `replica`, `scope` and `batch`. An rpc that fails is logged once, where it ends: as an error if it is a
//! fault of ours, as a warning if the caller is to try again, else as information. A session is logged when it begins
//! and when it ends.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::TryInitError;

use crate::config::{LogConfig, LogFormat};

/// Logs can't be written as asked for.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log.filter is not well-formed: {0}")]
    Filter(#[from] ParseError),
    /// Something else in this process writes logs already.
    #[error("logs are being written already: {0}")]
    Taken(#[from] TryInitError),
}

/// Writes the process's logs as the settings say. Once in a process.
///
/// A log that can't be written, on a full disk, is lost, and nothing else is: calls are answered as ever. (By default
/// the subscriber prints its own failures to the same place, and `eprintln!` panics where that fails too.)
///
/// # Errors
/// [`TelemetryError`].
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&config.filter)?)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match config.format {
        LogFormat::Text => lines.finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}
