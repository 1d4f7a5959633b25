//! The Syncline engine: everything between a database and the protocol. It does not know gRPC.
//!
//! ```text
//!  down:  changes -> session -> enumerate -> spool -> chunks  ... wire ...  parts -> leaf apply -> knowledge
//!  up:    leaf enumerate -> parts  ... wire ...  spool -> apply -> conflict -> knowledge
//! ```
//!
//! Modules in reading order:
//! [`scope`] what a scope file says; [`replica`] the questions that a hub answers, near or far; [`hub`] a hub over a
//! database and a spool; [`spool`] batches' bytes; [`compute`] threads for encoding and decoding; [`conflict`] who wins; [`store`] the only database surface that the
//! modules above use; [`dialect`] the databases;
//! [`throwaway`] a PostgreSQL cluster for tests; [`testing`] the oracle that they are compared with.

pub mod compute;
pub mod conflict;
pub mod dialect;
pub mod hub;
pub mod limits;
pub mod replica;
pub mod scope;
pub mod spool;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(any(test, feature = "testing"))]
pub mod throwaway;
