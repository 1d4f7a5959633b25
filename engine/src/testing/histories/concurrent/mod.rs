//! A history at any interleaving: users, sessions, folds and restores take turns by chance.

mod disasters;
mod rest;

use syncline::knowledge::RowKey;

use super::{Case, HubRestores};
use crate::testing::oracle::{
    Fold, HubBackup, HubKind, LeafBackup, Oracle, OracleOptions, Progress, Session, SessionOptions,
    TransactionId, UserTriggers, Violation, row_key,
};
use crate::testing::random::Random;

/// The names of the rows.
const ROWS: [&str; 4] = ["x", "y", "z", "w"];
/// The values, where there are few.
const VALUES: [&str; 4] = ["a", "b", "c", "d"];
/// Transactions that users hold open at once.
const OPEN_MAX: usize = 3;
/// Steps that a session does in one turn, at most.
const TURN_STEPS_MAX: usize = 7;

/// A history that is being played.
#[derive(Debug)]
pub struct History {
    case: Case,
    random: Random,
    oracle: Oracle,
    rows: Vec<RowKey>,
    open: Vec<TransactionId>,
    sessions: Vec<Option<Session>>,
    fold: Option<Fold>,
    leaf_backups: Vec<Option<LeafBackup>>,
    hub_backup: Option<HubBackup>,
    /// The hub was restored to this backup, and has yet to notice.
    unnoticed: Option<HubBackup>,
}

/// What came of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What went wrong.
    pub violations: Vec<Violation>,
    /// What happened, if it was told.
    pub trace: Vec<String>,
}

/// Plays a history to its end, lets everything come to rest, and judges it.
#[must_use]
pub fn play(case: Case, is_told: bool) -> Outcome {
    let mut history = History::new(case, is_told);
    let (fewest, most) = case.configuration.steps;
    for _ in 0..steps(case.seed, fewest, most) {
        history.step();
    }
    history.come_to_rest();
    let violations = history.oracle.verdict();
    Outcome { violations, trace: history.oracle.trace().to_vec() }
}

/// Short histories are easier to understand, long ones find more: all lengths take turns.
const fn steps(seed: u64, fewest: usize, most: usize) -> usize {
    fewest + (seed % (most - fewest + 1) as u64) as usize
}

impl History {
    fn new(case: Case, is_told: bool) -> Self {
        let configuration = case.configuration;
        let rows: Vec<_> = ROWS[..configuration.rows].iter().map(|name| row_key(name)).collect();
        let triggers = UserTriggers {
            computes_total: true,
            counts_into: Some((row_key("x"), row_key("z"))),
            cascades: [(row_key("y"), vec![row_key("x")])].into(),
            ..UserTriggers::default()
        };
        let oracle = Oracle::new(OracleOptions {
            leaves: configuration.leaves,
            leaf_kind: configuration.leaf_kind,
            is_unique: configuration.is_unique,
            triggers: if configuration.has_triggers { triggers } else { UserTriggers::default() },
            rules: case.rules,
            seed: Some(!case.seed),
            is_told,
            ..OracleOptions::plain(case.hub_kind, case.policy)
        });
        let mut history = Self {
            case,
            random: Random::from_seed(case.seed),
            oracle,
            rows,
            open: Vec::new(),
            sessions: (0..configuration.leaves).map(|_| None).collect(),
            fold: None,
            leaf_backups: vec![None; configuration.leaves],
            hub_backup: None,
            unnoticed: None,
        };
        history.prepare();
        history
    }

    /// Some rows are there already, and some leaves have synchronised.
    fn prepare(&mut self) {
        for key in self.rows.clone() {
            if self.random.chance(50) {
                let value = self.oracle.fresh_value();
                self.oracle.hub_fill(&key, &value);
            }
        }
        for leaf in 0..self.sessions.len() {
            if self.random.chance(60) {
                self.oracle.run_session(leaf);
            }
        }
    }

    fn step(&mut self) {
        let configuration = self.case.configuration;
        if configuration.has_truncates && self.random.chance(7) {
            return self.truncate();
        }
        if configuration.has_leaf_restores && self.random.chance(15) {
            return self.back_up_or_restore_leaf();
        }
        if configuration.hub_restores != HubRestores::Never && self.random.chance(12) {
            return self.back_up_or_restore_hub();
        }
        match self.random.below(100) {
            0..22 => self.step_fold(),
            22..44 => self.step_transaction(),
            44..60 => self.edit_leaf(),
            60..70 => {
                let leaf = self.some_leaf();
                self.kill_session(leaf);
                self.oracle.run_session(leaf);
            }
            70..95 => self.step_session(),
            _ => {
                let leaf = self.some_leaf();
                self.kill_session(leaf);
            }
        }
    }

