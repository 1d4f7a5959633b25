//! Writing rows that nobody disputes, before they are judged: see `apply_plain`.

use syncline::ids::Tick;

use super::super::reading::contained;
use super::super::tracking::key_names;
use super::super::{joined, list};
use super::Applying;
use crate::dialect::postgres::tracked::TrackedColumn;

/// How many rows of each kind were staged for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect::postgres) struct Staged {
    /// Rows that are neither born nor removed.
    pub(in crate::dialect::postgres) updates: i64,
    /// Rows that were born at the leaf, and are not removed.
    pub(in crate::dialect::postgres) births: i64,
    pub(in crate::dialect::postgres) removals: i64,
}

impl Staged {
    /// Rows in all.
    pub(in crate::dialect::postgres) const fn rows(self) -> i64 {
        self.updates + self.births + self.removals
    }

    /// Rows that must be there already.
    pub(in crate::dialect::postgres) const fn present(self) -> i64 {
        self.updates + self.removals
    }
}

/// Whether the table holds what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect::postgres) enum Written {
    /// Each of them has one entry in the log, nothing else has any, and nothing could have changed a value on its way
    /// into the table.
    AsSent,
    /// Something of the user's own took part: what is there now has to be looked at.
    Perhaps,
}

impl Applying<'_> {
    /// Columns that an update sets: not the key's, nor those that only DEFAULT may be assigned to.
    pub(super) fn updated(&self) -> Vec<(usize, &TrackedColumn)> {
        let all = self.table.columns.iter().enumerate();
        all.filter(|(at, column)| !self.table.is_key(*at) && !column.identity_always).collect()
    }

    /// Whether an update of all rows could set nothing, or leave out a column that was sent.
    pub(in crate::dialect::postgres) fn updates_in_part(&self) -> bool {
        self.updated().is_empty() || self.table.columns.iter().any(|column| column.identity_always)
    }

    /// Whether the version of rows without record or entry is known to the sender.
    pub(in crate::dialect::postgres) fn knows_baseline(&self) -> bool {
        let (peer, tick, _) = self.baseline;
        let clocks = self.made_with.iter().filter(|known| known.number == peer);
        clocks
            .filter_map(|known| known.clock.as_ref())
            .any(|clock| clock.contains(Tick(tick.cast_unsigned())))
    }

    /// Updates the rows that are neither born nor removed.
    pub(in crate::dialect::postgres) fn update_undisputed(&self, staged: Staged) -> String {
        let cells = self.updated();
        let cells = list(cells.iter().map(|(at, column)| format!("{} = a.c{at}", column.quoted)));
        let of_kind = of_kind(&[
            (staged.births > 0 && staged.removals > 0, "NOT a.born AND NOT a.removes"),
            (staged.births > 0 && staged.removals == 0, "NOT a.born"),
            (staged.births == 0 && staged.removals > 0, "NOT a.removes"),
        ]);
        format!(
            "UPDATE {} b SET {cells} FROM {} a WHERE {}{of_kind}",
            self.table.base,
            self.arrived(),
            self.base_is_arrived()
        )
    }

    /// Inserts the rows that were born at the leaf, in the order in which they came, which is that of its keys.
    pub(in crate::dialect::postgres) fn insert_undisputed(&self, staged: Staged) -> String {
        let columns = list(self.table.columns.iter().map(|column| &column.quoted));
        let cells = list((0..self.table.columns.len()).map(|at| format!("a.c{at}")));
        let of_kind = of_kind(&[
            (staged.updates > 0 && staged.removals > 0, "a.born AND NOT a.removes"),
            (staged.updates > 0 && staged.removals == 0, "a.born"),
            (staged.updates == 0 && staged.removals > 0, "NOT a.removes"),
        ]);
        format!(
            "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {cells} FROM {} a WHERE true{of_kind}",
            self.table.base,
            self.arrived()
        )
    }

    /// Deletes the rows that are removed.
    pub(in crate::dialect::postgres) fn delete_undisputed(&self, staged: Staged) -> String {
        let of_kind = of_kind(&[(staged.rows() > staged.removals, "a.removes")]);
        format!(
            "DELETE FROM {} b USING {} a WHERE {}{of_kind}",
            self.table.base,
            self.arrived(),
            self.base_is_arrived()
        )
    }

    /// Once the rows are written: this transaction's entries of the whole table, whether others' entries speak of the
    /// rows, whether the table was ever truncated, and whether triggers may change values on their way into it.
    ///
    /// The rows are locked, so that nobody adds to what it finds; triggers can't be made or removed either.
    pub(in crate::dialect::postgres) fn marked(&self) -> String {
        let (log, tick, id) = (self.table.log(), self.own_tick, self.table.id);
        format!(
            "SELECT (SELECT count(*) FROM {log} WHERE tick = {tick}), \
             EXISTS (SELECT FROM {log} x JOIN {} a ON {} WHERE x.tick <> {tick}), \
             EXISTS (SELECT FROM syncline.truncations WHERE table_id = {id}), \
             EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgtype::integer & 3 = 3 AND (g.tgrelid = {oid} \
             OR g.tgrelid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree({oid}::oid) p)))",
            self.arrived(),
            self.ours_is_arrived("x"),
            oid = self.table.catalog.oid,
        )
    }

    /// Writes the records of rows that have some, as `harvest` does, if the sender knows or wrote the version there.
    ///
    /// **Invariant:** this and [`Self::record_undisputed`] judge each row by the newest version that its record has: the
    /// statements that wrote the rows locked them, so that nobody else gives them another version now. A row that both
    /// leave out is not plain.
    pub(in crate::dialect::postgres) fn renew_undisputed(&self, written: Written) -> String {
        let keys = key_names(self.table.key.len());
        format!(
            "UPDATE {record} x SET peer = {own}, tick = {tick}, via = {leaf}, origin = s.origin, \
             changed_at = greatest(s.changed_at, x.changed_at + 1), seq = s.seq, resolved = false \
             FROM (SELECT {source}) s WHERE {key_is} AND {judged}",
            record = self.table.record(),
            own = self.own,
            tick = self.own_tick,
            leaf = self.leaf,
            source = self.recorded(written),
            key_is = joined(keys.iter().map(|name| format!("x.{name} = s.{name}")), " AND "),
            judged = self.judged("s"),
        )
    }

    /// Writes the records of the other rows. `some_have`: [`Self::renew_undisputed`] has written some.
    ///
    /// An upsert, as records may be there: of births, [`Self::renew_undisputed`] was not asked.
    pub(in crate::dialect::postgres) fn record_undisputed(
        &self,
        staged: Staged,
        written: Written,
        some_have: bool,
    ) -> String {
        let names = list(key_names(self.table.key.len()));
        let without = format!(
            "NOT EXISTS (SELECT FROM {} r WHERE {} AND r.peer = {} AND r.tick = {})",
            self.table.record(),
            self.ours_is_arrived("r"),
            self.own,
            self.own_tick
        );
        // What was there and has no record is of the baseline.
        let of_baseline = staged.present() == 0 || self.knows_baseline();
        let conditions = [(some_have, without.as_str()), (!of_baseline, "a.born AND NOT a.removes")];
        let conditions = conditions.iter().filter(|(holds, _)| *holds).map(|(_, condition)| *condition);
        format!(
            "INSERT INTO {record} AS x ({names}, origin, changed_at, seq, peer, tick, via, resolved) \
             SELECT s.*, {own}, {tick}, {leaf}, false FROM (SELECT {source} WHERE {conditions}) s \
             ON CONFLICT ({names}) DO UPDATE SET peer = excluded.peer, tick = excluded.tick, via = excluded.via, \
             origin = excluded.origin, changed_at = greatest(excluded.changed_at, x.changed_at + 1), \
             seq = excluded.seq, resolved = false WHERE {judged}",
            record = self.table.record(),
            own = self.own,
            tick = self.own_tick,
            leaf = self.leaf,
            source = self.recorded(written),
            conditions = joined(std::iter::once("true").chain(conditions), " AND "),
            judged = self.judged("excluded"),
        )
    }

    /// Whether the record `x` gives way: it is older, and the sender knows it or wrote it.
    fn judged(&self, newer: &str) -> String {
        let known = contained(self.made_with, "x.peer", "x.tick");
        format!("x.seq < {newer}.seq AND (x.via = {} OR {known})", self.leaf)
    }

    /// Key, origin, time and a new `seq` of the staged rows. All have one `seq`: it tells what came earlier to a row from
    /// what comes later, and is drawn while all of them are locked.
    fn recorded(&self, written: Written) -> String {
        let keys = self.table.key.iter().zip(key_names(self.table.key.len()));
        let keys = list(keys.map(|(at, name)| format!("a.c{at} AS {name}")));
        let (as_sent, present) = match written {
            Written::AsSent => ("a.exact".to_owned(), String::new()),
            Written::Perhaps => (
                format!(
                    "CASE WHEN a.removes THEN {first} IS NULL ELSE {first} IS NOT NULL AND a.exact AND {} END",
                    self.same_row(),
                    first = self.first_base_key()
                ),
                format!(" LEFT JOIN {} b ON {}", self.table.base, self.base_is_arrived()),
            ),
        };
        format!(
            "{keys}, CASE WHEN {as_sent} THEN {leaf} ELSE 0 END AS origin, a.changed_at AS changed_at, \
             (SELECT nextval('{sequence}')) AS seq FROM {arrived} a{present}",
            leaf = self.leaf,
            sequence = self.table.sequence(),
            arrived = self.arrived(),
        )
    }

    /// Removes this transaction's entries of the rows that now have records.
    pub(in crate::dialect::postgres) fn drop_entries_undisputed(&self, written: Written) -> String {
        let (log, tick) = (self.table.log(), self.own_tick);
        match written {
            Written::AsSent => format!("DELETE FROM {log} WHERE tick = {tick}"),
            Written::Perhaps => joined(
                [
                    "SET LOCAL enable_nestloop TO off",
                    &format!(
                        "DELETE FROM {log} x USING {} a WHERE {} AND x.tick = {tick}",
                        self.arrived(),
                        self.ours_is_arrived("x")
                    ),
                    "SET LOCAL enable_nestloop TO DEFAULT",
                ],
                "; ",
            ),
        }
    }
}

/// The condition that holds; none where it would take no row away, as the planner believes that it always does.
fn of_kind(kinds: &[(bool, &str)]) -> String {
    kinds.iter().find(|(holds, _)| *holds).map(|(_, kind)| format!(" AND {kind}")).unwrap_or_default()
}
