//! The log of commands: to standard error, off unless it is asked for. The service writes its own, as its settings say.

use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Command};

/// Starts the log. SYNCLINE_LOG__FILTER says what is logged, SYNCLINE_LOG__FORMAT=json in which form.
pub(crate) fn start(arguments: &Arguments) {
    if matches!(arguments.command, Command::Serve(_)) {
        return;
    }
    let level = match arguments.verbose {
        0 => "off",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("SYNCLINE_LOG__FILTER").unwrap_or_else(|_| EnvFilter::new(level));
    // A log that has no room stops nothing: by default the failure is printed, there too, and that panics.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if std::env::var("SYNCLINE_LOG__FORMAT").is_ok_and(|format| format == "json") {
        log.json().init();
    } else {
        log.init();
    }
}