    fn some_leaf(&mut self) -> usize {
        self.random.below(self.sessions.len())
    }

    fn value(&mut self) -> String {
        if self.case.configuration.has_few_values {
            (*self.random.pick(&VALUES)).to_owned()
        } else {
            self.oracle.fresh_value()
        }
    }

    /// A user's transaction at the hub begins, writes, or ends.
    fn step_transaction(&mut self) {
        let begins = self.open.is_empty() || (self.open.len() < OPEN_MAX && self.random.chance(40));
        if begins {
            let Ok(transaction) = self.oracle.hub_begin() else { return };
            self.open.push(transaction);
        }
        let place = if begins { self.open.len() - 1 } else { self.random.below(self.open.len()) };
        let transaction = self.open[place];
        match self.random.below(100) {
            0..65 => {
                self.write(transaction);
                if self.random.chance(40) {
                    self.open.remove(place);
                    self.oracle.hub_commit(transaction);
                }
            }
            65..92 => {
                self.open.remove(place);
                self.oracle.hub_commit(transaction);
            }
            _ => {
                self.open.remove(place);
                self.oracle.hub_rollback(transaction);
            }
        }
    }

    /// A write that would have to wait, or is refused, does not happen.
    fn write(&mut self, transaction: TransactionId) {
        let key = self.random.pick(&self.rows).clone();
        let deletes = self.random.chance(25);
        let was_deleted = deletes && self.oracle.hub_delete(transaction, &key).is_ok();
        if !was_deleted {
            let value = self.value();
            let _ = self.oracle.hub_write(transaction, &key, &value);
        }
    }

    fn truncate(&mut self) {
        if self.case.hub_kind == HubKind::Folds {
            return;
        }
        let Ok(transaction) = self.oracle.hub_begin() else { return };
        if self.oracle.hub_truncate(transaction).is_ok() && self.random.chance(80) {
            self.oracle.hub_commit(transaction);
        } else {
            self.oracle.hub_rollback(transaction);
        }
    }

    fn edit_leaf(&mut self) {
        let leaf = self.some_leaf();
        let key = self.random.pick(&self.rows).clone();
        let deletes = self.random.chance(25);
        let was_deleted = deletes && self.oracle.leaf_delete(leaf, &key).is_ok();
        if !was_deleted {
            let value = self.value();
            let _ = self.oracle.leaf_write(leaf, &key, &value);
        }
    }

    fn step_session(&mut self) {
        let leaf = self.some_leaf();
        let options = SessionOptions {
            is_download_only: self.case.configuration.has_download_only && self.random.chance(30),
            breaks_off: self.random.chance(30),
        };
        let session = self.sessions[leaf].take();
        let mut session = session.unwrap_or_else(|| self.oracle.begin_session(leaf, options));
        for _ in 0..=self.random.below(TURN_STEPS_MAX) {
            match self.oracle.advance_session(&mut session) {
                Progress::Done => return,
                Progress::Waiting => break,
                Progress::Running => {}
            }
        }
        self.sessions[leaf] = Some(session);
    }

    /// Kills a leaf's session, if it has one. The leaf takes it up again, or begins a new one.
    fn kill_session(&mut self, leaf: usize) {
        let Some(session) = self.sessions[leaf].take() else { return };
        self.oracle.kill_session(session);
        if self.random.chance(50) {
            self.oracle.abandon_session(leaf);
        }
    }

    fn step_fold(&mut self) {
        if self.random.chance(25) {
            let leaf = self.some_leaf();
            return self.oracle.fold_leaf(leaf);
        }
        let Some(mut fold) = self.fold.take() else {
            self.fold = self.oracle.begin_fold().ok().flatten();
            return;
        };
        if self.random.chance(10) {
            return self.oracle.kill_fold(fold);
        }
        for _ in 0..=self.random.below(4) {
            match self.oracle.advance_fold(&mut fold) {
                Progress::Done => return,
                Progress::Waiting => break,
                Progress::Running => {}
            }
        }
        self.fold = Some(fold);
    }
}
