//! UploadBatch: the bytes of one batch, a header and then chunks.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use syncline::batch::BatchInfo;
use syncline::error::{Result, SyncError};
use syncline::limits::CHUNK_BYTES_MAX;
use syncline::pb;
use syncline::pb::upload_batch_request::Part;
use syncline_engine::replica::{BatchStatus, SessionRef};
use tonic::{Code, Status, Streaming};

use super::fields::Fields;
use crate::ServedHub;
use crate::call::Call;
use crate::limits::CHUNK_DEADLINE;

pub(super) async fn serve(
    hub: &dyn ServedHub,
    call: &Call,
    content_bytes_max: u64,
    mut messages: Streaming<pb::UploadBatchRequest>,
) -> Result<pb::UploadBatchResponse> {
    let header = match next(&mut messages).await? {
        Some(Part::Header(header)) => header,
        Some(Part::Chunk(_)) => return Err(SyncError::invalid("header", "must come before the first chunk")),
        None => return Err(SyncError::invalid("header", "is missing: nothing came")),
    };
    let upload = Upload::check(Some(header), content_bytes_max)?;
    call.note_session(upload.session.id);
    call.note_batch(upload.info.id);
    let chunks = Chunks { messages, left: upload.bytes_left() }.into_stream();
    let status = hub.write_batch(upload.session, upload.info.clone(), upload.offset, chunks).await?;
    let (committed_size, complete) = upload.committed(status);
    Ok(pb::UploadBatchResponse { committed_size, complete })
}

/// The header of an upload, checked.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) session: SessionRef,
    pub(super) info: BatchInfo,
    pub(super) offset: u64,
}

impl Upload {
    /// # Errors
    /// REQUEST_INVALID or BATCH_TOO_LARGE.
    pub(super) fn check(header: Option<pb::UploadBatchHeader>, content_bytes_max: u64) -> Result<Self> {
        let mut fields = Fields::new();
        let Some(header) = header else {
            fields.wrong("header", "must be there");
            return fields.finish((None::<Self>,)).map(|(upload,)| upload);
        };
        let (session, info) = fields.within("header", |fields| {
            let session = fields.session(&header.session_id, &header.session_token);
            let Some(batch) = &header.batch else {
                fields.wrong("batch", "must be there");
                return (session, None);
            };
            let info = fields.batch_info("batch", batch, content_bytes_max);
            if let Some(info) = &info
                && header.write_offset > info.stored_bytes
            {
                let (offset, size) = (header.write_offset, info.stored_bytes);
                fields.wrong(
                    "write_offset",
                    format!("must be at most batch.stored_bytes ({size}), not {offset}"),
                );
            }
            (session, info)
        });
        let (session, info) = fields.finish((session, info))?;
        Ok(Self { session, info, offset: header.write_offset })
    }

    /// The bytes that may still come.
    pub(super) fn bytes_left(&self) -> u64 {
        // The offset was checked.
        self.info.stored_bytes.saturating_sub(self.offset)
    }

    /// How many bytes are stored, and whether that is all.
    pub(super) fn committed(&self, status: BatchStatus) -> (u64, bool) {
        match status {
            BatchStatus::Absent => (0, false),
            BatchStatus::Partial { committed_size } => (committed_size, false),
            BatchStatus::Complete | BatchStatus::Released => (self.info.stored_bytes, true),
        }
    }
}

/// The chunks after the header, each checked.
struct Chunks<M> {
    messages: M,
    /// The bytes that may still come.
    left: u64,
}

