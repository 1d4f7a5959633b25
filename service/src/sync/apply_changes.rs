//! ApplyChanges: applies uploaded batches in one transaction, exactly once.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use syncline::batch::BatchInfo;
use syncline::error::{Result, SyncError};
use syncline::ids::ReplicaId;
use syncline::knowledge::{Clock, clock_from_wire};
use syncline::limits::{INLINE_BATCH_BYTES_MAX, INLINE_CALL_BYTES_MAX, UPLOAD_BATCHES_MAX};
use syncline::pb;
use syncline::pb::apply_changes_response::Event;
use syncline_engine::replica::{ApplyEvent, ApplyRequest, ApplyResult, SessionRef};

use super::fields::{Fields, at_most};
use super::stream::{Translate, reply};
use super::{Answer, Reply};
use crate::ServedHub;
use crate::call::Call;

pub(super) fn serve(
    hub: Arc<dyn ServedHub>,
    call: Call,
    content_bytes_max: u64,
    message: pb::ApplyChangesRequest,
) -> Answer<Reply<pb::ApplyChangesResponse>> {
    let (session, request) = check(message, content_bytes_max).map_err(|error| call.failed(&error))?;
    call.note_session(session.id);
    let rows_total = request.batches.iter().map(|(info, _)| u64::from(info.rows)).sum();
    let opening = Box::pin(async move { hub.apply(session, request).await });
    Ok(reply(call, opening, Apply { progress: pb::ApplyProgress { rows: 0, rows_total }, ended: false }))
}

fn check(message: pb::ApplyChangesRequest, content_bytes_max: u64) -> Result<(SessionRef, ApplyRequest)> {
    let mut fields = Fields::new();
    let session = fields.session(&message.session_id, &message.session_token);
    let batches = check_batches(&mut fields, message.batches, content_bytes_max);
    let made_with = fields.knowledge("made_with", message.made_with);
    let excepted_keys = fields.excepted_keys(message.excepted_keys);
    let leaf_clock = check_clock(&mut fields, message.leaf_clock.as_ref());
    let upload_mark = fields.mark("upload_mark", &message.upload_mark);
    let (session, batches, made_with, excepted_keys, (leaf, leaf_clock), upload_mark) =
        fields.finish((session, batches, made_with, excepted_keys, leaf_clock, upload_mark))?;
    let clock_offset_us = message.clock_offset_us;
    Ok((
        session,
        ApplyRequest { batches, made_with, excepted_keys, leaf, leaf_clock, upload_mark, clock_offset_us },
    ))
}

type Batches = Vec<(BatchInfo, Option<Bytes>)>;

fn check_batches(
    fields: &mut Fields,
    messages: Vec<pb::BatchInfo>,
    content_bytes_max: u64,
) -> Option<Batches> {
    if messages.len() > UPLOAD_BATCHES_MAX {
        fields.wrong("batches", at_most(UPLOAD_BATCHES_MAX, messages.len()));
        return None;
    }
    let inline_bytes: usize = messages.iter().map(|message| message.inline_data.len()).sum();
    if inline_bytes > INLINE_CALL_BYTES_MAX {
        fields.wrong(
            "batches",
            format!("may carry at most {INLINE_CALL_BYTES_MAX} inline bytes in all, not {inline_bytes}"),
        );
    }
    let mut seen = HashSet::with_capacity(messages.len());
    let mut batches = Vec::with_capacity(messages.len());
    let mut whole = true;
    for (index, message) in messages.into_iter().enumerate() {
        let path = format!("batches[{index}]");
        let Some(info) = fields.batch_info(&path, &message, content_bytes_max) else {
            whole = false;
            continue;
        };
        fields.within(&path, |fields| {
            check_place(fields, &info, index, &message.inline_data);
            if !seen.insert(info.id) {
                fields.wrong("batch_id", "stands in the list before");
            }
        });
        let inline = (!message.inline_data.is_empty()).then_some(message.inline_data);
        batches.push((info, inline));
    }
    whole.then_some(batches)
}

/// A gap in the sequence would be a batch that is lost: the list is 1, 2, 3 and so on.
fn check_place(fields: &mut Fields, info: &BatchInfo, index: usize, inline: &Bytes) {
    if info.sequence.0 as usize != index + 1 {
        fields.wrong("sequence", format!("must be {} in this place, not {}", index + 1, info.sequence));
    }
    if inline.len() > INLINE_BATCH_BYTES_MAX {
        let found = inline.len();
        fields.wrong("inline_data", format!("must have at most {INLINE_BATCH_BYTES_MAX} bytes, not {found}"));
    } else if !inline.is_empty() && inline.len() as u64 != info.stored_bytes {
        let (expected, found) = (info.stored_bytes, inline.len());
        fields.wrong("inline_data", format!("must have stored_bytes ({expected}) bytes, not {found}"));
    }
}

fn check_clock(fields: &mut Fields, clock: Option<&pb::ReplicaClock>) -> Option<(ReplicaId, Clock)> {
    let Some(clock) = clock else {
        fields.wrong("leaf_clock", "must be there");
        return None;
    };
    fields.within("leaf_clock", |fields| fields.replica(&clock.replica_id))?;
    match clock_from_wire(clock) {
        Ok(clock) => Some(clock),
        Err(error) => {
            fields.refuse(SyncError::from(error));
            None
        }
    }
}

/// Where the apply is.
struct Apply {
    progress: pb::ApplyProgress,
    ended: bool,
}

impl Translate for Apply {
    type Event = ApplyEvent;
    type Message = pb::ApplyChangesResponse;

    fn messages(&mut self, event: ApplyEvent) -> Vec<pb::ApplyChangesResponse> {
        let event = match event {
            ApplyEvent::Progress { rows, rows_total } => {
                self.progress = pb::ApplyProgress { rows, rows_total };
                Event::Progress(self.progress)
            }
            ApplyEvent::Conflict(conflict) => Event::Conflict((&conflict).into()),
            ApplyEvent::RowError(error) => Event::RowError((&error).into()),
            ApplyEvent::Result(result) => {
                self.ended = true;
                Event::Result(result_message(&result))
            }
        };
        vec![pb::ApplyChangesResponse { event: Some(event) }]
    }

    fn sign_of_life(&self) -> Option<pb::ApplyChangesResponse> {
        Some(pb::ApplyChangesResponse { event: Some(Event::Progress(self.progress)) })
    }

    fn is_complete(&self) -> bool {
        self.ended
    }
}

fn result_message(result: &ApplyResult) -> pb::ApplyResult {
    const SECOND_US: i64 = 1_000_000;
    pb::ApplyResult {
        upserts: result.upserts,
        deletes: result.deletes,
        unchanged: result.unchanged,
        conflicts: result.conflicts,
        row_errors: result.row_errors,
        upload_mark: Bytes::copy_from_slice(result.upload_mark.as_bytes()),
        committed_at: Some(prost_types::Timestamp {
            seconds: result.committed_at.div_euclid(SECOND_US),
            // Less than a second: it fits.
            nanos: (result.committed_at.rem_euclid(SECOND_US) * 1_000) as i32,
        }),
    }
}
