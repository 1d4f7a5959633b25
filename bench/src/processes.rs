//! The processes of a measurement: service, client and limits run as children of this program, so that the memory that
//! is reported is theirs, and each begins with the same nothing.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::children::Job;
use crate::database::Database;

/// What a child says last, as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ending {
    /// The most memory that it ever had.
    pub(crate) peak_kib: u64,
    /// Rows that it uploaded and downloaded, if it is a client.
    pub(crate) moved: Option<(u64, u64)>,
    /// Batches that it downloaded, and their bytes as they are stored, if it is a client.
    pub(crate) batches: Option<(u64, u64)>,
    /// What it has measured itself, if it was asked to.
    pub(crate) figure: Option<f64>,
}

/// A child that has ended well.
#[derive(Debug)]
pub(crate) struct Ended {
    /// From just before it was started until it was gone.
    pub(crate) elapsed: Duration,
    /// What it said last.
    pub(crate) ending: Ending,
}

/// Runs a job to its end as a process.
pub(crate) async fn run(job: &Job) -> Result<Ended> {
    let started = Instant::now();
    let mut child = spawn(job)?;
    let mut output = String::new();
    child.stdout.take().context("its output is a pipe")?.read_to_string(&mut output).await?;
    let status = child.wait().await?;
    let elapsed = started.elapsed();
    ensure!(status.success(), "a child ended with {status}: {job:?}");
    Ok(Ended { elapsed, ending: serde_json::from_str(&output)? })
}

/// A child that goes on until it is told to stop.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(job: &Job) -> Result<Self> {
        Ok(Self { child: spawn(job)? })
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => anyhow::bail!("a child ended early with {status}"),
            None => Ok(()),
        }
    }

    /// Waits until it has ended well.
    pub(crate) async fn wait(&mut self) -> Result<()> {
        let status = self.child.wait().await?;
        ensure!(status.success(), "a child ended with {status}");
        Ok(())
    }

    /// kill -9. Answers whether it was still there to be killed.
    pub(crate) async fn kill(&mut self) -> Result<bool> {
        self.child.start_kill()?;
        Ok(!self.child.wait().await?.success())
    }

    /// Tells it to stop, and answers what it said last.
    pub(crate) async fn stop(mut self) -> Result<Ending> {
        drop(self.child.stdin.take());
        let mut output = String::new();
        self.child.stdout.take().context("its output is a pipe")?.read_to_string(&mut output).await?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "a child ended with {status}");
        Ok(serde_json::from_str(&output)?)
    }
}

/// A running service.
pub(crate) struct Service {
    child: Child,
    port: u16,
}

impl Service {
    /// Starts a service over a hub's database, and waits until it listens.
    pub(crate) async fn start(database: &Database, spool: &std::path::Path) -> Result<Self> {
        Self::start_with(database, spool, None).await
    }

    /// The same, with batches of so many bytes.
    pub(crate) async fn start_with(
        database: &Database,
        spool: &std::path::Path,
        batch_bytes: Option<u64>,
    ) -> Result<Self> {
        let job = Job::Serve { database: database.clone(), spool: spool.to_owned(), batch_bytes };
        let mut child = spawn(&job)?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("its output is a pipe")?).read_line(&mut line).await?;
        let port = line.trim().parse().context("the service did not start")?;
        Ok(Self { child, port })
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same, for a socket.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops it, and answers the most memory that it ever had, in KiB.
    pub(crate) async fn stop(mut self) -> Result<u64> {
        let id = self.child.id().context("the service is gone")?;
        let peak = peak_kib(&format!("/proc/{id}/status"))?;
        // The end of its input tells it to stop.
        drop(self.child.stdin.take());
        let status = self.child.wait().await?;
        ensure!(status.success(), "the service ended with {status}");
        Ok(peak)
    }
}

/// The most memory that a process ever had.
pub(crate) fn peak_kib(status: &str) -> Result<u64> {
    let text = std::fs::read_to_string(status).context("memory is read from /proc, which Linux has")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

fn spawn(job: &Job) -> Result<Child> {
    // A file, which the child removes: some jobs name more rows than an argument may hold.
    let (mut file, path) = tempfile::NamedTempFile::new()?.keep()?;
    file.write_all(&serde_json::to_vec(job)?)?;
    Ok(Command::new(std::env::current_exe()?)
        .arg("--child")
        .arg(path)
        // As the command does it for itself, and for the limits too: see docs/OPERATIONS.md on memory.
        .envs([("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?)
}
