//! Whether a leaf lacks something: index probes in one snapshot, no base table is read.

use sqlx::{PgConnection, Row as _};
use syncline::error::Result;
use syncline::ids::ReplicaId;
use syncline::knowledge::Knowledge;

use super::snapshot::{self, Replicas};
use super::statements::reading::Selection;
use super::tracked::Tracked;
use super::{errors, statements};
use crate::store::{Probed, StoredScope, StoredTable};

/// Whether the leaf lacks something.
pub(super) async fn probe(
    connection: &mut PgConnection,
    scope: &StoredScope,
    leaf: ReplicaId,
    known: &Knowledge,
) -> Result<Probed> {
    if !known.exceptions().is_empty() {
        // Excepted rows are asked for in every session.
        return Ok(Probed::SOME);
    }
    let replicas = snapshot::replicas(connection).await?;
    // **Invariant:** nothing is ruled out for a leaf that knows more than this snapshot: this database or the leaf's was
    // restored, and new rows have ticks that the leaf takes for known. Its session finds out.
    let own = replicas.knowledge(snapshot::clock(connection).await?);
    if !own.covers(&Knowledge::from_clocks(known.clocks().clone())) {
        return Ok(Probed::SOME);
    }
    let echo: Option<i64> = sqlx::query_scalar("SELECT number FROM syncline.replicas WHERE replica = $1")
        .bind(leaf.as_bytes())
        .fetch_optional(&mut *connection)
        .await
        .map_err(errors::database)?;
    let mut answer = Probed::NOTHING;
    for tracked in snapshot::tracked_tables(connection, scope).await? {
        let Some((schema, stored)) = scope.table(tracked.id) else { continue };
        if answer != Probed::SOME && schema.direction.downloads() {
            let echo = echo.unwrap_or(0);
            answer = answer.and(probe_table(connection, &replicas, &tracked, stored, known, echo).await?);
        }
    }
    Ok(answer)
}

async fn probe_table(
    connection: &mut PgConnection,
    replicas: &Replicas,
    tracked: &Tracked,
    stored: &StoredTable,
    known: &Knowledge,
    echo: i64,
) -> Result<Probed> {
    let truncated = snapshot::truncated(connection, replicas, tracked.id).await?;
    let as_a_whole = [Some(stored.since), Some(stored.baseline), truncated];
    if as_a_whole.iter().flatten().any(|version| !known.contains_version(*version)) {
        return Ok(Probed::SOME);
    }
    let peers = replicas.known(known);
    let selection =
        Selection { table: tracked, own: replicas.own, known: &peers, echo, after: false, changed_at: None };
    let row =
        statements::query_once(&selection.probe()).fetch_one(connection).await.map_err(errors::database)?;
    let (found, looked_at, entries): (bool, i64, bool) = (row.get(0), row.get(1), row.get(2));
    Ok(if found || entries { Probed::SOME } else { Probed::looked_at(looked_at) })
}
