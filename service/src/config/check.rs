//! What no type says of the settings: bounds, and what does not go together. All faults at once.

use std::net::SocketAddr;
use std::time::Duration;

use syncline::limits::{BATCH_BYTES_MAX, BATCH_BYTES_MIN, ROW_BYTES_MAX};

use super::{ConfigError, ConfigProblem, ServeConfig};

/// A lease shorter than this ends sessions between two calls.
const LEASE_MIN: Duration = Duration::from_secs(60);
/// Nobody waits longer for a service to stop.
const GRACE_MAX: Duration = Duration::from_secs(3_600);

impl ServeConfig {
    /// Checks bounds, and what does not go together.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut faults = Faults::default();
        faults.unless(self.may_listen(self.listen), "listen", &refused(self.listen));
        faults.unless(
            self.grace <= GRACE_MAX && self.drain_notice <= GRACE_MAX,
            "grace",
            "grace and drain_notice must each be at most 1h",
        );
        faults.unless(
            self.spool.url.is_none(),
            "spool.url",
            "this build has no object store; say a directory in spool.directory",
        );
        let session = &self.session;
        faults.unless(session.lease >= LEASE_MIN, "session.lease", "must be at least 1m");
        faults.unless(
            (BATCH_BYTES_MIN..=BATCH_BYTES_MAX).contains(&session.batch_bytes_max),
            "session.batch_bytes_max",
            &format!("must be {BATCH_BYTES_MIN} to {BATCH_BYTES_MAX}"),
        );
        faults.unless(
            (BATCH_BYTES_MIN..=ROW_BYTES_MAX).contains(&session.row_bytes_max),
            "session.row_bytes_max",
            &format!("must be {BATCH_BYTES_MIN} to {ROW_BYTES_MAX}"),
        );
        faults.unless(
            self.spool.session_bytes_max() <= self.spool.bytes_max(),
            "spool.session_bytes_max",
            "must be at most spool.bytes_max",
        );
        faults.unless(
            self.spool.session_bytes_max() >= session.batch_bytes_max,
            "spool.session_bytes_max",
            "must be at least session.batch_bytes_max: a batch has to fit",
        );
        for (key, bound) in [
            ("limits.connections_max", self.limits.connections_max),
            ("limits.calls_max", self.limits.calls_max),
            ("limits.uploads_max", self.limits.uploads_max),
            ("session.sessions_max", session.sessions_max as usize),
        ] {
            faults.unless((1..=1 << 20).contains(&bound), key, "must be 1 to 1048576");
        }
        faults.finish()
    }

    /// Whether an address may be listened on: loopback, or with TLS, or if that was said outright.
    pub(crate) fn may_listen(&self, address: SocketAddr) -> bool {
        address.ip().is_loopback() || self.tls.is_some() || self.insecure_listen
    }
}

fn refused(address: SocketAddr) -> String {
    format!(
        "{address} is reachable from other machines and there is no TLS: set tls.cert and tls.key, listen on \
         127.0.0.1, or say insecure_listen = true (--insecure-listen) if something in front ends TLS"
    )
}

#[derive(Default)]
struct Faults(Vec<ConfigProblem>);

impl Faults {
    fn unless(&mut self, holds: bool, key: &str, message: &str) {
        if !holds {
            let (key, message) = (key.to_owned(), message.to_owned());
            self.0.push(ConfigProblem { key, source: String::new(), message });
        }
    }

    fn finish(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.0 }) }
    }
}
