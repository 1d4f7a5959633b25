//! How a connection to the service is made.

use std::path::{Path, PathBuf};

use syncline::error::{Result, SyncError};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::limits;

/// Where the service is, and how it is talked to.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// The address, `http://host:50051` or `https://host:50051`.
    pub address: String,
    /// TLS, for `https` addresses.
    pub tls: TlsOptions,
    /// A file whose only line is the bearer token that every call carries.
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
    /// The authority that the service's certificate must come from.
    pub ca: Option<PathBuf>,
    /// The client's certificate, where the service asks for one.
    pub certificate: Option<PathBuf>,
    /// The key of the client's certificate.
    pub key: Option<PathBuf>,
}

/// A channel that connects with the first call.
///
/// # Errors
/// REQUEST_INVALID: see [`super::RemoteHub::new`].
pub(super) fn channel(options: &RemoteOptions) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(options.address.clone())
        .ok()
        .filter(|endpoint| matches!(endpoint.uri().scheme_str(), Some("http" | "https")))
        .ok_or_else(|| {
            let problem = format!("\"{}\" is no address of the form http://host:port", options.address);
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
    let endpoint = match (encrypted, tls(&options.tls)?) {
        (true, Some(tls)) => endpoint
            .tls_config(tls)
            .map_err(|error| SyncError::invalid("ca", "the certificates can't be used").with_detail(error))?,
        (false, None) => endpoint,
        (true, None) => {
            return Err(SyncError::invalid(
                "ca",
                "an https address needs a file with the authority to trust",
            ));
        }
        (false, Some(_)) => {
            return Err(SyncError::invalid("server", "certificates are of use with an https address only"));
        }
    };
    Ok(endpoint.connect_lazy())
}

fn tls(options: &TlsOptions) -> Result<Option<ClientTlsConfig>> {
    let identity = match (&options.certificate, &options.key) {
        (Some(certificate), Some(key)) => {
            Some(Identity::from_pem(read("cert", certificate)?, read("key", key)?))
        }
        (None, None) => None,
        _ => {
            return Err(SyncError::invalid(
                "cert",
                "a certificate and its key are given together or not at all",
            ));
        }
    };
    let Some(ca) = &options.ca else {
        return match identity {
            Some(_) => {
                Err(SyncError::invalid("ca", "a client certificate needs a file with the authority to trust"))
            }
            None => Ok(None),
        };
    };
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca", ca)?));
    Ok(Some(match identity {
        Some(identity) => config.identity(identity),
        None => config,
    }))
}

/// The value of the `authorization` header.
///
/// # Errors
/// REQUEST_INVALID if the file can't be read or holds no token. The token itself is in no message.
pub(super) fn read_token(file: &Path) -> Result<AsciiMetadataValue> {
    let content = String::from_utf8(read("token-file", file)?)
        .map_err(|_| SyncError::invalid("token-file", "the file holds no text"))?;
    let token = content.trim();
    if token.is_empty() {
        return Err(SyncError::invalid("token-file", "the file is empty"));
    }
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| SyncError::invalid("token-file", "the token holds characters that a header can't"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(option: &str, file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file)
        .map_err(|error| SyncError::invalid(option, format!("{} can't be read: {error}", file.display())))
}
