//! What foreign keys with actions on delete would take along.

use crate::dialect::postgres::catalog::CatalogAction;
use crate::dialect::postgres::leaf::tables::LeafTable;
use crate::dialect::postgres::statements::tracking::key_names;
use crate::dialect::postgres::statements::{joined, list};

/// A foreign key with an action on delete, of a table that is synchronised here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dialect::postgres::leaf) struct Action {
    /// The foreign key.
    pub(in crate::dialect::postgres::leaf) key: CatalogAction,
    /// Whether a referring row `t` stays.
    pub(in crate::dialect::postgres::leaf) stays: String,
}

impl LeafTable {
    /// Whether the hub's rows come down in this scope.
    pub(in crate::dialect::postgres::leaf) fn downloads(&self) -> bool {
        self.schema.direction.downloads()
    }

    /// Whether a row `t` of this table stays, whatever refers to what: it has a local change, or the hub has it and this
    /// download does not remove it. `own`: of the scope that is being downloaded; `elsewhere`: whether another scope
    /// brings its rows too.
    pub(in crate::dialect::postgres::leaf) fn stays(&self, own: bool, elsewhere: bool) -> String {
        let dirty = if self.tracks() { self.is_dirty("t") } else { "false".to_owned() };
        match (own, self.downloads()) {
            (true, true) => {
                let goes =
                    format!("EXISTS (SELECT FROM {} o WHERE {})", self.goes(), self.base_is_staged("t", "o"));
                format!("(NOT {goes} OR {dirty})")
            }
            _ if elsewhere => "true".to_owned(),
            _ => dirty,
        }
    }

    /// Whether a row has a local change.
    pub(super) fn is_dirty(&self, base: &str) -> String {
        format!(
            "(EXISTS (SELECT FROM {} l WHERE {}) OR EXISTS (SELECT FROM {} d WHERE {}))",
            self.tracked.log(),
            self.base_is(base, "l"),
            self.dirty(),
            self.base_is(base, "d")
        )
    }

    /// Whether a row `s`, staged or noted, is referred to by one that stays.
    pub(in crate::dialect::postgres::leaf) fn is_held(&self, actions: &[Action]) -> String {
        let all = actions.iter().map(|action| {
            let pairs = action.key.columns.iter().zip(&action.key.referenced);
            let refers = joined(pairs.map(|(from, to)| format!("t.{from} = r.{to}")), " AND ");
            format!(
                "EXISTS (SELECT FROM {} r JOIN {} t ON {refers} WHERE {} AND {})",
                self.tracked.base,
                action.key.name,
                self.base_is_staged("r", "s"),
                action.stays
            )
        });
        let condition = joined(all, " OR ");
        if condition.is_empty() { "false".to_owned() } else { condition }
    }

    /// Locks the rows that are to be removed: nobody can refer to them then.
    pub(in crate::dialect::postgres::leaf) fn lock_staged(&self) -> String {
        format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} t JOIN {} s ON {} WHERE s.verdict IS NULL OR s.verdict = 'w' \
             FOR UPDATE OF t) x",
            self.tracked.base,
            self.stage(),
            self.base_is_staged("t", "s")
        )
    }

    /// Keys of rows that wait to be removed, and go together.
    fn goes(&self) -> String {
        format!("pg_temp.goes_{}", self.tracked.id)
    }

    /// Makes the table of them.
    pub(in crate::dialect::postgres::leaf) fn create_goes(&self) -> String {
        format!("CREATE TEMP TABLE IF NOT EXISTS goes_{} (LIKE {})", self.tracked.id, self.late(true))
    }

    /// Notes all that wait and have no local change.
    pub(in crate::dialect::postgres::leaf) fn may_all_go(&self) -> Vec<String> {
        let cells = list(self.tracked.key.iter().map(|at| format!("c{at}")));
        let clean = if self.tracks() {
            format!(
                " WHERE NOT EXISTS (SELECT FROM {} l WHERE {}) AND NOT EXISTS (SELECT FROM {} d WHERE {})",
                self.tracked.log(),
                self.record_is_staged("l"),
                self.dirty(),
                self.record_is_staged("d")
            )
        } else {
            String::new()
        };
        vec![
            self.none_goes(),
            format!(
                "INSERT INTO {} (ordinal, {cells}) SELECT ordinal, {cells} FROM {} s{clean}",
                self.goes(),
                self.late(true)
            ),
        ]
    }

    /// Takes those away that are held.
    pub(in crate::dialect::postgres::leaf) fn take_held(&self, held: &str) -> String {
        format!("DELETE FROM {} s WHERE {held}", self.goes())
    }

    /// Takes all away.
    pub(in crate::dialect::postgres::leaf) fn none_goes(&self) -> String {
        format!("DELETE FROM {}", self.goes())
    }

    /// Notes the rows with local changes that are there.
    pub(in crate::dialect::postgres::leaf) fn hold(&self) -> Vec<String> {
        let (held, dirty, log) = (self.held(), self.dirty(), self.tracked.log());
        let keys = list(key_names(self.tracked.key.len()));
        vec![
            format!(
                "CREATE TEMP TABLE IF NOT EXISTS {held} ON COMMIT DROP AS SELECT {keys} FROM {dirty} LIMIT 0"
            ),
            format!("DELETE FROM {held}"),
            format!(
                "INSERT INTO {held} SELECT * FROM (SELECT {keys} FROM {dirty} UNION SELECT {keys} FROM {log}) k \
                 WHERE EXISTS (SELECT FROM {} t WHERE {})",
                self.tracked.base,
                self.base_is("t", "k")
            ),
        ]
    }

    /// Whether a row that was noted is gone.
    pub(in crate::dialect::postgres::leaf) fn lost_held(&self) -> String {
        format!(
            "SELECT EXISTS (SELECT FROM {} k WHERE NOT EXISTS (SELECT FROM {} t WHERE {}))",
            self.held(),
            self.tracked.base,
            self.base_is("t", "k")
        )
    }

    fn held(&self) -> String {
        format!("pg_temp.syncline_held_{}", self.tracked.id)
    }
}
