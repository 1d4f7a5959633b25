//! End to end, over real sockets, with the real binary and real databases: a file per behaviour.
#![allow(clippy::unwrap_used, missing_docs)]

mod abandoned_applies;
mod bad_input;
mod broken_networks;
mod conformance;
mod copied_replicas;
mod crowds;
mod everyday;
mod kills;
mod open_transactions;
mod restores;
mod row_errors;
mod slow_clients;
mod upload_only;
