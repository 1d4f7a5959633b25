//! Reading versions: folds, enumeration, probes.
//!
//! A row's version is whichever of its visible log entries and its record has the greatest `seq`: every statement here
//! reads both at once, so that a fold in between hides nothing.

use syncline::ids::TableId;
use syncline::knowledge::Clock;

use super::tracking::key_names;
use super::{joined, list};
use crate::dialect::postgres::BEGIN_READING;
use crate::dialect::postgres::provision::ADVISORY_CLASS;
use crate::dialect::postgres::tracked::Tracked;
use crate::limits;

/// What one of the replicas that may stand in records is known by.
#[derive(Debug, Clone)]
pub(in crate::dialect::postgres) struct KnownPeer {
    /// Its number.
    pub(in crate::dialect::postgres) number: i64,
    /// What is known of it; `None` for nothing.
    pub(in crate::dialect::postgres) clock: Option<Clock>,
}

/// Missing ranges that are asked for one by one, each an index scan.
const RANGES_MAX: usize = 64;

/// Whether the database's present number is `peer`.
const OWN_NUMBER: &str = "(SELECT number FROM syncline.state)";

/// The newest truncation of the whole table: entries and records with a smaller `seq` no longer count.
pub(in crate::dialect::postgres) fn truncated(id: TableId) -> String {
    format!("COALESCE((SELECT max(seq) FROM syncline.truncations WHERE table_id = {id} AND whole), 0)")
}

/// The newest truncation of the table or of one of its partitions.
pub(in crate::dialect::postgres) fn newest_truncation(id: TableId) -> String {
    format!(
        "SELECT seq, peer, tick, changed_at FROM syncline.truncations WHERE table_id = {id} ORDER BY seq DESC LIMIT 1"
    )
}

/// `left.k1 = right.k1 AND ...`
fn keys_equal(names: &[String], left: &str, right: &str) -> String {
    joined(names.iter().map(|name| format!("{left}.{name} = {right}.{name}")), " AND ")
}

/// The newest of each key's entries in `source`, a relation of log entries: its seq and tick, how many there are, and
/// the time that a fold would give it were there no record: each entry's is at least one more than the one before.
pub(in crate::dialect::postgres) fn newest_of(source: &str, names: &[String]) -> String {
    let keys = list(names);
    // The windows share one sort; over the last of a key's entries they span all of them.
    format!(
        "SELECT {keys}, seq, tick, top + place AS changed_at, place AS entries \
         FROM (SELECT *, max(changed_at - place) OVER entries AS top, lead(1) OVER entries AS later \
         FROM (SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY seq) AS place FROM {source}) placed \
         WINDOW entries AS (PARTITION BY {keys} ORDER BY seq)) counted WHERE later IS NULL"
    )
}

/// Empties the log into the records. One statement: it takes a key's visible entries whole. What it deletes and what it
/// reads are the same entries, since both are those of its snapshot, and nobody else deletes any that it sees: folders
/// take turns, and an upload removes only its own entries, before they are committed.
///
/// Most keys have a single entry, which is found by grouping; the windows that number entries, for three times as much, are
/// for the others. Records that are there are updated, which costs less than an upsert; what was not updated, for
/// whatever reason, goes the careful way: there is no record, or it was removed meanwhile, or it is newer. Mostly the
/// counts say that nothing was left over: to look for it would cost a tenth of the whole and more.
pub(in crate::dialect::postgres) fn fold(id: TableId, key_count: usize) -> String {
    let names = key_names(key_count);
    let keys = list(&names);
    let counted = format!("SELECT * FROM syncline.log_{id} WHERE seq > {}", truncated(id));
    let repeated = format!(
        "(SELECT * FROM ({counted}) counted WHERE ({keys}) IN (SELECT {keys} FROM grouped WHERE entries > 1)) repeated"
    );
    let own = |prefix: &str| list(names.iter().map(|name| format!("{prefix}.{name}")));
    format!(
        "WITH gone AS (DELETE FROM syncline.log_{id}), \
         grouped AS MATERIALIZED (SELECT {keys}, max(seq) AS seq, max(tick) AS tick, max(changed_at) AS changed_at, \
         count(*) AS entries FROM ({counted}) counted GROUP BY {keys} ORDER BY {keys}), \
         newest AS NOT MATERIALIZED (SELECT {keys}, seq, tick, changed_at, entries FROM grouped WHERE entries = 1 \
         UNION ALL {newest_repeated}), \
         there AS (UPDATE syncline.record_{id} AS r SET peer = {OWN_NUMBER}, tick = n.tick, via = 0, origin = 0, \
         changed_at = greatest(n.changed_at, r.changed_at + n.entries), seq = n.seq, resolved = false \
         FROM newest n WHERE {found} AND r.seq < n.seq RETURNING n.seq) \
         INSERT INTO syncline.record_{id} AS r ({keys}, peer, tick, via, origin, changed_at, seq, resolved) \
         SELECT {n}, {OWN_NUMBER}, n.tick, 0, 0, n.changed_at, n.seq, false \
         FROM newest n WHERE (SELECT count(*) FROM there) < (SELECT count(*) FROM grouped) \
         AND NOT EXISTS (SELECT FROM there t WHERE t.seq = n.seq) ORDER BY {n} \
         ON CONFLICT ({keys}) DO UPDATE SET peer = excluded.peer, tick = excluded.tick, via = 0, origin = 0, \
         changed_at = greatest(excluded.changed_at, r.changed_at + 1), seq = excluded.seq, resolved = false \
         WHERE r.seq < excluded.seq",
        newest_repeated = newest_of(&repeated, &names),
        n = own("n"),
        found = keys_equal(&names, "r", "n"),
    )
}

