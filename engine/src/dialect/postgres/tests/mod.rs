//! Against a real server: a throw-away cluster, a fresh database per test, real concurrent connections.
#![allow(clippy::unwrap_used)]

mod along;
mod applying;
mod constraints;
mod defining;
mod folding;
mod identity;
mod keys;
pub(super) mod kit;
mod looking;
mod opening;
mod partitions;
mod plain;
mod reading;
mod replicated;
mod rounding;
mod search_paths;
mod surveying;
mod users_triggers;
mod values;
