//! A leaf in memory: what is in it outlives the run that is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use syncline::batch::Operation;
use syncline::conflict::{RowError, RowErrorReason};
use syncline::error::{Result, SyncError};
use syncline::ids::{ReplicaId, ScopeName, Tick};
use syncline::knowledge::Clock;
use syncline::schema::ScopeSchema;
use syncline_engine::dialect::meta::{Commits, MetaRow, MetaStore, MetaTx, Statement};
use syncline_engine::replica::{ChangesMode, ExceptedKey};
use syncline_engine::store::{
    BatchSource, DownloadJob, DownloadReport, DownloadSource, LeafStore, LeafUpload, Subscription,
    UploadSnapshot,
};

use super::faults::Faults;
use super::rows::{Change, Rows, blocks, changes, row_key};

/// Rows of a block, so that a few rows make several batches.
const BLOCK_ROWS: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct FakeLeaf {
    state: Mutex<State>,
    pub(crate) faults: Arc<Faults>,
}

#[derive(Debug, Default, Clone)]
struct State {
    subscription: Option<Subscription>,
    rows: Rows,
    dirty: BTreeMap<i64, u64>,
    tick: u64,
    writes: u64,
}

impl FakeLeaf {
    pub(crate) fn new(faults: Arc<Faults>) -> Self {
        Self { state: Mutex::default(), faults }
    }

    /// What the user's application writes.
    pub(crate) fn edit(&self, id: i64, name: Option<&str>) {
        let mut state = self.state();
        state.tick += 1;
        let tick = state.tick;
        state.dirty.insert(id, tick);
        match name {
            Some(name) => state.rows.insert(id, name.to_owned()),
            None => state.rows.remove(&id),
        };
    }

    pub(crate) fn rows(&self) -> Rows {
        self.state().rows.clone()
    }

    pub(crate) fn dirty(&self) -> Vec<i64> {
        self.state().dirty.keys().copied().collect()
    }

    /// How often something was committed.
    pub(crate) fn writes(&self) -> u64 {
        self.state().writes
    }

    pub(crate) fn stored(&self) -> Subscription {
        self.state().subscription.clone().unwrap()
    }

