//! PostgreSQL as a leaf: a branch office that synchronises with a hub.
//!
//! In reading order: `fit` and `create` (do the local tables fit, and what is missing), `provision` (subscribing), `recognise` (restored elsewhere),
//! `statements` (all dynamic SQL of a leaf), `tables` (what is loaded of the tables), `fold` (the log into dirty
//! records), `enumerate` and `acknowledge` (the way up), `apply` and the modules that it names (the way down).
//!
//! While the engine writes, the setting `syncline.writing` is `on` in its transaction and our triggers do nothing.
//! Whoever can run SQL can set it too, and then his changes are not tracked: it is no protection against the
//! database's own users, and an application must not set it.

mod acknowledge;
mod apply;
mod cascades;
mod conflicts;
mod create;
mod cut;
mod direct;
mod enumerate;
mod fit;
mod fold;
mod hold;
mod incoming;
mod judge;
mod postponed;
mod provision;
mod recognise;
mod stage;
mod statements;
mod tables;
#[cfg(test)]
mod tests;
mod whole;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use syncline::conflict::RowError;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ReplicaId, ScopeName};
use syncline::schema::ScopeSchema;

use super::{PostgresDatabase, errors, meta};
use crate::dialect::meta::{MetaStore as _, subscriptions};
use crate::store::{
    BatchSource, DownloadJob, DownloadReport, DownloadSource, LeafHold, LeafStore, LeafUpload, Subscription,
    UploadSnapshot,
};

/// Where local tables of a scope stand.
const LEAF_SCHEMA: &str = "public";
/// The role of a leaf's tables in our table of tables.
const LEAF_ROLE: i64 = 1;

#[async_trait]
impl LeafStore for PostgresDatabase {
    async fn recognise(&self) -> Result<()> {
        recognise::recognise(self).await
    }

    async fn subscription(&self, scope: &ScopeName) -> Result<Option<Subscription>> {
        self.read(subscriptions::load(scope)).await?.first().map(subscriptions::from_row).transpose()
    }

    async fn hold(&self, scope: &ScopeName) -> Result<LeafHold> {
        hold::hold(self, scope).await
    }

    async fn subscriptions(&self) -> Result<Vec<Subscription>> {
        self.read(subscriptions::list()).await?.iter().map(subscriptions::from_row).collect()
    }

    async fn subscribe(&self, schema: &ScopeSchema, hub: ReplicaId) -> Result<Subscription> {
        provision::subscribe(self, schema, hub).await
    }

    async fn unsubscribe(&self, scope: &ScopeName) -> Result<bool> {
        provision::unsubscribe(self, scope).await
    }

    async fn save(&self, subscription: &Subscription) -> Result<()> {
        let mut transaction = self.begin_durable().await?;
        save_within(&mut transaction, subscription).await?;
        transaction.commit().await.map_err(errors::commit)
    }

    async fn save_losable(&self, subscription: &Subscription) -> Result<()> {
        let mut transaction = self.begin_losable_transaction().await?;
        save_within(&mut transaction, subscription).await?;
        transaction.commit().await.map_err(errors::commit)
    }

    async fn pending_changes(&self, subscription: &Subscription) -> Result<u64> {
        let mut connection = self.pool.acquire().await.map_err(errors::database)?;
        let mut pending = 0;
        for (id, _) in tables::tracked_ids(&mut connection, &subscription.schema).await? {
            pending += fold::count_pending(&mut connection, id).await?;
        }
        // Of tables that are not tracked as they were nobody can tell: that counts as a change, so that a run does not
        // hear of nothing new, and says what is wrong, or mends it.
        match tables::load(&mut connection, &subscription.schema).await {
            Err(error) if error.reason() == ErrorReason::TrackingBroken => Ok(pending + 1),
            sound => sound.map(|_| pending),
        }
    }

    async fn enumerate_dirty(
        &self,
        subscription: &Subscription,
        upload: LeafUpload,
    ) -> Result<UploadSnapshot> {
        fold::fold_all(self, &subscription.schema).await?;
        enumerate::enumerate(self, &subscription.schema, upload).await
    }

    async fn acknowledge_upload(
        &self,
        after: &Subscription,
        batches: Arc<dyn BatchSource>,
        failed: &[RowError],
    ) -> Result<()> {
        acknowledge::acknowledge(self, after, batches.as_ref(), failed).await
    }

    async fn apply_download(
        &self,
        subscription: &Subscription,
        job: DownloadJob,
        source: Arc<dyn DownloadSource>,
        rows_done: Arc<AtomicU64>,
    ) -> Result<DownloadReport> {
        fold::fold_all(self, &subscription.schema).await?;
        apply::apply(self, subscription, &job, source.as_ref(), &rows_done).await
    }

    async fn diverge(&self, scope: &ScopeName) -> Result<Subscription> {
        let Some(stored) = self.subscription(scope).await? else { return Err(not_subscribed(scope)) };
        // What was written up to here belongs to the old id: folded first, it is told apart from what comes later.
        fold::fold_all(self, &stored.schema).await?;
        let mut transaction = self.begin_durable().await?;
        let Some(stored) = load_within(&mut transaction, scope).await? else {
            return Err(not_subscribed(scope));
        };
        let diverged = stored.diverged();
        meta::run(&mut transaction, subscriptions::save(&diverged)?).await?;
        transaction.commit().await.map_err(errors::commit)?;
        Ok(diverged)
    }
}

/// What is stored of a scope, locked until the transaction ends.
async fn load_within(connection: &mut sqlx::PgConnection, scope: &ScopeName) -> Result<Option<Subscription>> {
    let mut statement = subscriptions::load(scope);
    statement.sql = "SELECT document FROM syncline_subscriptions WHERE scope = $1 FOR UPDATE";
    meta::run(connection, statement).await?.first().map(subscriptions::from_row).transpose()
}

/// Stores all of a subscription but its schema, which only subscribing changes.
async fn save_within(connection: &mut sqlx::PgConnection, subscription: &Subscription) -> Result<()> {
    let scope = &subscription.schema.name;
    let Some(stored) = load_within(connection, scope).await? else { return Err(not_subscribed(scope)) };
    let kept = Subscription { schema: stored.schema, ..subscription.clone() };
    meta::run(connection, subscriptions::save(&kept)?).await.map(drop)
}

fn not_subscribed(scope: &ScopeName) -> SyncError {
    SyncError::new(
        ErrorReason::ScopeNotFound,
        format!("this database does not synchronise the scope \"{scope}\"; subscribe to it first"),
    )
    .with("scope", scope)
}
