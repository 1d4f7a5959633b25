//! What a session did: all numbers exact, of this run.

use std::time::Duration;

use serde::Serialize;

use crate::exit::Exit;
use crate::output::{bytes, count, duration};

/// Rows and batches that moved in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Moved {
    /// Rows inserted or updated at the destination.
    pub(crate) upserts: u64,
    /// Rows deleted there.
    pub(crate) deletes: u64,
    /// Batches.
    pub(crate) batches: u64,
    /// Stored batch bytes moved in this run.
    pub(crate) bytes: u64,
}

impl Moved {
    const fn rows(self) -> u64 {
        self.upserts + self.deletes
    }
}

/// The answer of `syncline sync --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SyncReport {
    /// The scope.
    pub(crate) scope: String,
    /// The session; none if the poll was enough.
    pub(crate) session_id: Option<String>,
    /// Whether it was broken off before.
    pub(crate) resumed: bool,
    /// What the hub accepted.
    pub(crate) uploaded: Moved,
    /// What was applied here.
    pub(crate) downloaded: Moved,
    /// Bytes that needn't be moved again.
    pub(crate) resumed_bytes: u64,
    /// Conflicts found at either end.
    pub(crate) conflicts: u64,
    /// Rows that could not be applied at either end.
    pub(crate) row_errors: u64,
    /// Whether nothing had to move.
    pub(crate) up_to_date: bool,
    /// How long it took.
    pub(crate) elapsed_ms: u64,
}

impl SyncReport {
    /// The exit status of a run that ended so.
    pub(crate) const fn exit(&self) -> Exit {
        if self.row_errors > 0 { Exit::LeftBehind } else { Exit::Done }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let elapsed = duration(Duration::from_millis(self.elapsed_ms));
        if self.up_to_date {
            return format!("{}: nothing new ({elapsed})", self.scope);
        }
        let mut text = format!(
            "{}: {}, {} ({elapsed})",
            self.scope,
            moved("uploaded", self.uploaded),
            moved("downloaded", self.downloaded),
        );
        if self.resumed {
            text.push_str(&format!("\n  resumed: {} were here already", bytes(self.resumed_bytes)));
        }
        if self.conflicts > 0 {
            text.push_str(&format!(
                "\n  conflicts settled: {}; `syncline conflicts list` shows those found here",
                count(self.conflicts)
            ));
        }
        if self.row_errors > 0 {
            text.push_str(&format!(
                "\n  rows that could not be applied: {}; they are kept and sent again",
                count(self.row_errors)
            ));
        }
        text
    }
}

fn moved(done: &str, moved: Moved) -> String {
    if moved.rows() == 0 {
        return format!("{done} nothing");
    }
    let mut rows = vec![format!("{} rows", count(moved.upserts))];
    if moved.deletes > 0 {
        rows.push(format!("{} deletes", count(moved.deletes)));
    }
    format!("{done} {} ({})", rows.join(" and "), bytes(moved.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> SyncReport {
        SyncReport {
            scope: "shop".into(),
            session_id: Some("s".into()),
            resumed: false,
            uploaded: Moved { upserts: 3, deletes: 1, batches: 1, bytes: 812 },
            downloaded: Moved { upserts: 15_607, deletes: 0, batches: 2, bytes: 281_032 },
            resumed_bytes: 0,
            conflicts: 0,
            row_errors: 0,
            up_to_date: false,
            elapsed_ms: 412,
        }
    }

    #[test]
    fn the_document_is_exactly_the_documented_one() {
        assert_eq!(
            serde_json::to_string(&report()).unwrap_or_default(),
            r#"{"scope":"shop","session_id":"s","resumed":false,"uploaded":{"upserts":3,"deletes":1,"batches":1,"bytes":812},"downloaded":{"upserts":15607,"deletes":0,"batches":2,"bytes":281032},"resumed_bytes":0,"conflicts":0,"row_errors":0,"up_to_date":false,"elapsed_ms":412}"#
        );
    }

    #[test]
    fn people_read_a_sentence() {
        assert_eq!(
            report().text(),
            "shop: uploaded 3 rows and 1 deletes (812 B), downloaded 15,607 rows (274.4 KiB) (412 ms)"
        );
        let quiet = SyncReport { up_to_date: true, session_id: None, ..report() };
        assert_eq!(quiet.text(), "shop: nothing new (412 ms)");
    }

    #[test]
    fn rows_that_are_left_behind_make_status_3_and_settled_conflicts_do_not() {
        assert_eq!(SyncReport { conflicts: 2, ..report() }.exit(), Exit::Done);
        assert_eq!(SyncReport { row_errors: 1, ..report() }.exit(), Exit::LeftBehind);
    }
}
