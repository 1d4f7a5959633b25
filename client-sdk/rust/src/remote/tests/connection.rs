//! Calls over a real connection: that answers, breaks, or never comes about.

use futures_util::StreamExt as _;
use futures_util::stream;
use syncline::batch::{BatchInfo, Codec};
use syncline::ids::{BatchSequence, Mark, ReplicaId, SessionId, Tick};
use syncline::knowledge::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::service::Service;
use super::*;

fn begin() -> BeginRequest {
    BeginRequest {
        session: SessionId::fresh(),
        replica: ReplicaId::fresh(),
        scope: "shop".parse().unwrap(),
        parameters: Vec::new(),
        knowledge: Bytes::new(),
        upload_mark_answered: None,
        upload_mark_drawn: None,
        download_mark: None,
        codecs: vec![Codec::Zstd],
        batch_bytes_max: None,
        row_bytes_max: None,
        schema_fingerprint: [1; 32],
        client_name: "x".repeat(500),
        ahead: false,
    }
}

fn info() -> BatchInfo {
    BatchInfo {
        id: BatchId::fresh(),
        sequence: BatchSequence::FIRST,
        stored_bytes: 8,
        decoded_bytes: 8,
        rows: 1,
        codec: Codec::Identity,
        sha256: [0; 32],
        scope_version: 1,
    }
}

#[tokio::test]
async fn calls_and_streams_come_through() {
    let service = Service::default();
    let hub = RemoteHub::new(&RemoteOptions::plain(service.listen().await)).unwrap();
    let request = begin();
    let replica = request.replica;
    let begun = hub.begin(request).await.unwrap();
    assert_eq!(begun.agreement.codec, Codec::Zstd);

    let chunks = hub.read_batch(begun.session, BatchId::fresh(), 4).await.unwrap();
    let bytes: Vec<Bytes> = chunks.map(Result::unwrap).collect().await;
    assert_eq!(bytes.concat(), b"abab");

    let upload = stream::iter([Ok(Bytes::from_static(b"123")), Ok(Bytes::from_static(b"45"))]).boxed();
    let status = hub.write_batch(begun.session, info(), 0, upload).await.unwrap();
    assert_eq!(status, BatchStatus::Partial { committed_size: 5 });
    assert_eq!(service.seen.lock().unwrap().uploaded, b"12345");
    assert_eq!(hub.query_batch(begun.session, BatchId::fresh()).await.unwrap(), status);

    let apply = ApplyRequest {
        batches: Vec::new(),
        made_with: Bytes::new(),
        excepted_keys: Vec::new(),
        leaf: replica,
        leaf_clock: Clock::up_to(Tick(5)),
        upload_mark: Mark::fresh(),
        clock_offset_us: -3,
    };
    let _events = hub.apply(begun.session, apply).await.unwrap();
    let clock = service.seen.lock().unwrap().leaf_clock.take().unwrap();
    assert_eq!((&clock.replica_id[..], clock.tick), (replica.as_bytes(), 5));
    assert_eq!(hub.scope(&"shop".parse().unwrap()).await.unwrap_err().reason(), ErrorReason::ScopeNotFound);
}

#[tokio::test]
async fn an_error_while_reading_an_upload_is_the_callers_own() {
    let service = Service::default();
    let hub = RemoteHub::new(&RemoteOptions::plain(service.listen().await)).unwrap();
    let begun = hub.begin(begin()).await.unwrap();
    let disk = SyncError::new(ErrorReason::Internal, "the disk is at fault");
    let upload = stream::iter([Ok(Bytes::from_static(b"123")), Err(disk)]).boxed();
    let error = hub.write_batch(begun.session, info(), 0, upload).await.unwrap_err();
    assert_eq!(error.message(), "the disk is at fault");
}

/// A proxy before the service; it cuts its connections when told to.
async fn through_proxy(address: String, cut: CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut service = TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut service) => {}
            () = cut.cancelled() => {}
        }
    });
    proxy
}

