//! The service over real sockets, in front of a hub in memory: what each rpc answers, and what it refuses.
#![allow(clippy::unwrap_used, missing_docs)]

mod answers;
mod drain;
mod fake_hub;
mod harness;
mod limits;
mod refusals;
mod tls;
mod uploads;
