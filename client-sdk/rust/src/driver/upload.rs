//! Local changes travel to the hub: read in one snapshot, applied there in one transaction, acknowledged here.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use syncline::batch::{self, BatchInfo, Block};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchSequence, Mark};
use syncline::limits::{BATCH_BLOCKS_MAX, BATCH_ROWS_MAX, UPLOAD_BATCHES_MAX};
use syncline_engine::limits::BATCH_BLOCKS_PLANNED;
use syncline_engine::store::{LeafUpload, PendingUpload};
use tokio::sync::mpsc;

use super::Run;
use super::begin::Session;
use super::progress::Phase;
use super::retry::Backoff;
use super::send::{Applied, Sender};
use crate::limits::{APPLY_ROUNDS_MAX, BATCHES_ENCODED_MAX};
use crate::parts::PartsSource;

impl Run<'_> {
    /// Uploads what is dirty, or goes on with the upload that waits. Nothing is uploaded once the download has begun.
    pub(super) async fn upload(&mut self, session: &mut Session) -> Result<()> {
        if session.subscription.upload.is_none() {
            let resume = &session.begun.resume;
            // One apply a session.
            let too_late = session.subscription.download_started || resume.apply_started || resume.applied;
            if too_late || !session.has_changes {
                return Ok(());
            }
            let mut backoff = Backoff::new(self.options.retry_for, self.progress);
            while let Err(error) = self.collect(session).await {
                backoff.pause_after(error).await?;
            }
        }
        let Some(upload) = session.subscription.upload.clone() else { return Ok(()) };
        let applied = self.send_and_apply(session, &upload).await?;
        self.acknowledge(session, &upload, applied).await
    }

    /// Makes batches of the dirty rows, and writes down that they are there.
    async fn collect(&self, session: &mut Session) -> Result<()> {
        self.progress.begin(Phase::Collecting);
        // Batches of a run that was killed before it had them all: another snapshot makes others.
        session.parts.remove_uploads().await?;
        let agreement = session.begun.agreement;
        let limits = LeafUpload {
            // Both are bounded by the protocol far below what fits a usize.
            block_bytes_max: agreement.batch_bytes_max as usize / BATCH_BLOCKS_PLANNED,
            row_bytes_max: agreement.row_bytes_max as usize,
        };
        let mut snapshot = self.store.enumerate_dirty(&session.subscription, limits).await?;
        let batches = Batcher::new(session, &mut snapshot.blocks).into_stream();
        // Rows of the next batch are read while one is encoded and on its way to the disk.
        let batches =
            batches.map_ok(|batch| self.store_batch(session, batch)).try_buffered(BATCHES_ENCODED_MAX);
        let batches: Vec<_> = batches.try_collect().await?;
        if batches.is_empty() {
            return Ok(());
        }
        session.parts.sync().await?;
        // Drawn after the snapshot, and committed before the first byte leaves: drawn earlier it would lose edits of a
        // database that is restored to a state between the two.
        let mark = Mark::fresh();
        session.subscription.upload_mark_drawn = Some(mark);
        let made_with =
            if session.subscription.diverged { Bytes::new() } else { session.subscription.knowledge.clone() };
        let excepted_keys = session.subscription.excepted_keys.clone();
        session.subscription.upload =
            Some(PendingUpload { batches, made_with, excepted_keys, leaf_clock: snapshot.clock, mark });
        self.save(&session.subscription).await?;
        session.is_stored = true;
        Ok(())
    }

    async fn store_batch(&self, session: &Session, batch: Batch) -> Result<BatchInfo> {
        let Batch { blocks, sequence } = batch;
        let rows: usize = blocks.iter().map(Block::rows).sum();
        let codec = session.begun.agreement.codec;
        let version = session.subscription.schema.version;
        let encode = move || batch::encode(blocks, sequence, codec, version);
        let info = session.parts.store_upload(encode).await?;
        self.progress.update(|state| state.rows += rows as u64);
        Ok(info)
    }

    /// Sends the bytes that the hub lacks and has it apply them. If it finds that it lacks some after all, once more.
    async fn send_and_apply(&mut self, session: &Session, upload: &PendingUpload) -> Result<Applied> {
        let sender = Sender::new(self, session, upload);
        let (batches_there, bytes_there) = sender.there();
        self.report.resumed_bytes += bytes_there;
        self.progress.begin(Phase::Uploading);
        self.progress.update(|state| {
            state.batches_total = upload.batches.len() as u64;
            state.bytes_total = upload.batches.iter().map(|info| info.stored_bytes).sum();
            state.rows_total = Some(upload.batches.iter().map(|info| u64::from(info.rows)).sum());
        });
        let bytes_total = upload.batches.iter().map(|info| info.stored_bytes).sum();
        self.progress.resumed(batches_there, bytes_there, bytes_total);
        let outcome = sender.send_and_apply(APPLY_ROUNDS_MAX).await;
        let (batches, bytes) = sender.sent();
        self.report.uploaded.batches += batches;
        self.report.uploaded.bytes += bytes;
        outcome
    }

    /// Clears what the hub has accepted; rows that failed stay dirty.
    async fn acknowledge(
        &mut self,
        session: &mut Session,
        upload: &PendingUpload,
        applied: Applied,
    ) -> Result<()> {
        if applied.result.upload_mark != upload.mark {
            let text = "the service has applied another upload of this database; it was restored or copied";
            return Err(SyncError::new(ErrorReason::ReplicaDiverged, text));
        }
        let mut after = session.subscription.clone();
        after.upload_mark_answered = Some(upload.mark);
        after.upload_mark_drawn = None;
        after.upload = None;
        let batches = Arc::new(PartsSource::of_upload(session.parts.clone(), &upload.batches));
        self.retry(|| self.store.acknowledge_upload(&after, batches.clone(), &applied.row_errors)).await?;
        session.subscription = after;
        self.report.uploaded.upserts += applied.result.upserts;
        self.report.uploaded.deletes += applied.result.deletes;
        self.report.conflicts += applied.result.conflicts;
        self.report.row_errors += applied.result.row_errors;
        self.report.conflicts_at_hub.extend(applied.conflicts);
        self.report.row_errors_at_hub.extend(applied.row_errors);
        session.parts.remove_uploads().await
    }
}

