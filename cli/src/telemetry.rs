//! The log: to standard error, off for commands that people watch, on for the service.

use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Command};

/// Starts the log. SYNCLINE_LOG is a filter as of the `tracing` ecosystem, SYNCLINE_LOG_FORMAT `json` or `text`.
pub(crate) fn start(arguments: &Arguments) {
    let serves = matches!(arguments.command, Command::Serve(_));
    let level = match arguments.verbose {
        0 if serves => "info",
        0 => "off",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("SYNCLINE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var("SYNCLINE_LOG_FORMAT").is_ok_and(|format| format == "json") {
        log.json().init();
    } else {
        log.init();
    }
}
