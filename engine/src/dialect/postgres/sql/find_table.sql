-- The table of this name ($1) by the search path that the role has when it connects: ours is empty by now. "$user"
-- stands for the role's own schema.
SELECT c.oid::pg_catalog.int8
FROM pg_catalog.pg_settings s
CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.string_to_array(s.reset_val, ',')) WITH ORDINALITY AS p (part, place)
JOIN pg_catalog.pg_namespace n
  ON n.nspname = CASE pg_catalog.btrim(pg_catalog.btrim(p.part), '"')
    WHEN '$user' THEN current_user
    ELSE pg_catalog.btrim(pg_catalog.btrim(p.part), '"') END
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = $1
WHERE s.name = 'search_path' AND c.relkind NOT IN ('i', 'I', 'S', 't', 'c')
ORDER BY p.place
LIMIT 1
