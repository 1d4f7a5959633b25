//! A throw-away PostgreSQL cluster for tests and benchmarks: made in the temporary directory, gone with the process.
//!
//! `initdb` and `pg_ctl` are looked for in `PATH` and below `/usr/lib/postgresql`; where the process runs as root, which
//! PostgreSQL refuses, they run as the user `postgres`. A small shell process waits on a pipe from this one: however
//! this process ends, it stops the server and removes the directory.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// How the cluster is run.
#[derive(Debug, Clone, Copy)]
pub struct ThrowawayOptions {
    /// Whether commits reach the disk. Off, a cluster is much faster, and good for anything but measurements.
    pub durable: bool,
}

/// A running cluster, with a directory and a port on 127.0.0.1 of its own.
#[derive(Debug)]
pub struct ThrowawayCluster {
    programs: Programs,
    directory: PathBuf,
    port: u16,
    // Its standard input is the pipe whose end tells it to clean up.
    _watchdog: Child,
}

/// Where PostgreSQL's programs are, and as whom they run.
#[derive(Debug, Clone)]
struct Programs {
    directory: PathBuf,
    as_postgres: bool,
}

impl ThrowawayCluster {
    /// The cluster that all tests of this process share, started by whoever asks first; not durable.
    ///
    /// # Panics
    /// If there is no PostgreSQL, or it does not start: the message says what to install or what went wrong.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<ThrowawayCluster> = OnceLock::new();
        SHARED.get_or_init(|| match Self::start(ThrowawayOptions { durable: false }) {
            Ok(cluster) => cluster,
            Err(error) => panic!("no throw-away PostgreSQL cluster: {error}"),
        })
    }

    /// Starts a cluster.
    ///
    /// # Errors
    /// If PostgreSQL's programs are missing or fail.
    pub fn start(options: ThrowawayOptions) -> io::Result<Self> {
        let programs = Programs::find()?;
        let name = format!("syncline-postgres-{}", uuid::Uuid::new_v4().simple());
        let directory = std::env::temp_dir().join(name);
        let watchdog = programs.watch(&directory)?;
        programs.run("initdb", |command| {
            command.arg("-D").arg(&directory).args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
            command.args(["--locale=C.UTF-8", "--no-sync"]);
        })?;
        Self::start_in(programs, directory, watchdog, options)
    }

    /// Starts the server over a directory that has all that it needs.
    fn start_in(
        programs: Programs,
        directory: PathBuf,
        watchdog: Child,
        options: ThrowawayOptions,
    ) -> io::Result<Self> {
        let port = free_port()?;
        let settings = settings(options, &directory, port);
        programs.run("pg_ctl", |command| {
            command.arg("-D").arg(&directory).arg("-l").arg(directory.join("server.log"));
            command.args(["-w", "-t", "60", "-o", &settings, "start"]);
        })?;
        Ok(Self { programs, directory, port, _watchdog: watchdog })
    }

    /// The URL of a database of the cluster.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database, and answers its URL.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn fresh_database(&self) -> String {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let made = self.programs.run("createdb", |command| {
            command.args(["-h", "127.0.0.1", "-U", "postgres", "-T", "template0", "-p"]);
            command.arg(self.port.to_string()).arg(&name);
        });
        match made {
            Ok(_) => self.url(&name),
            Err(error) => panic!("no fresh database: {error}"),
        }
    }

    /// What `pg_dump` says of a database, with these further arguments (`-s` for its schema alone).
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn dump(&self, url: &str, arguments: &[&str]) -> String {
        match self.programs.run("pg_dump", |command| {
            command.args(arguments).arg(url);
        }) {
            Ok(dump) => dump,
            Err(error) => panic!("no dump: {error}"),
        }
    }

    /// Dumps a database (`pg_dump --format=custom`) into the cluster's directory, and answers the file.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn archive(&self, url: &str) -> PathBuf {
        let file = self.directory.join(format!("archive-{}", uuid::Uuid::new_v4().simple()));
        match self.programs.run("pg_dump", |command| {
            command.arg("--format=custom").arg("--file").arg(&file).arg(url);
        }) {
            Ok(_) => file,
            Err(error) => panic!("no archive: {error}"),
        }
    }

    /// Restores an archive (`pg_restore`) into an empty database.
    ///
    /// # Panics
    /// If anything in it can't be restored.
    pub fn restore_archive(&self, archive: &Path, url: &str) {
        if let Err(error) = self.programs.run("pg_restore", |command| {
            command.args(["--exit-on-error", "--dbname", url]).arg(archive);
        }) {
            panic!("not restored: {error}");
        }
    }

    /// Empties a database by dropping it, whoever is connected, and making it anew under its name.
    ///
    /// # Panics
    /// If it can't be dropped or made.
    pub fn recreate(&self, url: &str) {
        let name = url.rsplit('/').next().unwrap_or_default();
        let port = self.port.to_string();
        let at = ["-h", "127.0.0.1", "-U", "postgres", "-p", &port];
        let done = self
            .programs
            .run("dropdb", |command| {
                command.args(at).args(["--force", name]);
            })
            .and_then(|_| {
                self.programs.run("createdb", |command| {
                    command.args(at).args(["-T", "template0", name]);
                })
            });
        if let Err(error) = done {
            panic!("not made anew: {error}");
        }
    }

    /// Takes a base backup of the running cluster (`pg_basebackup`), with the log that makes it consistent.
    ///
    /// # Errors
    /// If it can't be taken.
    pub fn base_backup(&self) -> io::Result<BaseBackup> {
        let name = format!("syncline-postgres-{}", uuid::Uuid::new_v4().simple());
        let directory = std::env::temp_dir().join(name);
        let watchdog = self.programs.watch(&directory)?;
        self.programs.run("pg_basebackup", |command| {
            command.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]).arg(self.port.to_string());
            command.args(["--wal-method=stream", "--checkpoint=fast", "--no-sync", "-D"]).arg(&directory);
        })?;
        Ok(BaseBackup { programs: self.programs.clone(), directory, watchdog })
    }

    /// Stops the server as a power failure would, and starts it again.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn crash_and_restart(&self, options: ThrowawayOptions) -> io::Result<()> {
        let settings = settings(options, &self.directory, self.port);
        self.programs.run("pg_ctl", |command| {
            command.arg("-D").arg(&self.directory).args(["stop", "-m", "immediate"]);
        })?;
        self.programs.run("pg_ctl", |command| {
            command.arg("-D").arg(&self.directory).arg("-l").arg(self.directory.join("server.log"));
            command.args(["-w", "-t", "60", "-o", &settings, "start"]);
        })?;
        Ok(())
    }

    /// The cluster's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// A base backup of a cluster; its directory goes with the process.
