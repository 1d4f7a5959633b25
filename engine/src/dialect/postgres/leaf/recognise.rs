//! Whether a leaf's database is still where its ticks were given out.
//!
//! The chain's marks tell a leaf that went back in time. They can't tell one that was moved: a dump that is restored in
//! another cluster goes on with the same chain, but counts its transactions from another beginning, and what it wrote
//! there would be taken for known by the hub. So whoever finds another cluster takes new ids, for each scope.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use syncline::error::{Result, SyncError};
use syncline::ids::TableId;

use super::tables::{Registered, registered};
use super::{LEAF_ROLE, fold, provision, statements};
use crate::dialect::meta::subscriptions;
use crate::dialect::postgres::identity::{self, Identity};
use crate::dialect::postgres::provision::{Provisioned, is_there, lock_schema, repeat};
use crate::dialect::postgres::statements::run;
use crate::dialect::postgres::{PostgresDatabase, errors, meta};
use crate::store::Subscription;

/// See [`crate::store::LeafStore::recognise`].
pub(super) async fn recognise(database: &PostgresDatabase) -> Result<()> {
    let control = database.control_file().await?;
    let mut connection = database.pool.acquire().await.map_err(errors::database)?;
    if !is_there(&mut connection).await? {
        return Ok(());
    }
    let now = identity::identity(&mut connection, control).await?;
    let Some(stored) = stored(&mut connection).await?.filter(|stored| *stored != now) else { return Ok(()) };
    drop(connection);
    let is_moved = now.is_of_another_cluster(&stored);
    if is_moved {
        // What came along in the logs was given its ticks elsewhere: in the records they can all be told.
        for subscription in all_subscriptions(database).await? {
            fold::fold_all(database, &subscription.schema).await?;
        }
    }
    repeat(|| settle_in(database, &now, is_moved)).await
}

/// Stores the identity of a database that becomes a leaf.
pub(super) async fn note_identity(
    connection: &mut PgConnection,
    control: Option<(String, i64)>,
) -> Result<()> {
    let now = identity::identity(connection, control).await?;
    if stored(connection).await?.is_none() { store(connection, &now).await } else { Ok(()) }
}

async fn stored(connection: &mut PgConnection) -> Result<Option<Identity>> {
    let document: String = sqlx::query_scalar("SELECT leaf_identity FROM syncline.state WHERE id = 1")
        .fetch_one(connection)
        .await
        .map_err(errors::database)?;
    Ok(serde_json::from_str(&document).ok())
}

async fn store(connection: &mut PgConnection, identity: &Identity) -> Result<()> {
    let document = serde_json::to_string(identity).map_err(SyncError::internal)?;
    sqlx::query("UPDATE syncline.state SET leaf_identity = $1 WHERE id = 1")
        .bind(document)
        .execute(connection)
        .await
        .map(drop)
        .map_err(errors::database)
}

async fn all_subscriptions(database: &PostgresDatabase) -> Result<Vec<Subscription>> {
    use crate::dialect::meta::MetaStore as _;
    database.read(subscriptions::list()).await?.iter().map(subscriptions::from_row).collect()
}

/// Finds the tables again, which have other oids where they were restored; moved, the leaf begins a new life: pending
/// edits are kept, under ticks of this cluster and new ids.
async fn settle_in(database: &PostgresDatabase, now: &Identity, is_moved: bool) -> Result<()> {
    let mut transaction = database.begin_provisioning(None).await?;
    lock_schema(&mut transaction).await?;
    let rows = meta::run(&mut transaction, subscriptions::list()).await?;
    let all: Vec<Subscription> = rows.iter().map(subscriptions::from_row).collect::<Result<_>>()?;
    let tables = registered(&mut transaction).await?;
    let names: Vec<String> =
        tables.iter().filter(|(_, table)| table.role == LEAF_ROLE).map(|(name, _)| name.clone()).collect();
    let found = provision::find_named(&mut transaction, &names).await?;
    let mut renumbered = BTreeSet::new();
    for name in &names {
        let table = &tables[name];
        if let Some(catalog) = found.get(name) {
            find_again(&mut transaction, table, &Provisioned::of(catalog)).await?;
        }
        if is_moved && table.tracks && renumbered.insert(table.id) {
            run(&mut transaction, &statements::renumber(table.id)).await.map_err(errors::database)?;
        }
    }
    if is_moved {
        for subscription in all {
            meta::run(&mut transaction, subscriptions::save(&subscription.diverged())?).await?;
        }
    }
    store(&mut transaction, now).await?;
    transaction.commit().await.map_err(errors::commit)
}

/// Only oids are taken over: a key or a trigger that is not as it was stays an error of the next session.
async fn find_again(connection: &mut PgConnection, table: &Registered, now: &Provisioned) -> Result<()> {
    let moved = table.provisioned.moved_to(now);
    if moved == table.provisioned {
        return Ok(());
    }
    let document = serde_json::to_string(&moved).map_err(SyncError::internal)?;
    let TableId(id) = table.id;
    sqlx::query("UPDATE syncline.tables SET provisioned = $1 WHERE id = $2")
        .bind(document)
        .bind(i64::from(id))
        .execute(connection)
        .await
        .map(drop)
        .map_err(errors::database)
}
