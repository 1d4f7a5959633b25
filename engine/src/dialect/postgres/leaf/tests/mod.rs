//! Against a real server: a throw-away cluster, a fresh database per test, real concurrent connections.
#![allow(clippy::unwrap_used)]

mod acknowledging;
mod batches;
mod cascades;
mod comparing;
mod conflicts;
mod crashes;
mod cut;
mod filling;
mod kit;
mod knots;
mod subscribing;
mod tracking;
mod values;
