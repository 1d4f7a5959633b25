//! The cheap poll: has anything changed for this knowledge? Writes nothing.
//!
//! Polls that arrive together are answered by one read of the database. **Invariant:** a poll is answered by a read that
//! began after the poll arrived, so the answer is right for every commit that was acknowledged before the call. Who
//! arrives while a read is under way waits for the next one, together with all others who do.
//!
//! The read asks whether a *floor* contains everything that there is: some knowledge, often that of the replica that has
//! slept the longest, or else what the hub itself knows in the read's snapshot, which contains everything by what a
//! snapshot is (unless there are changes that have no tick yet). Either way there is nothing new for whoever knows as much
//! as the floor, without another look. For the others the database is asked one by one; if it finds nothing at all, the
//! floor goes down to where they are. The floor is a guess: the read that answers has checked it, in its own snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::ScopeName;
use syncline::knowledge::Knowledge;
use tokio::sync::oneshot;

use super::{Hub, lock, view};
use crate::replica::{Pending, PollRequest};
use crate::store::Glance;

/// The polls that wait, by scope. Scopes that are not there have no entry.
#[derive(Default)]
pub(super) struct Polls {
    scopes: Mutex<HashMap<ScopeName, Desk>>,
}

/// Who waits for a read.
type Waiter = oneshot::Sender<Result<Arc<Seen>>>;

#[derive(Default)]
struct Desk {
    /// Whether somebody reads for those who wait.
    attended: bool,
    waiting: Vec<Waiter>,
    floor: Knowledge,
}

/// What a read has found.
struct Seen {
    glance: Glance,
    /// Contains everything that there is in the read's snapshot. `None`: there are changes without a tick, which nobody
    /// can know.
    floor: Option<Knowledge>,
}

impl Seen {
    /// What the next read looks from.
    fn next_floor(&self) -> &Knowledge {
        self.floor.as_ref().unwrap_or(&self.glance.knowledge)
    }
}

impl Polls {
    /// Queues for the next read. Also says whether nobody attends to the queue: then the caller has to see to it.
    fn queue(&self, name: &ScopeName) -> (oneshot::Receiver<Result<Arc<Seen>>>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut scopes = lock(&self.scopes);
        let desk = scopes.entry(name.clone()).or_default();
        desk.waiting.push(sender);
        (receiver, !std::mem::replace(&mut desk.attended, true))
    }

    /// Those who wait for the read that begins now, and the floor to look from. Nobody: then the queue is unattended.
    fn begin(&self, name: &ScopeName) -> Option<(Vec<Waiter>, Knowledge)> {
        let mut scopes = lock(&self.scopes);
        let desk = scopes.get_mut(name)?;
        if desk.waiting.is_empty() {
            desk.attended = false;
            return None;
        }
        Some((std::mem::take(&mut desk.waiting), desk.floor.clone()))
    }

    /// The floor of the next read. If it is not known, the scope is forgotten as soon as nobody waits for it.
    fn end(&self, name: &ScopeName, floor: Option<Knowledge>) {
        let mut scopes = lock(&self.scopes);
        let Some(desk) = scopes.get_mut(name) else { return };
        let forget = floor.is_none() && desk.waiting.is_empty();
        desk.floor = floor.unwrap_or_default();
        if forget {
            scopes.remove(name);
        }
    }

    /// Somebody who knows no more than this was found to lack nothing.
    fn lower(&self, name: &ScopeName, known: &Knowledge) {
        if let Some(desk) = lock(&self.scopes).get_mut(name)
            && desk.floor.covers(known)
        {
            desk.floor = known.clone();
        }
    }

    /// Nobody reads any more, for whatever reason: who waits hears so.
    fn abandon(&self, name: &ScopeName) {
        lock(&self.scopes).remove(name);
    }
}

/// Leaves nobody waiting if the reader panics.
struct Attending<'a> {
    polls: &'a Polls,
    name: &'a ScopeName,
    ended: bool,
}

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.polls.abandon(self.name);
        }
    }
}

impl Hub {
    pub(super) async fn poll_knowledge(&self, request: PollRequest) -> Result<Pending> {
        view::check_parameters(&request.parameters)?;
        let seen = self.look_together(&request.scope).await?;
        let Glance { scope, knowledge: own, .. } = &seen.glance;
        let known = view::known_of_view(&request.knowledge, scope)?;
        if known.is_empty() || scope.fingerprint != request.schema_fingerprint {
            return Ok(Pending::Some);
        }
        let since_known = scope.tables.iter().all(|table| known.contains_version(table.since));
        // Excepted rows are asked for in every session.
        if !since_known || !known.exceptions().is_empty() {
            return Ok(Pending::Some);
        }
        // **Invariant:** nothing is ruled out for a leaf that knows more than the snapshot: this database or the leaf's
        // was restored, and new rows have ticks that the leaf takes for known. Its session finds out.
        if !own.covers(&known) {
            return Ok(Pending::Some);
        }
        if seen.floor.as_ref().is_some_and(|floor| known.covers(floor)) {
            return Ok(Pending::None);
        }
        let probed = self.store().probe(scope, request.replica, &known).await?;
        if probed.quiet {
            self.polls().lower(&request.scope, &known);
        }
        Ok(probed.pending)
    }

    /// Looks at a scope.
    ///
    /// # Errors
    /// SCOPE_NOT_FOUND, and what the database says.
    pub(super) async fn glance(&self, name: &ScopeName, floor: &Knowledge) -> Result<Glance> {
        self.store().glance(name, floor).await?.ok_or_else(|| super::scopes::not_found(name))
    }

    /// What a read says that begins after this call, and that is shared with all who wait for it.
    async fn look_together(&self, name: &ScopeName) -> Result<Arc<Seen>> {
        let (answer, unattended) = self.polls().queue(name);
        if unattended {
            let (hub, name) = (self.clone(), name.clone());
            // A task of its own: whoever asked may leave, and others have come to wait by then.
            tokio::spawn(async move { hub.attend(&name).await });
        }
        answer.await.unwrap_or_else(|_| {
            let text = "the poll was broken off; repeat it";
            Err(SyncError::new(ErrorReason::DatabaseUnavailable, text))
        })
    }

    /// Reads for as long as somebody waits.
    async fn attend(&self, name: &ScopeName) {
        let mut attending = Attending { polls: self.polls(), name, ended: false };
        loop {
            // Polls that have arrived, and are not queued yet, come to share the read: it costs more than they do. If there
            // are none, this takes no time.
            tokio::task::yield_now().await;
            let Some((waiting, floor)) = self.polls().begin(name) else { break };
            let seen = self.look(name, floor).await;
            self.polls().end(name, seen.as_ref().ok().map(|seen| seen.next_floor().clone()));
            for sender in waiting {
                // Who has left does not want to know.
                let _ = sender.send(seen.clone());
            }
        }
        attending.ended = true;
    }

    async fn look(&self, name: &ScopeName, floor: Knowledge) -> Result<Arc<Seen>> {
        let glance = self.glance(name, &floor).await?;
        let floor = if glance.quiet { Some(floor) } else { glance.whole.then(|| glance.knowledge.clone()) };
        Ok(Arc::new(Seen { glance, floor }))
    }
}
