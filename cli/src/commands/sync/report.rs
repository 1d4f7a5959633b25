//! What a session did, for people; the JSON form is the client's own.

use std::time::Duration;

use syncline_client::{Moved, SyncReport};

use crate::exit::Exit;
use crate::output::{bytes, count, duration};

/// Row errors that are shown one by one.
const ROW_ERRORS_SHOWN_MAX: usize = 20;

/// The exit status of a run that ended so: conflicts that a policy settled are done, rows that are left behind are not.
pub(crate) const fn exit(report: &SyncReport) -> Exit {
    if report.row_errors > 0 { Exit::LeftBehind } else { Exit::Done }
}

/// For people; `batches_kept` are those that an earlier run had moved.
pub(crate) fn text(report: &SyncReport, batches_kept: u64) -> String {
    let elapsed = duration(Duration::from_millis(report.elapsed_ms));
    if report.up_to_date {
        return format!("{}: nothing new ({elapsed})", report.scope);
    }
    let uploaded = moved("uploaded", report.uploaded);
    let downloaded = moved("downloaded", report.downloaded);
    let mut text = format!("{}: {uploaded}, {downloaded} ({elapsed})", report.scope);
    if report.resumed && report.resumed_bytes > 0 {
        let kept = report.resumed_bytes;
        let percent = kept * 100 / (kept + report.uploaded.bytes + report.downloaded.bytes);
        let (batches, kept) = (count(batches_kept), bytes(kept));
        text.push_str(&format!(
            "\n  resumed at {percent} %, {batches} batches kept: {kept} did not have to move again"
        ));
    }
    if report.conflicts > 0 {
        let conflicts = count(report.conflicts);
        text.push_str(&format!("\n  conflicts settled: {conflicts}; both sides are in the conflict log"));
    }
    if report.row_errors > 0 {
        let row_errors = count(report.row_errors);
        text.push_str(&format!(
            "\n  rows that could not be applied: {row_errors}; they are kept and sent again"
        ));
        text.push_str(&row_error_lines(report));
    }
    text
}

fn row_error_lines(report: &SyncReport) -> String {
    let there = report.row_errors_at_hub.iter().map(|error| ("at the hub", error));
    let here = report.row_errors_here.iter().map(|error| ("here", error));
    there
        .chain(here)
        .take(ROW_ERRORS_SHOWN_MAX)
        .map(|(place, error)| {
            let reason = error.reason.as_str();
            format!("\n    {place}: {} {}: {reason}, {}", error.table_name, error.key_json, error.message)
        })
        .collect()
}

fn moved(done: &str, moved: Moved) -> String {
    if moved.upserts + moved.deletes == 0 {
        return format!("{done} nothing");
    }
    let counted = |number: u64, one: &str, more: &str| match number {
        1 => format!("1 {one}"),
        number => format!("{} {more}", count(number)),
    };
    let mut rows = Vec::new();
    if moved.upserts > 0 {
        rows.push(counted(moved.upserts, "row", "rows"));
    }
    if moved.deletes > 0 {
        rows.push(counted(moved.deletes, "delete", "deletes"));
    }
    format!("{done} {} ({})", rows.join(" and "), bytes(moved.bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn report() -> SyncReport {
        SyncReport {
            scope: "shop".parse().unwrap(),
            session_id: None,
            resumed: false,
            uploaded: Moved { upserts: 3, deletes: 1, batches: 1, bytes: 812 },
            downloaded: Moved { upserts: 15_607, deletes: 0, batches: 2, bytes: 281_032 },
            resumed_bytes: 0,
            conflicts: 0,
            row_errors: 0,
            up_to_date: false,
            elapsed_ms: 412,
            conflicts_at_hub: Vec::new(),
            row_errors_at_hub: Vec::new(),
            row_errors_here: Vec::new(),
        }
    }

    #[test]
    fn the_document_is_exactly_the_documented_one() {
        assert_eq!(
            serde_json::to_string(&report()).unwrap(),
            r#"{"scope":"shop","session_id":null,"resumed":false,"uploaded":{"upserts":3,"deletes":1,"batches":1,"bytes":812},"downloaded":{"upserts":15607,"deletes":0,"batches":2,"bytes":281032},"resumed_bytes":0,"conflicts":0,"row_errors":0,"up_to_date":false,"elapsed_ms":412}"#
        );
    }

    #[test]
    fn people_read_a_sentence() {
        assert_eq!(
            text(&report(), 0),
            "shop: uploaded 3 rows and 1 delete (812 B), downloaded 15,607 rows (274.4 KiB) (412 ms)"
        );
        assert_eq!(text(&SyncReport { up_to_date: true, ..report() }, 0), "shop: nothing new (412 ms)");
        let resumed = SyncReport { resumed: true, resumed_bytes: 441_130, ..report() };
        let shown = text(&resumed, 7);
        assert!(
            shown.ends_with("\n  resumed at 61 %, 7 batches kept: 430.8 KiB did not have to move again"),
            "{shown}"
        );
    }

    #[test]
    fn rows_that_are_left_behind_make_status_3_and_settled_conflicts_do_not() {
        assert_eq!(exit(&SyncReport { conflicts: 2, ..report() }), Exit::Done);
        assert_eq!(exit(&SyncReport { row_errors: 1, ..report() }), Exit::LeftBehind);
    }
}
