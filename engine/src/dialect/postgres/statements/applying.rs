//! Applying: staging tables, locks, versions, writes, records.
//!
//! Of each table an upload has temporary tables: `up` (cells as they came, canonical; only where they differ from the
//! base table's), `arrived` (as the base table's types) and, where rows are not plain, `held` (what the hub has of each
//! row, and what becomes of it). `n` numbers the rows of a table.
//!
//! Here: staging, locks, versions, records. `plain` has what is written before it is judged, `writing` the other writes,
//! `mending` what helps rows that failed.

pub(in crate::dialect::postgres) mod along;
mod mending;
pub(in crate::dialect::postgres) mod plain;
mod writing;

use syncline::conflict::RowErrorReason;

use super::reading::{KnownPeer, contained, newest_of, newest_truncation, truncated};
use super::tracking::key_names;
use super::{joined, list};
use crate::dialect::postgres::tracked::Tracked;
use crate::dialect::postgres::types::staged_as;

/// What becomes of a row, as `held.status` says it.
pub(in crate::dialect::postgres) mod status {
    /// It is to be written, or was.
    pub(in crate::dialect::postgres) const WRITE: &str = "w";
    /// It could not be written yet: a later pass tries again.
    pub(in crate::dialect::postgres) const FAILED: &str = "f";
    /// The hub holds the same, or a conflict kept the hub's row.
    pub(in crate::dialect::postgres) const UNCHANGED: &str = "u";
    /// As [`UNCHANGED`], and it was a conflict.
    pub(in crate::dialect::postgres) const LOST: &str = "l";
    /// The hub lacks the row and keeps it so: a tombstone tells the sender.
    pub(in crate::dialect::postgres) const TOMBSTONE: &str = "t";
    /// A delete that lost to a row which refers to this one: the sender gets it back.
    pub(in crate::dialect::postgres) const KEPT: &str = "k";
    /// It can't be written.
    pub(in crate::dialect::postgres) const ERROR: &str = "e";
    /// Not plain: to be judged.
    pub(in crate::dialect::postgres) const OPEN: &str = "o";
}

/// What is written, in this order within a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect::postgres) enum Write {
    /// Rows that are there.
    Update,
    /// Rows that are not.
    Insert,
    /// Rows that go.
    Delete,
}

/// A table of an upload.
#[derive(Debug)]
pub(in crate::dialect::postgres) struct Applying<'a> {
    pub(in crate::dialect::postgres) table: &'a Tracked,
    /// Our present number, and the tick of this transaction.
    pub(in crate::dialect::postgres) own: i64,
    pub(in crate::dialect::postgres) own_tick: i64,
    /// The sender's number.
    pub(in crate::dialect::postgres) leaf: i64,
    /// The version of rows without record or entry, and when they count as changed.
    pub(in crate::dialect::postgres) baseline: (i64, i64, i64),
    /// The knowledge that the changes were made with; empty for none.
    pub(in crate::dialect::postgres) made_with: &'a [KnownPeer],
}

