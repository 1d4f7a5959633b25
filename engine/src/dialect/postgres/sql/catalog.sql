-- What the catalogue says of these tables ($1, by oid): one JSON document each. Types are those of the base type where
-- a column's is a domain (of a domain ...).
WITH RECURSIVE wanted AS (
  SELECT c.oid, c.relname, n.nspname, c.relkind, c.relpersistence, c.relispartition
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.oid = ANY ($1::pg_catalog.int8[]::pg_catalog.oid[])
), resolved AS (
  SELECT a.attrelid, a.attnum, a.atttypid AS type_oid, a.atttypmod AS type_modifier, 0 AS depth
  FROM pg_catalog.pg_attribute a JOIN wanted w ON w.oid = a.attrelid
  WHERE a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT r.attrelid, r.attnum, t.typbasetype,
    CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE r.type_modifier END, r.depth + 1
  FROM resolved r JOIN pg_catalog.pg_type t ON t.oid = r.type_oid
  WHERE t.typtype = 'd'
)
SELECT pg_catalog.json_build_object(
  'oid', w.oid::pg_catalog.int8,
  'schema', w.nspname,
  'name', w.relname,
  'kind', w.relkind::pg_catalog.text,
  'persistence', w.relpersistence::pg_catalog.text,
  'is_partition', w.relispartition,
  'has_rules', EXISTS (
    SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = w.oid AND r.rulename <> '_RETURN'),
  'inherits', w.relkind = 'r' AND NOT w.relispartition AND EXISTS (
    SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = w.oid OR i.inhrelid = w.oid),
  'columns', (
    SELECT COALESCE(pg_catalog.json_agg(x.doc ORDER BY x.attnum), '[]') FROM (
      SELECT a.attnum, pg_catalog.json_build_object(
        'number', a.attnum,
        'name', a.attname,
        'not_null', a.attnotnull,
        'generated', a.attgenerated <> '',
        'identity', a.attidentity::pg_catalog.text,
        'has_default', a.atthasdef,
        'default', CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
        'type_name', t.typname,
        'type_kind', t.typtype::pg_catalog.text,
        'built_in', t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace,
        'modifier', r.type_modifier,
        'declared', pg_catalog.format_type(r.type_oid, r.type_modifier),
        'bare', pg_catalog.format_type(r.type_oid, -1),
        'collation', CASE WHEN a.attcollation <> 0 THEN (
          SELECT pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname)
          FROM pg_catalog.pg_collation co JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
          WHERE co.oid = a.attcollation) END,
        'deterministic', NOT EXISTS (
          SELECT FROM pg_catalog.pg_collation co WHERE co.oid = a.attcollation AND NOT co.collisdeterministic),
        'sequence', CASE WHEN r.type_oid IN (20, 21, 23) THEN pg_catalog.pg_get_serial_sequence(
          pg_catalog.quote_ident(w.nspname) || '.' || pg_catalog.quote_ident(w.relname), a.attname) END
      ) AS doc
      FROM pg_catalog.pg_attribute a
      JOIN resolved r ON r.attrelid = a.attrelid AND r.attnum = a.attnum
      JOIN pg_catalog.pg_type t ON t.oid = r.type_oid AND t.typtype <> 'd'
      LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = w.oid) x),
  'key', (
    SELECT pg_catalog.json_build_object('columns', pg_catalog.array_to_json(
      (i.indkey::pg_catalog.int2[])[0 : i.indnkeyatts - 1]),
      'immediate', i.indimmediate)
    FROM pg_catalog.pg_index i
    WHERE i.indrelid = w.oid AND i.indisprimary),
  'unique', (
    SELECT COALESCE(pg_catalog.json_agg(
      pg_catalog.array_to_json((i.indkey::pg_catalog.int2[])[0 : i.indnkeyatts - 1]) ORDER BY i.indexrelid), '[]')
    FROM pg_catalog.pg_index i
    WHERE i.indrelid = w.oid AND i.indisunique AND NOT i.indisprimary AND i.indpred IS NULL
      AND i.indexprs IS NULL AND i.indisvalid),
  'foreign_keys', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'columns', pg_catalog.array_to_json(k.conkey),
      'table', k.confrelid::pg_catalog.int8,
      'referenced', pg_catalog.array_to_json(k.confkey)) ORDER BY k.oid), '[]')
    FROM pg_catalog.pg_constraint k
    WHERE k.conrelid = w.oid AND k.contype = 'f' AND k.conparentid = 0),
  'referenced_with_action', EXISTS (
    SELECT FROM pg_catalog.pg_constraint k
    WHERE k.confrelid = w.oid AND k.contype = 'f' AND k.confdeltype IN ('c', 'n', 'd')),
  'followed', (
    SELECT COALESCE(pg_catalog.json_agg(DISTINCT f.number), '[]')
    FROM pg_catalog.pg_constraint k CROSS JOIN LATERAL pg_catalog.unnest(k.confkey) AS f (number)
    WHERE k.confrelid = w.oid AND k.contype = 'f' AND k.confupdtype IN ('c', 'n', 'd')),
  'partitions', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'oid', p.relid::pg_catalog.oid::pg_catalog.int8,
      'schema', pn.nspname,
      'name', pc.relname) ORDER BY p.relid::pg_catalog.oid), '[]')
    FROM pg_catalog.pg_partition_tree(w.oid) p
    JOIN pg_catalog.pg_class pc ON pc.oid = p.relid
    JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace
    WHERE w.relkind = 'p' AND p.relid <> w.oid),
  'triggers', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'oid', g.oid::pg_catalog.int8,
      'table', g.tgrelid::pg_catalog.int8,
      'name', g.tgname,
      'enabled', g.tgenabled::pg_catalog.text) ORDER BY g.tgrelid, g.tgname), '[]')
    FROM pg_catalog.pg_trigger g
    WHERE (g.tgrelid = w.oid OR g.tgrelid IN (
        SELECT p.relid FROM pg_catalog.pg_partition_tree(w.oid) p WHERE w.relkind = 'p'))
      AND g.tgname LIKE 'syncline\_%' AND EXISTS (
        SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace
        WHERE f.oid = g.tgfoid AND fn.nspname = 'syncline'))
)::pg_catalog.text
FROM wanted w
ORDER BY w.oid
