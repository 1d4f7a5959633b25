//! A cheap look at a scope, for polls: one statement, in one snapshot.
//!
//! What was read of a scope before is kept in the process: its document, the replicas that records name, and that its
//! tables are tracked as they were provisioned. **Invariant:** nothing of it is believed without the database: the statement
//! that answers also says, in its own snapshot, the digest of the document, the replicas and what tells the state of the
//! tables. If one of them is another, everything is read anew. So a scope that another process has changed is seen at
//! once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::{PgConnection, Row as _};
use syncline::error::{Result, SyncError};
use syncline::ids::{ScopeName, TableId};
use syncline::knowledge::Knowledge;

use super::snapshot::{self, Replicas};
use super::statements::glance::{self, Beyond};
use super::{PostgresDatabase, errors, scopes, statements};
use crate::store::{Glance, KnownScope};

/// How often what is known is read anew, if it changes all the time, before nothing is said.
const ATTEMPTS: usize = 3;

/// What is known of scopes.
#[derive(Debug, Default)]
pub(super) struct Glances(Mutex<HashMap<ScopeName, Arc<Known>>>);

#[derive(Debug)]
struct Known {
    scope: Arc<KnownScope>,
    replicas: Replicas,
    stamps: Stamps,
    /// The oids of the tables.
    oids: Vec<i64>,
    statement: String,
}

/// What the database says for as long as everything is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamps {
    document: Option<Vec<u8>>,
    replicas: Option<String>,
    tracking: Option<String>,
}

impl Glances {
    fn get(&self, name: &ScopeName) -> Option<Arc<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn set(&self, name: &ScopeName, known: Option<Arc<Known>>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => all.insert(name.clone(), known),
            None => all.remove(name),
        };
    }
}

impl PostgresDatabase {
    /// Looks at a scope: see [`crate::store::HubStore::glance`].
    pub(super) async fn look_at(&self, name: &ScopeName, floor: &Knowledge) -> Result<Option<Glance>> {
        for _ in 0..ATTEMPTS {
            let known = match self.glances.get(name) {
                Some(known) => known,
                None => match self.read_known(name).await? {
                    Some(known) => known,
                    None => return Ok(None),
                },
            };
            if let Some(glance) = self.look_with(&known, name, floor).await? {
                return Ok(Some(glance));
            }
            self.glances.set(name, None);
        }
        // Somebody defines scopes all the time: what they are by now is said, and nothing else.
        let Some(known) = self.read_known(name).await? else { return Ok(None) };
        let mut connection = self.pool.acquire().await.map_err(errors::database)?;
        let knowledge = known.replicas.knowledge(snapshot::clock(&mut connection).await?);
        Ok(Some(Glance { scope: Arc::clone(&known.scope), knowledge, whole: true, quiet: false }))
    }

    /// Looks with what is known; `None` if it does not hold any more.
    async fn look_with(&self, known: &Known, name: &ScopeName, floor: &Knowledge) -> Result<Option<Glance>> {
        let beyond = Beyond::of(floor, &known.replicas);
        let mut connection = self.looks.acquire().await.map_err(errors::database)?;
        let row = statements::query(&known.statement)
            .bind(name.as_str())
            .bind(&known.oids)
            .bind(beyond.peers)
            .bind(beyond.first)
            .bind(beyond.last)
            .fetch_one(&mut *connection)
            .await;
        let row = match row {
            Ok(row) => row,
            // Dropped, with the scope or with everything of ours.
            Err(error) if errors::is_missing(&error) => return Ok(None),
            Err(error) => return Err(errors::database(error)),
        };
        let now = Stamps { document: row.get(1), replicas: row.get(2), tracking: row.get(3) };
        if now != known.stamps {
            return Ok(None);
        }
        let knowledge = known.replicas.knowledge(snapshot::parse_clock(row.get(0))?);
        let has_form = |version| floor.contains_version(version);
        let forms = known.scope.downloaded().all(|table| has_form(table.since) && has_form(table.baseline));
        let quiet = forms && !row.get::<bool, _>(4);
        Ok(Some(Glance { scope: Arc::clone(&known.scope), knowledge, whole: true, quiet }))
    }

    /// Reads everything of a scope, and keeps it.
    async fn read_known(&self, name: &ScopeName) -> Result<Option<Arc<Known>>> {
        let mut transaction = self.begin_with(super::BEGIN_READING).await?;
        let known = read_known(&mut transaction, name).await;
        transaction.rollback().await.map_err(errors::database)?;
        let known = known?.map(Arc::new);
        self.glances.set(name, known.clone());
        Ok(known)
    }
}

async fn read_known(connection: &mut PgConnection, name: &ScopeName) -> Result<Option<Known>> {
    if !super::provision::is_there(connection).await? {
        return Ok(None);
    }
    let Some(scope) = scopes::load(connection, name).await? else { return Ok(None) };
    let replicas = snapshot::replicas(connection).await?;
    let tracked = snapshot::tracked_tables(connection, &scope).await?;
    let oids: Vec<i64> = tracked.iter().map(|table| table.catalog.oid).collect();
    let row = statements::query(&glance::stamps())
        .bind(name.as_str())
        .bind(&oids)
        .fetch_one(connection)
        .await
        .map_err(errors::database)?;
    let stamps = Stamps { document: row.get(0), replicas: row.get(1), tracking: row.get(2) };
    if stamps.document.is_none() {
        return Err(SyncError::internal("a scope is there and not there in one snapshot"));
    }
    let scope = KnownScope::new(scope);
    let tables: Vec<TableId> = scope.downloaded().map(|table| table.id).collect();
    Ok(Some(Known { scope, replicas, stamps, oids, statement: glance::glance(&tables) }))
}
