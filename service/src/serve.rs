//! The life of the service: listen, serve, drain, stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use syncline::limits::MESSAGE_BYTES_MAX;
use syncline::pb::sync_service_server::{SERVICE_NAME, SyncServiceServer};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::server::ServerTlsConfig;
use tonic::transport::{Identity, Server};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admission::Admission;
use crate::config::{ConfigError, ServeConfig, TlsConfig};
use crate::drain::Drain;
use crate::sync::{Settings, SyncApi};
use crate::{ServedHub, connection, limits, malformed};

/// What health is told of: everything, and the protocol's service.
const HEALTH_OF: [&str; 2] = ["", SERVICE_NAME];

/// See [`malformed::explain`].
type Explain = fn(Response<Body>) -> Response<Body>;

/// The service could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The listener is reachable from other machines, and there is no TLS.
    #[error("{0} is reachable from other machines and there is no TLS; set tls, or say insecure_listen")]
    Insecure(SocketAddr),
    /// The listener has no address.
    #[error("the listener has no address: {0}")]
    Listener(#[source] io::Error),
    /// The certificate or its key can't be read.
    #[error("{setting} ({path}) can't be read: {source}")]
    TlsFile {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The transport failed, a certificate that does not fit its key for example.
    #[error("the transport failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// Reflection could not be made of the descriptors.
    #[error("the descriptors for reflection are broken: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves the hub on the listener until `shutdown` comes, then drains and returns. The only way to start.
///
/// Draining: new sessions are refused and health says NOT_SERVING; after `drain_notice`, and as soon as no call runs,
/// connections are closed. What still runs when `grace` is over is named in the log and ended with DRAINING: every
/// call can be taken up again. Last, the hub parks what it does by itself. Dropping the future ends everything at
/// once.
///
/// # Errors
/// [`ServeError`], before the first connection is accepted.
pub async fn serve(
    config: ServeConfig,
    hub: Arc<dyn ServedHub>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    config.check()?;
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    // The listener may be another one than the settings say.
    if !config.may_listen(address) {
        return Err(ServeError::Insecure(address));
    }
    let drain = Arc::new(Drain::default());
    let health = HealthReporter::new();
    health.set_service_status(SERVICE_NAME, ServingStatus::Serving).await;
    let routes = routes(&config, Arc::clone(&hub), &drain, &health)?;
    let server = transport(config.tls.as_ref()).await?;

    // Cancelled one after the other: no more connections, and an end to those that there are.
    let closing = CancellationToken::new();
    let killed = CancellationToken::new();
    let _killed_when_dropped = killed.clone().drop_guard();
    let connections = connection::accept(listener, config.limits.connections_max, killed.clone());
    let admission = Admission::new(config.limits.calls_max, config.limits.uploads_max);
    let explained = tower::util::MapResponseLayer::new(malformed::explain as Explain);
    let mut server = server.layer(admission).layer(explained);
    let server = server
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, closing.clone().cancelled_owned());
    tokio::pin!(server);

    config.log();
    tracing::info!(%address, tls = config.tls.is_some(), "listening");
    tokio::select! {
        // Without the signal it ends only if it failed.
        result = &mut server => return Ok(result?),
        () = shutdown => {}
    }
    let deadline = Instant::now() + config.drain_notice + config.grace;
    let stopping = Stopping { drain, health, closing, killed, deadline };
    stopping.close(server, config.drain_notice).await?;
    let parking = limits::PARK_MIN.max(deadline.saturating_duration_since(Instant::now()));
    if timeout(parking, hub.drain()).await.is_err() {
        tracing::warn!(waited = ?parking, "the hub has not parked everything; what still runs is given up");
        if timeout(limits::ABORT_MAX, hub.abort()).await.is_err() {
            tracing::warn!("the hub does not stop; what it does ends with the process");
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// What is needed to stop.
struct Stopping {
    drain: Arc<Drain>,
    health: HealthReporter,
    closing: CancellationToken,
    killed: CancellationToken,
    deadline: Instant,
}

impl Stopping {
    /// Refuses sessions, lets calls finish, closes the connections. Meanwhile the server must go on running.
    async fn close(
        mut self,
        mut server: Pin<&mut impl Future<Output = Result<(), tonic::transport::Error>>>,
        notice: Duration,
    ) -> Result<(), tonic::transport::Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        tracing::info!(?notice, ?left, "draining: no new sessions");
        self.drain.start();
        for service in HEALTH_OF {
            self.health.set_service_status(service, ServingStatus::NotServing).await;
        }
        tokio::select! {
            result = &mut server => return result,
            () = quiet(&self.drain, notice, self.deadline) => {}
        }
        // Whoever watches the health would keep its connection open.
        for service in HEALTH_OF {
            self.health.clear_service_status(service).await;
        }
        self.closing.cancel();
        tokio::select! {
            result = &mut server => return result,
            () = settle(&self.drain, self.deadline) => {}
        }
        // The calls have ended, and their callers hear how; then goes whoever keeps a connection open all the same.
        if let Ok(result) = timeout(limits::CLOSE_FLUSH, &mut server).await {
            return result;
        }
        self.killed.cancel();
        server.await
    }
}

/// Comes when the notice was long enough and no call runs, or at the deadline.
async fn quiet(drain: &Drain, notice: Duration, deadline: Instant) {
    tokio::time::sleep(notice).await;
    // Late calls are dealt with after the connections were told to close.
    let _ = timeout_at(deadline, drain.idle()).await;
}

/// Comes when no call runs; ends those that are late.
async fn settle(drain: &Drain, deadline: Instant) {
    if timeout_at(deadline, drain.idle()).await.is_ok() {
        return;
    }
    for call in drain.running() {
        tracing::warn!(
            rpc = call.rpc,
            request_id = &*call.request_id,
            session = call.session.map(tracing::field::display),
            running_ms = u64::try_from(call.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            "still running when the grace period was over: ended"
        );
    }
    drain.abort();
    drain.idle().await;
}

/// Everything that is answered: the protocol, health, reflection.
fn routes(
    config: &ServeConfig,
    hub: Arc<dyn ServedHub>,
    drain: &Arc<Drain>,
    health: &HealthReporter,
) -> Result<Routes, ServeError> {
    let settings = Settings {
        lease: config.session.lease,
        content_bytes_max: syncline::batch::content_bytes_max(
            config.session.batch_bytes_max,
            config.session.row_bytes_max,
        ),
        verbose_errors: config.verbose_errors,
    };
    let sync = SyncServiceServer::new(SyncApi::new(hub, Arc::clone(drain), settings))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let health = tonic_health::server::HealthService::from_health_reporter(health.clone());
    let health = tonic_health::pb::health_server::HealthServer::new(health)
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut routes = RoutesBuilder::default();
    routes.add_service(sync).add_service(health);
    // Old tools ask the alpha version.
    routes.add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
    Ok(routes.routes())
}

/// Reflection over what is served: the descriptors hold more.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(syncline::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(SERVICE_NAME)
        .with_service_name(tonic_health::pb::health_server::SERVICE_NAME)
}

/// HTTP/2 as the protocol wants it.
async fn transport(tls: Option<&TlsConfig>) -> Result<Server, ServeError> {
    let server = Server::builder()
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(Some(false))
        .max_frame_size(limits::FRAME_BYTES_MAX)
        .http2_max_header_list_size(limits::HEADER_BYTES_MAX)
        .max_concurrent_streams(limits::CONNECTION_CALLS_MAX)
        .http2_keepalive_interval(Some(limits::PING_INTERVAL))
        .http2_keepalive_timeout(Some(limits::PING_TIMEOUT))
        .max_connection_age(limits::CONNECTION_AGE_MAX)
        .max_connection_age_grace(limits::CONNECTION_AGE_GRACE);
    let Some(tls) = tls else {
        return Ok(server);
    };
    let cert = read_tls_file("tls.cert", &tls.cert).await?;
    let key = read_tls_file("tls.key", &tls.key).await?;
    Ok(server.tls_config(ServerTlsConfig::new().identity(Identity::from_pem(cert, key)))?)
}

async fn read_tls_file(setting: &'static str, path: &PathBuf) -> Result<Vec<u8>, ServeError> {
    tokio::fs::read(path).await.map_err(|source| ServeError::TlsFile { setting, path: path.clone(), source })
}
