//! Ending a transaction that is not wanted any more, though it waits for a lock or runs a long statement.
//!
//! Dropping the future would not do: the server goes on with the statement, holding its locks, until it is done; and
//! nobody would know whether a commit that was under way has happened.

use std::sync::atomic::{AtomicI32, Ordering};

use sqlx::{PgConnection, PgPool};
use syncline::error::Result;
use tokio_util::sync::CancellationToken;

use super::errors;
use crate::limits::GIVE_UP_INTERVAL;

/// The server process that works for a transaction; 0 while there is none.
#[derive(Debug, Default)]
pub(super) struct Backend(AtomicI32);

/// As long as it lives, the backend is the transaction's. To be declared before the transaction, so that it is dropped
/// after it.
pub(super) struct Working<'a>(&'a Backend);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Relaxed);
    }
}

impl Backend {
    /// Forgets the backend when the answer is dropped.
    pub(super) fn working(&self) -> Working<'_> {
        Working(self)
    }

    /// Notes the backend of this connection, which is in a transaction.
    pub(super) async fn note(&self, connection: &mut PgConnection) -> Result<()> {
        let id: i32 = sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()")
            .fetch_one(connection)
            .await
            .map_err(errors::database)?;
        self.0.store(id, Ordering::Relaxed);
        Ok(())
    }
}

/// Runs `work` to its end and answers what it does. Once `stop` is cancelled, whatever statement it runs is cancelled at
/// the server, again and again until `work` ends: it must not begin a new transaction then.
///
/// **Invariant:** a statement is cancelled only while `work` is not polled. So the connection whose backend was noted is
/// still in the hands of `work`, and no other user of the pool is hit; a cancel that comes late, between two
/// statements or after the commit, is ignored by the server.
pub(super) async fn unless_stopped<T>(
    pool: &PgPool,
    stop: &CancellationToken,
    backend: &Backend,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = stop.cancelled() => {}
    }
    loop {
        let connection = tokio::select! {
            biased;
            done = &mut work => return done,
            connection = pool.acquire() => connection,
        };
        let running = backend.0.load(Ordering::Relaxed);
        if let (Ok(mut connection), true) = (connection, running != 0) {
            let cancelled = sqlx::query("SELECT pg_catalog.pg_cancel_backend($1)")
                .bind(running)
                .execute(&mut *connection)
                .await;
            if let Err(error) = cancelled {
                tracing::warn!(%error, "a statement that is not wanted any more could not be cancelled; tried again");
            }
        }
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(GIVE_UP_INTERVAL) => {}
        }
    }
}
