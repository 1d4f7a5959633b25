//! Staged rows, and what is done with them.
//!
//! `verdict` of a staged row: NULL a row to be written that met no dirty one; `w` one that won over a dirty row and is
//! to be written; `s` the same as the dirty row; `k` lost against it; `i` not to be touched; `p` postponed; `e` in error.

use crate::dialect::postgres::leaf::tables::LeafTable;
use crate::dialect::postgres::statements::sequence::advance;
use crate::dialect::postgres::statements::tracking::key_names;
use crate::dialect::postgres::statements::{joined, list};
use crate::dialect::postgres::types::staged_as;

/// Staged rows that are to be written.
const TO_WRITE: &str = "(s.verdict IS NULL OR s.verdict = 'w')";

impl LeafTable {
    /// The staged rows.
    pub(in crate::dialect::postgres::leaf) fn stage(&self) -> String {
        format!("pg_temp.in_{}", self.tracked.id)
    }

    /// Rows that are tried again later: upserts, or removals.
    pub(in crate::dialect::postgres::leaf) fn late(&self, removes: bool) -> String {
        format!("pg_temp.{}_{}", if removes { "gone" } else { "late" }, self.tracked.id)
    }

    /// All columns of cells, `c0, c1 ...`.
    pub(in crate::dialect::postgres::leaf) fn cells(&self) -> Vec<String> {
        (0..self.tracked.columns.len()).map(|at| format!("c{at}")).collect()
    }

    /// Makes the tables that an apply works with. They are gone with the transaction's rollback, or the connection.
    pub(in crate::dialect::postgres::leaf) fn create_stage(&self) -> Vec<String> {
        let columns = self.tracked.columns.iter().enumerate();
        let cells = list(columns.map(|(at, column)| format!("c{at} {}", staged_as(column.ty.canonical))));
        let mut all = vec![format!(
            "CREATE TEMP TABLE IF NOT EXISTS in_{} (ordinal bigint NOT NULL, verdict text, changed_at bigint, \
             seen_seq bigint, kept_at bigint, kept_birth bigint, reason text, message text, {cells})",
            self.tracked.id
        )];
        for removes in [false, true] {
            let name = self.late(removes).replace("pg_temp.", "");
            // Which of the upserts are not to be cut.
            let cutting = if removes { "" } else { "cutting smallint NOT NULL DEFAULT 0, " };
            all.push(format!(
                "CREATE TEMP TABLE IF NOT EXISTS {name} (ordinal bigint NOT NULL GENERATED ALWAYS AS IDENTITY, \
                 changed_at bigint, reason text, message text, {cutting}{cells})"
            ));
        }
        all
    }

    /// Empties the stage.
    pub(in crate::dialect::postgres::leaf) fn clear_stage(&self) -> String {
        format!("TRUNCATE {}", self.stage())
    }

    /// Fills it with these columns.
    pub(in crate::dialect::postgres::leaf) fn copy_stage(&self, places: &[usize]) -> String {
        format!(
            "COPY {} (ordinal, verdict, changed_at{}) FROM STDIN (FORMAT BINARY)",
            self.stage(),
            joined(places.iter().map(|at| format!(", c{at}")), "")
        )
    }

    /// Copies rows into the base table itself.
    pub(in crate::dialect::postgres::leaf) fn copy_base(&self, places: &[usize]) -> String {
        format!(
            "COPY {} ({}) FROM STDIN (FORMAT BINARY)",
            self.tracked.base,
            list(places.iter().map(|at| &self.tracked.columns[*at].quoted))
        )
    }

    /// Rows of the stage that meet an entry or a record.
    fn met(&self, entry: &str, record: &str) -> String {
        format!(
            "(EXISTS (SELECT FROM {} l WHERE {}{entry}) OR EXISTS (SELECT FROM {} d WHERE {}{record}))",
            self.tracked.log(),
            self.record_is_staged("l"),
            self.dirty(),
            self.record_is_staged("d")
        )
    }