/// [`fold`] by itself: in the turn of the table's folders (`turn` is the number of an advisory lock), and under a lock that
/// keeps the table from being rewritten or truncated, which is not waited for for long: the application may be held up
/// meanwhile.
///
/// One message of several statements is one transaction, and ends with it, whether it succeeds or not; each of its
/// statements takes a snapshot of its own. Its commit does not wait for the disk: a fold that is lost leaves the entries
/// in the log, whole.
pub(in crate::dialect::postgres) fn fold_alone(
    id: TableId,
    turn: i32,
    base: &str,
    key_count: usize,
) -> String {
    let (timeout, fold) = (limits::LOCK_TIMEOUT.as_millis(), fold(id, key_count));
    format!(
        "SET LOCAL synchronous_commit = off; SET LOCAL row_security = off; \
         SELECT pg_catalog.pg_advisory_xact_lock({ADVISORY_CLASS}, {turn}); SET LOCAL lock_timeout = {timeout}; \
         LOCK TABLE {base} IN ACCESS SHARE MODE; {fold}"
    )
}

/// Whether a table's log has more than so many entries.
pub(in crate::dialect::postgres) fn is_log_long(id: TableId, entries: u32) -> String {
    format!("EXISTS (SELECT FROM syncline.log_{id} OFFSET {entries})")
}

/// The numbers of those tables whose logs have more than so many entries, as an array.
pub(in crate::dialect::postgres) fn long_logs(ids: &[TableId], entries: u32) -> String {
    let of = ids.iter().map(|id| format!("SELECT {id}::bigint AS id WHERE {}", is_log_long(*id, entries)));
    let all = ids
        .first()
        .map_or_else(|| "SELECT 0::bigint AS id WHERE false".to_owned(), |_| joined(of, " UNION ALL "));
    format!("SELECT ARRAY({all})")
}

/// How many entries and records a table has.
pub(in crate::dialect::postgres) fn counts(id: TableId) -> String {
    format!("SELECT (SELECT count(*) FROM syncline.log_{id}), (SELECT count(*) FROM syncline.record_{id})")
}

/// The greatest tick of the replica $1 in a table's entries and records.
pub(in crate::dialect::postgres) fn greatest_own_tick(id: TableId) -> String {
    format!(
        "SELECT greatest((SELECT max(tick) FROM syncline.log_{id}), \
         (SELECT max(tick) FROM syncline.record_{id} WHERE peer = $1))"
    )
}

/// Records and departures of $1 above the tick $2 get the number $3 and the tick $4.
pub(in crate::dialect::postgres) fn renumber(id: TableId) -> Vec<String> {
    ["record", "departure"]
        .map(|what| {
            format!("UPDATE syncline.{what}_{id} SET peer = $3, tick = $4 WHERE peer = $1 AND tick > $2")
        })
        .to_vec()
}

/// Whether (`peer`, `tick`) is not contained in what is known: ranges of the index on them.
fn not_contained(peers: &[KnownPeer], peer: &str, tick: &str) -> String {
    let of_peer = |known: &KnownPeer| match &known.clock {
        None => format!("{peer} = {}", known.number),
        Some(clock) => format!("({peer} = {} AND {})", known.number, beyond(clock, tick)),
    };
    if peers.is_empty() {
        return "true".to_owned();
    }
    format!("({})", joined(peers.iter().map(of_peer), " OR "))
}

