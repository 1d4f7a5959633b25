//! How a history comes to rest.

use super::History;

/// Rounds of sessions after which everything must have come to rest, and of which the last moves nothing.
const ROUNDS_MAX: usize = 20;
/// Rounds that are run in any case: some rows are refused several times before a leaf gives up.
const ROUNDS_MIN: usize = 4;

impl History {
    /// Nobody writes any more: transactions end, and sessions run until they move nothing.
    pub(super) fn come_to_rest(&mut self) {
        if let Some(backup) = self.unnoticed.take() {
            self.notice(backup);
        }
        for leaf in 0..self.sessions.len() {
            self.kill_session(leaf);
        }
        if let Some(fold) = self.fold.take() {
            self.oracle.kill_fold(fold);
        }
        for transaction in std::mem::take(&mut self.open) {
            if self.random.chance(70) {
                self.oracle.hub_commit(transaction);
            } else {
                self.oracle.hub_rollback(transaction);
            }
        }
        let mut moved = 0;
        for round in 0..ROUNDS_MAX {
            moved = (0..self.sessions.len()).map(|leaf| self.quiet_session(leaf)).sum();
            if round >= ROUNDS_MIN && moved == 0 {
                return;
            }
            if self.random.chance(30) {
                self.step_fold();
            }
        }
        self.oracle.not_quiet(format!("{moved} rows were moved in round {ROUNDS_MAX}"));
    }

    /// Answers how many rows were moved, or wait to be.
    fn quiet_session(&mut self, leaf: usize) -> usize {
        let before = self.oracle.leaf_pending(leaf);
        let report = self.oracle.run_session(leaf);
        before + report.downloaded + self.oracle.leaf_pending(leaf)
    }
}