    /// A copy of the file, as it is now.
    pub(crate) fn copy(&self) -> Self {
        Self { state: Mutex::new(self.state().clone()), faults: self.faults.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn commit(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.writes += 1;
    }

    async fn read_all(source: &dyn BatchSource, from: usize) -> Result<Vec<Vec<(Operation, Change, u64)>>> {
        let mut batches = Vec::new();
        while let Some(blocks) = source.blocks(from + batches.len()).await? {
            let mut rows = Vec::new();
            for block in &blocks {
                let ticks = block.ticks.iter().map(|tick| tick.0).chain(std::iter::repeat(0));
                rows.extend(
                    changes(block).into_iter().zip(ticks).map(|(row, tick)| (block.operation, row, tick)),
                );
            }
            batches.push(rows);
        }
        Ok(batches)
    }
}

/// Writes what came; rows named "bad" can't be written.
fn write(state: &mut State, rows: Vec<(Operation, Change, u64)>, report: &mut DownloadReport) {
    for (operation, (id, name), _) in rows {
        if name.as_deref() == Some("bad") {
            report.row_errors.push(RowError {
                row: row_key(id),
                table_name: "customer".to_owned(),
                key_json: format!("{{\"id\":{id}}}"),
                operation,
                reason: RowErrorReason::Check,
                message: "it is bad".to_owned(),
            });
            continue;
        }
        report.conflicts += u64::from(state.dirty.remove(&id).is_some());
        match name {
            Some(name) => {
                state.rows.insert(id, name);
                report.upserts += 1;
            }
            None => report.deletes += u64::from(state.rows.remove(&id).is_some()),
        }
    }
}

#[async_trait]
impl MetaStore for FakeLeaf {
    async fn begin(&self) -> Result<Box<dyn MetaTx>> {
        Err(SyncError::internal("not in this store"))
    }

    async fn begin_losable(&self) -> Result<Box<dyn MetaTx>> {
        Err(SyncError::internal("not in this store"))
    }

    async fn read(&self, _: Statement) -> Result<Vec<MetaRow>> {
        Err(SyncError::internal("not in this store"))
    }

    async fn commits(&self) -> Result<Box<dyn Commits>> {
        Err(SyncError::internal("not in this store"))
    }
}

#[async_trait]
impl LeafStore for FakeLeaf {
    async fn subscription(&self, _: &ScopeName) -> Result<Option<Subscription>> {
        Ok(self.state().subscription.clone())
    }

    async fn subscriptions(&self) -> Result<Vec<Subscription>> {
        Ok(self.state().subscription.clone().into_iter().collect())
    }

    async fn subscribe(&self, schema: &ScopeSchema, hub: ReplicaId) -> Result<Subscription> {
        self.faults.point().await;
        self.commit(|state| match &mut state.subscription {
            Some(subscription) => subscription.schema = schema.clone(),
            None => {
                state.subscription = Some(Subscription {
                    schema: schema.clone(),
                    replica: ReplicaId::fresh(),
                    hub,
                    knowledge: Bytes::new(),
                    excepted_keys: Vec::new(),
                    upload_mark_answered: None,
                    upload_mark_drawn: None,
                    download_mark: None,
                    reinitialize: false,
                    diverged: false,
                    untracked_first: Default::default(),
                    session: None,
                    upload: None,
                    download_started: false,
                    batches_applied: 0,
                    applied: false,
                    completed_at: None,
                });
            }
        });
        self.faults.point().await;
        Ok(self.stored())
    }

    async fn unsubscribe(&self, _: &ScopeName) -> Result<bool> {
        Ok(self.state().subscription.take().is_some())
    }

    async fn save(&self, subscription: &Subscription) -> Result<()> {
        self.faults.enter("save").await?;
        self.commit(|state| state.subscription = Some(subscription.clone()));
        self.faults.point().await;
        Ok(())
    }

    async fn pending_changes(&self, _: &Subscription) -> Result<u64> {
        Ok(self.state().dirty.len() as u64)
    }

    async fn enumerate_dirty(&self, _: &Subscription, _: LeafUpload) -> Result<UploadSnapshot> {
        self.faults.point().await;
        let state = self.state().clone();
        let dirty: Vec<_> = state.dirty.iter().map(|(id, tick)| (*id, *tick)).collect();
        let (sender, receiver) = tokio::sync::mpsc::channel(dirty.len().max(1) * 2);
        for chunk in dirty.chunks(BLOCK_ROWS) {
            let rows: Vec<_> = chunk.iter().map(|(id, _)| (*id, state.rows.get(id).cloned())).collect();
            for mut block in blocks(&rows) {
                let ids = changes(&block);
                block.ticks = ids.iter().map(|(id, _)| Tick(state.dirty[id])).collect();
                block.changed_at = vec![0; block.rows()];
                block.births = block.ticks.clone();
                sender.try_send(Ok(block)).unwrap();
            }
        }
        Ok(UploadSnapshot { clock: Clock::up_to(Tick(state.tick)), blocks: receiver })
    }

    async fn acknowledge_upload(
        &self,
        after: &Subscription,
        batches: Arc<dyn BatchSource>,
        failed: &[RowError],
    ) -> Result<()> {
        self.faults.enter("acknowledge").await?;
        let batches = Self::read_all(&*batches, 0).await?;
        let failed: BTreeSet<_> = failed.iter().map(|error| error.row.clone()).collect();
        self.commit(|state| {
            for (_, (id, _), tick) in batches.into_iter().flatten() {
                if state.dirty.get(&id) == Some(&tick) && !failed.contains(&row_key(id)) {
                    state.dirty.remove(&id);
                }
            }
            state.subscription = Some(after.clone());
        });
        self.faults.point().await;
        Ok(())
    }

    async fn apply_download(
        &self,
        subscription: &Subscription,
        job: DownloadJob,
        source: Arc<dyn DownloadSource>,
        rows_done: Arc<AtomicU64>,
    ) -> Result<DownloadReport> {
        self.faults.enter("apply_download").await?;
        let mut report = DownloadReport::default();
        let mut named = BTreeSet::new();
        if job.per_batch {
            let mut index = subscription.batches_applied as usize;
            while let Some(rows) = Self::read_batch(&*source, index).await? {
                index += 1;
                self.commit(|state| {
                    write(state, rows, &mut report);
                    state.subscription.as_mut().unwrap().batches_applied = index as u32;
                });
                self.faults.point().await;
            }
        }
        let batches = Self::read_all(&*source, 0).await?;
        let end = source.end().await?;
        self.faults.point().await;
        self.commit(|state| {
            for rows in batches {
                named.extend(rows.iter().map(|(_, (id, _), _)| *id));
                rows_done.fetch_add(rows.len() as u64, Ordering::Relaxed);
                if !job.per_batch {
                    write(state, rows, &mut report);
                }
            }
            if job.begin.mode == ChangesMode::WholeView {
                let gone = |id: &i64| !named.contains(id) && !state.dirty.contains_key(id);
                let gone: Vec<i64> = state.rows.keys().copied().filter(gone).collect();
                report.deletes += gone.len() as u64;
                gone.iter().for_each(|id| {
                    state.rows.remove(id);
                });
            }
            let stored = state.subscription.as_mut().unwrap();
            let before = std::mem::replace(&mut stored.knowledge, end.learned.clone());
            let excepted =
                |error: &RowError| ExceptedKey { row: error.row.clone(), knowledge_before: before.clone() };
            stored.excepted_keys = report.row_errors.iter().map(excepted).collect();
            stored.download_mark = Some(end.download_mark);
            (stored.applied, stored.reinitialize, stored.diverged) = (true, false, false);
        });
        report.end = Some(end);
        self.faults.point().await;
        Ok(report)
    }

    async fn diverge(&self, _: &ScopeName) -> Result<Subscription> {
        self.faults.enter("diverge").await?;
        self.commit(|state| {
            let stored = state.subscription.as_mut().unwrap();
            *stored = Subscription {
                replica: ReplicaId::fresh(),
                knowledge: Bytes::new(),
                excepted_keys: Vec::new(),
                upload_mark_answered: None,
                upload_mark_drawn: None,
                download_mark: None,
                reinitialize: true,
                diverged: true,
                untracked_first: Default::default(),
                session: None,
                upload: None,
                download_started: false,
                batches_applied: 0,
                applied: false,
                ..stored.clone()
            };
        });
        Ok(self.stored())
    }
}

impl FakeLeaf {
    async fn read_batch(
        source: &dyn BatchSource,
        index: usize,
    ) -> Result<Option<Vec<(Operation, Change, u64)>>> {
        let Some(blocks) = source.blocks(index).await? else { return Ok(None) };
        let rows =
            |block| changes(block).into_iter().map(|row| (block.operation, row, 0)).collect::<Vec<_>>();
        Ok(Some(blocks.iter().flat_map(rows).collect()))
    }
}
