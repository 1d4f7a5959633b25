//! `syncline health`: asks a service by the gRPC health protocol; for probes of containers.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use syncline_client::RemoteOptions;
use syncline_client::remote::connection_failure;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{TlsArgs, bad_connection, parse_server};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// Arguments of `health`.
#[derive(Debug, Args)]
#[command(after_help = "Example: syncline health --server http://127.0.0.1:50051")]
pub(crate) struct HealthArgs {
    /// The service
    #[arg(long, value_name = "URL", value_parser = parse_server)]
    server: String,
    #[command(flatten)]
    tls: TlsArgs,
    /// One of its gRPC services; all together if it is not named
    #[arg(long, default_value = "", hide_default_value = true)]
    service: String,
    /// How long to wait for the answer
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Runs the command: exit status 0 if the service serves, else 1.
pub(crate) async fn run(arguments: HealthArgs, output: &Output) -> Result<Exit, Failure> {
    let HealthArgs { server, tls, service, timeout } = arguments;
    let options = RemoteOptions { tls: tls.options(), ..RemoteOptions::plain(&server) };
    let channel = options.channel().map_err(bad_connection)?;
    let status = match tokio::time::timeout(timeout, ask(channel, &server, service)).await {
        Ok(status) => status?,
        Err(_) => "TIMEOUT".to_owned(),
    };
    let document = json!({ "server": server, "status": status });
    output.answer(&document, || format!("{server}: {status}"));
    Ok(if status == "SERVING" { Exit::Done } else { Exit::Failed })
}

/// The status of the health protocol, or why there is none. A handshake that can never succeed is a failure: it is to be
/// mended here, not at the service.
async fn ask(channel: Channel, server: &str, service: String) -> Result<String, Failure> {
    let status = match HealthClient::new(channel).check(HealthCheckRequest { service }).await {
        Ok(answer) => return Ok(answer.into_inner().status().as_str_name().to_owned()),
        Err(status) => status,
    };
    match connection_failure(&status, server).await {
        Some(error) if error.reason().is_temporary() => Ok("UNREACHABLE".to_owned()),
        Some(error) => Err(error.into()),
        None => Ok(format!("{:?}", status.code()).to_uppercase()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::net::TcpListener;
    use tonic::transport::server::TcpIncoming;

    use super::*;

    async fn check(server: String) -> Exit {
        let tls = TlsArgs { ca: None, cert: None, key: None };
        let arguments = HealthArgs { server, tls, service: String::new(), timeout: Duration::from_secs(5) };
        run(arguments, &Output::new(true, false)).await.unwrap()
    }

    #[tokio::test]
    async fn a_service_that_serves_is_healthy_and_one_that_is_gone_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (reporter, service) = tonic_health::server::health_reporter();
        let served = tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        assert_eq!(check(url.clone()).await, Exit::Done);
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        assert_eq!(check(url.clone()).await, Exit::Failed);
        served.abort();
        assert!(served.await.is_err());
        assert_eq!(check(url).await, Exit::Failed);
    }
}
