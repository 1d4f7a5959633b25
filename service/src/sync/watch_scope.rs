//! WatchScope: tells a replica when the scope may have something new.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use syncline::error::Result;
use syncline::pb;
use syncline_engine::limits::{WATCH_INTERVAL_DEFAULT, WATCH_INTERVAL_MAX};
use syncline_engine::replica::{Pending, PollRequest};

use super::fields::Fields;
use super::stream::{Translate, reply};
use super::{Answer, Reply, pending_message};
use crate::ServedHub;
use crate::call::Call;
use crate::drain::draining;

pub(super) fn serve(
    hub: Arc<dyn ServedHub>,
    call: Call,
    message: pb::WatchScopeRequest,
) -> Answer<Reply<pb::WatchScopeResponse>> {
    let (request, interval_min) = check(message).map_err(|error| call.failed(&error))?;
    call.note_replica(request.replica, &request.scope);
    let draining_begins = call.draining();
    let opening = Box::pin(async move {
        let told = hub.watch(request, interval_min).await?;
        // A watch never ends by itself, and a service that is about to stop waits for calls to end.
        let told =
            told.take_until(draining_begins).chain(futures_util::stream::once(async { Err(draining()) }));
        Ok(told.boxed())
    });
    Ok(reply(call, opening, Watch::default()))
}

fn check(message: pb::WatchScopeRequest) -> Result<(PollRequest, Duration)> {
    let mut fields = Fields::new();
    let replica = fields.replica(&message.replica_id);
    let scope = fields.scope(&message.scope);
    let parameters = fields.parameters(message.parameters);
    let knowledge = fields.knowledge("knowledge", message.knowledge);
    let fingerprint = fields.fingerprint(&message.schema_fingerprint);
    let interval = match message.interval_min {
        None => Some(WATCH_INTERVAL_DEFAULT),
        Some(interval) => {
            Duration::try_from(interval).ok().filter(|interval| *interval <= WATCH_INTERVAL_MAX)
        }
    };
    if interval.is_none() {
        fields.wrong("interval_min", format!("must be 0 s to {} s", WATCH_INTERVAL_MAX.as_secs()));
    }
    let (replica, scope, parameters, knowledge, schema_fingerprint, interval_min) =
        fields.finish((replica, scope, parameters, knowledge, fingerprint, interval))?;
    Ok((PollRequest { replica, scope, parameters, knowledge, schema_fingerprint }, interval_min))
}

/// Every event is a message, and there is no last one.
#[derive(Default)]
struct Watch {
    begun: bool,
}

impl Translate for Watch {
    type Event = Pending;
    type Message = pb::WatchScopeResponse;

    fn messages(&mut self, event: Pending) -> Vec<pb::WatchScopeResponse> {
        self.begun = true;
        vec![pb::WatchScopeResponse { pending: pending_message(event) as i32 }]
    }

    fn sign_of_life(&self) -> Option<pb::WatchScopeResponse> {
        // The first message answers the question, so it is no heartbeat.
        self.begun.then_some(pb::WatchScopeResponse { pending: pb::Pending::None as i32 })
    }

    fn is_complete(&self) -> bool {
        false
    }
}
