-- A tracked table, new or provisioned anew.
INSERT INTO syncline.tables (id, source_schema, source_name, role, columns, provisioned, baseline_replica,
  baseline_tick, baseline_changed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (id) DO UPDATE SET source_schema = excluded.source_schema, source_name = excluded.source_name,
  role = excluded.role, columns = excluded.columns, provisioned = excluded.provisioned,
  baseline_replica = excluded.baseline_replica, baseline_tick = excluded.baseline_tick,
  baseline_changed_at = excluded.baseline_changed_at
