//! Goal: a service that is told to stop refuses sessions, lets calls finish, ends those that are late, and goes.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use syncline::pb;
use syncline::pb::get_changes_response::Event;
use syncline_service::{ServeConfig, ServeError, serve};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::fake_hub::FakeHub;
use crate::harness::{
    PATIENCE, Service, Session, begin_request, mark, refused, waiting_upload, watch_request,
};

/// An enumeration that has begun and waits before its end.
async fn waiting_enumeration(service: &Service) -> (Session, tonic::Streaming<pb::GetChangesResponse>) {
    service.hub.waits.store(true, Ordering::SeqCst);
    let mut session = service.session().await;
    let mut changes = session.client.get_changes(session.changes_request()).await.unwrap().into_inner();
    let first = changes.message().await.unwrap().unwrap();
    assert!(matches!(first.event, Some(Event::Begin(_))));
    (session, changes)
}

async fn watch_health(service: &Service) -> tonic::Streaming<HealthCheckResponse> {
    let mut health = HealthClient::new(service.channel().await);
    health.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner()
}

#[tokio::test]
async fn calls_finish_while_new_sessions_are_refused() {
    let mut service = Service::start().await;
    let (mut session, mut changes) = waiting_enumeration(&service).await;
    let mut health = watch_health(&service).await;
    assert_eq!(health.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    service.stop();
    assert_eq!(health.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let status = session.client.begin_session(begin_request()).await.unwrap_err();
    assert_eq!((status.code(), refused(&status).reason.as_str()), (Code::Unavailable, "DRAINING"));
    // A session that is open goes on.
    let query = pb::QueryBatchRequest {
        session_id: session.id.clone(),
        session_token: session.token.clone(),
        batch_id: mark(),
    };
    session.client.query_batch(query).await.unwrap();

    service.hub.go_on.cancel();
    assert!(matches!(changes.message().await.unwrap().unwrap().event, Some(Event::End(_))));
    assert!(changes.message().await.unwrap().is_none());
    let (hub, address) = (Arc::clone(&service.hub), service.address);
    service.stopped().await.unwrap();
    assert!(hub.drained.load(Ordering::SeqCst));
    // Nobody listens any more, and whoever watched the health was told.
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!matches!(health.message().await, Ok(Some(_))));
}

#[tokio::test]
async fn whoever_watches_is_sent_away_at_once() {
    let mut service = Service::start().await;
    let mut told = service.client().await.watch_scope(watch_request()).await.unwrap().into_inner();
    told.message().await.unwrap().unwrap();
    service.stop();
    let status = loop {
        match told.message().await {
            Ok(message) => assert!(message.is_some(), "a watch ends with a word"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), refused(&status).reason.as_str()), (Code::Unavailable, "DRAINING"));
    service.stopped().await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_late_is_ended_with_draining() {
    let config = ServeConfig { grace: Duration::from_millis(50), ..ServeConfig::default() };
    let mut service = Service::start_with(config).await;
    let (_session, mut changes) = waiting_enumeration(&service).await;
    service.stop();
    let status = changes.message().await.unwrap_err();
    assert_eq!((status.code(), refused(&status).reason.as_str()), (Code::Unavailable, "DRAINING"));
    service.stopped().await.unwrap();
}

#[tokio::test]
async fn an_upload_that_is_late_is_ended_too() {
    let config = ServeConfig { grace: Duration::from_millis(50), ..ServeConfig::default() };
    let mut service = Service::start_with(config).await;
    let (_end, upload) = waiting_upload(&service).await;
    service.stop();
    let status = tokio::time::timeout(PATIENCE, upload).await.unwrap().unwrap().unwrap_err();
    assert_eq!((status.code(), refused(&status).reason.as_str()), (Code::Unavailable, "DRAINING"));
    service.stopped().await.unwrap();
}

#[tokio::test]
async fn idle_connections_keep_nobody_waiting() {
    let config = ServeConfig { grace: Duration::from_secs(3_600), ..ServeConfig::default() };
    let mut service = Service::start_with(config).await;
    let _idle = [service.channel().await, service.channel().await];
    // One that never says a word of HTTP/2.
    let _mute = TcpStream::connect(service.address).await.unwrap();
    service.stop();
    service.stopped().await.unwrap();
}

#[tokio::test]
async fn a_notice_keeps_the_service_listening_for_load_balancers() {
    let config = ServeConfig { drain_notice: Duration::from_secs(3_600), ..ServeConfig::default() };
    let mut service = Service::start_with(config).await;
    let mut health = watch_health(&service).await;
    health.message().await.unwrap();
    service.stop();
    assert_eq!(health.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // A connection that is made now is still answered.
    let status = service.client().await.begin_session(begin_request()).await.unwrap_err();
    assert_eq!(refused(&status).reason, "DRAINING");
}

#[tokio::test]
async fn dropping_the_future_ends_everything() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hub = Arc::new(FakeHub::new());
    let serving = tokio::spawn(serve(ServeConfig::default(), hub, listener, std::future::pending()));
    let endpoint = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap();
    serving.abort();
    assert!(!matches!(tokio::time::timeout(PATIENCE, watch.message()).await.unwrap(), Ok(Some(_))));
}

#[tokio::test]
async fn a_listener_beyond_loopback_is_refused_without_tls() {
    let open = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let hub = Arc::new(FakeHub::new());
    let served = serve(ServeConfig::default(), Arc::<FakeHub>::clone(&hub), open, async {}).await;
    assert!(matches!(served, Err(ServeError::Insecure(_))), "{served:?}");
    let open = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let config = ServeConfig { insecure_listen: true, ..ServeConfig::default() };
    serve(config, hub, open, async {}).await.unwrap();
}
