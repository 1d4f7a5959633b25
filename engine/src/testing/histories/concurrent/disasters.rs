//! Databases that go back in time, and hubs that stop.

use super::super::HubRestores;
use super::History;
use crate::testing::oracle::HubBackup;

impl History {
    pub(super) fn back_up_or_restore_leaf(&mut self) {
        let leaf = self.some_leaf();
        let backup = self.leaf_backups[leaf].take().filter(|_| self.random.chance(50));
        if let Some(backup) = backup {
            if let Some(session) = self.sessions[leaf].take() {
                self.oracle.kill_session(session);
            }
            self.oracle.restore_leaf(leaf, &backup);
        } else {
            self.leaf_backups[leaf] = Some(self.oracle.back_up_leaf(leaf));
        }
    }

    pub(super) fn back_up_or_restore_hub(&mut self) {
        if let Some(backup) = self.unnoticed.take() {
            return self.notice(backup);
        }
        match self.hub_backup.take() {
            Some(backup) => {
                self.stop_everything();
                self.oracle.restore_hub(&backup);
                if self.case.configuration.hub_restores == HubRestores::Noticed {
                    self.notice_sooner_or_later(backup);
                }
            }
            None => self.hub_backup = self.oracle.back_up_hub(),
        }
    }

    fn notice_sooner_or_later(&mut self, backup: HubBackup) {
        if self.random.chance(50) {
            self.oracle.notice_restore(&backup);
        } else {
            self.unnoticed = Some(backup);
        }
    }

    pub(super) fn notice(&mut self, backup: HubBackup) {
        self.stop_everything();
        self.oracle.notice_restore(&backup);
    }

    /// The hub's process and its database stop: whatever is under way is gone.
    pub(super) fn stop_everything(&mut self) {
        for session in self.sessions.iter_mut().filter_map(Option::take) {
            self.oracle.kill_session(session);
        }
        if let Some(fold) = self.fold.take() {
            self.oracle.kill_fold(fold);
        }
        for transaction in self.open.drain(..) {
            self.oracle.hub_rollback(transaction);
        }
    }
}
