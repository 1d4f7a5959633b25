//! References and unique values that must wait for other rows, and comparisons of whole tables.

use crate::dialect::postgres::leaf::tables::LeafTable;
use crate::dialect::postgres::statements::{joined, list, quote};
use crate::dialect::postgres::types::staged_as;

const TO_WRITE: &str = "(s.verdict IS NULL OR s.verdict = 'w')";

/// A foreign key of a local table, over columns that the scope carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dialect::postgres::leaf) struct Reference {
    /// The referring columns, as places.
    pub(in crate::dialect::postgres::leaf) places: Vec<usize>,
    /// The quoted name of the table referred to.
    pub(in crate::dialect::postgres::leaf) parent: String,
    /// The columns referred to, quoted.
    pub(in crate::dialect::postgres::leaf) columns: Vec<String>,
    /// The table referred to among the scope's tables, and its columns as places, if it is one of them.
    pub(in crate::dialect::postgres::leaf) in_scope: Option<(usize, Vec<usize>)>,
}

impl LeafTable {
    /// Whether a staged row refers to nothing that is there, nor comes in the same set.
    pub(in crate::dialect::postgres::leaf) fn lacks_parent(&self, references: &[Reference]) -> String {
        let all = references.iter().map(|reference| {
            let set = joined(reference.places.iter().map(|at| format!("s.c{at} IS NOT NULL")), " AND ");
            let pairs = reference.places.iter().zip(&reference.columns);
            let there =
                joined(pairs.map(|(at, column)| format!("r.{column} = {}", self.staged("s", *at))), " AND ");
            let own = match &reference.in_scope {
                Some((_, places)) if reference.parent == self.tracked.base => {
                    let pairs = reference.places.iter().zip(places);
                    let equal = joined(pairs.map(|(from, to)| format!("o.c{to} = s.c{from}")), " AND ");
                    let to_write = TO_WRITE.replace("s.", "o.");
                    format!(" AND NOT EXISTS (SELECT FROM {} o WHERE {equal} AND {to_write})", self.stage())
                }
                _ => String::new(),
            };
            format!("({set} AND NOT EXISTS (SELECT FROM {} r WHERE {there}){own})", reference.parent)
        });
        let condition = joined(all, " OR ");
        if condition.is_empty() { "false".to_owned() } else { condition }
    }

    /// The unique constraints over carried columns, as places.
    fn unique_places(&self) -> Vec<Vec<usize>> {
        let catalog = &self.tracked.catalog;
        let place = |number: &i16| self.tracked.columns.iter().position(|column| column.number == *number);
        catalog.unique.iter().filter_map(|numbers| numbers.iter().map(place).collect()).collect()
    }

    /// Whether a unique value of a staged row is held by another row.
    pub(in crate::dialect::postgres::leaf) fn unique_is_taken(&self) -> String {
        let all = self.unique_places().into_iter().map(|places| {
            format!(
                "EXISTS (SELECT FROM {} t WHERE {} AND NOT ({}))",
                self.tracked.base,
                joined(places.iter().map(|at| self.column_is_staged("t", *at)), " AND "),
                self.base_is_staged("t", "s")
            )
        });
        let condition = joined(all, " OR ");
        if condition.is_empty() { "false".to_owned() } else { condition }
    }

    fn column_is_staged(&self, base: &str, place: usize) -> String {
        format!("{base}.{} = {}", self.tracked.columns[place].quoted, self.staged("s", place))
    }

    /// Rows of the base table that hold a unique value which a staged row of another key wants, and that are staged
    /// themselves: they give it up for a moment. Values become NULL where that is allowed and no row follows
    /// them; else the row goes, and is inserted again, where nothing refers to it with an action.
    pub(in crate::dialect::postgres::leaf) fn park(&self) -> Vec<String> {
        let mut all = Vec::new();
        for places in self.unique_places() {
            let wanted = format!(
                "EXISTS (SELECT FROM {stage} s WHERE {TO_WRITE} AND {} AND NOT ({own})) \
                 AND EXISTS (SELECT FROM {stage} s WHERE {TO_WRITE} AND {own})",
                joined(places.iter().map(|at| self.column_is_staged("t", *at)), " AND "),
                stage = self.stage(),
                own = self.base_is_staged("t", "s"),
            );
            let nullable = places
                .iter()
                .find(|at| self.tracked.columns[**at].nullable && self.tracked.may_be_parked(**at));
            match nullable {
                Some(at) => all.push(format!(
                    "UPDATE {} t SET {} = NULL WHERE {wanted}",
                    self.tracked.base, self.tracked.columns[*at].quoted
                )),
                None if !self.tracked.catalog.referenced_with_action && self.carries_all() => {
                    all.push(format!("DELETE FROM {} t WHERE {wanted}", self.tracked.base));
                }
                None => {}
            }
        }
        all
    }

    /// Rows that wait to be removed, and hold a unique value that a staged row of a new key wants: they take that key, and
    /// with it they are the other row. So nothing that refers to the value is without it for a moment. Not those with a
    /// local change; and not where other rows follow the key.
    pub(in crate::dialect::postgres::leaf) fn rename(&self) -> Vec<String> {
        if !self.tracked.key.iter().all(|at| self.tracked.is_unfollowed(*at)) {
            return Vec::new();
        }
        let keys = self.tracked.key.iter();
        let set =
            list(keys.map(|at| format!("{} = {}", self.tracked.columns[*at].quoted, self.staged("s", *at))));
        let clean = if self.tracks() { format!(" AND NOT {}", self.is_dirty("t")) } else { String::new() };
        let wanted = |places: Vec<usize>| {
            format!(
                "UPDATE {base} t SET {set} FROM {gone} o, {stage} s WHERE {is_gone} AND {TO_WRITE} AND {same} \
                 AND NOT EXISTS (SELECT FROM {base} r WHERE {is_there}){clean}",
                base = self.tracked.base,
                gone = self.late(true),
                stage = self.stage(),
                is_gone = self.base_is_staged("t", "o"),
                same = joined(places.iter().map(|at| self.column_is_staged("t", *at)), " AND "),
                is_there = self.base_is_staged("r", "s"),
            )
        };
        self.unique_places().into_iter().map(wanted).collect()
    }

