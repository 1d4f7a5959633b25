//! The real binary over TLS: who trusts the wrong authority, or speaks TLS on one side alone, hears of it at once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use syncline_tests::database::{Database, Kind};
use syncline_tests::service::Service;
use syncline_tests::shop;

use super::run::{Ended, files_below, run_with};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../service/tests/service/fixtures").join(name)
}

/// A service with TLS, as "localhost".
async fn start(directory: &Path) -> Service {
    let hub = Database::new(Kind::Sqlite, directory, "hub").await;
    shop::fill(&hub, 2).await;
    let config = directory.join("tls.toml");
    let (cert, key) = (fixture("cert.pem"), fixture("key.pem"));
    std::fs::write(&config, format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n")).unwrap();
    Service::start_with(&hub, shop::SCOPE, directory, &["--config", config.to_str().unwrap()]).await
}

#[tokio::test]
async fn what_can_never_be_encrypted_fails_at_once_and_leaves_nothing() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let service = start(there.path()).await;
    let port = service.port();
    let (right, wrong) = (fixture("cert.pem"), fixture("other.pem"));
    let (right, wrong) = (right.display(), wrong.display());
    let cases = [
        (
            format!("https://localhost:{port} --ca {wrong}"),
            "not from an authority that is trusted here",
            "--ca",
        ),
        (format!("https://localhost:{port}"), "not from an authority that is trusted here", "--ca"),
        (format!("https://127.0.0.1:{port} --ca {right}"), "for another name", "--server"),
        (format!("http://localhost:{port}"), "write https://", "--server"),
    ];
    for (server, says, remedy) in &cases {
        for command in ["sync --scope shop --database sqlite:shop.db --retry-for 10m", "health --timeout 60s"]
        {
            let began = Instant::now();
            let ended = refused(here.path(), &format!("{command} --server {server}"));
            assert!(began.elapsed() < Duration::from_secs(60), "{command} {server}: it was tried again");
            ended.assert_error(&format!("{command} {server}"), 1, "REQUEST_INVALID", says);
            assert!(ended.remedy().contains(remedy), "{server}: {}", ended.remedy());
            assert_eq!(files_below(here.path()), [], "{command} {server} left something behind");
        }
    }
}

fn refused(directory: &Path, words: &str) -> Ended {
    // The machine's own authorities, whatever they are, are not asked: only one that did not sign the certificate.
    run_with(directory, words, &[("SSL_CERT_FILE", fixture("other.pem").to_str().unwrap())])
}

#[tokio::test]
async fn the_right_authority_is_trusted_named_or_as_this_machine_s_own() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let service = start(there.path()).await;
    let server = format!("--server https://localhost:{}", service.port());
    let right = fixture("cert.pem").display().to_string();
    let named = run_with(here.path(), &format!("health {server} --ca {right}"), &[]);
    assert_eq!((named.status, named.document["status"].as_str()), (0, Some("SERVING")), "{named:?}");
    let own = [("SSL_CERT_FILE", right.as_str())];
    let trusted = run_with(here.path(), &format!("health {server}"), &own);
    assert_eq!((trusted.status, trusted.document["status"].as_str()), (0, Some("SERVING")), "{trusted:?}");
    let synced = run_with(here.path(), &format!("sync {server} --scope shop --database sqlite:a.db"), &own);
    assert_eq!(synced.status, 0, "{synced:?}");
    // What is not PEM, or not there, is bad usage.
    for (ca, says) in [("/nowhere.pem", "/nowhere.pem can't be read"), ("/etc/hostname", "holds no PEM")] {
        let ended = run_with(here.path(), &format!("health {server} --ca {ca}"), &[]);
        ended.assert_error(ca, 2, "USAGE", says);
    }
}
