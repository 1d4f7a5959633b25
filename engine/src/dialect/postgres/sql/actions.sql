-- Foreign keys that act when a row of these tables ($1, by oid) is deleted: one JSON document each. What refers is a
-- table, or a part of a partitioned one.
SELECT pg_catalog.json_build_object(
  'parent', k.confrelid::pg_catalog.int8,
  'child', COALESCE(pg_catalog.pg_partition_root(k.conrelid)::pg_catalog.oid, k.conrelid)::pg_catalog.int8,
  'name', pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
  'columns', pairs.columns,
  'referenced', pairs.referenced,
  'cascades', k.confdeltype = 'c'
)::pg_catalog.text
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT
    pg_catalog.array_agg(pg_catalog.quote_ident(f.attname) ORDER BY u.place) AS columns,
    pg_catalog.array_agg(pg_catalog.quote_ident(t.attname) ORDER BY u.place) AS referenced
  FROM ROWS FROM (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey)) WITH ORDINALITY AS u (own, other, place)
  JOIN pg_catalog.pg_attribute f ON f.attrelid = k.conrelid AND f.attnum = u.own
  JOIN pg_catalog.pg_attribute t ON t.attrelid = k.confrelid AND t.attnum = u.other) pairs
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confdeltype IN ('c', 'n', 'd')
  AND k.confrelid = ANY ($1::pg_catalog.int8[]::pg_catalog.oid[])
ORDER BY k.oid
