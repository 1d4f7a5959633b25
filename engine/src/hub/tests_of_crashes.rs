//! A hub whose server fails as in a power failure: what its sessions are afterwards.
#![allow(clippy::unwrap_used)]

use sqlx::{Connection as _, Executor as _, PgConnection};
use syncline::error::{ErrorReason, Result};
use syncline::ids::ReplicaId;

use super::tests_over_sqlite::begin_request;
use super::{Hub, HubConfig};
use crate::dialect::postgres::PostgresDatabase;
use crate::replica::{HubReplica as _, SessionRef};
use crate::scope;
use crate::spool::Spool;
use crate::store::HubStore as _;
use crate::throwaway::{ThrowawayCluster, ThrowawayOptions};

const DURABLE: ThrowawayOptions = ThrowawayOptions { durable: true };

struct Stage {
    cluster: ThrowawayCluster,
    hub: Hub,
    replica: ReplicaId,
    _spool: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let cluster = ThrowawayCluster::start(DURABLE).unwrap();
        let url = cluster.fresh_database();
        let mut application = PgConnection::connect(&url).await.unwrap();
        application.execute("CREATE TABLE item (id int PRIMARY KEY)").await.unwrap();
        let store = PostgresDatabase::open(&url).await.unwrap();
        store.open_hub().await.unwrap();
        let definition = scope::parse("name = \"shop\"\n[[tables]]\nname = \"item\"\n").unwrap();
        store.define_scope(&definition, false).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::directory(directory.path()).unwrap();
        let hub = Hub::open(store, spool, HubConfig::default()).await.unwrap();
        Self { cluster, hub, replica: ReplicaId::fresh(), _spool: directory }
    }

    async fn begin(&self) -> SessionRef {
        let name = "shop".parse().unwrap();
        let scope = answered(|| self.hub.scope(&name)).await.unwrap();
        let request = begin_request(self.replica, scope.schema.fingerprint());
        answered(|| self.hub.begin(request.clone())).await.unwrap().session
    }

    /// Whether a call of the session is taken.
    async fn check(&self, session: SessionRef) -> Result<()> {
        answered(|| self.hub.checked(session)).await.map(drop)
    }
}

/// What a call answers once the connections that broke are given up.
async fn answered<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> Result<T> {
    loop {
        match call().await {
            Err(error) if error.reason() == ErrorReason::DatabaseUnavailable => {}
            answer => return answer,
        }
    }
}

#[tokio::test]
async fn a_session_that_was_superseded_does_not_come_back() {
    let stage = Stage::new().await;
    for _ in 0..3 {
        let first = stage.begin().await;
        let second = stage.begin().await;
        stage.cluster.crash_and_restart(DURABLE).unwrap();
        stage.check(second).await.unwrap();
        assert_eq!(stage.check(first).await.unwrap_err().reason(), ErrorReason::SessionNotFound);
    }
}

/// It need not be lost: the server writes its log out now and then.
#[tokio::test]
async fn a_session_whose_opening_is_lost_is_not_found_and_another_begins() {
    for _ in 0..3 {
        let stage = Stage::new().await;
        let first = stage.begin().await;
        stage.cluster.crash_and_restart(DURABLE).unwrap();
        if let Err(error) = stage.check(first).await {
            assert_eq!(error.reason(), ErrorReason::SessionNotFound);
        }
        let second = stage.begin().await;
        stage.check(second).await.unwrap();
        assert_eq!(stage.check(first).await.unwrap_err().reason(), ErrorReason::SessionNotFound);
    }
}