impl Applying<'_> {
    fn up(&self) -> String {
        format!("pg_temp.up_{}", self.table.id)
    }

    fn arrived(&self) -> String {
        format!("pg_temp.arrived_{}", self.table.id)
    }

    fn held(&self) -> String {
        format!("pg_temp.held_{}", self.table.id)
    }

    /// The staging tables that rows come into.
    pub(in crate::dialect::postgres) fn create(&self) -> Vec<String> {
        let typed = self.table.columns.iter().enumerate().map(|(at, column)| {
            let collation =
                column.collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
            format!("c{at} {}{collation}", column.ty.declared)
        });
        // `sent` is the key as the sender names it. Only by that name does it know the row again, so that is what row
        // errors, exceptions and conflicts say; the cells of `arrived` may have taken another form already.
        let beside = "n bigint, sent bytea, removes boolean, born boolean, changed_at bigint";
        let mut tables = vec![format!(
            "CREATE TEMPORARY TABLE arrived_{} ({beside}, exact boolean DEFAULT true, own_key boolean DEFAULT true, {}) \
             ON COMMIT DROP",
            self.table.id,
            list(typed)
        )];
        if !self.table.is_staged_as_it_is() {
            let staged = self.table.columns.iter().enumerate();
            let staged = list(staged.map(|(at, column)| format!("c{at} {}", staged_as(column.ty.canonical))));
            tables.push(format!(
                "CREATE TEMPORARY TABLE up_{} ({beside}, {staged}) ON COMMIT DROP",
                self.table.id
            ));
        }
        tables
    }

    /// Takes rows: n, sent, removes, born, changed_at, then the columns.
    pub(in crate::dialect::postgres) fn stage(&self) -> String {
        let into = if self.table.is_staged_as_it_is() { self.arrived() } else { self.up() };
        let cells = list((0..self.table.columns.len()).map(|at| format!("c{at}")));
        format!("COPY {into} (n, sent, removes, born, changed_at, {cells}) FROM STDIN (FORMAT BINARY)")
    }

    /// Turns the rows of `first..=last` into the base table's types, and notes which of them are exact: those that the
    /// table will give back as they came. A row whose key it gives back in another way has no place: to its sender that
    /// would be another row.
    pub(in crate::dialect::postgres) fn convert(&self, first: i64, last: i64) -> String {
        let cells = self.table.columns.iter().enumerate();
        let cells = cells.map(|(at, column)| column.ty.from_staged(&format!("u.c{at}")));
        format!(
            "INSERT INTO {} SELECT u.n, u.sent, u.removes, u.born, u.changed_at, {}, {}, {} FROM {} u \
             WHERE u.n BETWEEN {first} AND {last}",
            self.arrived(),
            self.gives_back(|_| true),
            self.gives_back(|at| self.table.is_key(at)),
            list(cells),
            self.up()
        )
    }

    /// Whether these columns of `u` will come back as they were sent.
    fn gives_back(&self, wanted: impl Fn(usize) -> bool) -> String {
        let columns = self.table.columns.iter().enumerate().filter(|(at, _)| wanted(*at));
        let all: Vec<_> =
            columns.filter_map(|(at, column)| column.ty.gives_back(&format!("u.c{at}"))).collect();
        if all.is_empty() { "true".to_owned() } else { joined(all, " AND ") }
    }

    /// Upserts whose key would be kept in another form; `None` if no key of the table ever is.
    pub(in crate::dialect::postgres) fn other_keys(&self, rows_max: usize) -> Option<String> {
        let other = self.table.key_columns().any(|column| column.ty.gives_back("c").is_some());
        other.then(|| {
            format!(
                "SELECT n FROM {} WHERE NOT own_key AND NOT removes ORDER BY n LIMIT {rows_max}",
                self.arrived()
            )
        })
    }

    /// Takes out the rows of such keys.
    pub(in crate::dialect::postgres) fn drop_other_keys(&self) -> String {
        format!("DELETE FROM {} WHERE NOT own_key", self.arrived())
    }

    /// Which of these rows, that could not be turned into the base table's types, are removed.
    pub(in crate::dialect::postgres) fn staged_removals(&self, rows: &[i64]) -> String {
        let rows = list(rows.iter().map(ToString::to_string));
        format!("SELECT n FROM {} WHERE removes AND n = ANY ('{{{rows}}}'::bigint[])", self.up())
    }

    /// Removes what was turned into the base table's types.
    pub(in crate::dialect::postgres) fn drop_staged(&self) -> String {
        format!("DROP TABLE {}", self.up())
    }

    /// Makes keys unique, which also tells the planner how many rows there are. A unique violation is a key that stands
    /// in the upload twice.
    pub(in crate::dialect::postgres) fn index(&self) -> String {
        let keys = list(self.table.key.iter().map(|at| format!("c{at}")));
        format!("CREATE UNIQUE INDEX ON {} ({keys})", self.arrived())
    }

    /// What judging needs beside [`Self::index`].
    pub(in crate::dialect::postgres) fn prepare_judging(&self) -> [String; 3] {
        let keys = list(self.table.key.iter().map(|at| format!("c{at}")));
        [
            format!("CREATE UNIQUE INDEX ON {} (n)", self.arrived()),
            // Of what is joined and filtered by; statistics of all columns take as long as staging them.
            format!("ANALYZE {} (n, removes, {keys})", self.arrived()),
            format!(
                "CREATE TEMPORARY TABLE held_{} (n bigint NOT NULL, present boolean, peer bigint, tick bigint, \
                 via bigint, changed_at bigint, status \"char\", there boolean) ON COMMIT DROP",
                self.table.id
            ),
        ]
    }

    /// `b.id = a.c0 AND ...`
    fn base_is_arrived(&self) -> String {
        let pairs = self.table.key.iter().map(|at| format!("b.{} = a.c{at}", self.table.columns[*at].quoted));
        joined(pairs, " AND ")
    }

    /// `x.k1 = a.c0 AND ...`
    fn ours_is_arrived(&self, ours: &str) -> String {
        let pairs = self.table.key.iter().zip(key_names(self.table.key.len()));
        joined(pairs.map(|(at, name)| format!("{ours}.{name} = a.c{at}")), " AND ")
    }

    fn arrived_keys(&self) -> String {
        list(self.table.key.iter().map(|at| format!("a.c{at}")))
    }

    fn first_base_key(&self) -> String {
        format!("b.{}", self.table.columns[self.table.key[0]].quoted)
    }

    /// Locks the rows that are there, in key order.
    pub(in crate::dialect::postgres) fn lock(&self) -> String {
        format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} b JOIN {} a ON {} ORDER BY {} FOR UPDATE OF b) locked",
            self.table.base,
            self.arrived(),
            self.base_is_arrived(),
            self.arrived_keys()
        )
    }

    /// Takes the base rows' cells of these columns over into the rows that came, where those are NULL or the default.
    pub(in crate::dialect::postgres) fn keep(&self, columns: &[(usize, Option<&str>)]) -> String {
        let cells = columns.iter().map(|(at, default)| {
            let column = &self.table.columns[*at];
            let is_default = default.map_or_else(String::new, |default| {
                format!(" OR a.c{at} = CAST({} AS {})", super::literal(default), column.ty.declared)
            });
            format!("c{at} = CASE WHEN a.c{at} IS NULL{is_default} THEN b.{} ELSE a.c{at} END", column.quoted)
        });
        format!(
            "UPDATE {} a SET {} FROM {} b WHERE {} AND NOT a.removes",
            self.arrived(),
            list(cells),
            self.table.base,
            self.base_is_arrived()
        )
    }

    /// Joins that give the newest of log and record, this transaction's own entries aside: `r` and `l`; and the newest
    /// truncation of the table or of a part of it, `t`.
    fn version_joins(&self) -> String {
        let names = key_names(self.table.key.len());
        let truncated = truncated(self.table.id);
        let counted = format!(
            "(SELECT * FROM {} WHERE seq > {truncated} AND tick <> {}) counted",
            self.table.log(),
            self.own_tick
        );
        format!(
            "LEFT JOIN {} r ON {} AND r.seq > {truncated} LEFT JOIN ({}) l ON {} LEFT JOIN ({}) t ON true",
            self.table.record(),
            self.ours_is_arrived("r"),
            newest_of(&counted, &names),
            self.ours_is_arrived("l"),
            newest_truncation(self.table.id)
        )
    }

    /// (peer, tick, via, changed_at) from those joins and the base row `b`.
    ///
    /// A row that is gone and was last written before a partition was truncated went with that: the truncation is its
    /// version. By the older one a leaf's edit would count as made with knowledge of all that happened to it, and the
    /// row would come back without a conflict. Which partition it was is not asked: at worst a conflict too many.
    fn version_columns(&self) -> [String; 4] {
        let (peer, tick, changed_at) = self.baseline;
        let first = self.first_base_key();
        let case = |truncation: &str, entry: &str, record: &str, baseline: &str| {
            format!(
                "CASE WHEN {first} IS NULL AND t.seq > greatest(l.seq, r.seq) THEN {truncation} \
                 WHEN l.seq > COALESCE(r.seq, 0) THEN {entry} WHEN r.seq IS NOT NULL THEN {record} \
                 WHEN {first} IS NOT NULL THEN {baseline} END"
            )
        };
        [
            case(
                &format!("COALESCE(t.peer, {})", self.own),
                &self.own.to_string(),
                "r.peer",
                &peer.to_string(),
            ),
            case("t.tick", "l.tick", "r.tick", &tick.to_string()),
            case("0", "0", "r.via", "0"),
            case(
                "greatest(t.changed_at, l.changed_at, r.changed_at)",
                "greatest(l.changed_at, r.changed_at + l.entries)",
                "r.changed_at",
                &changed_at.to_string(),
            ),
        ]
    }

    /// Reads what the hub holds of each row, once they are locked, and settles what is plain.
    pub(in crate::dialect::postgres) fn read_held(&self) -> [String; 3] {
        let [peer, tick, via, changed_at] = self.version_columns();
        let known = contained(self.made_with, "v.peer", "v.tick");
        let read = format!(
            "INSERT INTO {held} SELECT v.n, v.present, v.peer, v.tick, v.via, v.changed_at, \
             CASE WHEN CASE WHEN v.peer IS NULL THEN v.removes OR v.born ELSE v.via = {leaf} OR {known} END \
             THEN CASE WHEN v.removes AND NOT v.present THEN '{unchanged}' ELSE '{write}' END ELSE '{open}' END, v.present \
             FROM (SELECT a.n, a.removes, a.born, {first} IS NOT NULL AS present, {peer} AS peer, {tick} AS tick, \
             {via} AS via, {changed_at} AS changed_at \
             FROM {arrived} a LEFT JOIN {base} b ON {base_is} {joins}) v",
            held = self.held(),
            leaf = self.leaf,
            unchanged = status::UNCHANGED,
            write = status::WRITE,
            open = status::OPEN,
            first = self.first_base_key(),
            arrived = self.arrived(),
            base = self.table.base,
            base_is = self.base_is_arrived(),
            joins = self.version_joins(),
        );
        let (unique, analyze) =
            (format!("CREATE UNIQUE INDEX ON {} (n)", self.held()), format!("ANALYZE {}", self.held()));
        [read, unique, analyze]
    }

    /// Opens the rows of $1 for judgement: another knowledge holds for them.
    pub(in crate::dialect::postgres) fn reopen(&self) -> String {
        format!("UPDATE {} SET status = '{}' WHERE n = ANY ($1)", self.held(), status::OPEN)
    }

    /// The first rows that are open, from `after` on: what is held, what came, whether both are equal, the key as
    /// it was sent, and both rows. So many that the last begins before `bytes_max`, `rows_max` at most.
    pub(in crate::dialect::postgres) fn open_rows(
        &self,
        after: i64,
        rows_max: usize,
        bytes_max: u64,
    ) -> String {
        let arrived = self.table.columns.iter().enumerate();
        let arrived = arrived.map(|(at, column)| column.ty.select(&format!("a.c{at}")));
        let base = self.table.columns.iter().map(|column| column.ty.select(&format!("b.{}", column.quoted)));
        let sides = format!(
            "{} h JOIN {} a ON a.n = h.n LEFT JOIN {} b ON {}",
            self.held(),
            self.arrived(),
            self.table.base,
            self.base_is_arrived()
        );
        format!(
            "COPY (SELECT h.n, h.present, h.peer, h.tick, h.via, h.changed_at, a.removes, a.born, a.changed_at, \
             {same}, a.sent, {columns} FROM {sides} JOIN (\
             SELECT x.n, sum(x.bytes) OVER (ORDER BY x.n) - x.bytes AS before FROM (\
             SELECT h.n, pg_column_size(a.*) + COALESCE(pg_column_size(b.*), 0) AS bytes FROM {sides} \
             WHERE h.status = '{open}' AND h.n > {after} ORDER BY h.n LIMIT {rows_max}) x) w \
             ON w.n = h.n AND w.before < {bytes_max} ORDER BY h.n) TO STDOUT (FORMAT BINARY)",
            same = self.same_row(),
            columns = list(arrived.chain(base)),
            open = status::OPEN,
        )
    }

    /// Whether base row and arrived row hold the same canonical values.
    fn same_row(&self) -> String {
        let cells = self.table.columns.iter().enumerate();
        joined(
            cells.map(|(at, column)| column.ty.same(&format!("b.{}", column.quoted), &format!("a.c{at}"))),
            " AND ",
        )
    }

    /// Gives the rows of $1 the states of $2.
    pub(in crate::dialect::postgres) fn set_status(&self) -> String {
        format!(
            "UPDATE {} h SET status = s.status::\"char\" FROM unnest($1::bigint[], $2::text[]) s (n, status) \
             WHERE h.n = s.n",
            self.held()
        )
    }

    /// After a pass: rows of $1 failed, the others that had failed before it did not.
    pub(in crate::dialect::postgres) fn set_failed(&self) -> String {
        format!(
            "UPDATE {held} SET status = CASE WHEN n = ANY ($1) THEN '{failed}' ELSE '{write}' END::\"char\" \
             WHERE status = '{failed}' OR n = ANY ($1)",
            held = self.held(),
            failed = status::FAILED,
            write = status::WRITE,
        )
    }

    /// Writes the records of what came in: via the sender; origin too where the base row is now what it sent. Where the
    /// column's type made something else of it, that goes back to the sender, which would keep its own form for ever.
    pub(in crate::dialect::postgres) fn harvest(&self) -> String {
        let names = list(key_names(self.table.key.len()));
        format!(
            "INSERT INTO {record} AS x ({names}, peer, tick, via, origin, changed_at, seq, resolved) \
             SELECT {keys}, {own}, {tick}, CASE WHEN h.status IN ('{write}', '{kept}') THEN {leaf} ELSE 0 END, \
             CASE WHEN h.status = '{write}' AND CASE WHEN a.removes THEN {first} IS NULL \
             ELSE {first} IS NOT NULL AND a.exact AND {same} END THEN {leaf} ELSE 0 END, \
             greatest(a.changed_at, h.changed_at + 1), nextval('{sequence}'), false \
             FROM {arrived} a JOIN {held} h ON h.n = a.n LEFT JOIN {base} b ON {base_is} \
             WHERE h.status IN ('{write}', '{tombstone}', '{kept}') ORDER BY {keys} \
             ON CONFLICT ({names}) DO UPDATE SET peer = excluded.peer, tick = excluded.tick, via = excluded.via, \
             origin = excluded.origin, changed_at = excluded.changed_at, seq = excluded.seq, resolved = false \
             WHERE x.seq < excluded.seq",
            record = self.table.record(),
            keys = self.arrived_keys(),
            own = self.own,
            tick = self.own_tick,
            leaf = self.leaf,
            write = status::WRITE,
            tombstone = status::TOMBSTONE,
            kept = status::KEPT,
            first = self.first_base_key(),
            same = self.same_row(),
            sequence = self.table.sequence(),
            arrived = self.arrived(),
            held = self.held(),
            base = self.table.base,
            base_is = self.base_is_arrived(),
        )
    }

    /// Removes this transaction's entries of the rows that now have records. Nothing has counted these entries yet, so
    /// the planner takes them for few, and would look for each of them one by one.
    pub(in crate::dialect::postgres) fn drop_entries(&self) -> String {
        format!(
            "SET LOCAL enable_nestloop TO off; \
             DELETE FROM {} x USING {} a, {} h WHERE {} AND h.n = a.n AND h.status IN ('{}', '{}', '{}') \
             AND x.tick = {}; SET LOCAL enable_nestloop TO DEFAULT",
            self.table.log(),
            self.arrived(),
            self.held(),
            self.ours_is_arrived("x"),
            status::WRITE,
            status::TOMBSTONE,
            status::KEPT,
            self.own_tick
        )
    }

    /// How many rows there are of each state, by whether they are removed.
    pub(in crate::dialect::postgres) fn outcome(&self) -> String {
        format!(
            "SELECT h.status::text, a.removes, count(*) FROM {} h JOIN {} a ON a.n = h.n GROUP BY 1, 2",
            self.held(),
            self.arrived()
        )
    }

    /// Removes the conflicts that were logged in the session $1 and the table $2 for the rows $3.
    pub(in crate::dialect::postgres) fn take_back_conflicts(&self) -> String {
        format!(
            "DELETE FROM syncline.conflicts x USING {} a WHERE x.session = $1 AND x.table_id = $2 \
             AND x.row_key = a.sent AND a.n = ANY ($3)",
            self.arrived()
        )
    }

    /// The keys of these rows, as they were sent, and whether they are removed.
    pub(in crate::dialect::postgres) fn keys_of(&self, rows: &[i64]) -> String {
        keys_of(&self.arrived(), rows)
    }

    /// As [`Self::keys_of`], of rows that could not be turned into the base table's types.
    pub(in crate::dialect::postgres) fn staged_keys_of(&self, rows: &[i64]) -> String {
        keys_of(&self.up(), rows)
    }
}

fn keys_of(staged: &str, rows: &[i64]) -> String {
    format!(
        "COPY (SELECT x.n, x.removes, x.sent FROM {staged} x WHERE x.n = ANY ('{{{}}}'::bigint[]) ORDER BY x.n) \
         TO STDOUT (FORMAT BINARY)",
        list(rows.iter().map(ToString::to_string))
    )
}

/// What a refused row is told of a class of faults.
pub(in crate::dialect::postgres) const fn describe(reason: RowErrorReason) -> &'static str {
    match reason {
        RowErrorReason::Unique => "another row has the same unique value",
        RowErrorReason::ForeignKey => "a row that it refers to is not there, or a row refers to it",
        RowErrorReason::Check => "a check constraint refuses it",
        RowErrorReason::NotNull => "a column that must have a value has none",
        RowErrorReason::Type => "a value does not fit its column",
        RowErrorReason::Trigger => "a trigger refuses it",
        RowErrorReason::Forbidden => "it may not be written",
        RowErrorReason::Other => "the database refuses it",
    }
}
