//! PostgreSQL, 13 or newer. The README beside this file has isolation levels and caveats.
//!
//! In reading order: [`PostgresDatabase`] here; `errors`, `statements` (all dynamic SQL), `meta` (our own tables);
//! `catalog`, `types`, `copy` (what a user's table is, and how its cells travel); `provision`, `tracking`, `define`
//! (triggers, logs, records, scopes); `identity`; `fold`, `snapshot`, `opening`, `enumerate` (reading); `apply` (writing).

mod apply;
mod apply_along;
mod apply_convert;
mod apply_incoming;
mod apply_judge;
mod apply_mend;
mod apply_plain;
mod apply_stage;
mod apply_write;
mod catalog;
mod commits;
mod copy;
mod defaults;
mod define;
mod define_check;
mod enumerate;
mod errors;
mod fold;
mod give_up;
mod glance;
mod hub;
mod identity;
mod key_types;
mod leaf;
mod meta;
mod opening;
mod probe;
mod provision;
mod scopes;
mod snapshot;
mod statements;
mod survey;
#[cfg(test)]
mod tests;
mod tracked;
mod types;

use std::str::FromStr as _;
use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Postgres, Transaction};
use syncline::error::{ErrorReason, Result, SyncError};
use tokio::sync::Semaphore;

use crate::limits;

/// The oldest server that we know how to track: `pg_current_xact_id` came with it.
const VERSION_MIN: i32 = 130_000;

/// What holds on every connection: the text forms in which cells are read and written do not depend on the server's or
/// the role's configuration.
const SETTINGS: &str = "SET search_path = pg_catalog; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601'; \
     SET timezone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'; \
     SET xmloption = 'content'; SET standard_conforming_strings = on; SET client_min_messages = warning; \
     SET default_transaction_isolation = 'read committed'; SET default_transaction_deferrable = off; \
     SET default_transaction_read_only = off; \
     SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; SET lock_timeout = 0";

/// For connections that only look ([`glance`]): the statement is planned once, and not for each look, which would take
/// three times as long as the look itself. A plan made when a table was empty must do for a table that is not, so it
/// goes by indexes whatever the statistics say (and what that is reckoned to cost is no reason to compile it).
const LOOK_SETTINGS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off; \
     SET default_transaction_read_only = on";

/// Begins a transaction that reads one snapshot. Parameters of its statements are ids of ours, of which one is like the
/// other: they are planned once a connection (the one that reads the catalogue takes ten times as long to plan as to
/// run). What reads users' rows has no parameters, and is planned each time.
const BEGIN_READING: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL plan_cache_mode = force_generic_plan";

/// A PostgreSQL database, as hub or leaf.
#[derive(Debug)]
pub struct PostgresDatabase {
    pool: PgPool,
    /// Connections with [`LOOK_SETTINGS`].
    looks: PgPool,
    /// A turn for each snapshot: see [`limits::POSTGRES_SNAPSHOTS_MAX`].
    snapshots: Arc<Semaphore>,
    glances: glance::Glances,
    openings: opening::Openings,
}

