//! How far a run is, for people: the newest state only, never a backlog.

use tokio::sync::watch;

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// It talks to the hub: first contact, poll, or the beginning of a session.
    #[default]
    Connecting,
    /// It reads local changes and makes batches of them.
    Collecting,
    /// It sends batches.
    Uploading,
    /// The hub applies what was sent.
    ApplyingAtHub,
    /// Batches arrive.
    Downloading,
    /// What arrived is written into the local database.
    Applying,
    /// It acknowledges.
    Ending,
    /// It has ended, well or not.
    Done,
}

/// How far a run is. Numbers are those of the phase's direction: upload or download.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProgressState {
    /// What it is doing.
    pub phase: Phase,
    /// Rows collected, applied at the hub, or applied here.
    pub rows: u64,
    /// Rows in all, where that is known.
    pub rows_total: Option<u64>,
    /// Stored batch bytes that are where they should be, those that an earlier run has moved included.
    pub bytes: u64,
    /// Stored batch bytes in all, as far as they are known.
    pub bytes_total: u64,
    /// Batches that are where they should be.
    pub batches: u64,
    /// Batches in all, as far as they are known.
    pub batches_total: u64,
    /// Batches that an earlier run has moved.
    pub batches_kept: u64,
    /// Of what was known when the session was taken up, the part that an earlier run has moved, in percent.
    pub resumed_percent: Option<u8>,
    /// A temporary failure that is being waited out.
    pub waiting_for: Option<String>,
}

/// Where a run says how far it is.
#[derive(Debug, Clone)]
pub struct Progress(watch::Sender<ProgressState>);

impl Progress {
    /// A run's side, and the side of who looks on.
    #[must_use]
    pub fn channel() -> (Self, watch::Receiver<ProgressState>) {
        let (sender, receiver) = watch::channel(ProgressState::default());
        (Self(sender), receiver)
    }

    /// For runs that nobody looks at.
    #[must_use]
    pub fn unseen() -> Self {
        Self(watch::Sender::new(ProgressState::default()))
    }

    #[cfg(test)]
    pub(super) fn last(&self) -> ProgressState {
        self.0.borrow().clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut ProgressState)) {
        self.0.send_modify(change);
    }

    /// Another phase of the same direction.
    pub(super) fn phase(&self, phase: Phase) {
        self.update(|state| state.phase = phase);
    }

    /// Another direction: counts begin anew.
    pub(super) fn begin(&self, phase: Phase) {
        self.update(|state| *state = ProgressState { phase, ..ProgressState::default() });
    }

    /// What an earlier run has moved.
    pub(super) fn resumed(&self, batches: u64, bytes: u64, bytes_known: u64) {
        if bytes == 0 {
            return;
        }
        self.update(|state| {
            state.batches_kept = batches;
            state.batches = batches;
            state.bytes = bytes;
            // At most 100, so it fits.
            state.resumed_percent = Some((bytes.min(bytes_known) * 100 / bytes_known.max(1)) as u8);
        });
    }
}
