//! Holds the oracle to the invariants, and the histories to finding every fault.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod scan;
mod sound;
