//! What a run is to do.

use std::time::Duration;

use syncline::ids::ScopeName;
use syncline::schema::Direction;

use crate::limits::RETRY_FOR_DEFAULT;

/// When and how a download is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyMode {
    /// In one transaction: a first download while it transfers, every other one when the transfer is complete.
    Once,
    /// In one transaction when the transfer is complete, the first download too.
    AfterTransfer,
    /// In a transaction a batch, while it transfers.
    PerBatch,
}

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct SyncOptions {
    /// The scope.
    pub scope: ScopeName,
    /// Values of the scope's parameters, by name.
    pub parameters: Vec<(String, String)>,
    /// Which way rows travel, beside what the tables' own directions allow.
    pub direction: Direction,
    /// The largest batch to ask for, in bytes before compression; `None` for the service's default.
    pub batch_bytes_max: Option<u64>,
    /// For how long a temporary failure is retried, counted from the last progress.
    pub retry_for: Duration,
    /// When and how downloads are applied.
    pub apply: ApplyMode,
    /// What the client calls itself, for people.
    pub client_name: String,
}

impl SyncOptions {
    /// What the command line does if nothing else is said.
    #[must_use]
    pub fn of_scope(scope: ScopeName) -> Self {
        Self {
            scope,
            parameters: Vec::new(),
            direction: Direction::Both,
            batch_bytes_max: None,
            retry_for: RETRY_FOR_DEFAULT,
            apply: ApplyMode::Once,
            client_name: concat!("syncline-rust ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