    /// Whether a staged row is not there yet.
    pub(in crate::dialect::postgres::leaf) fn is_absent(&self) -> String {
        format!("NOT EXISTS (SELECT FROM {} r WHERE {})", self.tracked.base, self.base_is_staged("r", "s"))
    }

    /// Whether a row that is deleted and inserted again loses nothing.
    fn carries_all(&self) -> bool {
        let carried = |number: i16| self.tracked.columns.iter().any(|column| column.number == number);
        self.tracked.catalog.columns.iter().all(|column| column.generated || carried(column.number))
    }

    /// Sets nullable references of rows that are to be deleted to NULL: two that refer to each other can go then.
    pub(in crate::dialect::postgres::leaf) fn loosen(&self, references: &[Reference]) -> Vec<String> {
        let within = references.iter().filter(|reference| reference.in_scope.is_some());
        let nullable = |reference: &Reference| {
            let places = reference.places.iter().copied();
            places
                .filter(|at| self.tracked.columns[*at].nullable && !self.tracked.is_key(*at))
                .map(|at| self.tracked.columns[at].quoted.clone())
                .collect::<Vec<_>>()
        };
        let sets = within.map(nullable).filter(|columns| !columns.is_empty());
        sets.map(|columns| {
            format!(
                "UPDATE {} t SET {} FROM {} s WHERE {} AND {TO_WRITE}",
                self.tracked.base,
                list(columns.iter().map(|column| format!("{column} = NULL"))),
                self.stage(),
                self.base_is_staged("t", "s")
            )
        })
        .collect()
    }

    /// The keys that a comparison of the whole table has seen. Where a download is applied batch by batch they outlive
    /// the transaction and the program.
    pub(in crate::dialect::postgres::leaf) fn seen(&self, lasting: bool) -> String {
        let schema = if lasting { "syncline" } else { "pg_temp" };
        format!("{schema}.seen_{}", self.tracked.id)
    }

    /// Makes it.
    pub(in crate::dialect::postgres::leaf) fn create_seen(&self, lasting: bool) -> String {
        let columns = self.tracked.key.iter();
        let columns =
            list(columns.map(|at| format!("c{at} {}", staged_as(self.tracked.columns[*at].ty.canonical))));
        let temporary = if lasting { "" } else { "TEMP " };
        format!("CREATE {temporary}TABLE IF NOT EXISTS {} ({columns})", self.seen(lasting))
    }

    /// Adds the staged keys.
    pub(in crate::dialect::postgres::leaf) fn note_seen(&self, lasting: bool) -> String {
        let keys = list(self.tracked.key.iter().map(|at| format!("c{at}")));
        format!("INSERT INTO {} ({keys}) SELECT {keys} FROM {}", self.seen(lasting), self.stage())
    }

    /// Stages the keys of clean rows that were not seen.
    pub(in crate::dialect::postgres::leaf) fn stage_unseen(&self, lasting: bool) -> String {
        let keys = list(self.tracked.key.iter().map(|at| format!("c{at}")));
        let cells = list(self.tracked.key.iter().map(|at| {
            let column = &self.tracked.columns[*at];
            format!("(t.{})::{}", column.quoted, staged_as(column.ty.canonical))
        }));
        let clean = if self.tracks() {
            format!(
                " AND NOT EXISTS (SELECT FROM {} l WHERE {}) AND NOT EXISTS (SELECT FROM {} d WHERE {})",
                self.tracked.log(),
                self.base_is("t", "l"),
                self.dirty(),
                self.base_is("t", "d")
            )
        } else {
            String::new()
        };
        format!(
            "INSERT INTO {} (ordinal, {keys}) SELECT row_number() OVER (), {cells} FROM {} t \
             WHERE NOT EXISTS (SELECT FROM {} s WHERE {}){clean}",
            self.stage(),
            self.tracked.base,
            self.seen(lasting),
            self.base_is_staged("t", "s")
        )
    }

    /// Whether a row of the stage is still referred to by a row of a child that does not go with it.
    pub(in crate::dialect::postgres::leaf) fn has_children(
        &self,
        children: &[(&LeafTable, &Reference)],
    ) -> String {
        let all = children.iter().map(|(child, reference)| {
            let Some((_, places)) = &reference.in_scope else { return "false".to_owned() };
            let pairs = reference.places.iter().zip(places);
            let refers = joined(
                pairs.map(|(from, to)| format!("{} = {}", quoted_of(child, *from), self.staged("s", *to))),
                " AND ",
            );
            let goes_too = if child.tracked.id == self.tracked.id {
                let to_write = TO_WRITE.replace("s.", "o.");
                format!(
                    " AND NOT EXISTS (SELECT FROM {} o WHERE {} AND {to_write})",
                    self.stage(),
                    self.base_is_staged("t", "o")
                )
            } else {
                String::new()
            };
            format!("EXISTS (SELECT FROM {} t WHERE {refers}{goes_too})", child.tracked.base)
        });
        let condition = joined(all, " OR ");
        if condition.is_empty() { "false".to_owned() } else { condition }
    }
}

fn quoted_of(table: &LeafTable, place: usize) -> String {
    let column = &table.tracked.columns[place];
    debug_assert_eq!(column.quoted, quote(&column.name));
    format!("t.{}", column.quoted)
}