/// Whether a clock does not contain the tick.
fn beyond(clock: &Clock, tick: &str) -> String {
    let above = format!("{tick} > {}", clock.tick());
    let missing = clock.missing();
    let Some((first, _)) = missing.iter().next() else { return above };
    if missing.len() <= RANGES_MAX {
        let ranges = missing.iter().map(|(first, last)| format!("{tick} BETWEEN {first} AND {last}"));
        return format!("({above} OR {})", joined(ranges, " OR "));
    }
    format!(
        "({tick} >= {first} AND ({above} OR EXISTS (SELECT FROM {} WHERE {tick} BETWEEN m.a AND m.b)))",
        range_table(clock)
    )
}

/// A clock's missing ranges as a relation `m (a, b)`.
fn range_table(clock: &Clock) -> String {
    let ends = |pick: fn((syncline::ids::Tick, syncline::ids::Tick)) -> u64| {
        list(clock.missing().iter().map(|range| pick(range).to_string()))
    };
    format!(
        "unnest('{{{}}}'::bigint[], '{{{}}}'::bigint[]) AS m (a, b)",
        ends(|(first, _)| first.0),
        ends(|(_, last)| last.0)
    )
}

/// Whether (`peer`, `tick`) is contained in what is known. A replica that is not named is not known.
pub(in crate::dialect::postgres) fn contained(peers: &[KnownPeer], peer: &str, tick: &str) -> String {
    let of_peer = |known: &KnownPeer| {
        let clock = known.clock.as_ref()?;
        let ranges = clock.missing();
        let within = format!("{tick} <= {}", clock.tick());
        let condition = if ranges.is_empty() {
            within
        } else {
            format!(
                "{within} AND NOT EXISTS (SELECT FROM {} WHERE {tick} BETWEEN m.a AND m.b)",
                range_table(clock)
            )
        };
        Some(format!("WHEN {} THEN {condition}", known.number))
    };
    let branches: Vec<_> = peers.iter().filter_map(of_peer).collect();
    if branches.is_empty() {
        return "false".to_owned();
    }
    format!("(CASE {peer} {} ELSE false END)", joined(branches, " "))
}

/// What to enumerate, as the statements need it.
#[derive(Debug)]
pub(in crate::dialect::postgres) struct Selection<'a> {
    pub(in crate::dialect::postgres) table: &'a Tracked,
    /// Our present number.
    pub(in crate::dialect::postgres) own: i64,
    /// What is known of every replica that may stand in records.
    pub(in crate::dialect::postgres) known: &'a [KnownPeer],
    /// Rows whose origin is this number are left out; 0 for none.
    pub(in crate::dialect::postgres) echo: i64,
    /// Whether keys go on after those of [`after_setting`].
    pub(in crate::dialect::postgres) after: bool,
    /// Whether rows carry `changed_at`; rows without record have this one.
    pub(in crate::dialect::postgres) changed_at: Option<i64>,
}

/// The setting that holds the `at`th cell of the key after which an enumeration goes on: COPY takes no parameters.
pub(in crate::dialect::postgres) fn after_setting(at: usize) -> String {
    format!("syncline.after_{at}")
}

/// The setting that holds the `at`th cells of the keys that are asked for, as an array of text.
pub(in crate::dialect::postgres) fn keys_setting(at: usize) -> String {
    format!("syncline.keys_{at}")
}

/// `b.id = v.k1 AND ...`
pub(super) fn base_is(table: &Tracked, other: &str) -> String {
    let pairs = table.key_columns().zip(key_names(table.key.len()));
    joined(pairs.map(|(column, name)| format!("b.{} = {other}.{name}", column.quoted)), " AND ")
}

