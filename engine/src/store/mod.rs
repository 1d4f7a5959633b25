//! The only database surface that sessions, enumeration and apply use: what a hub's and a leaf's database answer.
//!
//! [`HubStore`] and [`LeafStore`] are implemented once per database, in [`crate::dialect`].

mod batches;
mod hub;
mod leaf;

pub use batches::{BatchSource, DownloadSource};
pub use hub::{
    ApplyReport, EnumeratedBlock, EnumerationPlan, Glance, HubStore, KnownScope, Part, Position, Probed,
    ScopeChange, Snapshot, StoredScope, StoredTable, TableState, UploadJob, given_up, is_unfilled,
    session_has_ended,
};
pub use leaf::{
    DownloadJob, DownloadReport, LeafHold, LeafStore, LeafUpload, PendingUpload, Subscription, UploadSnapshot,
};
