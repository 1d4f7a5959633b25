//! End to end, over real sockets, with the real binary and real databases: a file per behaviour.
#![allow(clippy::unwrap_used, missing_docs)]

mod abandoned_applies;
mod bad_input;
mod broken_networks;
mod conformance;
mod copied_replicas;
mod crowds;
mod everyday;
mod full_disks;
mod heap;
mod kills;
mod live;
mod migrations;
mod open_transactions;
mod polls;
mod restored_leaves;
mod restores;
mod roles;
mod row_errors;
mod slow_clients;
mod types;
mod unknown_outcomes;
mod upgrades;
mod upload_only;
