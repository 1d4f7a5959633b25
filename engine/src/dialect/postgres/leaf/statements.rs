//! SQL over a leaf's tables: pure functions that quote identifiers; cells travel by COPY.
//!
//! Aliases: `t` the base table, `s` the staged rows, `d` the dirty records, `l` the log.

pub(super) mod applying;
pub(super) mod cascades;
pub(super) mod cut;
pub(super) mod knots;

use syncline::ids::TableId;

use super::tables::LeafTable;
use crate::dialect::postgres::catalog::CatalogTable;
use crate::dialect::postgres::statements::tracking::key_names;
use crate::dialect::postgres::statements::{joined, list, quote};
use crate::dialect::postgres::types::staged_as;

/// Makes the dirty records of a table, beside its log: the same key columns and times.
pub(super) fn create_dirty(id: TableId, table: &CatalogTable) -> Vec<String> {
    let keys = list(key_names(table.key_columns().len()));
    vec![
        format!(
            "CREATE TABLE syncline.dirty_{id} (LIKE syncline.log_{id}, birth bigint NOT NULL, PRIMARY KEY ({keys}))"
        ),
        format!("ALTER TABLE syncline.dirty_{id} DROP COLUMN operation"),
    ]
}

/// Marks every row that is there as dirty, born here.
pub(super) fn mark_all_born(id: TableId, table: &CatalogTable) -> String {
    let names = list(key_names(table.key_columns().len()));
    let keys = list(table.key_columns().iter().map(|column| format!("t.{}", quote(&column.name))));
    format!(
        "INSERT INTO syncline.dirty_{id} ({names}, seq, tick, changed_at, birth) \
         SELECT {keys}, nextval('syncline.seq_{id}'), pg_current_xact_id()::text::bigint, \
         (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_current_xact_id()::text::bigint FROM {} t",
        table.quoted()
    )
}

/// Whether rows or entries wait.
pub(super) fn any_pending(id: TableId) -> String {
    format!("SELECT EXISTS (SELECT FROM syncline.dirty_{id}) OR EXISTS (SELECT FROM syncline.log_{id})")
}

/// Rows and entries that wait; entries count each.
pub(super) fn count_pending(id: TableId) -> String {
    format!("SELECT (SELECT count(*) FROM syncline.dirty_{id}) + (SELECT count(*) FROM syncline.log_{id})")
}

/// Gives all dirty records the tick of this transaction: theirs were given out by another cluster.
pub(super) fn renumber(id: TableId) -> String {
    format!("UPDATE syncline.dirty_{id} SET tick = pg_current_xact_id()::text::bigint")
}

/// Gives all dirty records a tick that was never uploaded, that of this transaction. Born stays born. The log was folded
/// within the transaction.
pub(super) fn give_new_ticks(id: TableId) -> String {
    let tick = "pg_current_xact_id()::text::bigint";
    format!(
        "UPDATE syncline.dirty_{id} SET tick = {tick}, birth = CASE WHEN birth > 0 THEN {tick} ELSE birth END"
    )
}

/// Whether there is nothing to fold.
pub(super) fn log_is_empty(id: TableId) -> String {
    format!("SELECT NOT EXISTS (SELECT FROM syncline.log_{id})")
}

/// Dirty records as a fold of `entries` and `records` (relations of a key's entries and records) would leave them.
///
/// The greatest `seq` gives the tick. `changed_at` runs through all of a key's entries, the record first, each at least
/// 1 more than the one before. `birth` stays where there is a record, else the first insert or delete decides: the
/// tick of an insert, 0 for a delete.
fn folded(entries: &str, records: &str, names: &[String]) -> String {
    let keys = list(names);
    format!(
        "SELECT {keys}, max(seq) AS seq, (array_agg(tick ORDER BY seq DESC))[1] AS tick, \
         max(changed_at + place - 1) AS changed_at, \
         COALESCE(max(birth), (array_agg(CASE operation WHEN 'I' THEN tick ELSE 0 END ORDER BY seq) \
         FILTER (WHERE operation <> 'U'))[1], 0) AS birth \
         FROM (SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY operation IS NULL, seq DESC) AS place \
         FROM (SELECT {keys}, seq, tick, changed_at, operation, NULL::bigint AS birth FROM {entries} \
         UNION ALL SELECT {keys}, seq, tick, changed_at, NULL, birth FROM {records}) e) p GROUP BY {keys}"
    )
}

/// Empties the log into the dirty records. One statement: it takes a key's visible entries whole.
pub(super) fn fold(id: TableId, key_count: usize) -> String {
    let names = key_names(key_count);
    let keys = list(&names);
    let met = joined(names.iter().map(|name| format!("g.{name} = d.{name}")), " AND ");
    let records =
        format!("(SELECT d.* FROM syncline.dirty_{id} d WHERE EXISTS (SELECT FROM gone g WHERE {met})) r");
    format!(
        "WITH gone AS (DELETE FROM syncline.log_{id} RETURNING *) \
         INSERT INTO syncline.dirty_{id} AS d ({keys}, seq, tick, changed_at, birth) \
         SELECT {keys}, seq, tick, changed_at, birth FROM ({}) f \
         ON CONFLICT ({keys}) DO UPDATE SET seq = excluded.seq, tick = excluded.tick, \
         changed_at = greatest(excluded.changed_at, d.changed_at) WHERE d.seq < excluded.seq",
        folded("gone", &records, &names)
    )
}