impl<M: Messages> Chunks<M> {
    /// Ends after the first fault.
    fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::unfold(Some(self), async |chunks| {
            let mut chunks = chunks?;
            match chunks.next().await {
                Ok(None) => None,
                Ok(Some(chunk)) => Some((Ok(chunk), Some(chunks))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let chunk = match next(&mut self.messages).await? {
            None => return Ok(None),
            Some(Part::Header(_)) => return Err(SyncError::invalid("header", "must come only once")),
            Some(Part::Chunk(chunk)) => chunk,
        };
        if chunk.is_empty() {
            return Err(SyncError::invalid("chunk", "must not be empty"));
        }
        if chunk.len() > CHUNK_BYTES_MAX {
            let found = chunk.len();
            return Err(SyncError::invalid(
                "chunk",
                format!("must have at most {CHUNK_BYTES_MAX} bytes, not {found}"),
            ));
        }
        match self.left.checked_sub(chunk.len() as u64) {
            Some(left) => self.left = left,
            None => return Err(SyncError::invalid("chunk", "goes beyond batch.stored_bytes")),
        }
        Ok(Some(chunk))
    }
}

/// A client's messages as they come.
trait Messages:
    Stream<Item = std::result::Result<pb::UploadBatchRequest, Status>> + Send + Unpin + 'static
{
}

impl<M> Messages for M where
    M: Stream<Item = std::result::Result<pb::UploadBatchRequest, Status>> + Send + Unpin + 'static
{
}

/// The next part. A client that broke off, or has fallen silent, ends the upload: what has arrived is kept.
async fn next(messages: &mut impl Messages) -> Result<Option<Part>> {
    let Ok(message) = tokio::time::timeout(CHUNK_DEADLINE, messages.next()).await else {
        tracing::info!(seconds = CHUNK_DEADLINE.as_secs(), "no chunk came: the upload ends here");
        return Ok(None);
    };
    match message {
        None => Ok(None),
        Some(Ok(pb::UploadBatchRequest { part: Some(part) })) => Ok(Some(part)),
        Some(Ok(pb::UploadBatchRequest { part: None })) => {
            Err(SyncError::invalid("part", "must be a header or a chunk"))
        }
        Some(Err(status)) if is_malformed(&status) => {
            Err(SyncError::invalid("part", "does not decode, or is larger than a message may be")
                .with_detail(status.message()))
        }
        Some(Err(status)) => {
            tracing::debug!(code = ?status.code(), "the upload broke off");
            Ok(None)
        }
    }
}

/// What tonic says of a message that it can't read, unlike of a stream that broke.
fn is_malformed(status: &Status) -> bool {
    matches!(status.code(), Code::OutOfRange | Code::Internal | Code::Unimplemented | Code::ResourceExhausted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use syncline::error::ErrorReason;

    use super::*;

    fn chunk(bytes: &'static [u8]) -> std::result::Result<pb::UploadBatchRequest, Status> {
        Ok(pb::UploadBatchRequest { part: Some(Part::Chunk(Bytes::from_static(bytes))) })
    }

    async fn received(
        messages: impl Stream<Item = std::result::Result<pb::UploadBatchRequest, Status>> + Send + Unpin + 'static,
        left: u64,
    ) -> Vec<std::result::Result<Bytes, ErrorReason>> {
        let chunks = Chunks { messages, left }.into_stream();
        chunks.map(|chunk| chunk.map_err(|error| error.reason())).collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_falls_silent_ends_the_upload_and_keeps_what_arrived() {
        let silent = stream::iter([chunk(b"abc")]).chain(stream::pending());
        assert_eq!(received(silent, 10).await, [Ok(Bytes::from_static(b"abc"))]);
    }

    #[tokio::test]
    async fn a_stream_that_breaks_keeps_what_arrived_and_one_that_lies_is_refused() {
        let broken = stream::iter([chunk(b"abc"), Err(Status::cancelled("gone")), chunk(b"never read")]);
        assert_eq!(received(broken, 10).await, [Ok(Bytes::from_static(b"abc"))]);
        for wrong in [
            vec![Err(Status::out_of_range("too large"))],
            vec![chunk(b"")],
            vec![chunk(b"abcd")],
            vec![Ok(pb::UploadBatchRequest { part: None })],
        ] {
            let found = received(stream::iter(wrong), 3).await;
            assert_eq!(found, [Err(ErrorReason::RequestInvalid)]);
        }
    }
}
