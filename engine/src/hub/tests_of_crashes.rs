//! A hub whose server fails as in a power failure: what its sessions are afterwards.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use sqlx::{Connection as _, Executor as _, PgConnection};
use syncline::error::{ErrorReason, Result};
use syncline::ids::ReplicaId;

use super::Hub;
use super::tests_over_postgres::hub_over;
use super::tests_over_sqlite::begin_request;
use crate::limits::POSTGRES_CONNECTIONS_MAX;
use crate::replica::{ChangesEvent, ChangesRequest, HubReplica as _, SessionRef};
use crate::throwaway::{ThrowawayCluster, ThrowawayOptions};

const DURABLE: ThrowawayOptions = ThrowawayOptions { durable: true };

struct Stage {
    cluster: ThrowawayCluster,
    url: String,
    hub: Hub,
    replica: ReplicaId,
    _spool: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let cluster = ThrowawayCluster::start(DURABLE).unwrap();
        let url = cluster.fresh_database();
        let (hub, _spool) = hub_over(&url).await;
        Self { cluster, url, hub, replica: ReplicaId::fresh(), _spool }
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

/// What a snapshot has seen is on disk only once something was committed after it. If the server fails in between, its ticks
/// may be given to others: a leaf that was told that it knows them would never be sent what those write.
#[tokio::test]
async fn what_was_read_before_the_server_failed_is_not_handed_out_after_it() {
    let stage = Stage::new().await;
    let mut application = PgConnection::connect(&stage.url).await.unwrap();
    application.execute("INSERT INTO item VALUES (1)").await.unwrap();
    let session = stage.begin().await;
    // The opening is on disk.
    application.execute("CHECKPOINT").await.unwrap();
    // The snapshot gets the last connection but one, so that the enumeration waits for one to commit with.
    let mut held = Vec::new();
    for _ in 1..POSTGRES_CONNECTIONS_MAX {
        held.push(stage.hub.store().begin().await.unwrap());
    }
    let asked = || ChangesRequest { knowledge: Bytes::new(), excepted_keys: Vec::new(), first_sequence: 1 };
    let mut changes = stage.hub.changes(session, asked()).await.unwrap();
    let read = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'idle in transaction')";
    let is_read = async {
        while !sqlx::query_scalar::<_, bool>(read).fetch_one(&mut application).await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_read).await.unwrap();
    stage.cluster.crash_and_restart(DURABLE).unwrap();
    drop(held);
    let error = changes.next().await.unwrap().err().unwrap();
    assert_eq!(error.reason(), ErrorReason::DatabaseUnavailable);

    let mut again = answered(async || stage.hub.changes(session, asked()).await).await.unwrap();
    let mut rows = None;
    while let Some(event) = again.next().await {
        if let ChangesEvent::End(end) = event.unwrap() {
            rows = Some(end.rows);
        }
    }
    assert_eq!(rows, Some(1));
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
