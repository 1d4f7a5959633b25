//! Goal: over TLS the right authority is served, and what can never succeed fails at once and says what to correct.
//! Method: real handshakes with the certificates of the service's tests (for "localhost", each vouching for itself).

use std::path::{Path, PathBuf};

use super::service::Service;
use super::*;

pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../service/tests/service/fixtures").join(name)
}

/// What a call says through a connection to this address, trusting this authority.
async fn called(address: String, ca: Option<&str>) -> SyncError {
    let tls = TlsOptions { ca: ca.map(fixture), certificate: None, key: None };
    let options = RemoteOptions { tls, ..RemoteOptions::plain(address) };
    RemoteHub::new(&options).unwrap().scope(&"shop".parse().unwrap()).await.unwrap_err()
}

#[track_caller]
fn assert_refused(error: &SyncError, option: &str, says: &str) {
    assert_eq!(error.reason(), ErrorReason::RequestInvalid, "{error:?}");
    assert!(!crate::driver::is_worth_repeating(error), "it is never retried");
    assert_eq!(error.violations()[0].field, option, "{error:?}");
    assert!(error.message().contains(says), "{error:?}");
}

#[tokio::test]
async fn the_authority_that_is_named_is_trusted() {
    let port = Service::default().listen_with_tls().await;
    // The service has no scopes: that it says so is the answer of a connection that works.
    let error = called(format!("https://localhost:{port}"), Some("cert.pem")).await;
    assert_eq!(error.reason(), ErrorReason::ScopeNotFound, "{error:?}");
}

#[tokio::test]
async fn another_authority_is_refused_at_once() {
    let port = Service::default().listen_with_tls().await;
    let address = format!("https://localhost:{port}");
    let error = called(address.clone(), Some("other.pem")).await;
    assert_refused(&error, "ca", "not from an authority that is trusted here");
    assert!(error.message().contains(&address), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_at_once() {
    let port = Service::default().listen_with_tls().await;
    let error = called(format!("https://127.0.0.1:{port}"), Some("cert.pem")).await;
    assert_refused(&error, "server", "for another name");
}

#[tokio::test]
async fn tls_to_a_port_of_plain_text_is_refused_at_once() {
    let address = Service::default().listen().await.replace("http://", "https://");
    let error = called(address, Some("cert.pem")).await;
    assert_refused(&error, "server", "does not speak TLS");
}

#[tokio::test]
async fn plain_text_to_a_port_of_tls_is_refused_at_once() {
    let port = Service::default().listen_with_tls().await;
    // The service hangs up: whether its last words arrive before that is noticed is for the network to decide.
    for _ in 0..10 {
        let error = called(format!("http://localhost:{port}"), None).await;
        assert_refused(&error, "server", "write https://");
    }
}

#[tokio::test]
async fn a_handshake_that_is_broken_off_is_temporary() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
        }
    });
    let error = called(format!("https://localhost:{port}"), Some("cert.pem")).await;
    assert!(error.reason().is_temporary(), "{error:?}");
}
