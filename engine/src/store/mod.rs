//! The only database surface that sessions, enumeration and apply use: what a hub's and a leaf's database answer.
//!
//! [`HubStore`] and [`LeafStore`] are implemented once per database, in [`crate::dialect`].

mod batches;
mod hub;
mod leaf;

pub use batches::{BatchSource, DownloadSource};
pub use hub::{
    ApplyReport, EnumeratedBlock, EnumerationPlan, HubStore, Part, Position, ScopeChange, Snapshot,
    StoredScope, StoredTable, TableState, UploadJob, is_unfilled,
};
pub use leaf::{
    DownloadJob, DownloadReport, LeafStore, LeafUpload, PendingUpload, Subscription, UploadSnapshot,
};
