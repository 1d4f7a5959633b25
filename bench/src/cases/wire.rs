//! Bytes on the wire of a first download, as somebody in between counts them, beside the rows as CSV under zstd.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::{Bench, Kind, say};
use crate::children::Job;
use crate::leaf::Leaf;
use crate::processes::{Service, run as run_process};
use crate::report::{CaseReport, Samples, Target};
use crate::rows::{Rows, write_time, write_uuid};
use crate::scope;

const NAME: &str = "wire_bytes";
/// At most so many times the bytes of the limit.
const TARGET: Target = Target::ratio(0.9);
/// What the limit is compressed with.
const ZSTD_LEVEL: i32 = 3;

/// Measures it, once: bytes do not vary.
pub(crate) async fn run(bench: &Bench) -> Result<CaseReport> {
    say(&format!("{NAME}: filling a hub with {} rows", bench.rows));
    let hub = bench.database(Kind::Postgres).await?;
    hub.fill(bench.rows).await?;
    scope::define(&hub).await?;
    let service = Service::start(&hub, &bench.fresh("spool")?).await?;
    let leaf = Leaf::fresh(bench, Kind::Sqlite).await?;
    let counted = Arc::new(AtomicU64::new(0));
    let server = count_between(service.address(), Arc::clone(&counted)).await?;
    let client = run_process(&Job::Sync { server, leaf: leaf.clone() }).await?;
    ensure!(client.ending.moved == Some((0, bench.rows)), "{:?} rows moved", client.ending.moved);
    service.stop().await?;
    leaf.remove().await?;
    hub.remove().await?;
    let (ours, limit) = (counted.load(Ordering::Relaxed) as f64, csv_bytes(bench.rows)? as f64);
    let samples = Samples { ours: vec![ours], limit: vec![limit] };
    Ok(CaseReport::new(NAME, "bytes", samples, TARGET, None))
}

/// Listens, and passes everything on; answers where. Counts the bytes of both ways.
async fn count_between(service: String, counted: Arc<AtomicU64>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&service).await else { return };
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            tokio::spawn(pass(client_read, server_write, Arc::clone(&counted)));
            tokio::spawn(pass(server_read, client_write, Arc::clone(&counted)));
        }
    });
    Ok(address)
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counted: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        counted.fetch_add(read as u64, Ordering::Relaxed);
        to.write_all(&bytes[..read]).await?;
    }
}

/// The rows as PostgreSQL writes CSV, compressed.
fn csv_bytes(rows: u64) -> Result<u64> {
    let mut encoder = zstd::Encoder::new(Counter(0), ZSTD_LEVEL)?;
    let mut line = Vec::new();
    for row in Rows::first(rows) {
        line.clear();
        write_uuid(&row.id, &mut line);
        let active = if row.active { 't' } else { 'f' };
        let mut numbers = String::new();
        write!(numbers, ",{},{},{},{active},", row.number, row.quantity, row.price)?;
        line.extend_from_slice(numbers.as_bytes());
        write_time(row.changed_at, &mut line);
        line.extend_from_slice(format!(",{},{}\n", row.name, row.note).as_bytes());
        encoder.write_all(&line)?;
    }
    Ok(encoder.finish()?.0)
}

/// Counts what is written.
struct Counter(u64);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
