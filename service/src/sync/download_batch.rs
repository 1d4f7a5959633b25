//! DownloadBatch: the bytes of one batch from an offset on.

use std::sync::Arc;

use bytes::Bytes;
use syncline::error::Result;
use syncline::ids::BatchId;
use syncline::limits::CHUNK_BYTES_MAX;
use syncline::pb;
use syncline_engine::replica::SessionRef;

use super::fields::Fields;
use super::stream::{Translate, reply};
use super::{Answer, Reply};
use crate::ServedHub;
use crate::call::Call;

pub(super) fn serve(
    hub: Arc<dyn ServedHub>,
    call: Call,
    message: pb::DownloadBatchRequest,
) -> Answer<Reply<pb::DownloadBatchResponse>> {
    let (session, batch) = check(&message).map_err(|error| call.failed(&error))?;
    call.note_session(session.id);
    call.note_batch(batch);
    let offset = message.read_offset;
    let opening = Box::pin(async move { hub.read_batch(session, batch, offset).await });
    Ok(reply(call, opening, Chunks { offset }))
}

fn check(message: &pb::DownloadBatchRequest) -> Result<(SessionRef, BatchId)> {
    let mut fields = Fields::new();
    let session = fields.session(&message.session_id, &message.session_token);
    let batch = fields.batch("batch_id", &message.batch_id);
    fields.finish((session, batch))
}

/// Says of each piece where it begins, and keeps it within its bound.
struct Chunks {
    offset: u64,
}

impl Translate for Chunks {
    type Event = Bytes;
    type Message = pb::DownloadBatchResponse;

    fn messages(&mut self, mut bytes: Bytes) -> Vec<pb::DownloadBatchResponse> {
        let mut messages = Vec::with_capacity(bytes.len().div_ceil(CHUNK_BYTES_MAX));
        while !bytes.is_empty() {
            let data = bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX));
            let offset = self.offset;
            self.offset += data.len() as u64;
            messages.push(pb::DownloadBatchResponse { offset, data });
        }
        messages
    }

    fn sign_of_life(&self) -> Option<pb::DownloadBatchResponse> {
        None
    }

    fn is_complete(&self) -> bool {
        // The client counts the bytes: it knows the batch's size and digest.
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_beyond_the_bound_is_cut() {
        let mut chunks = Chunks { offset: 7 };
        let messages = chunks.messages(Bytes::from(vec![1; 2 * CHUNK_BYTES_MAX + 1]));
        let places: Vec<_> = messages.iter().map(|message| (message.offset, message.data.len())).collect();
        let chunk = CHUNK_BYTES_MAX as u64;
        assert_eq!(places, [(7, CHUNK_BYTES_MAX), (7 + chunk, CHUNK_BYTES_MAX), (7 + 2 * chunk, 1)]);
    }
}
