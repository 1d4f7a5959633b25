//! Rows that deletes would take along by ON DELETE CASCADE.
//!
//! Of each table that may lose rows so there are two more temporary tables: `along` (keys, level by level, and whether
//! the row stays or is lost) and `losers` (what the lost ones hold).

use syncline::schema::ConflictPolicy;

use super::{Applying, contained, status};
use crate::dialect::postgres::catalog::CatalogAction;
use crate::dialect::postgres::statements::{joined, list};

/// Rows whose children are looked for.
#[derive(Debug, Clone, Copy)]
pub(in crate::dialect::postgres) enum Parents<'a> {
    /// Those that came to be removed, of this status.
    Removed(&'a str),
    /// Those that go along at this level.
    Level(i32),
}

/// What becomes of a row that would go along, as `along.verdict` says it.
mod verdict {
    pub(super) const STAYS: &str = "s";
    pub(super) const LOSES: &str = "l";
}

/// Whether the row `t` refers to the row `b`.
fn refers(key: &CatalogAction) -> String {
    let pairs = key.columns.iter().zip(&key.referenced);
    joined(pairs.map(|(from, to)| format!("t.{from} = b.{to}")), " AND ")
}

impl Applying<'_> {
    fn along(&self) -> String {
        format!("pg_temp.along_{}", self.table.id)
    }

    fn losers(&self) -> String {
        format!("pg_temp.losers_{}", self.table.id)
    }

    fn along_keys(&self) -> String {
        list(self.table.key.iter().map(|at| format!("c{at}")))
    }

    /// `t.id = x.c0 AND ...`, for other names than `t` too.
    fn is_noted(&self, row: &str) -> String {
        let pairs =
            self.table.key.iter().map(|at| format!("{row}.{} = x.c{at}", self.table.columns[*at].quoted));
        joined(pairs, " AND ")
    }

    /// Makes the two tables.
    pub(in crate::dialect::postgres) fn create_along(&self) -> [String; 2] {
        let typed = |at: usize| {
            let column = &self.table.columns[at];
            let collation = column.collation.as_ref().map(|name| format!(" COLLATE {name}"));
            format!("c{at} {}{}", column.ty.declared, collation.unwrap_or_default())
        };
        let (id, keys) = (self.table.id, self.along_keys());
        [
            format!(
                "CREATE TEMPORARY TABLE IF NOT EXISTS along_{id} (n bigint GENERATED ALWAYS AS IDENTITY, level int, \
                 removed_at bigint, verdict \"char\", {}, UNIQUE ({keys})) ON COMMIT DROP",
                list(self.table.key.iter().map(|at| typed(*at)))
            ),
            format!(
                "CREATE TEMPORARY TABLE IF NOT EXISTS losers_{id} (n bigint GENERATED ALWAYS AS IDENTITY, {}, \
                 UNIQUE ({keys})) ON COMMIT DROP",
                list((0..self.table.columns.len()).map(typed))
            ),
        ]
    }

    /// Empties `along`.
    pub(in crate::dialect::postgres) fn clear_along(&self) -> String {
        format!("DELETE FROM {}", self.along())
    }

    /// Locks the children of some rows; then notes those that are not removed by the upload itself. `child_came`:
    /// whether rows of the child's table came.
    pub(in crate::dialect::postgres) fn add_along(
        &self,
        parents: Parents<'_>,
        child: &Applying<'_>,
        cascade: &CatalogAction,
        child_came: bool,
    ) -> [String; 2] {
        let (arrived, held, base) = (self.arrived(), self.held(), &self.table.base);
        let (from, condition, removed_at, level) = match parents {
            Parents::Removed(status) => (
                format!("{arrived} a JOIN {held} h ON h.n = a.n"),
                format!("h.status = '{status}' AND a.removes"),
                "a.changed_at",
                0,
            ),
            Parents::Level(level) => {
                (format!("{} a", self.along()), format!("a.level = {level}"), "a.removed_at", level + 1)
            }
        };
        let rows = format!(
            "{from} JOIN {base} b ON {} JOIN {} t ON {} WHERE {condition}",
            self.base_is_arrived(),
            cascade.name,
            refers(cascade)
        );
        let goes_itself = if child_came {
            let written = [status::WRITE, status::FAILED];
            format!(" AND NOT {}", child.came("t", &written, " AND x.removes"))
        } else {
            String::new()
        };
        let keys = list(child.table.key_columns().map(|column| format!("t.{}", column.quoted)));
        [
            format!("SELECT count(*) FROM (SELECT 1 FROM {rows} FOR UPDATE OF t) locked"),
            format!(
                "INSERT INTO {} (level, removed_at, {}) SELECT {level}, {removed_at}, {keys} FROM {rows}{goes_itself} \
                 ON CONFLICT DO NOTHING",
                child.along(),
                child.along_keys()
            ),
        ]
    }

    /// Whether a row `t` came and has one of these states.
    fn came(&self, row: &str, states: &[&str], also: &str) -> String {
        let states = list(states.iter().map(|state| format!("'{state}'")));
        format!(
            "EXISTS (SELECT FROM {} x JOIN {} y ON y.n = x.n WHERE {} AND y.status IN ({states}){also})",
            self.arrived(),
            self.held(),
            self.is_noted(row)
        )
    }

    /// Judges the rows that would go along as if the leaf had deleted them too: one that it did not know stays, or loses.
    /// What came in this upload it knows, unless it lost to what the hub has.
    pub(in crate::dialect::postgres) fn judge_along(&self, policy: ConflictPolicy, came: bool) -> String {
        let [peer, tick, via, changed_at] = self.version_columns();
        let known = contained(self.made_with, "v.peer", "v.tick");
        let unknown = match policy {
            ConflictPolicy::ServerWins => format!("'{}'", verdict::STAYS),
            ConflictPolicy::ClientWins => format!("'{}'", verdict::LOSES),
            ConflictPolicy::LastWriterWins => format!(
                "CASE WHEN v.removed_at > v.changed_at THEN '{}' ELSE '{}' END",
                verdict::LOSES,
                verdict::STAYS
            ),
        };
        let (lost, knew) = if came {
            let lost = self.came("b", &[status::LOST, status::KEPT], "");
            let knew = self.came("b", &[status::WRITE, status::FAILED, status::UNCHANGED], "");
            (lost, knew)
        } else {
            ("false".to_owned(), "false".to_owned())
        };
        format!(
            "UPDATE {along} z SET verdict = (CASE WHEN v.lost THEN '{stays}' WHEN v.knew THEN NULL \
             WHEN COALESCE(v.via = {leaf}, false) OR {known} THEN NULL ELSE {unknown} END)::\"char\" \
             FROM (SELECT a.n, a.removed_at, {peer} AS peer, {tick} AS tick, {via} AS via, \
             COALESCE({changed_at}, 0) AS changed_at, {lost} AS lost, {knew} AS knew \
             FROM {along} a JOIN {base} b ON {base_is} {joins}) v WHERE z.n = v.n",
            along = self.along(),
            stays = verdict::STAYS,
            leaf = self.leaf,
            base = self.table.base,
            base_is = self.base_is_arrived(),
            joins = self.version_joins(),
        )
    }

    /// The rows that go along by what all rows are known by: number, then the key's cells.
    pub(in crate::dialect::postgres) fn along_known(&self) -> String {
        let keys = self.table.key.iter().map(|at| self.table.columns[*at].ty.select(&format!("a.c{at}")));
        format!(
            "COPY (SELECT a.n, {} FROM {} a WHERE a.verdict IS NULL ORDER BY a.n) TO STDOUT (FORMAT BINARY)",
            list(keys),
            self.along()
        )
    }

    /// Of the rows of $1 less is known: they stay, or lose.
    pub(in crate::dialect::postgres) fn unknown_after_all(&self, policy: ConflictPolicy) -> String {
        let verdict = if policy == ConflictPolicy::ClientWins { verdict::LOSES } else { verdict::STAYS };
        format!("UPDATE {} SET verdict = '{verdict}' WHERE n = ANY ($1)", self.along())
    }

    /// Whether the row `b` is referred to by one that stays.
    fn holds(&self, child: &Applying<'_>, cascade: &CatalogAction, child_came: bool) -> String {
        let along = format!(
            "EXISTS (SELECT FROM {} x WHERE {} AND x.verdict = '{}')",
            child.along(),
            child.is_noted("t"),
            verdict::STAYS
        );
        let kept = if child_came {
            format!(" OR {}", child.came("t", &[status::LOST, status::KEPT], " AND x.removes"))
        } else {
            String::new()
        };
        format!("EXISTS (SELECT FROM {} t WHERE {} AND ({along}{kept}))", cascade.name, refers(cascade))
    }

    /// Rows that go along stay if one stays that refers to them.
    pub(in crate::dialect::postgres) fn stay_along(
        &self,
        child: &Applying<'_>,
        cascade: &CatalogAction,
        child_came: bool,
    ) -> String {
        format!(
            "UPDATE {} a SET verdict = '{stays}' FROM {} b WHERE {} AND a.verdict IS DISTINCT FROM '{stays}' AND {}",
            self.along(),
            self.table.base,
            self.base_is_arrived(),
            self.holds(child, cascade, child_came),
            stays = verdict::STAYS,
        )
    }

    /// The same of rows that came to be removed, of this status.
    pub(in crate::dialect::postgres) fn stay_removed(
        &self,
        status: &str,
        child: &Applying<'_>,
        cascade: &CatalogAction,
        child_came: bool,
    ) -> String {
        format!(
            "UPDATE {} h SET status = '{}' FROM {} a, {} b WHERE h.n = a.n AND {} AND h.status = '{status}' \
             AND a.removes AND {}",
            self.held(),
            status::KEPT,
            self.arrived(),
            self.table.base,
            self.base_is_arrived(),
            self.holds(child, cascade, child_came)
        )
    }

    /// Keeps what the rows hold that go along and lose.
    pub(in crate::dialect::postgres) fn keep_losers(&self) -> String {
        let cells = list((0..self.table.columns.len()).map(|at| format!("c{at}")));
        let columns = list(self.table.columns.iter().map(|column| format!("b.{}", column.quoted)));
        format!(
            "INSERT INTO {} ({cells}) SELECT {columns} FROM {} a JOIN {} b ON {} WHERE a.verdict = '{}' \
             ON CONFLICT DO NOTHING",
            self.losers(),
            self.along(),
            self.table.base,
            self.base_is_arrived(),
            verdict::LOSES
        )
    }

    /// Of the losers that are gone, some from `after` on: number and cells.
    pub(in crate::dialect::postgres) fn lost_along(&self, after: i64, rows_max: usize) -> String {
        let cells = self.table.columns.iter().enumerate();
        let cells = cells.map(|(at, column)| column.ty.select(&format!("a.c{at}")));
        format!(
            "COPY (SELECT a.n, {} FROM {} a WHERE a.n > {after} AND NOT EXISTS (SELECT FROM {} b WHERE {}) \
             ORDER BY a.n LIMIT {rows_max}) TO STDOUT (FORMAT BINARY)",
            list(cells),
            self.losers(),
            self.table.base,
            self.base_is_arrived()
        )
    }

    /// Removes the conflicts that were logged in the session $1 and the table $2 for such rows.
    pub(in crate::dialect::postgres) fn take_back_kept(&self) -> String {
        format!(
            "DELETE FROM syncline.conflicts x USING {} a, {} h WHERE x.session = $1 AND x.table_id = $2 \
             AND x.row_key = a.sent AND h.n = a.n AND h.status = '{}'",
            self.arrived(),
            self.held(),
            status::KEPT
        )
    }

    /// Of the rows whose delete lost to one that refers to them, some from `after` on: number and cells.
    pub(in crate::dialect::postgres) fn kept(&self, after: i64, rows_max: usize) -> String {
        let cells = self.table.columns.iter();
        let cells = cells.map(|column| column.ty.select(&format!("b.{}", column.quoted)));
        format!(
            "COPY (SELECT a.n, {} FROM {} a JOIN {} h ON h.n = a.n JOIN {} b ON {} \
             WHERE h.status = '{}' AND a.n > {after} ORDER BY a.n LIMIT {rows_max}) TO STDOUT (FORMAT BINARY)",
            list(cells),
            self.arrived(),
            self.held(),
            self.table.base,
            self.base_is_arrived(),
            status::KEPT
        )
    }
}
