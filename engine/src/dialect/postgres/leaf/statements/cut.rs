//! References that are cut: written as NULL first, and whole once the rows they lead to are there.

use super::knots::Reference;
use crate::dialect::postgres::leaf::tables::LeafTable;
use crate::dialect::postgres::statements::{joined, list};

/// A row that can be written as a whole only.
const ONLY_WHOLE: u8 = 1;
/// A row that could not be written whole once it had been cut: to refer to it is no reason to be cut.
const IN_VAIN: u8 = 2;

impl LeafTable {
    /// References of staged rows that may be NULL and lead to a row that waits itself: the places to be NULL, and of
    /// which rows.
    pub(in crate::dialect::postgres::leaf) fn cut_references(
        &self,
        references: &[Reference],
        tables: &[LeafTable],
    ) -> Vec<(Vec<usize>, String)> {
        let mut all = Vec::new();
        for reference in references {
            let Some((parent, columns)) = &reference.in_scope else { continue };
            let nullable: Vec<usize> = reference
                .places
                .iter()
                .copied()
                .filter(|at| self.tracked.columns[*at].nullable && !self.tracked.is_key(*at))
                .collect();
            if nullable.is_empty() {
                continue;
            }
            let pairs = reference.places.iter().zip(columns);
            let equal = joined(pairs.map(|(from, to)| format!("o.c{to} = s.c{from}")), " AND ");
            let pairs = reference.places.iter().zip(&reference.columns);
            let there =
                joined(pairs.map(|(at, column)| format!("r.{column} = {}", self.staged("s", *at))), " AND ");
            let condition = format!(
                "EXISTS (SELECT FROM {} o WHERE {equal} AND o.cutting <> {IN_VAIN}) \
                 AND NOT EXISTS (SELECT FROM {} r WHERE {there})",
                tables[*parent].late(false),
                reference.parent
            );
            all.push((nullable, condition));
        }
        all
    }

    /// Any row may be cut again.
    pub(in crate::dialect::postgres::leaf) fn may_be_cut(&self) -> String {
        format!("UPDATE {} SET cutting = 0 WHERE cutting <> 0", self.late(false))
    }

    /// Rows that wait, by their ordinals (one parameter, an array), are not to be cut.
    pub(in crate::dialect::postgres::leaf) fn not_to_be_cut(&self, in_vain: bool) -> String {
        let cutting = if in_vain { IN_VAIN } else { ONLY_WHOLE };
        format!("UPDATE {} SET cutting = {cutting} WHERE ordinal = ANY($1)", self.late(false))
    }

    /// Moves the rows that wait, and may be cut, into the stage.
    pub(in crate::dialect::postgres::leaf) fn recall_to_cut(&self) -> Vec<String> {
        let cells = list(self.cells());
        vec![
            self.clear_stage(),
            format!(
                "WITH moved AS (DELETE FROM {} WHERE cutting = 0 RETURNING *) \
                 INSERT INTO {} (ordinal, changed_at, reason, message, {cells}) \
                 SELECT ordinal, changed_at, reason, message, {cells} FROM moved",
                self.late(false),
                self.stage()
            ),
        ]
    }

    /// Rows whose references are cut, whole.
    fn cut(&self) -> String {
        format!("pg_temp.cut_{}", self.tracked.id)
    }

    /// Keeps the staged rows whose references are to be cut, and cuts them.
    pub(in crate::dialect::postgres::leaf) fn keep_cut(
        &self,
        conditions: &[(Vec<usize>, String)],
    ) -> Vec<String> {
        let any = joined(conditions.iter().map(|(_, condition)| format!("({condition})")), " OR ");
        let mut all = vec![
            format!("CREATE TEMP TABLE IF NOT EXISTS cut_{} (LIKE {})", self.tracked.id, self.stage()),
            format!("INSERT INTO {} SELECT s.* FROM {} s WHERE {any}", self.cut(), self.stage()),
        ];
        for (places, condition) in conditions {
            let set = list(places.iter().map(|at| format!("c{at} = NULL")));
            all.push(format!("UPDATE {} s SET {set} WHERE {condition}", self.stage()));
        }
        all
    }

    /// Moves the rows that were cut into the stage, whole; what waits of them with its references cut waits no more.
    pub(in crate::dialect::postgres::leaf) fn recall_cut(&self) -> Vec<String> {
        vec![
            self.clear_stage(),
            format!("INSERT INTO {} SELECT * FROM {}", self.stage(), self.cut()),
            format!("UPDATE {} SET verdict = NULL, seen_seq = NULL", self.stage()),
            format!("TRUNCATE {}", self.cut()),
            self.supersede_late(false),
        ]
    }

    /// The ordinals of staged rows that are in error, or (`whole`) wait again: at most `limit`.
    pub(in crate::dialect::postgres::leaf) fn left_over(&self, whole: bool, limit: usize) -> String {
        let verdicts = if whole { "'e', 'p'" } else { "'e'" };
        format!("SELECT s.ordinal FROM {} s WHERE s.verdict IN ({verdicts}) LIMIT {limit}", self.stage())
    }
}
