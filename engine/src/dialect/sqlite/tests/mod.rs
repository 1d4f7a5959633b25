//! SQLite as hub and leaf, over real files.

#![allow(clippy::unwrap_used)]

mod along;
mod apply;
mod batches;
mod busy;
mod cascades;
mod download;
mod enumeration;
mod identity;
mod provisioning;
mod quiet;
mod support;
mod tracking;
mod types;
