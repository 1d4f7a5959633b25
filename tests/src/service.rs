//! `syncline serve` as a process that can be killed.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::binary;
use crate::database::Database;

/// A running service. Dropped, it is killed.
pub struct Service {
    child: Child,
    port: u16,
    database: Database,
    spool: PathBuf,
    arguments: Vec<String>,
}

impl Service {
    /// Defines the scope and starts the service on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If either fails.
    pub async fn start(database: &Database, scope_file: &str, directory: &Path) -> Self {
        Self::start_with(database, scope_file, directory, &[]).await
    }

    /// As [`start`](Self::start), with more arguments for `serve`.
    ///
    /// # Panics
    /// If either fails.
    pub async fn start_with(
        database: &Database,
        scope_file: &str,
        directory: &Path,
        arguments: &[&str],
    ) -> Self {
        apply_scope(database, scope_file, directory).await;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let spool = directory.join("spool");
        let child = spawn(Command::new(binary()), database, port, &spool, &arguments);
        let mut service = Self { child, port, database: database.clone(), spool, arguments };
        service.wait_until_up().await;
        service
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The address that clients use.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The bytes in the spool.
    ///
    /// # Panics
    /// If the directory can't be read.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        bytes_below(&self.spool)
    }

    /// The number of its process.
    ///
    /// # Panics
    /// If it is not running.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id().expect("it is running")
    }

    /// kill -9.
    ///
    /// # Panics
    /// If it is not running.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again, after it was killed, on the same port.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self) {
        self.child = self.spawn(Command::new(binary()));
        self.wait_until_up().await;
    }

    /// kill -9, and starts it again on a disk that has no room for a file of more than so many KiB: its log, which is
    /// that long already, can't be written at all.
    ///
    /// # Panics
    /// If it is not running, or does not start.
    pub async fn restart_with_files_up_to(&mut self, kib: u64) {
        self.kill().await;
        let log = File::options().create(true).append(true).open(self.spool.with_file_name("log")).unwrap();
        log.set_len(kib << 10).unwrap();
        let mut program = crate::with_files_up_to(kib);
        program.stderr(log);
        self.child = self.spawn(program);
        self.wait_until_up().await;
    }

    fn spawn(&self, program: Command) -> Child {
        spawn(program, &self.database, self.port, &self.spool, &self.arguments)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// If it does not end within half a minute.
    pub async fn terminate(&mut self) -> std::process::ExitStatus {
        let id = self.child.id().expect("it is running").to_string();
        Command::new("kill").arg(&id).status().await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.expect("it ends").unwrap()
    }

    async fn wait_until_up(&mut self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the service ended with {status}");
            }
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "the service does not listen");
            pause.tick().await;
        }
    }
}

/// What is removed meanwhile counts as nothing.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

/// Runs `syncline scope apply`.
///
/// # Panics
/// If it fails.
pub async fn apply_scope(database: &Database, scope_file: &str, directory: &Path) {
    apply_scope_with(database, scope_file, directory, &[]).await;
}

/// Runs `syncline scope apply` with more arguments.
///
/// # Panics
/// If it fails.
pub async fn apply_scope_with(database: &Database, scope_file: &str, directory: &Path, arguments: &[&str]) {
    let path = directory.join("scope.toml");
    std::fs::write(&path, scope_file).unwrap();
    let output = Command::new(binary())
        .args(["scope", "apply"])
        .arg(&path)
        .args(["--database", &database.url()])
        .args(arguments)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "scope apply: {}", String::from_utf8_lossy(&output.stderr));
}

fn spawn(mut program: Command, database: &Database, port: u16, spool: &Path, arguments: &[String]) -> Child {
    program
        .arg("serve")
        .args(["--database", &database.url(), "--listen", &format!("127.0.0.1:{port}")])
        .arg("--spool")
        .arg(spool)
        .args(arguments)
        .env("SYNCLINE_LOG__FILTER", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Settings for a service in this process: everything on loopback, and no pause before it stops.
#[must_use]
pub fn in_process_config() -> syncline_service::ServeConfig {
    syncline_service::ServeConfig { drain_notice: Duration::ZERO, ..Default::default() }
}
