//! Whether a leaf lacks something, and the cheap look that answers many polls: index probes in one snapshot. Entries
//! that are not folded yet count as something. Nothing is written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use syncline::error::Result;
use syncline::ids::{ReplicaId, ScopeName};
use syncline::knowledge::Knowledge;

use super::connection::Connections;
use super::errors::DatabaseResult as _;
use super::plan::TablePlan;
use super::state::{self, OwnIds};
use super::{catalog, fold, scope, snapshot, statements};
use crate::limits;
use crate::store::{Glance, KnownScope, Probed, StoredScope, StoredTable};

/// Scopes as they were read last, with the text of their document, and the schema's version if their tables were tracked
/// soundly at it. **Invariant:** one is believed only if the text and the version that the answering snapshot has are the
/// same, so what another process has changed is seen at once.
#[derive(Default)]
pub(super) struct KnownScopes(Mutex<HashMap<ScopeName, Known>>);

struct Known {
    document: String,
    scope: Arc<KnownScope>,
    sound_at: Option<i64>,
}

impl KnownScopes {
    /// The scope in the transaction's snapshot. Blocks.
    fn find(&self, connection: &Connection, name: &ScopeName) -> Result<Option<Arc<KnownScope>>> {
        let document =
            if catalog::is_provisioned(connection)? { scope::document(connection, name)? } else { None };
        let mut all = self.all();
        let Some(document) = document else {
            all.remove(name);
            return Ok(None);
        };
        if let Some(known) = all.get(name).filter(|known| known.document == document) {
            return Ok(Some(Arc::clone(&known.scope)));
        }
        let scope = KnownScope::new(state::from_json(&document)?);
        all.insert(name.clone(), Known { document, scope: Arc::clone(&scope), sound_at: None });
        Ok(Some(scope))
    }

    /// Checks that all tables of the scope are tracked as they were provisioned, in the transaction's snapshot: what changes
    /// in one that is not leaves no trace, so nobody may hear of nothing new. Blocks.
    fn check_sound(&self, connection: &Connection, scope: &StoredScope) -> Result<()> {
        // Whatever could break it changes the schema's version.
        let version = connection.query_row("PRAGMA main.schema_version", [], |row| row.get(0)).db()?;
        let name = &scope.schema.name;
        let is_sound = |known: &Known| known.sound_at == Some(version) && **known.scope == *scope;
        if self.all().get(name).is_some_and(is_sound) {
            return Ok(());
        }
        for (schema, table) in scope.schema.tables.iter().zip(&scope.tables) {
            let plan = TablePlan::load(connection, schema, &table.source_name)?;
            snapshot::check_tracking(connection, &plan)?;
        }
        if let Some(known) = self.all().get_mut(name).filter(|known| **known.scope == *scope) {
            known.sound_at = Some(version);
        }
        Ok(())
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ScopeName, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at a scope: see [`crate::store::HubStore::glance`]. Blocks.
pub(super) fn glance(
    connections: &Arc<Connections>,
    known: &KnownScopes,
    name: &ScopeName,
    floor: &Knowledge,
) -> Result<Option<Glance>> {
    let reader = connections.begin_read()?;
    let connection = reader.connection();
    let Some(scope) = known.find(connection, name)? else { return Ok(None) };
    known.check_sound(connection, &scope)?;
    let ids = OwnIds::read(connection)?;
    let knowledge = ids.knowledge(&state::read(connection)?);
    // What is not folded yet will get the next tick.
    let whole = !fold::any_entries(connection, scope.tables.iter().map(|table| table.id))?;
    let mut quiet = whole;
    for table in scope.downloaded() {
        quiet = quiet && probe_table(connection, &ids, table, 0, floor)?.quiet;
    }
    Ok(Some(Glance { scope, knowledge, whole, quiet }))
}

/// Whether the leaf lacks something. Blocks.
pub(super) fn probe(
    connections: &Arc<Connections>,
    scope: &StoredScope,
    leaf: ReplicaId,
    known: &Knowledge,
) -> Result<Probed> {
    let reader = connections.begin_read()?;
    let connection = reader.connection();
    let ids = OwnIds::read(connection)?;
    // **Invariant:** nothing is ruled out for a leaf that knows more than this snapshot: this database or the leaf's was
    // restored, and new rows have ticks that the leaf takes for known. Its session finds out.
    let own = ids.knowledge(&state::read(connection)?);
    if !own.covers(&Knowledge::from_clocks(known.clocks().clone())) || !known.exceptions().is_empty() {
        return Ok(Probed::SOME);
    }
    let echo = state::leaf_number(connection, leaf)?;
    let mut answer = Probed::NOTHING;
    for (schema, table) in scope.schema.tables.iter().zip(&scope.tables) {
        if answer != Probed::SOME && schema.direction.downloads() {
            answer = answer.and(probe_table(connection, &ids, table, echo, known)?);
        }
    }
    Ok(answer)
}

/// Whether something of a table is not known that did not come from the leaf of this number (0: nobody's).
fn probe_table(
    connection: &Connection,
    ids: &OwnIds,
    table: &StoredTable,
    echo: i64,
    known: &Knowledge,
) -> Result<Probed> {
    let lacks_form = !known.contains_version(table.since) || !known.contains_version(table.baseline);
    if lacks_form || fold::any_entries(connection, [table.id])? {
        return Ok(Probed::SOME);
    }
    let mut answer = Probed::NOTHING;
    for (number, replica, _) in &ids.0 {
        let above = known.clock(*replica).map_or(-1, |clock| state::to_sql(clock.tick()));
        let echo = if echo == 0 { -1 } else { echo };
        let parameters = rusqlite::params![number, above, echo, limits::PROBE_RECORDS_MAX];
        let (looked_at, new): (i64, i64) = connection
            .prepare_cached(&statements::probe(table.id))
            .db()?
            .query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?)))
            .db()?;
        if new > 0 {
            return Ok(Probed::SOME);
        }
        answer = answer.and(Probed::looked_at(looked_at));
    }
    Ok(answer)
}