impl PostgresDatabase {
    /// Opens a database by its URL (`postgres://user@host/name`). Writes nothing.
    ///
    /// # Errors
    /// DATABASE_UNAVAILABLE; REQUEST_INVALID if the URL is none, or the server refuses role, password or database;
    /// FEATURE_UNSUPPORTED for a standby or a server that is too old.
    pub async fn open(url: &str) -> Result<Arc<Self>> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| {
                SyncError::invalid("database", "is not a PostgreSQL URL (postgres://user@host/name)")
                    .with_detail(error)
            })?
            .application_name("syncline");
        // The pool would go on knocking at a closed door until its time is up: a wrong URL is to be heard of at once.
        let first = PgConnection::connect_with(&options);
        let first = tokio::time::timeout(limits::POSTGRES_CONNECT_TIMEOUT, first).await;
        let first = first.map_err(|_| open_failed(sqlx::Error::PoolTimedOut))?.map_err(open_failed)?;
        first.close().await.map_err(open_failed)?;
        let looks =
            pool_options(limits::POSTGRES_LOOKS_MAX, LOOK_SETTINGS).connect_lazy_with(options.clone());
        let pool = pool_options(limits::POSTGRES_CONNECTIONS_MAX, "").connect_with(options).await;
        let database = Arc::new(Self {
            pool: pool.map_err(open_failed)?,
            looks,
            snapshots: Arc::new(Semaphore::new(limits::POSTGRES_SNAPSHOTS_MAX)),
            glances: glance::Glances::default(),
            openings: opening::Openings::default(),
        });
        database.check_server().await?;
        Ok(database)
    }

    /// Closes all connections, once they are idle.
    pub async fn close(&self) {
        self.looks.close().await;
        self.pool.close().await;
    }

    async fn check_server(&self) -> Result<()> {
        let (version, standby): (i32, bool) = sqlx::query_as(
            "SELECT current_setting('server_version_num')::int, pg_catalog.pg_is_in_recovery()",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(errors::database)?;
        if version < VERSION_MIN {
            return Err(SyncError::new(
                ErrorReason::FeatureUnsupported,
                "PostgreSQL 13 or newer is needed; upgrade the server",
            ));
        }
        if standby {
            return Err(SyncError::new(
                ErrorReason::FeatureUnsupported,
                "the server is a standby, which can't tell what it has seen; connect to the primary",
            ));
        }
        Ok(())
    }

    /// Begins a transaction with this statement.
    ///
    /// Whoever waits for it may be dropped (a caller hangs up); a `BEGIN` that is dropped half-way would leave a
    /// connection in the pool that is in a transaction without anybody's knowing, so it comes to its end elsewhere.
    async fn begin_with(&self, begin: &'static str) -> Result<Transaction<'static, Postgres>> {
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin_with(begin).await });
        begun.await.map_err(SyncError::internal)?.map_err(errors::database)
    }

    /// A transaction that reads and writes, and whose commit is durable whatever the database's default.
    async fn begin_durable(&self) -> Result<Transaction<'static, Postgres>> {
        self.begin_with(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = on; \
             SET LOCAL row_security = off",
        )
        .await
    }

    /// A transaction that reads and writes, and whose commit does not wait for the disk. The write-ahead log keeps its
    /// order: a crash loses it only if it loses everything that was committed later. So a transaction id of such a one
    /// is handed out again only if no durable commit came after it, and knowledge that covers it, which is committed
    /// durably before it is handed out by a server that has not failed meanwhile, never reached anybody.
    async fn begin_losable_transaction(&self) -> Result<Transaction<'static, Postgres>> {
        self.begin_with(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = off; \
             SET LOCAL row_security = off",
        )
        .await
    }
}

/// A pool of at most so many connections, each with [`SETTINGS`] and these.
fn pool_options(connections_max: u32, settings: &'static str) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(SETTINGS)).await?;
                connection.execute(sqlx::raw_sql(settings)).await?;
                Ok(())
            })
        })
        // The pool asks every connection that comes back whether it is alive. Whether it still is need not be asked
        // a moment later: each question is a trip to the server.
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| {
            Box::pin(async move {
                if metadata.idle_for > limits::POSTGRES_IDLE_TRUSTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

/// From here to its end the transaction waits for no lock longer than `limits::LOCK_TIMEOUT`: it may hold some that the
/// application wants.
async fn give_way(connection: &mut PgConnection) -> Result<()> {
    statements::set_lock_timeout(connection, limits::LOCK_TIMEOUT).await.map_err(errors::database)
}

/// The tick that a transaction gives its changes.
async fn own_tick(connection: &mut PgConnection) -> Result<i64> {
    sqlx::query_scalar("SELECT pg_catalog.pg_current_xact_id()::text::bigint")
        .fetch_one(connection)
        .await
        .map_err(errors::database)
}

/// Microseconds since 1970 UTC, by the server's clock.
async fn server_now(connection: &mut PgConnection) -> Result<i64> {
    sqlx::query_scalar("SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint")
        .fetch_one(connection)
        .await
        .map_err(errors::database)
}

/// A server that refuses will refuse again; one that does not answer may do so later.
fn open_failed(error: sqlx::Error) -> SyncError {
    let (reason, message) = match errors::refusal(&error) {
        Some(refusal) => (ErrorReason::RequestInvalid, refusal),
        None => (
            ErrorReason::DatabaseUnavailable,
            "the database can't be opened; check the URL, and that the server runs and can be reached",
        ),
    };
    SyncError::new(reason, message).with_detail(errors::describe(&error))
}
