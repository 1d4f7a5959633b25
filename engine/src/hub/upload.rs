//! Receiving the batches of an upload: bytes into the spool, at any offset that does not leave a gap.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use syncline::batch::{BatchInfo, content_bytes_max};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::BatchId;
use syncline::limits::{BATCHES_IN_FLIGHT, CHUNK_BYTES_SENT};

use super::session::CheckedSession;
use super::tasks::UploadCall;
use super::{Hub, session_state};
use crate::dialect::meta::batches::{self, BatchRow, Stored, Way};
use crate::limits::SPOOL_PART_BYTES;
use crate::replica::{BatchStatus, SessionRef};

impl Hub {
    pub(super) async fn receive_batch(
        &self,
        session: SessionRef,
        info: BatchInfo,
        offset: u64,
        bytes: BoxStream<'static, Result<Bytes>>,
    ) -> Result<BatchStatus> {
        let checked = self.checked(session).await?;
        check_acceptable(&checked, &info)?;
        if self.register(&checked, &info).await? == Stored::Complete {
            return Ok(BatchStatus::Complete);
        }
        let call = self.tasks().replace_upload_call(session.id, info.id);
        let _turn = tokio::select! {
            biased;
            () = call.replaced.cancelled() => return Err(replaced()),
            turn = call.turn.lock() => turn,
        };
        let committed = self.spool().committed_size(session.id, info.id).await?;
        if offset > committed {
            return Err(SyncError::new(
                ErrorReason::OffsetMismatch,
                format!("the service has {committed} bytes of the batch; go on from there"),
            )
            .with("batch_id", info.id)
            .with("committed_size", committed));
        }
        let committed = self.store_bytes(session, &info, offset, committed, bytes, &call).await?;
        if committed < info.stored_bytes {
            return Ok(BatchStatus::Partial { committed_size: committed });
        }
        self.complete(session, &info).await?;
        self.tasks().forget_upload(session.id, info.id);
        Ok(BatchStatus::Complete)
    }

    /// Makes the batch's row, if it has none. Its contents are immutable: another info for the same id is refused.
    async fn register(&self, session: &CheckedSession, info: &BatchInfo) -> Result<Stored> {
        let reference = SessionRef { id: session.row.id, token: session.row.token };
        if let Some(row) = self.batch_row(reference, info.id).await? {
            return if row.info == *info && row.way == Way::Up {
                Ok(row.stored)
            } else {
                Err(other_info(info))
            };
        }
        self.check_session_quota(session, info.stored_bytes).await?;
        self.check_spool_quota(info.stored_bytes).await?;
        let row = BatchRow {
            session: session.row.id,
            way: Way::Up,
            info: info.clone(),
            stored: Stored::Partial,
            bytes: None,
        };
        let mut transaction = self.store().begin().await?;
        let inserted = transaction.run(batches::insert(&row)?).await?;
        transaction.commit().await?;
        if !inserted.is_empty() {
            return Ok(Stored::Partial);
        }
        // Taken: by another call of ours just now, by another batch with this sequence, or in another session.
        match self.batch_row(reference, info.id).await? {
            Some(row) if row.info == *info && row.way == Way::Up => Ok(row.stored),
            _ => Err(other_info(info)),
        }
    }

    /// Writes pieces as bytes come. Whatever ends the stream, what has come is kept.
    async fn store_bytes(
        &self,
        session: SessionRef,
        info: &BatchInfo,
        offset: u64,
        mut committed: u64,
        mut bytes: BoxStream<'static, Result<Bytes>>,
        call: &UploadCall,
    ) -> Result<u64> {
        // The overlap with what is there already is passed over unread.
        let mut skip = committed - offset;
        let mut waiting = BytesMut::new();
        let ended = loop {
            let next = tokio::select! {
                biased;
                () = call.replaced.cancelled() => break Err(replaced()),
                next = bytes.next() => next,
            };
            let mut chunk = match next {
                None => break Ok(()),
                Some(Err(error)) => break Err(error),
                Some(Ok(chunk)) => chunk,
            };
            let overlap = skip.min(chunk.len() as u64);
            skip -= overlap;
            // At most the chunk's length.
            let _ = chunk.split_to(overlap as usize);
            if committed + (waiting.len() + chunk.len()) as u64 > info.stored_bytes {
                break Err(SyncError::invalid("chunk", "there are more bytes than the batch's stored_bytes"));
            }
            waiting.extend_from_slice(&chunk);
            if waiting.len() >= piece_bytes(info) {
                let piece = waiting.split().freeze();
                let length = piece.len() as u64;
                self.spool().put(session.id, info.id, committed, piece).await?;
                committed += length;
            }
        };
        if !waiting.is_empty() {
            let length = waiting.len() as u64;
            self.spool().put(session.id, info.id, committed, waiting.freeze()).await?;
            committed += length;
        }
        ended.map(|()| committed)
    }

