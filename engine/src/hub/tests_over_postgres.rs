//! A hub over a PostgreSQL database, asked call by call.
#![allow(clippy::unwrap_used)]

use sqlx::{Connection as _, Executor as _, PgConnection};
use syncline::error::ErrorReason;
use syncline::ids::ReplicaId;

use super::tests_over_sqlite::begin_request;
use super::{Hub, HubConfig};
use crate::dialect::postgres::PostgresDatabase;
use crate::replica::HubReplica as _;
use crate::scope;
use crate::spool::Spool;
use crate::store::HubStore as _;
use crate::throwaway::ThrowawayCluster;

/// A hub of the scope `shop` over a fresh database, with a table `item`; and its spool, which goes when it is dropped.
pub(super) async fn hub_over(url: &str) -> (Hub, tempfile::TempDir) {
    let mut application = PgConnection::connect(url).await.unwrap();
    application.execute("CREATE TABLE item (id int PRIMARY KEY)").await.unwrap();
    let store = PostgresDatabase::open(url).await.unwrap();
    store.open_hub().await.unwrap();
    let definition = scope::parse("name = \"shop\"\n[[tables]]\nname = \"item\"\n").unwrap();
    store.define_scope(&definition, false).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::directory(directory.path()).unwrap();
    let hub = Hub::open(store, spool, HubConfig::default()).await.unwrap();
    (hub, directory)
}

/// Expired sessions count among those that may be open, and their batches fill the spool.
#[tokio::test]
async fn a_table_that_is_gone_keeps_nothing_from_being_swept() {
    let url = ThrowawayCluster::shared().fresh_database();
    let mut application = PgConnection::connect(&url).await.unwrap();
    let (hub, _spool) = hub_over(&url).await;
    let scope = hub.scope(&"shop".parse().unwrap()).await.unwrap();
    let request = begin_request(ReplicaId::fresh(), scope.schema.fingerprint());
    let session = hub.begin(request).await.unwrap().session;

    application.execute("INSERT INTO item VALUES (1)").await.unwrap();
    application.execute("UPDATE syncline.sessions SET lease_until = 0").await.unwrap();
    application.execute("DROP TABLE item").await.unwrap();
    hub.maintain().await.unwrap();
    assert_eq!(hub.checked(session).await.err().unwrap().reason(), ErrorReason::SessionNotFound);
}