impl Selection<'_> {
    fn names(&self) -> Vec<String> {
        key_names(self.table.key.len())
    }

    /// The carried columns of `b`.
    fn columns(&self) -> String {
        list(self.table.columns.iter().map(|column| column.ty.select(&format!("b.{}", column.quoted))))
    }

    /// The order of keys, `prefix` before each of `columns`.
    fn order(&self, columns: &[String]) -> Vec<String> {
        self.table.key_columns().zip(columns).map(|(column, name)| column.ty.order(name)).collect()
    }

    fn base_keys(&self) -> Vec<String> {
        self.table.key_columns().map(|column| format!("b.{}", column.quoted)).collect()
    }

    /// Keys greater than the one that was handed out last.
    fn greater(&self, columns: &[String]) -> String {
        if !self.after {
            return "true".to_owned();
        }
        let last = self.table.key_columns().enumerate().map(|(at, column)| {
            let cell = format!("current_setting('{}')::{}", after_setting(at), column.ty.bare);
            column.ty.order(&cell)
        });
        format!("({}) > ({})", list(self.order(columns)), list(last))
    }

    /// The newest counted log entry of each key.
    fn logged(&self) -> String {
        let counted =
            format!("(SELECT * FROM {} WHERE seq > {}) counted", self.table.log(), truncated(self.table.id));
        newest_of(&counted, &self.names())
    }

    /// The versions that are not known, as `v`: records that no entry overrides, and entries that no record does.
    fn unknown_versions(&self) -> String {
        let (names, record) = (self.names(), self.table.record());
        let of = |prefix: &str| list(names.iter().map(|name| format!("{prefix}.{name}")));
        format!(
            "(SELECT {r}, r.changed_at, r.origin FROM {record} r \
             WHERE {unknown_record} AND r.seq > {truncated} \
             AND NOT EXISTS (SELECT FROM {log} l WHERE {log_is_record} AND l.seq > r.seq) \
             UNION ALL SELECT {l}, greatest(l.changed_at, r.changed_at + l.entries), 0::bigint \
             FROM ({logged}) l LEFT JOIN {record} r ON {record_is_log} \
             WHERE (r.seq IS NULL OR r.seq < l.seq) AND {unknown_entry}) v",
            r = of("r"),
            l = of("l"),
            unknown_record = not_contained(self.known, "r.peer", "r.tick"),
            unknown_entry = not_contained(
                &self.known.iter().filter(|peer| peer.number == self.own).cloned().collect::<Vec<_>>(),
                &self.own.to_string(),
                "l.tick"
            ),
            truncated = truncated(self.table.id),
            log = self.table.log(),
            log_is_record = keys_equal(&names, "l", "r"),
            record_is_log = keys_equal(&names, "r", "l"),
            logged = self.logged(),
        )
    }

    /// `changed_at` of base rows that were not looked up by version: joins for it, and the expression.
    fn changed_at_of_base(&self) -> (String, String) {
        let Some(baseline) = self.changed_at else { return (String::new(), String::new()) };
        let joins = format!(
            " LEFT JOIN {} r ON {} LEFT JOIN ({}) l ON {}",
            self.table.record(),
            base_is(self.table, "r"),
            self.logged(),
            base_is(self.table, "l")
        );
        let expression = format!(
            ", CASE WHEN l.seq > COALESCE(r.seq, 0) THEN greatest(l.changed_at, r.changed_at + l.entries) \
             WHEN r.seq > {} THEN r.changed_at ELSE {baseline} END",
            truncated(self.table.id)
        );
        (joins, expression)
    }

    fn changed_at_of_version(&self) -> &'static str {
        if self.changed_at.is_some() { ", v.changed_at" } else { "" }
    }

    /// Every row, in key order.
    pub(in crate::dialect::postgres) fn whole(&self) -> String {
        let keys = self.base_keys();
        let (joins, changed_at) = self.changed_at_of_base();
        copy_of(&format!(
            "SELECT {}{changed_at} FROM {} b{joins} WHERE {} ORDER BY {}",
            self.columns(),
            self.table.base,
            self.greater(&keys),
            list(self.order(&keys))
        ))
    }

    /// Rows that are there and whose version is not known, in key order.
    pub(in crate::dialect::postgres) fn upserts(&self) -> String {
        let keys = self.base_keys();
        copy_of(&format!(
            "SELECT {}{} FROM {} JOIN {} b ON {} WHERE {} AND {} ORDER BY {}",
            self.columns(),
            self.changed_at_of_version(),
            self.unknown_versions(),
            self.table.base,
            base_is(self.table, "v"),
            self.not_echo(),
            self.greater(&keys),
            list(self.order(&keys))
        ))
    }

    /// Keys whose row is gone and whose version is not known, in key order.
    pub(in crate::dialect::postgres) fn deletes(&self) -> String {
        let keys: Vec<_> = self.names().iter().map(|name| format!("v.{name}")).collect();
        let selected = self.table.key_columns().zip(&keys).map(|(column, key)| column.ty.select(key));
        copy_of(&format!(
            "SELECT {}{} FROM {} WHERE NOT EXISTS (SELECT FROM {} b WHERE {}) AND {} AND {} ORDER BY {}",
            list(selected),
            self.changed_at_of_version(),
            self.unknown_versions(),
            self.table.base,
            base_is(self.table, "v"),
            self.not_echo(),
            self.greater(&keys),
            list(self.order(&keys))
        ))
    }

    fn not_echo(&self) -> String {
        if self.echo == 0 { "true".to_owned() } else { format!("v.origin <> {}", self.echo) }
    }

    /// The keys that are asked for, as a relation `q`.
    fn asked(&self) -> String {
        let arrays =
            (0..self.table.key.len()).map(|at| format!("current_setting('{}')::text[]", keys_setting(at)));
        let cells = self
            .table
            .key_columns()
            .zip(self.names())
            .enumerate()
            .map(|(at, (column, name))| format!("t.c{at}::{} AS {name}", column.ty.bare));
        let names = (0..self.table.key.len()).map(|at| format!("c{at}"));
        format!("(SELECT {} FROM unnest({}) AS t ({})) q", list(cells), list(arrays), list(names))
    }

    /// The rows that are asked for and there.
    pub(in crate::dialect::postgres) fn present_of_keys(&self) -> String {
        let (joins, changed_at) = self.changed_at_of_base();
        copy_of(&format!(
            "SELECT {}{changed_at} FROM {} JOIN {} b ON {}{joins} ORDER BY {}",
            self.columns(),
            self.asked(),
            self.table.base,
            base_is(self.table, "q"),
            list(self.order(&self.base_keys()))
        ))
    }

    /// The keys that are asked for and whose row is not there. They carry the time of their tombstone.
    pub(in crate::dialect::postgres) fn absent_of_keys(&self) -> String {
        let names = self.names();
        let keys: Vec<_> = names.iter().map(|name| format!("q.{name}")).collect();
        let selected = self.table.key_columns().zip(&keys).map(|(column, key)| column.ty.select(key));
        let changed_at = self.changed_at.map_or_else(String::new, |baseline| {
            format!(
                ", COALESCE((SELECT max(x.changed_at) FROM (SELECT r.changed_at FROM {} r WHERE {} \
                 UNION ALL SELECT l.changed_at FROM {} l WHERE {}) x), {baseline})",
                self.table.record(),
                keys_equal(&names, "r", "q"),
                self.table.log(),
                keys_equal(&names, "l", "q"),
            )
        });
        copy_of(&format!(
            "SELECT {}{changed_at} FROM {} WHERE NOT EXISTS (SELECT FROM {} b WHERE {}) ORDER BY {}",
            list(selected),
            self.asked(),
            self.table.base,
            base_is(self.table, "q"),
            list(self.order(&keys))
        ))
    }

    /// Whether a record is not known that did not come from the leaf, how many were looked at, and whether an entry is
    /// not known.
    pub(in crate::dialect::postgres) fn probe(&self) -> String {
        let own: Vec<_> = self.known.iter().filter(|peer| peer.number == self.own).cloned().collect();
        format!(
            // Origin 0 is nobody's: never an echo, also for a leaf that has no number yet (its echo is 0).
            "SELECT COALESCE(bool_or(x.origin = 0 OR x.origin <> {}), false), count(*), \
             EXISTS (SELECT FROM {} l WHERE l.seq > {truncated} AND {}) \
             FROM (SELECT r.origin FROM {} r WHERE {} AND r.seq > {truncated} LIMIT {}) x",
            self.echo,
            self.table.log(),
            not_contained(&own, &self.own.to_string(), "l.tick"),
            self.table.record(),
            not_contained(self.known, "r.peer", "r.tick"),
            limits::PROBE_RECORDS_MAX,
            truncated = truncated(self.table.id),
        )
    }
}

