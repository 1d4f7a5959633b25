//! Applying an upload in one transaction.

use std::sync::atomic::AtomicU64;

use syncline::error::{ErrorReason, Result, SyncError};

use super::PostgresDatabase;
use crate::store::{ApplyReport, BatchSource, UploadJob};

impl PostgresDatabase {
    pub(super) async fn apply(
        &self,
        _job: &UploadJob,
        _batches: &dyn BatchSource,
        _rows_done: &AtomicU64,
    ) -> Result<ApplyReport> {
        Err(SyncError::new(ErrorReason::FeatureUnsupported, "uploads are not taken yet"))
    }
}
