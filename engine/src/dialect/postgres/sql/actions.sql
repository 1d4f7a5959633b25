-- Foreign keys that act when a row of these tables ($1, by oid) is deleted: the table referred to, the table that refers
-- (and the partitioned one that it is part of, if it is), their columns, and what it does.
SELECT
  k.confrelid::pg_catalog.int8 AS parent,
  COALESCE(pg_catalog.pg_partition_root(k.conrelid)::pg_catalog.oid, k.conrelid)::pg_catalog.int8 AS child,
  pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name,
  pairs.columns,
  pairs.referenced,
  k.confdeltype::pg_catalog.text AS action
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
