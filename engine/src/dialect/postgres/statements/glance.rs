//! One cheap read that says whether anything lies beyond a floor, and whether what is known of a scope still holds.

use syncline::ids::TableId;
use syncline::knowledge::Knowledge;

use super::list;
use super::reading::is_log_long;
use crate::dialect::postgres::snapshot::Replicas;
use crate::limits;

const TRACKING_STAMP: &str = include_str!("../sql/tracking_stamp.sql");
const FORM_STAMP: &str = include_str!("../sql/form_stamp.sql");

/// The replicas that records may name, as text, with our own number.
const REPLICAS_STAMP: &str = "(SELECT pg_catalog.string_agg(r::text, ' ' ORDER BY r.number) FROM syncline.replicas r \
     WHERE r.kind <> 1) || ' ' || (SELECT s.number FROM syncline.state s)";

/// What a document is told from others by.
const DIGEST: &str = "(SELECT pg_catalog.sha256(pg_catalog.convert_to(s.document, 'UTF8')) FROM syncline.scopes s WHERE s.name = $1)";

/// When a server process `a` began, in microseconds since 1970.
macro_rules! began {
    () => {
        "(EXTRACT(epoch FROM a.backend_start) * 1000000)::bigint"
    };
}

/// Answers a row if the server process $1, which began at $2, is still there. When a server fails, all of them end.
pub(in crate::dialect::postgres) const STILL_THERE: &str = concat!(
    "SELECT 1::bigint FROM pg_catalog.pg_stat_get_activity($1::integer) a WHERE ",
    began!(),
    " IS NOT DISTINCT FROM $2"
);

/// What of these replicas a floor lacks: three arrays of the same length, a range of ticks each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::dialect::postgres) struct Beyond {
    pub(in crate::dialect::postgres) peers: Vec<i64>,
    pub(in crate::dialect::postgres) first: Vec<i64>,
    pub(in crate::dialect::postgres) last: Vec<i64>,
}

impl Beyond {
    /// Of every replica that may stand in records: the ticks above its clock, and those that it misses.
    pub(in crate::dialect::postgres) fn of(floor: &Knowledge, replicas: &Replicas) -> Self {
        let mut beyond = Self::default();
        for (number, (id, _)) in &replicas.peers {
            let clock = floor.clock(*id);
            beyond.add(
                *number,
                clock.map_or(i64::MIN, |clock| ordinal(clock.tick().0).saturating_add(1)),
                i64::MAX,
            );
            for (first, last) in clock.into_iter().flat_map(|clock| clock.missing().iter()) {
                beyond.add(*number, ordinal(first.0), ordinal(last.0));
            }
        }
        beyond
    }

    fn add(&mut self, peer: i64, first: i64, last: i64) {
        self.peers.push(peer);
        self.first.push(first);
        self.last.push(last);
    }
}

/// Transaction ids have 64 bits, and never reach the sign.
fn ordinal(tick: u64) -> i64 {
    i64::try_from(tick).unwrap_or(i64::MAX)
}

/// What the next statement's answer is compared with: the digest of the document of scope $1, the replicas, and the
/// state of the tables $2.
pub(in crate::dialect::postgres) fn stamps() -> String {
    format!("SELECT {DIGEST}, {REPLICAS_STAMP}, ({TRACKING_STAMP})")
}

/// What a snapshot of a scope finds, in one statement: the snapshot as text, what tells whether all that was read before
/// still holds (the digest of the document of scope $1, the replicas, the state and the form of the tables $2, their
/// newest truncations), whether each of the tables is empty, whether a log is long, and the connection's server process:
/// its id, and when it began, in microseconds since 1970.
pub(in crate::dialect::postgres) fn opening(tables: &[(TableId, String)]) -> String {
    let truncations = list(tables.iter().map(|(id, _)| {
        format!(
            "(SELECT t::text FROM syncline.truncations t WHERE t.table_id = {id} ORDER BY t.seq DESC LIMIT 1)"
        )
    }));
    let empty = list(tables.iter().map(|(_, base)| format!("NOT EXISTS (SELECT FROM {base})")));
    let long = tables.iter().map(|(id, _)| is_log_long(*id, limits::LOG_ENTRIES_READ_MAX));
    let long = long.fold("false".to_owned(), |all, one| format!("{all} OR {one}"));
    let began = began!();
    format!(
        "SELECT pg_catalog.pg_current_snapshot()::text, ARRAY[{DIGEST}::text, {REPLICAS_STAMP}, ({TRACKING_STAMP}), \
         ({FORM_STAMP}), pg_catalog.array_to_string(ARRAY[{truncations}]::text[], ' ')], ARRAY[{empty}]::boolean[], {long}, \
         pg_catalog.pg_backend_pid()::bigint, (SELECT {began} FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a)"
    )
}

/// The snapshot, the three stamps, and whether entries, records or truncations of these tables lie in the ranges
/// $3, $4, $5. One statement, so one snapshot.
///
/// The order in the records' part leaves the planner no other way than the index: what it believes of the table's
/// content does not matter. A log is read to its end, and is short: folds empty it.
pub(in crate::dialect::postgres) fn glance(tables: &[TableId]) -> String {
    let beyond = "unnest($3::bigint[], $4::bigint[], $5::bigint[]) AS k (peer, first, last)";
    let own = "(SELECT s.number FROM syncline.state s)";
    let mut found = vec![format!(
        "EXISTS (SELECT FROM syncline.truncations t JOIN {beyond} ON k.peer = COALESCE(t.peer, {own}) \
         AND t.tick BETWEEN k.first AND k.last)"
    )];
    for id in tables {
        found.push(format!(
            "EXISTS (SELECT FROM {beyond} CROSS JOIN LATERAL (SELECT r.tick FROM syncline.record_{id} r \
             WHERE r.peer = k.peer AND r.tick BETWEEN k.first AND k.last ORDER BY r.peer, r.tick LIMIT 1) x)"
        ));
        found.push(format!(
            "EXISTS (SELECT FROM syncline.log_{id} l JOIN {beyond} ON k.peer = {own} \
             AND l.tick BETWEEN k.first AND k.last)"
        ));
    }
    format!(
        "SELECT pg_catalog.pg_current_snapshot()::text, {DIGEST}, {REPLICAS_STAMP}, ({TRACKING_STAMP}), {}",
        found.join(" OR ")
    )
}