    /// All bytes are there: verifies their digest. Wrong bytes are dropped, and may be sent once more from 0.
    async fn complete(&self, session: SessionRef, info: &BatchInfo) -> Result<()> {
        let mut digest = Sha256::new();
        let mut stored = self.spool().read(session.id, info.id, 0).await?;
        while let Some(chunk) = stored.next().await {
            digest.update(&chunk?);
        }
        if digest.finalize()[..] != info.sha256 {
            self.spool().delete_batch(session.id, info.id).await?;
            return Err(SyncError::new(
                ErrorReason::BatchCorrupt,
                "the batch's bytes do not have its digest; they were dropped, send them again from 0",
            )
            .with("batch_id", info.id));
        }
        let mut transaction = self.store().begin().await?;
        transaction.run(batches::set_stored(info.id, Stored::Complete)).await?;
        transaction.commit().await
    }

    pub(super) async fn batch_status(&self, session: SessionRef, batch: BatchId) -> Result<BatchStatus> {
        self.checked(session).await?;
        Ok(match self.batch_row(session, batch).await? {
            None => BatchStatus::Absent,
            Some(row) => match row.stored {
                Stored::Complete => BatchStatus::Complete,
                Stored::Released => BatchStatus::Released,
                Stored::Partial => match self.spool().committed_size(session.id, batch).await? {
                    0 => BatchStatus::Absent,
                    committed_size => BatchStatus::Partial { committed_size },
                },
            },
        })
    }

    /// # Errors
    /// SPOOL_FULL if all sessions together have no room for that many bytes.
    pub(super) async fn check_spool_quota(&self, stored_bytes: u64) -> Result<()> {
        let rows = self.store().read(batches::all_bytes()).await?;
        let waiting = rows.first().map(|row| row.int(0)).transpose()?.unwrap_or_default();
        self.check_quota(waiting, stored_bytes, self.config().spool_bytes_max)
    }

    async fn check_session_quota(&self, session: &CheckedSession, stored_bytes: u64) -> Result<()> {
        let rows = self.store().read(batches::session_bytes(session.row.id)).await?;
        let waiting = rows.first().map(|row| row.int(0)).transpose()?.unwrap_or_default();
        // An upload can't be released before it is applied: it may take more than a download, which can.
        self.check_quota(waiting, stored_bytes, self.config().spool_bytes_max / 2)
    }

    fn check_quota(&self, waiting: i64, more: u64, bytes_max: u64) -> Result<()> {
        if waiting.unsigned_abs() + more <= bytes_max {
            return Ok(());
        }
        Err(SyncError::new(ErrorReason::SpoolFull, "the service's spool is full; try again later")
            .retry_after(Duration::from_secs(10)))
    }
}

/// How many bytes of a batch wait in memory at most: what a killed service loses of all batches in flight is less than
/// one of them.
fn piece_bytes(info: &BatchInfo) -> usize {
    let share = info.stored_bytes / (2 * u64::from(BATCHES_IN_FLIGHT));
    // Bounded by SPOOL_PART_BYTES: it fits.
    share.clamp(CHUNK_BYTES_SENT as u64, SPOOL_PART_BYTES as u64) as usize
}

/// Whether the session may bring this batch: whether it is uploaded or comes with the call that applies it.
pub(super) fn check_acceptable(session: &CheckedSession, info: &BatchInfo) -> Result<()> {
    let document = &session.row.document;
    if document.enumeration.is_some() {
        return Err(session_state(
            "nothing can be uploaded once GetChanges was called; it waits for the next session",
        ));
    }
    if info.scope_version != document.scope_version {
        return Err(SyncError::invalid("batch.scope_version", "is not the session's"));
    }
    let bytes_max = content_bytes_max(document.agreement.batch_bytes_max, document.agreement.row_bytes_max);
    if info.decoded_bytes > bytes_max {
        return Err(SyncError::new(
            ErrorReason::BatchTooLarge,
            format!("the batch decodes to {} bytes; at most {bytes_max} were agreed", info.decoded_bytes),
        )
        .with("batch_id", info.id));
    }
    Ok(())
}

fn other_info(info: &BatchInfo) -> SyncError {
    SyncError::invalid("batch", "this id or sequence is taken by another batch; a batch never changes")
        .with("batch_id", info.id)
}

fn replaced() -> SyncError {
    SyncError::new(ErrorReason::CallReplaced, "a newer call uploads this batch")
}
