//! Sequences of identity and serial columns, which must not draw again what came in.

use super::literal;

/// Moves a sequence past values that came into the column that it fills. `sequence` is its quoted name, `values` a query
/// with one column `value`, of whole numbers or NULL.
///
/// A sequence may be one of several that share a column: by ranges (MINVALUE, MAXVALUE), or by steps (every tenth
/// number, each side from another first). So values beyond its range do not concern it, and it only ever takes steps of
/// its own: it is moved to the first of its numbers that is not before the furthest value. It may run downwards.
pub(in crate::dialect::postgres) fn advance(sequence: &str, values: &str) -> String {
    let name = literal(sequence);
    format!(
        "SELECT setval(p.seqrelid::regclass, (s.last_value + p.seqincrement * least( \
           div(x.furthest - s.last_value::numeric, p.seqincrement) \
             + (mod(x.furthest - s.last_value::numeric, p.seqincrement) <> 0)::int, \
           div(CASE WHEN p.seqincrement > 0 THEN p.seqmax ELSE p.seqmin END - s.last_value::numeric, \
             p.seqincrement)))::bigint) \
         FROM {sequence} s, pg_sequence p, \
         LATERAL (SELECT CASE WHEN p.seqincrement > 0 THEN max(v.value) ELSE min(v.value) END AS furthest \
           FROM ({values}) v WHERE v.value BETWEEN p.seqmin AND p.seqmax) x \
         WHERE p.seqrelid = {name}::regclass AND \
           (sign(x.furthest - s.last_value::numeric) = sign(p.seqincrement::numeric) \
            OR (x.furthest = s.last_value AND NOT s.is_called))"
    )
}