    /// Whether there is anything dirty in the table at all.
    pub(in crate::dialect::postgres::leaf) fn any_dirty(&self) -> String {
        format!("SELECT EXISTS (SELECT FROM {}) OR EXISTS (SELECT FROM {})", self.tracked.log(), self.dirty())
    }

    /// Whether a row to be written meets a dirty one.
    pub(in crate::dialect::postgres::leaf) fn meets_dirty(&self) -> String {
        format!("SELECT EXISTS (SELECT FROM {} s WHERE {TO_WRITE} AND {})", self.stage(), self.met("", ""))
    }

    /// Whether a row was changed by others after it was judged: what was judged then has no entry or record left.
    pub(in crate::dialect::postgres::leaf) fn changed_since(&self) -> String {
        format!(
            "SELECT EXISTS (SELECT FROM {} s WHERE COALESCE(s.verdict, 'w') IN ('w', 's') AND {})",
            self.stage(),
            self.met(" AND l.seq > COALESCE(s.seen_seq, 0)", "")
        )
    }

    /// Locks the base rows that meet dirty ones; their entries and records are read in a later statement.
    pub(in crate::dialect::postgres::leaf) fn lock_dirty(&self) -> String {
        format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} t JOIN {} s ON {} WHERE {TO_WRITE} AND {} FOR UPDATE OF t) x",
            self.tracked.base,
            self.stage(),
            self.base_is_staged("t", "s"),
            self.met("", "")
        )
    }

    /// The dirty rows that are met: ordinal, changed_at, birth, seq, whether the base row is there, the incoming row's
    /// changed_at, whether both hold the same; then the base row's columns, then the staged ones.
    pub(in crate::dialect::postgres::leaf) fn judge(&self, places: &[usize], compare: bool) -> String {
        let of = |relation: &str, alias: &str| {
            format!(
                "(SELECT {alias}.* FROM {relation} {alias} WHERE EXISTS (SELECT FROM {} s WHERE {})) r",
                self.stage(),
                self.record_is_staged(alias)
            )
        };
        let names = key_names(self.tracked.key.len());
        let pending = super::folded(&of(&self.tracked.log(), "l"), &of(&self.dirty(), "d"), &names);
        let first = &self.tracked.columns[self.tracked.key[0]].quoted;
        format!(
            "COPY (SELECT s.ordinal, p.changed_at, p.birth, p.seq, t.{first} IS NOT NULL, s.changed_at, {}, {} \
             FROM {} s JOIN ({pending}) p ON {} LEFT JOIN {} t ON {} WHERE {TO_WRITE}) TO STDOUT (FORMAT BINARY)",
            if compare { self.same(places) } else { "false".to_owned() },
            self.both_rows(),
            self.stage(),
            self.record_is_staged("p"),
            self.tracked.base,
            self.base_is_staged("t", "s"),
        )
    }

    /// Clean rows that are about to be replaced by others, or removed: as [`Self::judge`], without times.
    pub(in crate::dialect::postgres::leaf) fn replaced(&self, places: &[usize], removes: bool) -> String {
        let differs = if removes { "true".to_owned() } else { format!("NOT ({})", self.same(places)) };
        format!(
            "COPY (SELECT s.ordinal, {} FROM {} s JOIN {} t ON {} WHERE s.verdict IS NULL AND {differs}) \
             TO STDOUT (FORMAT BINARY)",
            self.both_rows(),
            self.stage(),
            self.tracked.base,
            self.base_is_staged("t", "s")
        )
    }

    fn both_rows(&self) -> String {
        let base =
            self.tracked.columns.iter().map(|column| column.ty.select(&format!("t.{}", column.quoted)));
        list(base.chain((0..self.tracked.columns.len()).map(|at| format!("s.c{at}"))))
    }

    /// Whether base row and staged row hold the same, after conversion to the column's type.
    fn same(&self, places: &[usize]) -> String {
        let compared = places.iter().filter(|at| !self.tracked.is_key(**at)).map(|at| {
            let column = &self.tracked.columns[*at];
            // With the modifier: what would be rounded is compared as it would be stored.
            let stored = format!("({})::{}", self.staged("s", *at), column.ty.declared);
            column.ty.same(&format!("t.{}", column.quoted), &stored)
        });
        let all = joined(compared, " AND ");
        if all.is_empty() { "true".to_owned() } else { all }
    }

    /// Notes what was judged: ordinals, verdicts, the greatest seq that was seen, and what a kept record says.
    pub(in crate::dialect::postgres::leaf) fn note_verdicts(&self) -> String {
        format!(
            "UPDATE {} s SET verdict = v.verdict, seen_seq = v.seq, kept_at = v.kept_at, kept_birth = v.kept_birth \
             FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) \
             AS v (ordinal, verdict, seq, kept_at, kept_birth) WHERE s.ordinal = v.ordinal",
            self.stage()
        )
    }

    /// Settles what was judged: entries that were seen go, records go or say what is kept.
    pub(in crate::dialect::postgres::leaf) fn settle(&self) -> Vec<String> {
        let id = self.tracked.id;
        let keys = list(key_names(self.tracked.key.len()));
        let staged = list(self.tracked.key.iter().map(|at| self.staged("s", *at)));
        vec![
            format!(
                "DELETE FROM {} l USING {} s WHERE {} AND s.verdict IN ('w', 's', 'k') AND l.seq <= s.seen_seq",
                self.tracked.log(),
                self.stage(),
                self.record_is_staged("l")
            ),
            format!(
                "DELETE FROM {} d USING {} s WHERE {} AND s.verdict IN ('w', 's') AND d.seq <= s.seen_seq",
                self.dirty(),
                self.stage(),
                self.record_is_staged("d")
            ),
            // A row that is kept gets a new tick: it must go up again. Without a birth it is born again, at that tick.
            format!(
                "INSERT INTO {} AS d ({keys}, seq, tick, changed_at, birth) SELECT {staged}, \
                 nextval('syncline.seq_{id}'), pg_current_xact_id()::text::bigint, s.kept_at, \
                 COALESCE(s.kept_birth, pg_current_xact_id()::text::bigint) \
                 FROM {} s WHERE s.verdict = 'k' ON CONFLICT ({keys}) DO UPDATE SET seq = excluded.seq, \
                 tick = excluded.tick, changed_at = excluded.changed_at, birth = excluded.birth",
                self.dirty(),
                self.stage()
            ),
        ]
    }

    /// Writes staged rows with ordinals from `first` to `last`.
    pub(in crate::dialect::postgres::leaf) fn upsert(
        &self,
        places: &[usize],
        first: i64,
        last: i64,
    ) -> String {
        let columns = &self.tracked.columns;
        let names = list(places.iter().map(|at| &columns[*at].quoted));
        let cells = list(places.iter().map(|at| self.staged("s", *at)));
        let keys = list(self.tracked.key_columns().map(|column| &column.quoted));
        let settable =
            places.iter().filter(|at| !self.tracked.is_key(**at) && !columns[**at].identity_always);
        let set = list(settable.map(|at| format!("{name} = excluded.{name}", name = columns[*at].quoted)));
        let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {set}") };
        format!(
            "INSERT INTO {} AS t ({names}) OVERRIDING SYSTEM VALUE SELECT {cells} FROM {} s \
             WHERE {TO_WRITE} AND s.ordinal BETWEEN {first} AND {last} ORDER BY s.ordinal \
             ON CONFLICT ({keys}) DO {action}",
            self.tracked.base,
            self.stage()
        )
    }

    /// Removes the rows of staged keys with ordinals from `first` to `last`.
    pub(in crate::dialect::postgres::leaf) fn delete(&self, first: i64, last: i64) -> String {
        format!(
            "DELETE FROM {} t USING {} s WHERE {} AND {TO_WRITE} AND s.ordinal BETWEEN {first} AND {last}",
            self.tracked.base,
            self.stage(),
            self.base_is_staged("t", "s")
        )
    }

    /// The first and last ordinal of the stage.
    pub(in crate::dialect::postgres::leaf) fn ordinals(&self) -> String {
        format!("SELECT min(s.ordinal), max(s.ordinal) FROM {} s WHERE {TO_WRITE}", self.stage())
    }

    /// Postpones staged rows: of all that are to be written, those for which `condition` holds.
    pub(in crate::dialect::postgres::leaf) fn postpone(&self, removes: bool, condition: &str) -> String {
        let cells = list(self.cells());
        format!(
            "WITH moved AS (UPDATE {} s SET verdict = 'p' WHERE {TO_WRITE} AND ({condition}) RETURNING s.*) \
             INSERT INTO {} (changed_at, reason, message, {cells}) \
             SELECT changed_at, $1, $2, {cells} FROM moved ORDER BY ordinal",
            self.stage(),
            self.late(removes)
        )
    }

    /// Marks one staged row as in error.
    pub(in crate::dialect::postgres::leaf) fn fail_one(&self, ordinal: i64) -> String {
        format!("UPDATE {} s SET verdict = 'e' WHERE s.ordinal = {ordinal}", self.stage())
    }

    /// The key of one staged row.
    pub(in crate::dialect::postgres::leaf) fn staged_key(&self, ordinal: i64) -> String {
        let keys = list(self.tracked.key.iter().map(|at| format!("s.c{at}")));
        format!(
            "COPY (SELECT {keys} FROM {} s WHERE s.ordinal = {ordinal}) TO STDOUT (FORMAT BINARY)",
            self.stage()
        )
    }

    /// What is postponed no longer counts where the key comes again.
    pub(in crate::dialect::postgres::leaf) fn supersede_late(&self, removes: bool) -> String {
        let pairs = self.tracked.key.iter();
        let equal =
            joined(pairs.map(|at| format!("{} = {}", self.staged("p", *at), self.staged("s", *at))), " AND ");
        format!("DELETE FROM {} p USING {} s WHERE {equal}", self.late(removes), self.stage())
    }

    /// Moves what is postponed into the stage.
    pub(in crate::dialect::postgres::leaf) fn recall_late(&self, removes: bool) -> Vec<String> {
        let cells = list(self.cells());
        vec![
            self.clear_stage(),
            format!(
                "INSERT INTO {} (ordinal, changed_at, reason, message, {cells}) \
                 SELECT ordinal, changed_at, reason, message, {cells} FROM {}",
                self.stage(),
                self.late(removes)
            ),
            format!("TRUNCATE {}", self.late(removes)),
        ]
    }

    /// How many rows are postponed.
    pub(in crate::dialect::postgres::leaf) fn count_late(&self, removes: bool) -> String {
        format!("SELECT count(*) FROM {}", self.late(removes))
    }

    /// The keys of postponed rows, with reason and message.
    pub(in crate::dialect::postgres::leaf) fn late_keys(&self, removes: bool, limit: usize) -> String {
        let keys = list(self.tracked.key.iter().map(|at| format!("p.c{at}")));
        format!(
            "COPY (SELECT p.reason, p.message, {keys} FROM {} p ORDER BY p.ordinal LIMIT {limit}) TO STDOUT (FORMAT BINARY)",
            self.late(removes)
        )
    }

    /// Moves a sequence past the values of the first key column, which it fills.
    pub(in crate::dialect::postgres::leaf) fn move_sequence_past_keys(&self, sequence: &str) -> String {
        let key = &self.tracked.columns[self.tracked.key[0]].quoted;
        advance(sequence, &format!("SELECT t.{key} AS value FROM {} t", self.tracked.base))
    }

    /// Moves a sequence past the staged values of the column that it fills. `sequence` is quoted.
    pub(in crate::dialect::postgres::leaf) fn move_sequence(&self, place: usize, sequence: &str) -> String {
        advance(sequence, &format!("SELECT s.c{place} AS value FROM {} s WHERE {TO_WRITE}", self.stage()))
    }
}
