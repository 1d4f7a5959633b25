//! What a snapshot finds when it is opened: its clock, the replicas, the tables and their state.
//!
//! Reading all of it takes several statements, the one that reads the catalogue ten times as long as any other. What was
//! read for a scope is kept in the process. **Invariant:** nothing of it is believed without the database: one statement,
//! in the snapshot itself, whose tables are locked by then, says what tells its state. If any of that is another, or can't
//! be told, everything is read anew: so a table whose tracking was broken by somebody is found out as it always was.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::{PgConnection, Row as _};
use syncline::error::{Result, SyncError};
use syncline::ids::TableId;
use syncline::knowledge::{Clock, Version};

use super::snapshot::{self, Replicas};
use super::statements::glance;
use super::tracked::Tracked;
use super::{errors, scopes, statements};
use crate::store::{StoredScope, TableState};

/// What is found.
pub(super) struct Opening {
    pub(super) clock: Clock,
    pub(super) replicas: Replicas,
    /// In the scope's order.
    pub(super) tables: Vec<(Tracked, TableState)>,
    /// Whether one of their logs has more than [`LOG_ENTRIES_READ_MAX`](crate::limits::LOG_ENTRIES_READ_MAX) entries.
    pub(super) has_long_log: bool,
    /// The connection's server process, and when it began.
    pub(super) process: Process,
}

/// A server process: its id, and when it began, if we may know.
pub(super) type Process = (i64, Option<i64>);

/// What was found before, by the scope's number.
#[derive(Debug, Default)]
pub(super) struct Openings(Mutex<HashMap<i64, Arc<Known>>>);

#[derive(Debug)]
pub(super) struct Known {
    scope: StoredScope,
    stamps: Stamps,
    replicas: Replicas,
    tables: Vec<(Tracked, Option<Version>)>,
}

/// What the database says for as long as everything is as it was; nothing equals what it can't tell.
#[derive(Debug, Default)]
struct Stamps(Vec<Option<String>>);

impl Stamps {
    fn tell_the_same(&self, now: &Self) -> bool {
        let pairs = self.0.iter().zip(&now.0);
        self.0.len() == now.0.len() && pairs.into_iter().all(|(was, is)| was.is_some() && was == is)
    }
}

/// The answer of [`glance::opening`].
struct Answer {
    clock: Clock,
    stamps: Stamps,
    /// By table.
    empty: Vec<bool>,
    has_long_log: bool,
    process: Process,
}

impl Openings {
    /// Reads what the transaction's snapshot finds of the scope, whose tables are locked.
    ///
    /// # Errors
    /// TRACKING_BROKEN if a table is not as it was provisioned, SESSION_EXPIRED if the scope is not what is stored.
    pub(super) async fn open(&self, connection: &mut PgConnection, scope: &StoredScope) -> Result<Opening> {
        if let Some(known) = self.get(scope.id).filter(|known| known.scope == *scope) {
            let oids: Vec<i64> = known.tables.iter().map(|(table, _)| table.catalog.oid).collect();
            match ask(connection, scope, &oids).await {
                Ok(answer) if known.stamps.tell_the_same(&answer.stamps) => {
                    return Ok(known.opening(answer));
                }
                Ok(_) => {}
                Err(error) => {
                    // What can't even be asked must not be asked again.
                    self.forget(scope.id);
                    return Err(error);
                }
            }
        }
        // What is kept below has passed this under its digest, so that it need not be asked again.
        scope.check_present(scopes::load(connection, &scope.schema.name).await?.as_ref())?;
        let replicas = snapshot::replicas(connection).await?;
        let mut tables = Vec::new();
        for tracked in snapshot::tracked_tables(connection, scope).await? {
            let truncated = snapshot::truncated(connection, &replicas, tracked.id).await?;
            tables.push((tracked, truncated));
        }
        let oids: Vec<i64> = tables.iter().map(|(table, _)| table.catalog.oid).collect();
        let mut answer = ask(connection, scope, &oids).await?;
        let stamps = std::mem::take(&mut answer.stamps);
        let known = Arc::new(Known { scope: scope.clone(), stamps, replicas, tables });
        self.keep(scope.id, Arc::clone(&known));
        Ok(known.opening(answer))
    }

    pub(super) fn get(&self, scope: i64) -> Option<Arc<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&scope).cloned()
    }

    fn keep(&self, scope: i64, known: Arc<Known>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(scope, known);
    }

    fn forget(&self, scope: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&scope);
    }
}

impl Known {
    fn opening(&self, answer: Answer) -> Opening {
        let tables = self.tables.iter().zip(answer.empty);
        Opening {
            clock: answer.clock,
            has_long_log: answer.has_long_log,
            process: answer.process,
            replicas: self.replicas.clone(),
            tables: tables
                .map(|((tracked, truncated), empty)| {
                    (tracked.clone(), TableState { truncated: *truncated, empty })
                })
                .collect(),
        }
    }
}

async fn ask(connection: &mut PgConnection, scope: &StoredScope, oids: &[i64]) -> Result<Answer> {
    let tables: Vec<(TableId, String)> = scope
        .tables
        .iter()
        .map(|table| (table.id, statements::qualified(&table.source_schema, &table.source_name)))
        .collect();
    let row = statements::query(&glance::opening(&tables))
        .bind(scope.schema.name.as_str())
        .bind(oids)
        .fetch_one(connection)
        .await
        .map_err(errors::database)?;
    let answer = || -> sqlx::Result<_> {
        let clock: String = row.try_get(0)?;
        let stamps: Vec<Option<String>> = row.try_get(1)?;
        let empty: Vec<bool> = row.try_get(2)?;
        Ok((clock, stamps, empty, row.try_get(3)?, (row.try_get(4)?, row.try_get(5)?)))
    };
    let (clock, stamps, empty, has_long_log, process) = answer().map_err(errors::database)?;
    if empty.len() != tables.len() {
        return Err(SyncError::internal("not all tables were looked at"));
    }
    Ok(Answer { clock: snapshot::parse_clock(&clock)?, stamps: Stamps(stamps), empty, has_long_log, process })
}
