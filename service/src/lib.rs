//! The Syncline service: the protocol over gRPC, in front of a hub. It contains no SQL and decides nothing about rows.
//!
//! ```text
//!  connection -> admission -> sync::<rpc> --checked once--> ServedHub (the engine)
//!                 (layer)      fields.rs                        |
//!  status  <----- call <------ stream.rs <--- events, bytes ----+
//! ```
//!
//! In reading order:
//! 1. [`serve()`]: the only way to start; what happens from the first connection to the last.
//! 2. `sync/`: one file per rpc. `fields.rs` turns a message into strict types and collects everything that is wrong
//!    with it; behind it nothing sees an `Option` that means "required". `stream.rs` turns a hub's events into a
//!    response stream with backpressure and signs of life.
//! 3. `call`: what every rpc has in common: request id, span, deadline, how it ends, the one line that is logged.
//! 4. [`status`]: errors as gRPC statuses, bounded, with nothing internal in them.
//! 5. `admission`: refuses what is too much before a byte of it is read. `malformed`: what does not even decode gets a
//!    reason too. `connection`: bounds and ends connections.
//! 6. `drain`: who is being served, and how to stop.
//! 7. `hub`: the engine's hub as what is served. [`config`]: every setting, from file, environment and flags.
//!    [`telemetry`]: how logs are written.
//! 8. [`limits`]: every bound and deadline of this crate.
//!
//! Sessions, batches and results are not kept here: another instance can go on with any session.

mod admission;
mod call;
pub mod config;
mod connection;
mod drain;
mod hub;
pub mod limits;
mod malformed;
pub mod serve;
pub mod status;
mod sync;
pub mod telemetry;

use async_trait::async_trait;
use syncline::error::Result;
use syncline::ids::ReplicaId;
use syncline_engine::replica::HubReplica;

pub use config::ServeConfig;
pub use serve::{ServeError, serve};
pub use syncline_engine::hub::ScopeSummary;

/// A hub as it is served: the questions of the protocol, and what the service itself asks.
#[async_trait]
pub trait ServedHub: HubReplica {
    /// The hub's id. It changes when the database finds that it went back in time.
    fn replica(&self) -> ReplicaId;

    /// The scopes of the hub, in any order.
    async fn scopes(&self) -> Result<Vec<ScopeSummary>>;

    /// Stops taking up work of its own, and returns when applies and enumerations that outlive their calls have
    /// finished or are parked where another instance can go on. Called once, when no call runs any more; dropped when
    /// the grace period is over, so whatever it waits for must be safe to lose.
    async fn drain(&self);

    /// Gives up what [`drain`](Self::drain) was still waiting for when its time was over: applies are rolled back, and
    /// their sessions go on elsewhere. Returns when nothing runs.
    async fn abort(&self);
}