/// Combines blocks into batches, up to the size that was agreed.
struct Batcher<'a> {
    blocks: &'a mut mpsc::Receiver<Result<Block>>,
    batch_bytes_max: usize,
    /// Came, and begins the next batch.
    ahead: Option<Block>,
    batches: u32,
}

/// Blocks that travel as one.
struct Batch {
    blocks: Vec<Block>,
    sequence: BatchSequence,
}

impl<'a> Batcher<'a> {
    const fn new(session: &Session, blocks: &'a mut mpsc::Receiver<Result<Block>>) -> Self {
        let batch_bytes_max = session.begun.agreement.batch_bytes_max as usize;
        Self { blocks, batch_bytes_max, ahead: None, batches: 0 }
    }

    /// Boxed: a run whose streams' types name its lifetimes could not be given to a task of its own.
    fn into_stream(self) -> BoxStream<'a, Result<Batch>> {
        let next = |mut batcher: Self| async move {
            let batch = batcher.next().await?;
            Ok(batch.map(|batch| (batch, batcher)))
        };
        stream::try_unfold(self, next).boxed()
    }

    async fn next(&mut self) -> Result<Option<Batch>> {
        let (mut blocks, mut bytes, mut rows) = (Vec::new(), 0, 0);
        loop {
            let block = match self.ahead.take() {
                Some(block) => block,
                None => match self.blocks.recv().await {
                    Some(block) => block?,
                    None => break,
                },
            };
            bytes += block.encoded_bytes();
            rows += block.rows();
            let full = bytes > self.batch_bytes_max
                || rows > BATCH_ROWS_MAX as usize
                || blocks.len() == BATCH_BLOCKS_MAX;
            if full && !blocks.is_empty() {
                self.ahead = Some(block);
                break;
            }
            blocks.push(block);
        }
        if blocks.is_empty() {
            return Ok(None);
        }
        if self.batches as usize == UPLOAD_BATCHES_MAX {
            let text = format!(
                "the changes fill more than {UPLOAD_BATCHES_MAX} batches, which is more than one upload can hold; \
                 synchronise with larger batches"
            );
            return Err(SyncError::new(ErrorReason::BatchTooLarge, text));
        }
        self.batches += 1;
        Ok(Some(Batch { blocks, sequence: BatchSequence(self.batches) }))
    }
}
