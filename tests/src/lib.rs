//! What the end-to-end tests share: real databases, the real binary, and a network that breaks.
//!
//! [`database`] a SQLite file or a PostgreSQL database that any program could write to; [`service`] `syncline serve` as
//! a process that can be killed; [`leaf`] `syncline sync` as a process; [`proxy`] a connection that is cut at any byte;
//! [`backup`] copies and dumps, as backup tools make them; [`world`] hub and leaves in this process; [`shop`] a small schema with what makes trouble: a composite key, a self reference, a unique column, a cascade.
#![allow(clippy::unwrap_used)]

pub mod backup;
pub mod database;
pub mod leaf;
pub mod proxy;
pub mod service;
pub mod shop;
pub mod watching;
pub mod world;

use std::path::PathBuf;

/// The binary under test, built beside the tests.
///
/// # Panics
/// If it was not built: `cargo test --workspace` builds it, `cargo build -p syncline-cli` does too.
#[must_use]
pub fn binary() -> PathBuf {
    // target/<profile>/deps/<test> -> target/<profile>/syncline
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("syncline");
    assert!(path.exists(), "{} is missing: run `cargo build -p syncline-cli` first", path.display());
    path
}

/// The binary under test on a disk that has no room for a file of more than so many KiB (`RLIMIT_FSIZE`): writes beyond
/// that fail, in the middle of a file, as those to a full disk do.
#[must_use]
pub fn with_files_up_to(kib: u64) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("sh");
    // The shell counts blocks of 512 bytes. The signal would end the process before the write could fail.
    let script = format!("trap '' XFSZ; ulimit -f {} && exec \"$0\" \"$@\"", kib * 2);
    command.arg("-c").arg(script).arg(binary());
    command
}
