-- Text that changes when what the tables $2 (by oid) are made of does, beside what tracking_stamp.sql looks at: their
-- schemas, and the types and collations of their columns. NULL if a column's type is a domain: what that is made of in turn
-- is not looked at.
WITH columns AS (
  SELECT a.atttypid, a.attcollation FROM pg_catalog.pg_attribute a
  WHERE a.attrelid = ANY ($2::pg_catalog.int8[]::pg_catalog.oid[]) AND a.attnum > 0
), types AS (
  SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', t.oid, t.xmin), ' ' ORDER BY t.oid) AS stamp,
    pg_catalog.bool_or(t.typtype = 'd') AS has_domains
  FROM pg_catalog.pg_type t WHERE t.oid = ANY (ARRAY(SELECT c.atttypid FROM columns c))
)
SELECT CASE WHEN NOT y.has_domains THEN pg_catalog.concat_ws(' ',
  y.stamp,
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', o.oid, o.xmin), ' ' ORDER BY o.oid)
   FROM pg_catalog.pg_collation o WHERE o.oid = ANY (ARRAY(SELECT c.attcollation FROM columns c))),
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', n.oid, n.xmin), ' ' ORDER BY n.oid)
   FROM pg_catalog.pg_namespace n WHERE n.oid = ANY (ARRAY(
     SELECT r.relnamespace FROM pg_catalog.pg_class r WHERE r.oid = ANY ($2::pg_catalog.int8[]::pg_catalog.oid[])))))
END FROM types y
