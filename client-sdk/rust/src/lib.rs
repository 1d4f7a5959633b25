//! The Syncline client: brings a local database into step with a service.
//!
//! ```text
//!  local database (LeafStore) <-> Synchronizer <-> hub (HubReplica): RemoteHub over gRPC, or a hub in this process
//!                                      |
//!                                PartsDirectory: batches on disk, so that everything resumes at the byte
//! ```
//!
//! Modules in reading order: [`driver`] what happens in a session; [`parts`] batches on disk; [`remote`] the protocol's
//! calls; [`limits`] every bound.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use syncline_client::{PartsDirectory, Progress, RemoteHub, RemoteOptions, RunError, SyncOptions, Synchronizer};
//! use syncline_engine::store::LeafStore;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(store: Arc<dyn LeafStore>) -> Result<(), Box<dyn std::error::Error>> {
//! let hub = RemoteHub::new(&RemoteOptions::plain("http://hub.example:50051"))?;
//! let parts = PartsDirectory::open(PartsDirectory::beside(Path::new("shop.db")))?;
//! let options = SyncOptions::of_scope("shop".parse()?);
//! let synchronizer = Synchronizer::new(store, Arc::new(hub), parts, options);
//!
//! let cancel = CancellationToken::new();
//! match synchronizer.run(&Progress::unseen(), &cancel).await {
//!     Ok(report) => println!("{}", serde_json::to_string(&report)?),
//!     Err(RunError::Temporary(error)) => println!("try again later: {error}"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```

pub mod driver;
pub mod limits;
pub mod parts;
pub mod remote;

pub use driver::{
    ApplyMode, Due, Follower, Moved, Phase, Progress, ProgressState, RunError, SyncOptions, SyncReport,
    Synchronizer, find_scope,
};
pub use parts::{PartsDirectory, PartsSource};
pub use remote::{RemoteHub, RemoteOptions, TlsOptions};

#[cfg(test)]
mod testing;
