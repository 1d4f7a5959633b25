//! A spool has an id, which the hub's database stores: a hub with another's spool would sweep away its batches.

use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions};
use syncline::error::{ErrorReason, Result, SyncError};
use uuid::Uuid;

use super::{Spool, failed};

const FILE: &str = "spool-id";

/// A spool's id.
pub type SpoolId = Uuid;

impl Spool {
    /// The id that the spool has, if it has one.
    ///
    /// # Errors
    /// INTERNAL if the store fails or the file holds something else.
    pub async fn id(&self) -> Result<Option<SpoolId>> {
        match self.store.get(&Path::from(FILE)).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(failed)?;
                Uuid::from_slice(&bytes).map(Some).map_err(|_| {
                    SyncError::new(ErrorReason::Internal, "the spool's file `spool-id` does not hold an id")
                })
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Gives the spool its id; another hub that does the same at the same time loses.
    ///
    /// # Errors
    /// INTERNAL if it has one already or the store fails.
    pub async fn set_id(&self, id: SpoolId) -> Result<()> {
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let bytes = bytes::Bytes::copy_from_slice(id.as_bytes());
        self.store.put_opts(&Path::from(FILE), bytes.into(), create).await.map_err(failed)?;
        Ok(())
    }
}

use object_store::ObjectStore as _;
