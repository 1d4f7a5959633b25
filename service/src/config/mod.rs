//! Every setting of the service: what it means, where it comes from, and what is wrong with it.
//!
//! Defaults, then a TOML file, then the environment, then flags; the later wins. In the environment a key is
//! `SYNCLINE_` and its path in capitals, with two underscores between a section and its key:
//!
//! ```text
//! listen = "127.0.0.1:50051"          SYNCLINE_LISTEN=127.0.0.1:50051
//! database = "sqlite:hub.db"          SYNCLINE_DATABASE=postgres://user:password@host/db
//! [spool]
//! directory = "/var/lib/syncline"     SYNCLINE_SPOOL__DIRECTORY=/var/lib/syncline
//! ```
//!
//! A key that does not exist is refused, and the message names the nearest one that does.

mod check;
mod load;
mod secret;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use load::{ConfigError, ConfigProblem, ServeFlags, load};
pub use secret::DatabaseUrl;

use crate::limits;

/// Everything that `serve` can be told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeConfig {
    /// Where to listen. Beyond loopback only with [`tls`](Self::tls) or [`insecure_listen`](Self::insecure_listen).
    pub listen: SocketAddr,
    /// The hub's database. Never printed whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseUrl>,
    /// Whether to listen beyond loopback without TLS (behind something that ends TLS, for example).
    pub insecure_listen: bool,
    /// Whether callers may see SQL, paths and the like in errors. For development.
    pub verbose_errors: bool,
    /// After the service was told to stop: how long it goes on listening, so that load balancers notice.
    #[serde(with = "humantime_serde")]
    pub drain_notice: Duration,
    /// After that: how long calls may go on before they are ended.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// The service's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Where batches wait.
    pub spool: SpoolConfig,
    /// What sessions may do.
    pub session: SessionConfig,
    /// How much is served at once.
    pub limits: LimitsConfig,
    /// How logs are written.
    pub log: LogConfig,
}

/// The service's certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file with the certificate, and those that vouch for it.
    pub cert: PathBuf,
    /// A PEM file with the certificate's key.
    pub key: PathBuf,
}

/// Where batches wait between the database and the wire. A directory, or the URL of an object store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// A directory. Made if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// The URL of an object store. This build has none: refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Stored bytes of all sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
    /// Stored bytes of one session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_bytes_max: Option<u64>,
}

impl SpoolConfig {
    /// The directory that batches wait in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.as_deref().unwrap_or_else(|| Path::new("syncline-spool"))
    }

    /// Stored bytes of all sessions that may wait.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max.unwrap_or(syncline_engine::limits::SPOOL_BYTES_MAX)
    }

    /// Stored bytes of one session that may wait.
    #[must_use]
    pub fn session_bytes_max(&self) -> u64 {
        self.session_bytes_max.unwrap_or(syncline_engine::limits::SPOOL_SESSION_BYTES_MAX)
    }
}

/// What sessions may do. The hub keeps to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// How long a session is kept without a call.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// The largest batch before compression, in bytes.
    pub batch_bytes_max: u64,
    /// The largest row, in bytes.
    pub row_bytes_max: u64,
    /// Sessions that may be open at once.
    pub sessions_max: u32,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            lease: syncline_engine::limits::LEASE_DEFAULT,
            batch_bytes_max: syncline::limits::BATCH_BYTES_DEFAULT,
            row_bytes_max: syncline::limits::ROW_BYTES_DEFAULT,
            sessions_max: syncline_engine::limits::SESSIONS_MAX,
        }
    }
}

/// How much is served at once. What is more is refused before it is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections; the next ones wait to be accepted.
    pub connections_max: usize,
    /// Calls over all connections.
    pub calls_max: usize,
    /// Uploads among the calls.
    pub uploads_max: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX_DEFAULT,
            calls_max: limits::CALLS_MAX_DEFAULT,
            uploads_max: syncline_engine::limits::UPLOADS_MAX,
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How logs are written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// What is logged: `info`, or by module as in `info,syncline_service=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50_051)),
            database: None,
            insecure_listen: false,
            verbose_errors: false,
            drain_notice: Duration::ZERO,
            grace: limits::GRACE_DEFAULT,
            tls: None,
            spool: SpoolConfig::default(),
            session: SessionConfig::default(),
            limits: LimitsConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl ServeConfig {
    /// Writes the settings to the log, without the secret ones.
    pub(crate) fn log(&self) {
        tracing::info!(
            listen = %self.listen,
            database = self.database.as_ref().map(tracing::field::display),
            tls = self.tls.is_some(),
            insecure_listen = self.insecure_listen,
            verbose_errors = self.verbose_errors,
            drain_notice = ?self.drain_notice,
            grace = ?self.grace,
            spool = %self.spool.directory().display(),
            spool_bytes_max = self.spool.bytes_max(),
            spool_session_bytes_max = self.spool.session_bytes_max(),
            lease = ?self.session.lease,
            batch_bytes_max = self.session.batch_bytes_max,
            row_bytes_max = self.session.row_bytes_max,
            sessions_max = self.session.sessions_max,
            connections_max = self.limits.connections_max,
            calls_max = self.limits.calls_max,
            uploads_max = self.limits.uploads_max,
            log_format = ?self.log.format,
            "effective settings"
        );
    }
}