fn copy_of(select: &str) -> String {
    format!("COPY ({select}) TO STDOUT (FORMAT BINARY)")
}

/// Locks tables against being rewritten or truncated, before the snapshot is taken.
pub(in crate::dialect::postgres) fn lock_shared(bases: &[String]) -> String {
    if bases.is_empty() {
        return String::new();
    }
    format!("LOCK TABLE {} IN ACCESS SHARE MODE", list(bases))
}

/// Begins a transaction that reads under one snapshot, waits for no lock for long, and locks tables against being
/// rewritten or truncated. None of it takes the snapshot. Until [`survey`](super::survey::survey) it goes by indexes, which
/// is right for statements that are planned once, whatever tables hold by then.
pub(in crate::dialect::postgres) fn begin_snapshot(bases: &[String]) -> String {
    let begin = format!(
        "{BEGIN_READING}; SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL row_security = off; \
         SET LOCAL lock_timeout = {}",
        limits::LOCK_TIMEOUT.as_millis()
    );
    if bases.is_empty() { begin } else { format!("{begin}; {}", lock_shared(bases)) }
}

/// Whether a table has no rows.
pub(in crate::dialect::postgres) fn is_empty(base: &str) -> String {
    format!("SELECT NOT EXISTS (SELECT FROM {base})")
}
