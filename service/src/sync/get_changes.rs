//! GetChanges: what the given knowledge lacks.

use std::sync::Arc;

use bytes::Bytes;
use syncline::error::Result;
use syncline::limits;
use syncline::pb;
use syncline::pb::get_changes_response::Event;
use syncline_engine::replica::{
    ChangesBegin, ChangesEnd, ChangesEvent, ChangesMode, ChangesRequest, SessionRef,
};

use super::fields::Fields;
use super::stream::{Translate, reply};
use super::{Answer, Reply};
use crate::ServedHub;
use crate::call::Call;

pub(super) fn serve(
    hub: Arc<dyn ServedHub>,
    call: Call,
    message: pb::GetChangesRequest,
) -> Answer<Reply<pb::GetChangesResponse>> {
    let (session, request) = check(message).map_err(|error| call.failed(&error))?;
    call.note_session(session.id);
    let opening = Box::pin(async move { hub.changes(session, request).await });
    Ok(reply(call, opening, Enumeration::default()))
}

fn check(message: pb::GetChangesRequest) -> Result<(SessionRef, ChangesRequest)> {
    let mut fields = Fields::new();
    let session = fields.session(&message.session_id, &message.session_token);
    let knowledge = fields.knowledge("knowledge", message.knowledge);
    let excepted_keys = fields.excepted_keys(message.excepted_keys);
    if message.first_sequence > limits::SESSION_BATCHES_MAX {
        let bound = limits::SESSION_BATCHES_MAX;
        fields.wrong("first_sequence", format!("must be at most {bound}, not {}", message.first_sequence));
    }
    let (session, knowledge, excepted_keys) = fields.finish((session, knowledge, excepted_keys))?;
    // 0 means the first, as 1 does.
    let first_sequence = message.first_sequence.max(1);
    Ok((session, ChangesRequest { knowledge, excepted_keys, first_sequence }))
}

/// Where the enumeration is.
#[derive(Default)]
struct Enumeration {
    begun: bool,
    ended: bool,
    progress: pb::ChangesProgress,
}

impl Translate for Enumeration {
    type Event = ChangesEvent;
    type Message = pb::GetChangesResponse;

    fn messages(&mut self, event: ChangesEvent) -> Vec<pb::GetChangesResponse> {
        let event = match event {
            ChangesEvent::Begin(begin) => {
                self.begun = true;
                Event::Begin(begin_message(begin))
            }
            ChangesEvent::Batch(info, inline) => {
                self.progress.batches = self.progress.batches.saturating_add(1);
                self.progress.rows = self.progress.rows.saturating_add(u64::from(info.rows));
                self.progress.waiting_for_release = false;
                // Larger than a message may be, it would end the stream; the client downloads it instead.
                let inline = inline.filter(|bytes| bytes.len() <= limits::INLINE_BATCH_BYTES_MAX);
                Event::Batch(pb::BatchInfo { inline_data: inline.unwrap_or_default(), ..info.to_wire() })
            }
            ChangesEvent::Progress { rows, batches, waiting_for_release } => {
                self.progress = pb::ChangesProgress { rows, batches, waiting_for_release };
                Event::Progress(self.progress)
            }
            ChangesEvent::End(end) => {
                self.ended = true;
                Event::End(end_message(end))
            }
        };
        vec![pb::GetChangesResponse { event: Some(event) }]
    }

    fn sign_of_life(&self) -> Option<pb::GetChangesResponse> {
        // Begin is the first message: before it there is nothing to say that a client could read.
        self.begun.then_some(pb::GetChangesResponse { event: Some(Event::Progress(self.progress)) })
    }

    fn is_complete(&self) -> bool {
        self.ended
    }
}

fn begin_message(begin: ChangesBegin) -> pb::ChangesBegin {
    let (mode, whole_table_ids) = match begin.mode {
        ChangesMode::Delta { whole_tables } => {
            (pb::ChangesMode::Delta, whole_tables.into_iter().map(|table| table.0).collect())
        }
        ChangesMode::WholeView => (pb::ChangesMode::WholeView, Vec::new()),
    };
    pb::ChangesBegin {
        mode: mode as i32,
        whole_table_ids,
        made_with: begin.made_with,
        resumed: begin.resumed,
    }
}

fn end_message(end: ChangesEnd) -> pb::ChangesEnd {
    pb::ChangesEnd {
        learned_knowledge: end.learned,
        download_mark: Bytes::copy_from_slice(end.download_mark.as_bytes()),
        batches: end.batches,
        rows: end.rows,
    }
}
