//! Goal: what is too much is refused before it is read, and what is logged is enough, once, and holds no secrets.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use syncline::error::SyncError;
use syncline::pb;
use syncline_service::ServeConfig;
use syncline_service::config::{DatabaseUrl, LimitsConfig};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::harness::{Refused, Service, begin_request, refused, waiting_upload};

fn overloaded() -> Refused {
    Refused { code: Code::ResourceExhausted, reason: "OVERLOADED".into(), fields: Vec::new() }
}

#[tokio::test]
async fn an_upload_too_many_is_refused_unread_and_may_come_back() {
    let limits = LimitsConfig { uploads_max: 1, ..LimitsConfig::default() };
    let service = Service::start_with(ServeConfig { limits, ..ServeConfig::default() }).await;
    let (end, _upload) = waiting_upload(&service).await;
    let mut client = service.client().await;
    // It would be refused for its content, were it read.
    let status = client.upload_chunk(pb::UploadChunkRequest::default()).await.unwrap_err();
    assert_eq!(refused(&status), overloaded());
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
    let silent = tokio_stream::pending::<pb::UploadBatchRequest>();
    assert_eq!(refused(&client.upload_batch(silent).await.unwrap_err()), overloaded());
    // Other calls go on, and so do uploads once there is room.
    client.list_scopes(pb::ListScopesRequest::default()).await.unwrap();
    drop(end);
    loop {
        let status = client.upload_chunk(pb::UploadChunkRequest::default()).await.unwrap_err();
        if refused(&status) != overloaded() {
            assert_eq!(refused(&status).fields, ["header"]);
            break;
        }
    }
}

#[tokio::test]
async fn a_call_too_many_is_refused_but_health_is_not() {
    let limits = LimitsConfig { calls_max: 1, ..LimitsConfig::default() };
    let service = Service::start_with(ServeConfig { limits, ..ServeConfig::default() }).await;
    let _upload = waiting_upload(&service).await;
    let status = service.client().await.begin_session(begin_request()).await.unwrap_err();
    assert_eq!(refused(&status), overloaded());
    let mut health = HealthClient::new(service.channel().await);
    health.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_connection_too_many_waits_for_its_turn() {
    let limits = LimitsConfig { connections_max: 1, ..LimitsConfig::default() };
    let service = Service::start_with(ServeConfig { limits, ..ServeConfig::default() }).await;
    let mut first = service.client().await;
    first.list_scopes(pb::ListScopesRequest::default()).await.unwrap();
    let second = tokio::spawn({
        let address = service.address;
        async move {
            let endpoint = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
            let mut client = crate::harness::Client::new(endpoint.connect_lazy());
            client.list_scopes(pb::ListScopesRequest::default()).await
        }
    });
    first.list_scopes(pb::ListScopesRequest::default()).await.unwrap();
    assert!(!second.is_finished());
    drop(first);
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_message_beyond_the_bound_never_reaches_the_hub() {
    let service = Service::start().await;
    let request = pb::BeginSessionRequest {
        knowledge: Bytes::from(vec![1; syncline::limits::MESSAGE_BYTES_MAX]),
        ..begin_request()
    };
    let status = service.client().await.begin_session(request).await.unwrap_err();
    assert_eq!(
        (refused(&status).code, refused(&status).reason.as_str()),
        (Code::InvalidArgument, "REQUEST_INVALID")
    );
    assert_eq!(service.hub.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn random_bytes_are_refused_and_leave_the_service_alive() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let service = Service::start().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 100][..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = tokio::net::TcpStream::connect(service.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        // It ends, by whatever way.
        let _ = stream.read_to_end(&mut answer).await;
    }
    service.client().await.list_scopes(pb::ListScopesRequest::default()).await.unwrap();
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_failure_is_logged_once_with_its_session_and_no_secrets() {
    // Events that another test comes by first, where nobody listens, would be taken for unwanted here too.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_writer(move || writer.clone())
        .finish();
    // The test's runtime has one thread, so its tasks log here too.
    let _guard = tracing::subscriber::set_default(subscriber);
    let database = Some(DatabaseUrl::new("postgres://ann:s3cret@host/db"));
    let service = Service::start_with(ServeConfig { database, ..ServeConfig::default() }).await;
    let session = service.session().await;
    *service.hub.failure.lock().unwrap() = Some(SyncError::internal("disk on fire"));
    service.client().await.begin_session(begin_request()).await.unwrap_err();

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("s3cret") && text.contains("postgres://ann@host/db"), "{text}");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failures: Vec<_> =
        lines.iter().filter(|line| line["fields"]["detail"].as_str() == Some("disk on fire")).collect();
    assert_eq!(failures.len(), 1, "{text}");
    assert_eq!(failures[0]["level"], "ERROR");
    assert_eq!(failures[0]["fields"]["reason"], "INTERNAL");
    assert_eq!(failures[0]["span"]["name"], "sync.begin_session");
    let begun: Vec<_> = lines.iter().filter(|line| line["fields"]["message"] == "session begun").collect();
    assert_eq!(begun.len(), 1, "{text}");
    let span = &begun[0]["span"];
    let id = syncline::ids::SessionId::from_slice(&session.id).unwrap().to_string();
    assert_eq!(span["session"], id.as_str());
    assert_eq!(span["scope"], "shop");
    assert!(span["replica"].is_string() && span["request_id"].is_string() && span["client"].is_string());
}
