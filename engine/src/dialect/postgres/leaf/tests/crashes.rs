//! What a leaf's server loses when it fails as in a power failure.

use sqlx::{Connection as _, PgConnection};
use syncline::value::CanonicalType as T;

use super::kit::{Leaf, rows, scope, table};
use crate::throwaway::{ThrowawayCluster, ThrowawayOptions};

const DURABLE: ThrowawayOptions = ThrowawayOptions { durable: true };

/// The hub is told that it knows all ticks up to the clock. One that was lost would be given to a later edit, which the hub
/// would pass over.
#[tokio::test]
async fn no_tick_that_went_up_is_given_out_again() {
    let cluster = ThrowawayCluster::start(DURABLE).unwrap();
    let schema = scope(vec![table(1, "item", &[("id", T::Int64), ("name", T::Text)])]);
    let mut leaf = Leaf::in_cluster(&cluster, schema, "CREATE TABLE untracked (id int)").await;
    leaf.subscribe().await.unwrap();
    // The server does not write its log out by itself meanwhile.
    leaf.run("ALTER SYSTEM SET wal_writer_delay = '10s'").await;
    leaf.run("SELECT pg_reload_conf()").await;
    leaf.run("SET synchronous_commit = off").await;
    for _ in 0..100 {
        leaf.run("INSERT INTO untracked VALUES (1)").await;
    }
    let (_, _, clock) = leaf.dirty().await;
    cluster.crash_and_restart(DURABLE).unwrap();
    let mut after = PgConnection::connect(&leaf.url).await.unwrap();
    let next: u64 = rows(&mut after, "SELECT pg_current_xact_id()").await.parse().unwrap();
    assert!(next > clock.tick().0, "{next} {}", clock.tick());
}