#[derive(Debug)]
pub struct BaseBackup {
    programs: Programs,
    directory: PathBuf,
    watchdog: Child,
}

impl BaseBackup {
    /// Starts a server over it, as one restores a cluster.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restore(self, options: ThrowawayOptions) -> io::Result<ThrowawayCluster> {
        ThrowawayCluster::start_in(self.programs, self.directory, self.watchdog, options)
    }
}

fn settings(options: ThrowawayOptions, directory: &Path, port: u16) -> String {
    let durable = if options.durable { "" } else { " -c fsync=off -c full_page_writes=off" };
    format!(
        "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={} -c max_connections=300 \
         -c max_prepared_transactions=10 -c wal_level=logical -c shared_buffers=64MB{durable}",
        directory.display()
    )
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

impl Programs {
    fn find() -> io::Result<Self> {
        let mut candidates: Vec<PathBuf> =
            std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
        if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
            candidates.extend(versions.flatten().map(|version| version.path().join("bin")));
        }
        let complete = |directory: &PathBuf| {
            ["initdb", "pg_ctl", "createdb", "pg_dump"].iter().all(|program| directory.join(program).exists())
        };
        let directory = candidates.into_iter().find(complete);
        let directory = directory.ok_or_else(|| {
            let remedy =
                "install PostgreSQL's server (Debian: apt-get install postgresql), or put initdb in PATH";
            io::Error::new(io::ErrorKind::NotFound, remedy)
        })?;
        // What lies in our temporary directory belongs to whom this process runs as.
        let as_postgres = Command::new("id").arg("-u").output()?.stdout.trim_ascii() == b"0";
        Ok(Self { directory, as_postgres })
    }

    fn command(&self, program: &str) -> Command {
        let path = self.directory.join(program);
        let mut command = if self.as_postgres {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(std::env::temp_dir()).stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: impl FnOnce(&mut Command)) -> io::Result<String> {
        let mut command = self.command(program);
        arguments(&mut command);
        // A server that pg_ctl leaves behind must not hold a pipe of ours open, so output goes to pg_ctl's log file.
        let output = if program == "pg_ctl" {
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            std::process::Output { status, stdout: Vec::new(), stderr: Vec::new() }
        } else {
            command.output()?
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{program} failed ({}): {}", output.status, message.trim())))
    }

    /// A process that waits for the end of this one, then stops the server and removes its directory.
    fn watch(&self, directory: &Path) -> io::Result<Child> {
        let script = "trap '' INT TERM HUP; cat >/dev/null; \
                      \"$1\" -D \"$2\" stop -m immediate >/dev/null 2>&1; rm -rf \"$2\"";
        let mut command = if self.as_postgres {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        command.args(["-c", script, "watchdog"]).arg(self.directory.join("pg_ctl")).arg(directory);
        command.current_dir(std::env::temp_dir());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }
}
