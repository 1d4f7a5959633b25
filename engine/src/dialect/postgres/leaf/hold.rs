//! One client at a time: two machines may reach the same leaf, each with a directory of parts of its own.
//!
//! **Invariant:** whoever synchronises a scope here holds an advisory lock of its own connection. The server frees it
//! when that connection ends, however it does: with the run, the process, or (by TCP keep-alives) the machine. A pooler
//! that hands connections on between transactions would break this: leaves connect directly.

use sqlx::{Connection as _, Executor as _, PgConnection};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::ScopeName;

use crate::dialect::postgres::statements::run;
use crate::dialect::postgres::{PostgresDatabase, errors, open_failed};
use crate::limits;
use crate::store::LeafHold;

/// A client whose machine has gone is noticed after a minute.
const KEEPALIVES: &str =
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";

/// See [`crate::store::LeafStore::hold`].
pub(super) async fn hold(database: &PostgresDatabase, scope: &ScopeName) -> Result<LeafHold> {
    let options = database.pool.connect_options();
    let connecting = PgConnection::connect_with(&options);
    let connecting = tokio::time::timeout(limits::POSTGRES_CONNECT_TIMEOUT, connecting).await;
    let mut connection =
        connecting.map_err(|_| open_failed(sqlx::Error::PoolTimedOut))?.map_err(open_failed)?;
    connection.execute(KEEPALIVES).await.map_err(errors::database)?;
    // The server may not have noticed yet that the run before has ended.
    let patience = format!("SET lock_timeout = {}", limits::LEAF_HOLD_TIMEOUT.as_millis());
    run(&mut connection, &patience).await.map_err(errors::database)?;
    sqlx::query("SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('syncline leaf ' || $1, 0))")
        .bind(scope.as_str())
        .execute(&mut connection)
        .await
        .map_err(errors::database)
        .map_err(|error| if error.reason() == ErrorReason::LockTimeout { taken(scope) } else { error })?;
    Ok(LeafHold::by(connection))
}

fn taken(scope: &ScopeName) -> SyncError {
    SyncError::new(
        ErrorReason::LockTimeout,
        "another client synchronises this database at the moment; wait until it is done, or stop it",
    )
    .with("scope", scope)
}
