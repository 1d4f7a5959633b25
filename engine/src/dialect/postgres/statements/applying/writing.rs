//! Writing rows, and whether that can still be done as it was judged.

use super::{Applying, Write, status};
use crate::dialect::postgres::statements::list;
use crate::dialect::postgres::statements::sequence::advance;

impl Applying<'_> {
    /// Rows that are to be written and their range: `a` and `h` joined.
    pub(super) fn to_write(&self, what: Write, status: &str, first: i64, last: i64) -> String {
        let kind = match what {
            Write::Update => "h.there AND NOT a.removes",
            Write::Insert => "NOT h.there AND NOT a.removes",
            Write::Delete => "a.removes",
        };
        format!("h.n = a.n AND h.status = '{status}' AND {kind} AND a.n BETWEEN {first} AND {last}")
    }

    /// Writes rows `first..=last` that have this status. `None` if there is nothing that it could change.
    pub(in crate::dialect::postgres) fn write(
        &self,
        what: Write,
        status: &str,
        first: i64,
        last: i64,
    ) -> Option<String> {
        let (base, arrived, held) = (&self.table.base, self.arrived(), self.held());
        let to_write = self.to_write(what, status, first, last);
        Some(match what {
            Write::Update => {
                let updated = self.updated();
                if updated.is_empty() {
                    return None;
                }
                let cells = list(updated.iter().map(|(at, column)| format!("{} = a.c{at}", column.quoted)));
                format!(
                    "UPDATE {base} b SET {cells} FROM {arrived} a, {held} h WHERE {} AND {to_write}",
                    self.base_is_arrived()
                )
            }
            Write::Insert => {
                let columns = list(self.table.columns.iter().map(|column| &column.quoted));
                let cells = list((0..self.table.columns.len()).map(|at| format!("a.c{at}")));
                format!(
                    "INSERT INTO {base} ({columns}) OVERRIDING SYSTEM VALUE SELECT {cells} FROM {arrived} a, {held} h \
                     WHERE {to_write} ORDER BY {}",
                    self.arrived_keys()
                )
            }
            Write::Delete => format!(
                "DELETE FROM {base} b USING {arrived} a, {held} h WHERE {} AND {to_write}",
                self.base_is_arrived()
            ),
        })
    }

    /// Whether the row is there by now that was absent when it was judged.
    pub(in crate::dialect::postgres) fn is_there(&self, n: i64) -> String {
        format!(
            "SELECT EXISTS (SELECT FROM {} b JOIN {} a ON {} WHERE a.n = {n})",
            self.table.base,
            self.arrived(),
            self.base_is_arrived()
        )
    }

    /// Whether a row that was inserted has another version than when it was judged: somebody inserted and deleted the
    /// key meanwhile.
    pub(in crate::dialect::postgres) fn judged_by_another_version(&self) -> String {
        let [peer, tick, ..] = self.version_columns();
        // No base row stood there when it was judged, so none counts here either.
        format!(
            "SELECT EXISTS (SELECT FROM {held} h JOIN {arrived} a ON a.n = h.n \
             LEFT JOIN {base} b ON false {joins} \
             WHERE h.status = '{write}' AND NOT h.present AND NOT a.removes \
             AND (h.peer, h.tick) IS DISTINCT FROM ({peer}, {tick}))",
            held = self.held(),
            arrived = self.arrived(),
            base = self.table.base,
            joins = self.version_joins(),
            write = status::WRITE,
        )
    }

    /// Moves the sequences of identity and serial columns past what came in.
    pub(in crate::dialect::postgres) fn advance_sequences(&self) -> Vec<String> {
        let with_sequence = self.table.columns.iter().enumerate();
        with_sequence
            .filter_map(|(at, column)| Some((at, column.sequence.as_ref()?)))
            .map(|(at, sequence)| {
                let values = format!("SELECT a.c{at} AS value FROM {} a WHERE NOT a.removes", self.arrived());
                advance(sequence, &values)
            })
            .collect()
    }
}
