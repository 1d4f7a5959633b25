//! The engine's hub behind the service.

use async_trait::async_trait;
use syncline::error::Result;
use syncline::ids::ReplicaId;
use syncline_engine::hub::{Hub, HubConfig, ScopeSummary};

use crate::{ServeConfig, ServedHub};

#[async_trait]
impl ServedHub for Hub {
    fn replica(&self) -> ReplicaId {
        self.id()
    }

    async fn scopes(&self) -> Result<Vec<ScopeSummary>> {
        Self::scopes(self).await
    }

    async fn drain(&self) {
        Self::drain(self).await;
    }

    async fn abort(&self) {
        Self::abort(self).await;
    }
}

impl ServeConfig {
    /// What the settings say of the hub behind the service. Hub and service must be given the same: the service
    /// answers the lease, and refuses what no session could agree on.
    #[must_use]
    pub fn hub(&self) -> HubConfig {
        HubConfig {
            lease: self.session.lease,
            batch_bytes_max: self.session.batch_bytes_max,
            row_bytes_max: self.session.row_bytes_max,
            spool_session_bytes_max: self.spool.session_bytes_max(),
            spool_bytes_max: self.spool.bytes_max(),
            sessions_max: self.session.sessions_max,
            ..HubConfig::default()
        }
    }
}
