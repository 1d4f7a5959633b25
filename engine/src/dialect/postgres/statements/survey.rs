//! Whether there is anything to enumerate of tables, as one statement that is planned once.

use super::list;
use super::reading::base_is;
use super::tracking::key_names;
use crate::dialect::postgres::tracked::Tracked;
use crate::limits::SURVEY_ROWS_MAX;

/// There may be rows whose version is not known.
pub(in crate::dialect::postgres) const UPSERTS: i16 = 1;
/// There may be keys whose version is not known and whose row is gone.
pub(in crate::dialect::postgres) const DELETES: i16 = 2;

/// The number of replica $1, NULL if it has none; and by table [`UPSERTS`] and [`DELETES`], if records or entries with a
/// version in the ranges $2, $3, $4 (see [`Beyond`](super::glance::Beyond)) have a row or none.
///
/// The planner is to go by indexes whatever it believes of the tables' content, since it plans this once: the snapshot's
/// transaction begins so, and with this statement it ends, for what reads users' rows.
pub(in crate::dialect::postgres) fn survey(tables: &[&Tracked]) -> String {
    format!(
        "SELECT (SELECT r.number FROM syncline.replicas r WHERE r.replica = $1), ARRAY[{}]::smallint[], \
         pg_catalog.set_config('enable_seqscan', 'on', true)",
        list(tables.iter().map(|table| of_table(table)))
    )
}

fn of_table(table: &Tracked) -> String {
    let names = key_names(table.key.len());
    let of = |prefix: &str| list(names.iter().map(|name| format!("{prefix}.{name}")));
    let beyond = "unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS k (peer, first, last)";
    let enough = SURVEY_ROWS_MAX + 1;
    // The order leaves no other way than the index.
    let records = format!(
        "SELECT {y} FROM {beyond} CROSS JOIN LATERAL (SELECT {r} FROM {record} r \
         WHERE r.peer = k.peer AND r.tick BETWEEN k.first AND k.last ORDER BY r.peer, r.tick LIMIT {enough}) y",
        y = of("y"),
        r = of("r"),
        record = table.record(),
    );
    let entries = format!(
        "SELECT {l} FROM {log} l JOIN {beyond} ON k.peer = (SELECT s.number FROM syncline.state s) \
         AND l.tick BETWEEN k.first AND k.last",
        l = of("l"),
        log = table.log(),
    );
    format!(
        "(SELECT CASE WHEN count(*) > {SURVEY_ROWS_MAX} THEN {both} ELSE \
         CASE WHEN bool_or(z.there) THEN {UPSERTS} ELSE 0 END + CASE WHEN bool_or(NOT z.there) THEN {DELETES} ELSE 0 END \
         END FROM (SELECT (SELECT true FROM {base} b WHERE {is_there} LIMIT 1) IS NOT NULL AS there \
         FROM ({records} UNION ALL {entries} LIMIT {enough}) x) z)",
        both = UPSERTS | DELETES,
        base = table.base,
        is_there = base_is(table, "x"),
    )
}
