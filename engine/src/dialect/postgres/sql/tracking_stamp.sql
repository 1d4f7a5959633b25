-- Text that changes whenever triggers, columns, keys or partitions of the tables $2 (by oid) do, and now and then without
-- need. ALTER writes new rows into the catalogue; VACUUM and ANALYZE change them in place, which leaves xmin as it is.
-- The oids are compared as an array: a join would read the catalogue from end to end.
WITH watched AS (
  SELECT ARRAY(
    SELECT o.oid::pg_catalog.oid FROM unnest($2::pg_catalog.int8[]) AS o (oid)
    UNION ALL
    SELECT p.relid::pg_catalog.oid
    FROM unnest($2::pg_catalog.int8[]) AS o (oid),
      pg_catalog.pg_partition_tree(o.oid::pg_catalog.oid::pg_catalog.regclass) p
  ) AS oids
)
SELECT pg_catalog.concat_ws(' ',
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', c.oid, c.xmin), ' ' ORDER BY c.oid)
   FROM pg_catalog.pg_class c WHERE c.oid = ANY ((SELECT w.oids FROM watched w)::pg_catalog.oid[])),
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attrelid, a.attnum, a.xmin), ' ' ORDER BY a.attrelid, a.attnum)
   FROM pg_catalog.pg_attribute a
   WHERE a.attrelid = ANY ((SELECT w.oids FROM watched w)::pg_catalog.oid[]) AND a.attnum > 0),
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', i.indexrelid, i.xmin), ' ' ORDER BY i.indexrelid)
   FROM pg_catalog.pg_index i WHERE i.indrelid = ANY ((SELECT w.oids FROM watched w)::pg_catalog.oid[])),
  (SELECT pg_catalog.string_agg(
     pg_catalog.concat_ws(':', g.oid, g.tgrelid, g.tgname, g.tgenabled), ' ' ORDER BY g.oid)
   FROM pg_catalog.pg_trigger g WHERE g.tgrelid = ANY ((SELECT w.oids FROM watched w)::pg_catalog.oid[])),
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', t.id, t.xmin), ' ' ORDER BY t.id) FROM syncline.tables t)
)
