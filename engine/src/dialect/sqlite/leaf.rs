//! What a leaf's database answers, each in a transaction on a blocking thread.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use syncline::conflict::RowError;
use syncline::error::Result;
use syncline::ids::{ReplicaId, ScopeName};
use syncline::schema::ScopeSchema;

use super::SqliteDatabase;
use super::connection::{WriteTransaction, blocking};
use super::errors::DatabaseResult as _;
use super::passes::BlockingBatches;
use super::scope::TrackedTable;
use super::{
    catalog, fold, leaf_acknowledge, leaf_download, leaf_enumerate, leaf_provision, meta, statements,
    tracking,
};
use crate::dialect::meta::subscriptions;
use crate::store::{
    BatchSource, DownloadJob, DownloadReport, DownloadSource, LeafStore, LeafUpload, Subscription,
    UploadSnapshot,
};

#[async_trait]
impl LeafStore for SqliteDatabase {
    async fn subscription(&self, scope: &ScopeName) -> Result<Option<Subscription>> {
        let scope = scope.clone();
        self.read_only(move |connection| leaf_provision::load(connection, &scope)).await
    }

    async fn subscriptions(&self) -> Result<Vec<Subscription>> {
        self.read_only(leaf_provision::load_all).await
    }

    async fn subscribe(&self, schema: &ScopeSchema, hub: ReplicaId) -> Result<Subscription> {
        let wanted = schema.clone();
        // Before anything of ours is made: what is refused changes nothing.
        self.read_only(move |connection| leaf_provision::check(connection, &wanted)).await?;
        self.ensure().await?;
        let schema = schema.clone();
        self.write(move |connection| leaf_provision::subscribe(connection, &schema, hub)).await
    }

    async fn unsubscribe(&self, scope: &ScopeName) -> Result<bool> {
        let scope = scope.clone();
        self.write(move |connection| leaf_provision::unsubscribe(connection, &scope)).await
    }

    async fn save(&self, subscription: &Subscription) -> Result<()> {
        let subscription = subscription.clone();
        self.write(move |connection| leaf_provision::save(connection, &subscription)).await
    }

    async fn save_losable(&self, subscription: &Subscription) -> Result<()> {
        let (writer, subscription) = (self.connections().writer().await, subscription.clone());
        blocking(move || {
            let transaction = WriteTransaction::begin_losable(writer)?;
            leaf_provision::save(transaction.connection(), &subscription)?;
            transaction.commit()
        })
        .await
    }

    async fn pending_changes(&self, subscription: &Subscription) -> Result<u64> {
        let schema = subscription.schema.clone();
        self.read_only(move |connection| {
            let mut pending = 0;
            for table in schema.tables.iter().filter(|table| table.direction.uploads()) {
                let Some(tracked) = TrackedTable::find(connection, &table.name)? else { continue };
                for name in [statements::dirty(tracked.id), statements::log(tracked.id)] {
                    let rows: i64 =
                        connection.query_row(&statements::count(&name), [], |row| row.get(0)).db()?;
                    pending += rows.unsigned_abs();
                }
                // Of a table whose triggers are not there nobody can tell: it counts as a change, so that a run does not
                // hear of nothing new, and says what is wrong, or mends it.
                let present = tracking::present_triggers(connection, &table.name)?;
                let log = tracking::log_triggers(connection, tracked.id)?;
                pending += u64::from(!tracking::same_triggers(&tracked.provisioned, &present, &log));
            }
            Ok(pending)
        })
        .await
    }

    async fn enumerate_dirty(
        &self,
        subscription: &Subscription,
        upload: LeafUpload,
    ) -> Result<UploadSnapshot> {
        leaf_enumerate::enumerate(self.connections(), subscription, upload).await
    }

    async fn acknowledge_upload(
        &self,
        after: &Subscription,
        batches: Arc<dyn BatchSource>,
        failed: &[RowError],
    ) -> Result<()> {
        let (after, failed) = (after.clone(), failed.to_vec());
        let batches = BlockingBatches { handle: tokio::runtime::Handle::current(), source: batches };
        self.write(move |connection| leaf_acknowledge::acknowledge(connection, &after, &batches, &failed))
            .await
    }

    async fn apply_download(
        &self,
        subscription: &Subscription,
        job: DownloadJob,
        source: Arc<dyn DownloadSource>,
        rows_done: Arc<AtomicU64>,
    ) -> Result<DownloadReport> {
        let writer = self.connections().writer().await;
        let (connections, subscription) = (Arc::clone(self.connections()), subscription.clone());
        let handle = tokio::runtime::Handle::current();
        blocking(move || {
            let transaction = WriteTransaction::begin(writer)?;
            leaf_download::apply(&connections, transaction, &subscription, &job, handle, source, &rows_done)
        })
        .await
    }

    async fn diverge(&self, scope: &ScopeName) -> Result<Subscription> {
        let scope = scope.clone();
        self.write(move |connection| {
            if catalog::is_provisioned(connection)? {
                fold::all(connection)?;
            }
            let known = leaf_provision::load(connection, &scope)?
                .ok_or_else(|| leaf_provision::not_subscribed(&scope))?;
            let subscription = known.diverged();
            meta::run(connection, &subscriptions::save(&subscription)?)?;
            super::state::note_durable(connection)?;
            Ok(subscription)
        })
        .await
    }
}
