//! A session is opened, or the one that was broken off is taken up.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join;
use syncline::batch::Codec;
use syncline::error::Result;
use syncline::ids::SessionId;
use syncline_engine::replica::{BeginRequest, Begun, SessionRef};
use syncline_engine::store::Subscription;

use super::progress::Phase;
use super::{Run, is_gone};
use crate::parts::SessionParts;

/// An open session.
pub(super) struct Session {
    /// What is stored, if it [is](Self::is_stored); whatever changes here is saved before it is acted upon.
    pub(super) subscription: Subscription,
    /// A new session is stored together with the first that is done in it.
    pub(super) is_stored: bool,
    /// Names the session at the hub.
    pub(super) reference: SessionRef,
    /// What the hub answered.
    pub(super) begun: Begun,
    /// The hub's clock less ours.
    pub(super) clock_offset_us: i64,
    /// Its folder.
    pub(super) parts: Arc<SessionParts>,
    /// Whether an earlier run began it.
    pub(super) taken_up: bool,
    /// Whether rows waited to be uploaded when it was begun; later edits are the next session's.
    pub(super) has_changes: bool,
    /// Conflicts found here.
    pub(super) conflicts_here: u64,
    /// Rows that could not be applied here.
    pub(super) row_errors_here: u64,
}

impl Run<'_> {
    /// Opens the session that is stored, or a new one. `None`: the stored one was applied, and the hub has ended it.
    pub(super) async fn begin(&mut self, mut subscription: Subscription) -> Result<Option<Session>> {
        self.progress.phase(Phase::Connecting);
        if subscription.session.is_some() && !self.can_take_up(&subscription).await? {
            self.forget(&mut subscription).await?;
        }
        let taken_up = subscription.session.is_some();
        let before = subscription.clone();
        let ahead = self.ahead.take(&subscription);
        let opened = ahead.as_ref().map(|ahead| ahead.begun.session.id);
        // A new one's id is not stored yet. A run that is killed before it is loses a session in which nothing was done: the
        // hub gives it up for the next one.
        let session = *subscription.session.get_or_insert_with(|| opened.unwrap_or_else(SessionId::fresh));
        let asking = async {
            match ahead {
                Some(ahead) => Ok((ahead.begun, ahead.clock_offset_us)),
                None => self.retry(|| self.ask_once(session, &subscription, false)).await,
            }
        };
        let (asked, has_changes) = join(asking, self.has_changes(&subscription)).await;
        let (begun, clock_offset_us) = match asked {
            Err(error) if subscription.applied && is_gone(error.reason()) => {
                self.forget(&mut subscription).await?;
                self.report.session_id = Some(session);
                self.report.resumed = true;
                return Ok(None);
            }
            answer => answer?,
        };
        self.open = Some(begun.session);
        let has_changes = has_changes?;
        // The hub has never heard of the session, or has forgotten it. With an upload that waits, the id is what makes
        // it apply once; an id whose upload was acknowledged must not carry another.
        let upload_waits = subscription.upload.is_some() && !subscription.download_started;
        let lost = taken_up && !begun.resume.resumed && !upload_waits && !subscription.applied;
        if lost {
            self.forget(&mut subscription).await?;
            return Box::pin(self.begin(subscription)).await;
        }
        take_answer(&mut subscription, &begun);
        if taken_up && subscription != before {
            // Lost, the hub says it again.
            self.save_losable(&subscription).await?;
        }
        self.report.session_id = Some(session);
        self.report.resumed |= taken_up && begun.resume.resumed;
        Ok(Some(Session {
            reference: begun.session,
            parts: self.parts.session(session, taken_up),
            subscription,
            is_stored: taken_up,
            begun,
            clock_offset_us,
            taken_up,
            has_changes,
            conflicts_here: 0,
            row_errors_here: 0,
        }))
    }

    /// Whether the stored session can still be gone on with: what it was doing is asked for, and its upload is on disk.
    async fn can_take_up(&self, subscription: &Subscription) -> Result<bool> {
        if subscription.applied {
            return Ok(true);
        }
        let direction = self.options.direction;
        if subscription.download_started && !direction.downloads() {
            return Ok(false);
        }
        let (Some(id), Some(upload)) = (subscription.session, &subscription.upload) else { return Ok(true) };
        Ok(direction.uploads() && self.parts.session(id, true).has_uploads(&upload.batches).await?)
    }

    /// Whether rows wait to be uploaded.
    async fn has_changes(&self, subscription: &Subscription) -> Result<bool> {
        if !self.options.direction.uploads() || subscription.upload.is_some() {
            return Ok(false);
        }
        Ok(self.retry(|| self.store.pending_changes(subscription)).await? > 0)
    }

    /// BeginSession, and the hub's clock less ours.
    pub(super) async fn ask_once(
        &self,
        session: SessionId,
        subscription: &Subscription,
        ahead: bool,
    ) -> Result<(Begun, i64)> {
        let request = BeginRequest {
            session,
            replica: subscription.replica,
            scope: self.options.scope.clone(),
            parameters: self.options.parameters.clone(),
            knowledge: subscription.knowledge.clone(),
            upload_mark_answered: subscription.upload_mark_answered,
            upload_mark_drawn: subscription.upload_mark_drawn,
            download_mark: subscription.download_mark,
            codecs: vec![Codec::Zstd, Codec::Gzip, Codec::Identity],
            batch_bytes_max: self.options.batch_bytes_max,
            row_bytes_max: None,
            schema_fingerprint: subscription.schema.fingerprint(),
            client_name: self.options.client_name.clone(),
            ahead,
        };
        let before = now_us();
        let begun = self.hub.begin(request).await?;
        let after = now_us();
        // The hub's clock was read somewhere between the two: half the way is the best guess.
        let offset = offset(before, after, micros(begun.hub_time));
        Ok((begun, offset))
    }
}

/// What the hub answered is to be stored.
fn take_answer(subscription: &mut Subscription, begun: &Begun) {
    subscription.hub = begun.hub;
    subscription.upload_mark_answered = begun.upload_mark;
    if subscription.upload.is_none() {
        subscription.upload_mark_drawn = None;
    }
    subscription.reinitialize |= begun.reinitialize;
    subscription.download_started |= begun.resume.download_started;
}

/// The present time, in microseconds since 1970 UTC.
pub(super) fn now_us() -> i64 {
    micros(SystemTime::now())
}

/// The hub's clock less ours, in microseconds. The hub read its clock somewhere between our two readings, so a
/// difference of less than half the round trip says nothing: correcting by it would only blur the order of changes
/// that were made on one machine.
const fn offset(before: i64, after: i64, hub: i64) -> i64 {
    let half = (after - before) / 2;
    let difference = hub - (before + half);
    if difference.abs() <= half { 0 } else { difference }
}

fn micros(time: SystemTime) -> i64 {
    let us = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => us(since),
        Err(before) => -us(before.duration()),
    }
}
