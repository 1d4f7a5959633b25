//! Driving the oracle step by step: anything may happen between two steps of a session, an apply or a fold.

use super::fold::{Fold, Progress};
use super::hub::Refused;
use super::restore::{HubBackup, LeafBackup};
use super::session::{Report, Session, SessionOptions};
use super::{HubKind, Oracle};

impl Oracle {
    /// Begins a session; nothing is done yet.
    #[must_use]
    pub fn begin_session(&self, leaf: usize, options: SessionOptions) -> Session {
        Session::new(leaf, options)
    }

    /// Does one step of a session.
    pub fn advance_session(&mut self, session: &mut Session) -> Progress {
        let leaf = &mut self.leaves[session.leaf];
        session.advance(&mut self.world, &mut self.hub, leaf)
    }

    /// Kills a session. The leaf takes it up again, unless it [abandons](Self::abandon_session) it.
    pub fn kill_session(&mut self, session: Session) -> Report {
        let report = session.report.clone();
        self.world.tell(|| format!("session of leaf {} killed", session.leaf));
        session.kill(&mut self.hub);
        report
    }

    /// Whether the hub holds what was enumerated for the leaf, perhaps not all of it yet.
    #[must_use]
    pub fn is_spooling(&self, leaf: usize) -> bool {
        self.hub.spools.contains_key(&self.leaves[leaf].id)
    }

    /// The leaf's next session is a new one.
    pub fn abandon_session(&mut self, leaf: usize) {
        self.leaves[leaf].session = None;
    }

    /// Begins to fold the hub's log. Where there is one writer at a time, that is done at once, and `None` answered.
    ///
    /// # Errors
    /// [`Refused::Locked`], if another fold is at work, or another writer where there is one at a time.
    pub fn begin_fold(&mut self) -> Result<Option<Fold>, Refused> {
        if self.hub.state.kind == HubKind::Transactions {
            return Fold::begin(&mut self.hub).map(Some);
        }
        if !self.hub.open.is_empty() {
            return Err(Refused::Locked);
        }
        self.hub.state.fold_now(&self.world.rules);
        Ok(None)
    }

    /// Does one step of a fold.
    pub fn advance_fold(&mut self, fold: &mut Fold) -> Progress {
        fold.advance(&mut self.world, &mut self.hub)
    }

    /// Kills a fold.
    pub fn kill_fold(&mut self, fold: Fold) {
        fold.kill(&mut self.hub);
    }

    /// Folds a leaf's log.
    pub fn fold_leaf(&mut self, leaf: usize) {
        self.leaves[leaf].fold();
    }

    /// Copies a leaf's database.
    #[must_use]
    pub fn back_up_leaf(&self, leaf: usize) -> LeafBackup {
        LeafBackup(self.leaves[leaf].clone())
    }

    /// A leaf's database is as it was. Its session must have been killed.
    pub fn restore_leaf(&mut self, leaf: usize, backup: &LeafBackup) {
        self.world.tell(|| format!("leaf {leaf} is restored"));
        self.leaves[leaf] = backup.0.clone();
    }

    /// Copies the hub's database; `None` while transactions are open.
    #[must_use]
    pub fn back_up_hub(&self) -> Option<HubBackup> {
        self.hub.back_up()
    }

    /// The hub's database is as it was, and the hub does not notice. All sessions and folds must have been killed.
    pub fn restore_hub(&mut self, backup: &HubBackup) {
        self.world.tell(|| "the hub is restored".to_owned());
        self.hub.restore(backup.clone());
    }

    /// The hub notices that it was restored to this backup. Answers whether it could: not while transactions are open.
    pub fn notice_restore(&mut self, backup: &HubBackup) -> bool {
        let is_idle = self.hub.open.is_empty();
        if is_idle {
            self.hub.take_new_id(&mut self.world, backup.last_tick());
        }
        is_idle
    }

    /// Another hub, which was filled from this backup, takes over: it has another id and another name.
    pub fn fail_over(&mut self, backup: &HubBackup) {
        self.hub.name.push('2');
        self.restore_hub(backup);
        self.hub.take_new_id(&mut self.world, backup.last_tick());
    }

    /// What happened so far.
    #[must_use]
    pub fn trace(&self) -> &[String] {
        &self.world.trace
    }
}
