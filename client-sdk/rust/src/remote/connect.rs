//! How a connection to the service is made.

use std::path::{Path, PathBuf};

use syncline::error::{Result, SyncError};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::limits;

/// Where the service is, and how it is talked to.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// The address, `http://host:50051` or `https://host:50051`.
    pub address: String,
    /// TLS, for `https` addresses.
    pub tls: TlsOptions,
    /// A file whose only line is the bearer token that every call carries. It is read again whenever it has changed.
    pub token_file: Option<PathBuf>,
}

impl RemoteOptions {
    /// An address alone: no certificates, no token.
    #[must_use]
    pub fn plain(address: impl Into<String>) -> Self {
        let tls = TlsOptions { ca: None, certificate: None, key: None };
        Self { address: address.into(), tls, token_file: None }
    }
}

/// Files with PEM certificates and keys.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// The authority that the service's certificate must come from; without one, those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// The client's certificate, where the service asks for one.
    pub certificate: Option<PathBuf>,
    /// The key of the client's certificate.
    pub key: Option<PathBuf>,
}

impl RemoteOptions {
    /// A channel that connects with the first call, and again whenever the connection was lost.
    ///
    /// # Errors
    /// REQUEST_INVALID, naming the option: see [`super::RemoteHub::new`].
    pub fn channel(&self) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(self.address.clone())
            .ok()
            .filter(|endpoint| matches!(endpoint.uri().scheme_str(), Some("http" | "https")))
            .ok_or_else(|| {
                let problem = format!("\"{}\" is no address of the form http://host:port", self.address);
                SyncError::invalid("server", problem)
            })?;
        let encrypted = endpoint.uri().scheme_str() == Some("https");
        let endpoint = endpoint
            .connect_timeout(limits::CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .http2_adaptive_window(false)
            .max_frame_size(limits::FRAME_BYTES_MAX)
            .http2_keep_alive_interval(limits::PING_INTERVAL)
            .keep_alive_timeout(limits::PING_TIMEOUT)
            .keep_alive_while_idle(false);
        let endpoint = if encrypted {
            let tls = self.tls.config()?;
            endpoint.tls_config(tls).map_err(|error| self.tls.unusable(&error))?
        } else if self.tls.is_used() {
            return Err(SyncError::invalid("server", "certificates are of use with an https address only"));
        } else {
            endpoint
        };
        Ok(endpoint.connect_lazy())
    }
}

/// Whether what listens at an `http` address answers a TLS handshake. Whom it claims to be does not matter.
pub(super) async fn speaks_tls(address: &str) -> bool {
    let encrypted = address.replacen("http://", "https://", 1);
    // Nobody is trusted: a certificate that is refused was shown all the same.
    let probe = Endpoint::from_shared(encrypted).and_then(|endpoint| {
        endpoint.connect_timeout(limits::CONNECT_TIMEOUT).tls_config(ClientTlsConfig::new())
    });
    let Ok(probe) = probe else { return false };
    match probe.connect().await {
        Ok(_) => true,
        Err(error) => super::status::was_shown_a_certificate(&error),
    }
}

impl TlsOptions {
    const fn is_used(&self) -> bool {
        self.ca.is_some() || self.certificate.is_some() || self.key.is_some()
    }

    /// Trusts the authority that is named, and nobody else; without one, those that this machine trusts.
    fn config(&self) -> Result<ClientTlsConfig> {
        let config = match &self.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read_pem("ca", ca)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let identity = Identity::from_pem(read_pem("cert", certificate)?, read_pem("key", key)?);
                Ok(config.identity(identity))
            }
            (None, None) => Ok(config),
            _ => {
                Err(SyncError::invalid("cert", "a certificate and its key are given together or not at all"))
            }
        }
    }

    fn unusable(&self, error: &tonic::transport::Error) -> SyncError {
        let (option, problem) = if self.certificate.is_some() {
            ("cert", "the certificates can't be used: do certificate and key belong together?")
        } else if self.ca.is_some() {
            ("ca", "the authority's certificate can't be used")
        } else {
            ("ca", "this machine trusts no authority by itself; name a file with the one to trust")
        };
        SyncError::invalid(option, problem).with_detail(format!("{error:?}"))
    }
}

pub(super) fn read(option: &str, file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file)
        .map_err(|error| SyncError::invalid(option, format!("{} can't be read: {error}", file.display())))
}

/// A file that must hold PEM: without a look at it, one that holds something else would be taken for an empty one.
fn read_pem(option: &str, file: &Path) -> Result<Vec<u8>> {
    let content = read(option, file)?;
    if content.windows(11).any(|bytes| bytes == b"-----BEGIN ") {
        return Ok(content);
    }
    Err(SyncError::invalid(option, format!("{} holds no PEM (-----BEGIN ...)", file.display())))
}
