-- Our tables in a user's PostgreSQL database. Version 1.
-- Everything of ours stands in the schema syncline; per tracked table there are more, named by its number (tracking.rs).

-- One row. `replica`, `number`: the database's present id, and its number in the table of replicas. `durable_tick`: the
-- tick (transaction id) at the last durable mark. `identity`: JSON, system identifier, timeline and oids when the
-- replica id was made: a database that finds another one is a copy. `next_table`: the number that the next tracked
-- table gets; none is ever used again. `leaf_identity`: the same of a leaf, whose tables and ticks are told by it.
-- While the engine writes at a leaf the setting syncline.writing is 'on' in its transaction; a user's trigger may read it.
CREATE SCHEMA IF NOT EXISTS syncline;
CREATE TABLE IF NOT EXISTS syncline.state (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  schema_version BIGINT NOT NULL,
  replica BYTEA NOT NULL,
  number BIGINT NOT NULL,
  durable_tick BIGINT NOT NULL DEFAULT 0,
  identity TEXT NOT NULL DEFAULT '',
  leaf_identity TEXT NOT NULL DEFAULT '',
  spool BYTEA,
  next_table BIGINT NOT NULL DEFAULT 1
);
-- Numbers of replicas and of scopes.
CREATE SEQUENCE IF NOT EXISTS syncline.replica_numbers;
CREATE SEQUENCE IF NOT EXISTS syncline.scope_numbers;
-- Replicas by number, from 1, as records name them; the number of the present id stands in the state row. `kind`: 0 an
-- id of this database, present or former, 1 a leaf, 2 a peer. `clock_tick`: where a former id stands still, else NULL.
CREATE TABLE IF NOT EXISTS syncline.replicas (
  number BIGINT PRIMARY KEY,
  replica BYTEA NOT NULL UNIQUE,
  kind BIGINT NOT NULL,
  clock_tick BIGINT
);
-- There are as many leaves as there are, and they are never looked for by kind.
CREATE INDEX IF NOT EXISTS replicas_but_leaves ON syncline.replicas (number) WHERE kind <> 1;
-- Tracked tables. `role`: 0 hub, 1 leaf. `columns`: JSON, the ids that were given to columns. `provisioned`: JSON, what
-- triggers and columns must look like. The baseline is the version of rows without record or entry.
CREATE TABLE IF NOT EXISTS syncline.tables (
  id BIGINT PRIMARY KEY,
  source_schema TEXT NOT NULL,
  source_name TEXT NOT NULL,
  role BIGINT NOT NULL,
  columns TEXT NOT NULL,
  provisioned TEXT NOT NULL,
  baseline_replica BIGINT NOT NULL DEFAULT 0,
  baseline_tick BIGINT NOT NULL DEFAULT 0,
  baseline_changed_at BIGINT NOT NULL DEFAULT 0,
  UNIQUE (source_schema, source_name)
);
-- Scopes of a hub. `document`: JSON, the stored scope.
CREATE TABLE IF NOT EXISTS syncline.scopes (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  document TEXT NOT NULL
);
-- Leaves of a hub, per scope: the chain's marks, the leaf's clock (encoded knowledge), what it acknowledged.
CREATE TABLE IF NOT EXISTS syncline.leaves (
  scope BIGINT NOT NULL,
  replica BYTEA NOT NULL,
  principal TEXT NOT NULL DEFAULT '',
  clock BYTEA,
  upload_mark BYTEA,
  download_mark_presented BYTEA,
  download_mark_drawn BYTEA,
  acknowledged BYTEA,
  last_seen BIGINT NOT NULL,
  PRIMARY KEY (scope, replica)
);
-- Open sessions of a hub. At most one per (scope, replica). `document`: JSON, agreement and state of the enumeration.
CREATE TABLE IF NOT EXISTS syncline.sessions (
  id BYTEA PRIMARY KEY,
  scope BIGINT NOT NULL,
  replica BYTEA NOT NULL,
  token BYTEA NOT NULL,
  lease_until BIGINT NOT NULL,
  document TEXT NOT NULL,
  UNIQUE (scope, replica)
);
-- Batches of open sessions. `direction`: 0 up, 1 down. `state`: 0 partial, 1 complete, 2 released.
CREATE TABLE IF NOT EXISTS syncline.batches (
  id BYTEA PRIMARY KEY,
  session BYTEA NOT NULL,
  direction BIGINT NOT NULL,
  sequence BIGINT NOT NULL,
  info TEXT NOT NULL,
  state BIGINT NOT NULL,
  stored_bytes BIGINT NOT NULL,
  UNIQUE (session, direction, sequence)
);
-- Applied uploads, by session: inserted first in the apply's transaction, the result last.
CREATE TABLE IF NOT EXISTS syncline.applies (
  session BYTEA PRIMARY KEY,
  scope BIGINT NOT NULL,
  replica BYTEA NOT NULL,
  digest BYTEA NOT NULL,
  result TEXT,
  applied_at BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS applies_of_replica ON syncline.applies (scope, replica);
-- Rows that an apply could not write, until the replica's next session has applied. `document`: JSON.
CREATE TABLE IF NOT EXISTS syncline.row_errors (
  session BYTEA NOT NULL,
  ordinal BIGINT NOT NULL,
  scope TEXT NOT NULL,
  replica BYTEA NOT NULL,
  at BIGINT NOT NULL,
  document TEXT NOT NULL,
  PRIMARY KEY (session, ordinal)
);
CREATE INDEX IF NOT EXISTS row_errors_of_replica ON syncline.row_errors (scope, replica);
-- The conflict log, of a hub or of a leaf. A row may have several entries in one session.
CREATE TABLE IF NOT EXISTS syncline.conflicts (
  id BYTEA PRIMARY KEY,
  session BYTEA NOT NULL,
  scope TEXT NOT NULL,
  table_id BIGINT NOT NULL,
  table_name TEXT NOT NULL,
  row_key BYTEA NOT NULL,
  key_json TEXT NOT NULL,
  kind TEXT NOT NULL,
  policy TEXT NOT NULL,
  outcome TEXT NOT NULL,
  detected_at BIGINT NOT NULL,
  local_operation TEXT NOT NULL,
  local_row TEXT,
  remote_operation TEXT NOT NULL,
  remote_row TEXT,
  made_with TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS conflicts_by_session ON syncline.conflicts (session);
-- Scopes that this database synchronises as a leaf. `document`: JSON, the subscription.
CREATE TABLE IF NOT EXISTS syncline.subscriptions (
  scope TEXT PRIMARY KEY,
  document TEXT NOT NULL
);
-- Truncations of tracked tables. `seq` is drawn from the table's own sequence. `whole`: the table, not just a partition
-- of it: entries and records with a smaller `seq` no longer count. `peer`: NULL for our present id.
CREATE TABLE IF NOT EXISTS syncline.truncations (
  table_id BIGINT NOT NULL,
  seq BIGINT NOT NULL,
  tick BIGINT NOT NULL,
  peer BIGINT,
  whole BOOLEAN NOT NULL,
  changed_at BIGINT NOT NULL,
  PRIMARY KEY (table_id, seq)
);
