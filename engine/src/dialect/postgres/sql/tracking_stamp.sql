-- Text that changes whenever triggers, columns, keys or partitions of the tables $2 (by oid) do, and now and then without
-- need. ALTER writes new rows into the catalogue; VACUUM and ANALYZE change them in place, which leaves xmin as it is.
SELECT pg_catalog.string_agg(x.line, ' ' ORDER BY x.line COLLATE "C") FROM (
  WITH watched AS (
    SELECT o.oid::pg_catalog.oid AS oid FROM pg_catalog.unnest($2::pg_catalog.int8[]) AS o (oid)
    UNION
    SELECT p.relid::pg_catalog.oid
    FROM pg_catalog.unnest($2::pg_catalog.int8[]) AS o (oid), pg_catalog.pg_partition_tree(o.oid::pg_catalog.oid::pg_catalog.regclass) p
  )
  SELECT 'c' || c.oid || ':' || c.xmin AS line
  FROM watched w JOIN pg_catalog.pg_class c ON c.oid = w.oid
  UNION ALL
  SELECT 'a' || a.attrelid || ':' || a.attnum || ':' || a.xmin
  FROM watched w JOIN pg_catalog.pg_attribute a ON a.attrelid = w.oid AND a.attnum > 0
  UNION ALL
  SELECT 'i' || i.indexrelid || ':' || i.xmin
  FROM watched w JOIN pg_catalog.pg_index i ON i.indrelid = w.oid
  UNION ALL
  SELECT 't' || g.oid || ':' || g.tgrelid || ':' || g.tgname || ':' || g.tgenabled
  FROM watched w JOIN pg_catalog.pg_trigger g ON g.tgrelid = w.oid
  UNION ALL
  SELECT 'p' || t.id || ':' || t.xmin FROM syncline.tables t
) x