impl LeafTable {
    fn names(&self) -> Vec<String> {
        key_names(self.tracked.key.len())
    }

    /// `t.id = d.k1 AND ...`
    pub(super) fn base_is(&self, base: &str, record: &str) -> String {
        let pairs = self.tracked.key_columns().zip(self.names());
        joined(pairs.map(|(column, name)| format!("{base}.{} = {record}.{name}", column.quoted)), " AND ")
    }

    /// All dirty rows, as if folded.
    fn pending(&self) -> String {
        folded(&self.tracked.log(), &self.dirty(), &self.names())
    }

    /// Dirty rows that are there: their columns, then tick, `changed_at`, `birth`.
    pub(super) fn dirty_upserts(&self) -> String {
        let columns =
            self.tracked.columns.iter().map(|column| column.ty.select(&format!("t.{}", column.quoted)));
        let order = self.tracked.key_columns().map(|column| column.ty.order(&format!("t.{}", column.quoted)));
        format!(
            "COPY (SELECT {}, p.tick, p.changed_at, p.birth FROM ({}) p JOIN {} t ON {} ORDER BY {}) \
             TO STDOUT (FORMAT BINARY)",
            list(columns),
            self.pending(),
            self.tracked.base,
            self.base_is("t", "p"),
            list(order)
        )
    }

    /// Dirty rows that are gone: their keys, then tick, `changed_at`, `birth`.
    pub(super) fn dirty_deletes(&self) -> String {
        let names = self.names();
        let keys = || self.tracked.key_columns().zip(&names);
        let selected = keys().map(|(column, name)| column.ty.select(&format!("p.{name}")));
        let order = keys().map(|(column, name)| column.ty.order(&format!("p.{name}")));
        format!(
            "COPY (SELECT {}, p.tick, p.changed_at, p.birth FROM ({}) p \
             WHERE NOT EXISTS (SELECT FROM {} t WHERE {}) ORDER BY {}) TO STDOUT (FORMAT BINARY)",
            list(selected),
            self.pending(),
            self.tracked.base,
            self.base_is("t", "p"),
            list(order)
        )
    }

    /// Makes the table of uploaded keys with their ticks, for an acknowledgement.
    pub(super) fn create_uploaded(&self) -> String {
        let keys = self
            .tracked
            .key
            .iter()
            .map(|at| format!("c{at} {}", staged_as(self.tracked.columns[*at].ty.canonical)));
        format!(
            "CREATE TEMP TABLE pg_temp.up_{} ({}, tick bigint, removed boolean) ON COMMIT DROP",
            self.tracked.id,
            list(keys)
        )
    }

    /// Fills it.
    pub(super) fn copy_uploaded(&self) -> String {
        let keys = self.tracked.key.iter().map(|at| format!("c{at}"));
        format!(
            "COPY pg_temp.up_{} ({}, tick, removed) FROM STDIN (FORMAT BINARY)",
            self.tracked.id,
            list(keys)
        )
    }

    /// Clears records that are still as they were uploaded. Entries of later edits stay in the log, and decide alone
    /// whether the row was born since.
    pub(super) fn clear_acknowledged(&self) -> String {
        format!(
            "DELETE FROM {} d USING pg_temp.up_{} s WHERE {} AND d.tick = s.tick",
            self.dirty(),
            self.tracked.id,
            self.record_is_staged("d"),
        )
    }

    /// Records that have changed since: the hub has the row as it was uploaded, so they were born again only if that was
    /// a delete, at a tick after it. The record's own tick serves: no upload was made between the two.
    pub(super) fn correct_birth(&self) -> String {
        format!(
            "UPDATE {} d SET birth = CASE WHEN s.removed THEN d.tick ELSE 0 END FROM pg_temp.up_{} s WHERE {}",
            self.dirty(),
            self.tracked.id,
            self.record_is_staged("d")
        )
    }

    /// `d.k1 = s.c0::... AND ...`
    pub(super) fn record_is_staged(&self, record: &str) -> String {
        let places = self.tracked.key.iter().zip(self.names());
        joined(places.map(|(at, name)| format!("{record}.{name} = {}", self.staged("s", *at))), " AND ")
    }

    /// `t.id = s.c0::... AND ...`
    pub(super) fn base_is_staged(&self, base: &str, staged: &str) -> String {
        let places = self.tracked.key.iter();
        let equal = |at: &usize| {
            format!("{base}.{} = {}", self.tracked.columns[*at].quoted, self.staged(staged, *at))
        };
        joined(places.map(equal), " AND ")
    }

    /// A staged cell as the base table's type.
    pub(super) fn staged(&self, staged: &str, place: usize) -> String {
        self.tracked.columns[place].ty.from_staged(&format!("{staged}.c{place}"))
    }
}
