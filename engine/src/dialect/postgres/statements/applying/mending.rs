//! Rows that failed: unique values that are parked, references that are set later.

use super::{Applying, Write, status};
use crate::dialect::postgres::statements::list;
use crate::dialect::postgres::tracked::TrackedColumn;

impl Applying<'_> {
    /// Columns of unique constraints that may be NULL and that no row follows, and whether there are such constraints without any.
    fn unique_columns(&self) -> (Vec<usize>, bool) {
        let place = |number: &i16| self.table.columns.iter().position(|column| column.number == *number);
        let (mut nullable, mut without) = (Vec::new(), false);
        for constraint in &self.table.catalog.unique {
            let places: Vec<usize> = constraint.iter().filter_map(place).collect();
            let may_be_null =
                places.iter().find(|at| self.table.columns[**at].nullable && self.table.may_be_parked(**at));
            match may_be_null {
                Some(at) if !nullable.contains(at) => nullable.push(*at),
                Some(_) => {}
                None => without = true,
            }
        }
        (nullable, without)
    }

    /// Parks rows that failed over a unique value, so that swapped values find room: the value becomes NULL where that
    /// is allowed, else the row is deleted, to be inserted again; only where nothing refers to it with an action, and
    /// no column would be lost that is not carried.
    pub(in crate::dialect::postgres) fn park(&self) -> Vec<String> {
        let (nullable, without) = self.unique_columns();
        let failed = self.to_write(Write::Update, status::FAILED, 1, i64::MAX);
        let (base, arrived, held) = (&self.table.base, self.arrived(), self.held());
        let mut statements = Vec::new();
        let carried = self.table.catalog.columns.iter().filter(|column| !column.generated).count();
        if without && !self.table.catalog.referenced_with_action && carried == self.table.columns.len() {
            statements.push(format!(
                "DELETE FROM {base} b USING {arrived} a, {held} h WHERE {} AND {failed}",
                self.base_is_arrived()
            ));
            statements.push(self.look_again());
        } else if !nullable.is_empty() {
            let cells = list(nullable.iter().map(|at| format!("{} = NULL", self.table.columns[*at].quoted)));
            statements.push(format!(
                "UPDATE {base} b SET {cells} FROM {arrived} a, {held} h WHERE {} AND {failed}",
                self.base_is_arrived()
            ));
        }
        statements
    }

    /// Inserts rows that failed without their references, which are set by an update once all rows are there. `None`
    /// if no reference may be NULL.
    pub(in crate::dialect::postgres) fn insert_without_references(
        &self,
        first: i64,
        last: i64,
    ) -> Option<String> {
        let reference = |column: &TrackedColumn| {
            self.table.catalog.foreign_keys.iter().any(|key| key.columns.contains(&column.number))
        };
        let without = |at: usize, column: &TrackedColumn| {
            column.nullable && !column.identity_always && !self.table.is_key(at) && reference(column)
        };
        let all = || self.table.columns.iter().enumerate();
        if !all().any(|(at, column)| without(at, column)) {
            return None;
        }
        let columns = list(all().map(|(_, column)| &column.quoted));
        let cells = all()
            .map(|(at, column)| if without(at, column) { "NULL".to_owned() } else { format!("a.c{at}") });
        Some(format!(
            "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} a, {} h WHERE {} ORDER BY {}",
            self.table.base,
            list(cells),
            self.arrived(),
            self.held(),
            self.to_write(Write::Insert, status::FAILED, first, last),
            self.arrived_keys()
        ))
    }

    /// Notes which of the rows that failed are there by now.
    pub(in crate::dialect::postgres) fn look_again(&self) -> String {
        format!(
            "UPDATE {held} x SET there = EXISTS (SELECT FROM {base} b JOIN {arrived} a ON {base_is} WHERE a.n = x.n) \
             WHERE x.status = '{failed}'",
            held = self.held(),
            base = self.table.base,
            arrived = self.arrived(),
            base_is = self.base_is_arrived(),
            failed = status::FAILED,
        )
    }
}
