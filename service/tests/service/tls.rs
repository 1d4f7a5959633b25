//! Goal: with a certificate the service talks TLS and nothing else; files that do not fit stop it from starting.
//! `fixtures/` holds a certificate for "localhost" that vouches for itself, made for these tests alone.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use syncline::pb;
use syncline::pb::sync_service_client::SyncServiceClient;
use syncline_service::config::TlsConfig;
use syncline_service::{ServeConfig, ServeError, serve};
use tokio::net::TcpListener;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use crate::fake_hub::FakeHub;
use crate::harness::Service;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service/fixtures").join(name)
}

fn config(cert: PathBuf, key: PathBuf) -> ServeConfig {
    ServeConfig { tls: Some(TlsConfig { cert, key }), ..ServeConfig::default() }
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_is_served_and_plain_text_is_not() {
    let service = Service::start_with(config(fixture("cert.pem"), fixture("key.pem"))).await;
    let trusted = Certificate::from_pem(std::fs::read(fixture("cert.pem")).unwrap());
    let tls = ClientTlsConfig::new().ca_certificate(trusted).domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://{}", service.address)).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    SyncServiceClient::new(channel).list_scopes(pb::ListScopesRequest::default()).await.unwrap();

    let plain = Channel::from_shared(format!("http://{}", service.address)).unwrap().connect_lazy();
    let unheard = SyncServiceClient::new(plain).list_scopes(pb::ListScopesRequest::default()).await;
    assert!(unheard.is_err());
}

#[tokio::test]
async fn files_that_are_no_certificate_stop_it_from_starting() {
    let start = async |cert: &str, key: &str| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let config = config(fixture(cert), fixture(key));
        serve(config, Arc::new(FakeHub::new()), listener, async {}).await
    };
    let absent = start("cert.pem", "absent.pem").await.unwrap_err();
    assert!(absent.to_string().starts_with("tls.key ("), "{absent}");
    let swapped = start("key.pem", "cert.pem").await.unwrap_err();
    assert!(matches!(swapped, ServeError::Transport(_)), "{swapped}");
}
