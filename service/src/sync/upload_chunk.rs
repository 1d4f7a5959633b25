//! UploadChunk: as UploadBatch, for clients without client streams.

use futures_util::stream::{self, StreamExt as _};
use syncline::error::{Result, SyncError};
use syncline::limits::{CHUNK_BYTES_MAX, UNARY_CHUNK_BYTES_MAX};
use syncline::pb;

use super::upload_batch::Upload;
use crate::ServedHub;
use crate::call::Call;

pub(super) async fn serve(
    hub: &dyn ServedHub,
    call: &Call,
    content_bytes_max: u64,
    message: pb::UploadChunkRequest,
) -> Result<pb::UploadChunkResponse> {
    let pb::UploadChunkRequest { header, mut data } = message;
    let upload = Upload::check(header, content_bytes_max)?;
    if data.len() > UNARY_CHUNK_BYTES_MAX {
        let found = data.len();
        return Err(SyncError::invalid(
            "data",
            format!("must have at most {UNARY_CHUNK_BYTES_MAX} bytes, not {found}"),
        ));
    }
    if data.len() as u64 > upload.bytes_left() {
        return Err(SyncError::invalid("data", "goes beyond batch.stored_bytes"));
    }
    call.note_session(upload.session.id);
    call.note_batch(upload.info.id);
    // The hub takes chunks of one size, however they came.
    let mut chunks = Vec::with_capacity(data.len().div_ceil(CHUNK_BYTES_MAX));
    while !data.is_empty() {
        chunks.push(Ok(data.split_to(data.len().min(CHUNK_BYTES_MAX))));
    }
    let chunks = stream::iter(chunks).boxed();
    let status = hub.write_batch(upload.session, upload.info.clone(), upload.offset, chunks).await?;
    let (committed_size, complete) = upload.committed(status);
    Ok(pb::UploadChunkResponse { committed_size, complete })
}
