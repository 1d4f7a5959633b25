-- Our tables in a user's SQLite database. Version 1.
-- Everything of ours has the prefix syncline_; per tracked table there are more, named by its number (tracking.rs).

-- One row. `replica`, `number`: the database's present id, and its number in the table of replicas. `tick`: the number of the last fold. `durable_tick`: the tick at the last durable mark. `writing`: 1 while
-- the engine writes at a leaf (its triggers look at it; committed it is always 0; a user's trigger may read it too).
CREATE TABLE IF NOT EXISTS syncline_state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  schema_version INTEGER NOT NULL,
  replica BLOB NOT NULL,
  number INTEGER NOT NULL,
  tick INTEGER NOT NULL DEFAULT 0,
  durable_tick INTEGER NOT NULL DEFAULT 0,
  writing INTEGER NOT NULL DEFAULT 0,
  identity TEXT NOT NULL DEFAULT '',
  spool BLOB
);
-- Replicas by number, from 1, as records name them; the number of the present id stands in the state row. `kind`: 0 an
-- id of this database, present or former, 1 a leaf, 2 a peer. `clock_tick`: where a former id stands still, else NULL.
CREATE TABLE IF NOT EXISTS syncline_replicas (
  number INTEGER PRIMARY KEY,
  replica BLOB NOT NULL UNIQUE,
  kind INTEGER NOT NULL,
  clock_tick INTEGER
);
-- There are as many leaves as there are, and they are never looked for by kind.
CREATE INDEX IF NOT EXISTS syncline_replicas_own ON syncline_replicas (number) WHERE kind = 0;
-- Tracked tables. `role`: 0 hub, 1 leaf. `columns`: JSON, the ids that were given to columns. `provisioned`: JSON, what
-- triggers and columns must look like. The baseline is the version of rows without record or entry.
CREATE TABLE IF NOT EXISTS syncline_tables (
  id INTEGER PRIMARY KEY,
  source_schema TEXT NOT NULL,
  source_name TEXT NOT NULL,
  role INTEGER NOT NULL,
  columns TEXT NOT NULL,
  provisioned TEXT NOT NULL,
  baseline_replica INTEGER NOT NULL DEFAULT 0,
  baseline_tick INTEGER NOT NULL DEFAULT 0,
  baseline_changed_at INTEGER NOT NULL DEFAULT 0,
  UNIQUE (source_schema, source_name)
);
-- Scopes of a hub. `document`: JSON, the stored scope.
CREATE TABLE IF NOT EXISTS syncline_scopes (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  document TEXT NOT NULL
);
-- Leaves of a hub, per scope: the chain's marks, the leaf's clock (encoded knowledge), what it acknowledged.
CREATE TABLE IF NOT EXISTS syncline_leaves (
  scope INTEGER NOT NULL,
  replica BLOB NOT NULL,
  principal TEXT NOT NULL DEFAULT '',
  clock BLOB,
  upload_mark BLOB,
  download_mark_presented BLOB,
  download_mark_drawn BLOB,
  acknowledged BLOB,
  last_seen INTEGER NOT NULL,
  PRIMARY KEY (scope, replica)
);
-- Open sessions of a hub. At most one per (scope, replica). `document`: JSON, agreement and state of the enumeration.
CREATE TABLE IF NOT EXISTS syncline_sessions (
  id BLOB PRIMARY KEY,
  scope INTEGER NOT NULL,
  replica BLOB NOT NULL,
  token BLOB NOT NULL,
  lease_until INTEGER NOT NULL,
  document TEXT NOT NULL,
  UNIQUE (scope, replica)
);
-- Batches of open sessions. `direction`: 0 up, 1 down. `state`: 0 partial, 1 complete, 2 released.
CREATE TABLE IF NOT EXISTS syncline_batches (
  id BLOB PRIMARY KEY,
  session BLOB NOT NULL,
  direction INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  info TEXT NOT NULL,
  state INTEGER NOT NULL,
  stored_bytes INTEGER NOT NULL,
  UNIQUE (session, direction, sequence)
);
-- Applied uploads, by session: inserted first in the apply's transaction, the result last.
CREATE TABLE IF NOT EXISTS syncline_applies (
  session BLOB PRIMARY KEY,
  scope INTEGER NOT NULL,
  replica BLOB NOT NULL,
  digest BLOB NOT NULL,
  result TEXT,
  applied_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS syncline_applies_of_replica ON syncline_applies (scope, replica);
-- Rows that an apply could not write, until the replica's next session has applied. `document`: JSON.
CREATE TABLE IF NOT EXISTS syncline_row_errors (
  session BLOB NOT NULL,
  ordinal INTEGER NOT NULL,
  scope TEXT NOT NULL,
  replica BLOB NOT NULL,
  at INTEGER NOT NULL,
  document TEXT NOT NULL,
  PRIMARY KEY (session, ordinal)
);
CREATE INDEX IF NOT EXISTS syncline_row_errors_of_replica ON syncline_row_errors (scope, replica);
-- The conflict log, of a hub or of a leaf. A row may have several entries in one session.
CREATE TABLE IF NOT EXISTS syncline_conflicts (
  id BLOB PRIMARY KEY,
  session BLOB NOT NULL,
  scope TEXT NOT NULL,
  table_id INTEGER NOT NULL,
  table_name TEXT NOT NULL,
  row_key BLOB NOT NULL,
  key_json TEXT NOT NULL,
  kind TEXT NOT NULL,
  policy TEXT NOT NULL,
  outcome TEXT NOT NULL,
  detected_at INTEGER NOT NULL,
  local_operation TEXT NOT NULL,
  local_row TEXT,
  remote_operation TEXT NOT NULL,
  remote_row TEXT,
  made_with TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS syncline_conflicts_by_session ON syncline_conflicts (session);
-- Scopes that this database synchronises as a leaf. `document`: JSON, the subscription.
CREATE TABLE IF NOT EXISTS syncline_subscriptions (
  scope TEXT PRIMARY KEY,
  document TEXT NOT NULL
);