#[tokio::test]
async fn a_connection_that_breaks_is_temporary() {
    let cut = CancellationToken::new();
    let address = through_proxy(Service::default().listen().await, cut.clone()).await;
    let hub = RemoteHub::new(&RemoteOptions::plain(&address)).unwrap();
    let begun = hub.begin(begin()).await.unwrap();
    let request = ChangesRequest { knowledge: Bytes::new(), excepted_keys: Vec::new(), first_sequence: 1 };
    let mut events = hub.changes(begun.session, request).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(ChangesEvent::Begin(_)))));
    cut.cancel();
    let error = events.next().await.unwrap().unwrap_err();
    assert!(error.reason().is_temporary(), "{error:?}");
    assert!(error.message().starts_with(&format!("the service at {address} can't be reached: ")), "{error}");
    assert!(events.next().await.is_none(), "it is at its end");
}

#[tokio::test]
async fn nobody_there_is_temporary_and_says_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let hub = RemoteHub::new(&RemoteOptions::plain(&address)).unwrap();
    let error = hub.begin(begin()).await.unwrap_err();
    assert!(error.reason().is_temporary());
    assert!(error.message().starts_with(&format!("the service at {address} can't be reached: ")), "{error}");
}

#[tokio::test]
async fn the_token_travels_with_every_call_and_stands_in_no_message() {
    let service = Service::default();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "secret-token\n").unwrap();
    let options = RemoteOptions { token_file: Some(file), ..RemoteOptions::plain(service.listen().await) };
    let hub = RemoteHub::new(&options).unwrap();
    hub.begin(begin()).await.unwrap();
    assert_eq!(service.seen.lock().unwrap().authorization, ["Bearer secret-token"]);
    assert!(!format!("{hub:?} {options:?}").contains("secret-token"));
}

#[tokio::test]
async fn a_token_that_is_replaced_is_sent_from_then_on() {
    let service = Service::default();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first").unwrap();
    let token_file = Some(file.clone());
    let options = RemoteOptions { token_file, ..RemoteOptions::plain(service.listen().await) };
    let hub = RemoteHub::new(&options).unwrap();
    hub.begin(begin()).await.unwrap();
    std::fs::write(&file, "second").unwrap();
    hub.begin(begin()).await.unwrap();
    // Emptied, as if it were just being written; and gone.
    std::fs::write(&file, "").unwrap();
    hub.begin(begin()).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    hub.begin(begin()).await.unwrap();
    std::fs::write(&file, "the third").unwrap();
    hub.begin(begin()).await.unwrap();
    let sent = ["Bearer first", "Bearer second", "Bearer second", "Bearer second", "Bearer the third"];
    assert_eq!(service.seen.lock().unwrap().authorization, sent);
}

#[tokio::test]
async fn options_that_can_not_be_are_named() {
    let refused =
        |options: RemoteOptions| RemoteHub::new(&options).unwrap_err().violations()[0].field.clone();
    assert_eq!(refused(RemoteOptions::plain("not an address")), "server");
    assert_eq!(refused(RemoteOptions::plain("ftp://host")), "server");
    let tls = |ca: &str| TlsOptions { ca: Some(ca.into()), certificate: None, key: None };
    assert_eq!(refused(RemoteOptions { tls: tls("/nowhere"), ..RemoteOptions::plain("https://host") }), "ca");
    let no_pem = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    assert_eq!(refused(RemoteOptions { tls: tls(no_pem), ..RemoteOptions::plain("https://host") }), "ca");
    assert_eq!(refused(RemoteOptions { tls: tls(no_pem), ..RemoteOptions::plain("http://host") }), "server");
    let token_file = Some("/nowhere/token".into());
    assert_eq!(refused(RemoteOptions { token_file, ..RemoteOptions::plain("http://host:1") }), "token-file");
}
