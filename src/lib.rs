//! The Syncline protocol: generated messages, and the strict types that they are checked into once, by the receiver.
//!
//! ```text
//!  wire message (pb) --TryFrom, validated once--> strict type --> engine
//!  ids -> clock -> knowledge          what a replica knows
//!  schema                             what a scope holds
//!  value -> column -> block -> batch  what travels
//!  error                              why something failed
//!  limits                             every bound, in one place
//! ```
//!
//! No I/O happens in this crate.

pub mod batch;
pub mod column;
pub mod conflict;
pub mod error;
pub mod ids;
pub mod knowledge;
pub mod limits;
pub mod schema;
pub mod value;

/// The generated messages and service stubs of `syncline.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("syncline.v1");
}

/// The descriptors of `syncline.v1`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/syncline.v1.bin"));
