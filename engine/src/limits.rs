//! Every bound of the engine, in one place.

use std::time::Duration;

/// While the engine holds locks that the application may want, it waits for no other longer than this, so that in a
/// deadlock it is the engine that gives way.
pub const LOCK_TIMEOUT: Duration = Duration::from_millis(50);
/// How often a transaction that gave way is tried again before the caller hears LOCK_TIMEOUT.
pub const LOCK_RETRIES: u32 = 20;
/// How long provisioning waits for the open writers of a table, each time it tries.
pub const PROVISION_LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long SQLite waits for another writer of the file.
pub const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// So long it leaves other writers of the file their turn; then it asks for the lock every millisecond. The engine's own tests
/// meet both ways within a moment.
pub const SQLITE_POLITE_WAIT: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 2_000 });
/// A log of a SQLite table that has grown to this many entries, some 20 MiB, folds itself. A fold within an application's
/// statement costs several times that of one of ours, and slows down what follows in its transaction, since SQLite's
/// statement journal is a file from then on: it is for applications that nobody synchronises for a long time.
pub const SQLITE_LOG_ENTRIES_MAX: u32 = 262_144;
/// Of so many entries a SQLite log is folded in one transaction, some 20 ms here; a longer one in pieces of so many. The
/// engine's own tests meet several pieces with few entries.
pub const SQLITE_FOLD_ENTRIES_MAX: u32 = if cfg!(test) { 4 } else { 16_384 };
/// After so many pieces the rest of a SQLite log is folded at once.
pub const SQLITE_FOLD_PIECES_MAX: u32 = 64;
/// Rows of a block that make it worth taking away the triggers of a table that is filled for the first time, or that an
/// upload writes to. The engine's own tests meet both ways with few rows.
pub const QUIET_ROWS_MIN: usize = if cfg!(test) { 2 } else { 256 };
/// Of so many entries a PostgreSQL hub's log is short: they are read along with the records. Where there are more, a session
/// folds them first. A fold of few entries takes longer than a session that brings them.
pub const LOG_ENTRIES_READ_MAX: u32 = 64;
/// A PostgreSQL hub looks at so many records of a table, which a leaf may lack, to see what is to be enumerated.
pub const SURVEY_ROWS_MAX: u32 = 64;
/// How often a reader that found unfolded entries in its snapshot folds again before it gives up.
pub const FOLD_RETRIES: u32 = 64;

/// How many rows of a chain that refer to each other, and of which the last stays, a PostgreSQL leaf follows at a time.
pub const POSTGRES_CASCADE_ROUNDS_MAX: u32 = 64;
/// How often a PostgreSQL leaf tries to write rows that wait for each other, each time without those that failed: how long a
/// chain of rows that refer to each other may be, whose last refers to nothing, beside such rows.
pub const POSTGRES_CUT_ROUNDS_MAX: u32 = 16;

/// How often what holds up an apply that was given up is told to stop.
pub const GIVE_UP_INTERVAL: Duration = Duration::from_millis(50);

/// Rows of a block: bounds what one decoded column takes, whatever the size of its cells.
pub const BLOCK_ROWS_MAX: usize = 65_536;
/// Keys of an apply under way that are read from its temporary table at once.
pub const KEYS_PAGE: i64 = 1_024;
/// If an enumeration takes longer than this to its first batch, that it has begun is committed alone.
pub const NOTE_DELAY_MAX: Duration = Duration::from_millis(50);
/// Bytes of a COPY into a PostgreSQL table that is filled for the first time: what is done again at worst, when a row of
/// it can't be written.
pub const FILL_BYTES_MAX: usize = 64 << 20;
/// Blocks that wait between enumeration and encoding, and between decoding and apply.
pub const BLOCK_CHANNEL_MAX: usize = 2;
/// A block takes so much of a batch at most: blocks are read, encoded and dropped one by one, so that a batch is not held
/// in several forms at once.
pub const BATCH_BLOCKS_PLANNED: usize = 8;
/// So many bytes are encoded or decoded where they are: it takes some 50 microseconds, as a trip to another thread does.
pub const COMPUTED_AT_ONCE_BYTES_MAX: u64 = 16 << 10;
/// How often a hub that is watched looks for commits.
pub const WATCH_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// The same for as long as the last commit was seen less than [`WATCH_BUSY`] ago: where one came, more come.
pub const WATCH_LOOK_INTERVAL_BUSY: Duration = Duration::from_millis(1);
/// See [`WATCH_LOOK_INTERVAL_BUSY`].
pub const WATCH_BUSY: Duration = Duration::from_secs(1);
/// Finding out what was committed may take this part of the time; the rest is waited.
pub const WATCH_SHARE: u32 = 4;
/// A watcher is told of news at most so often, if it does not say otherwise: the first after a pause at once.
pub const WATCH_INTERVAL_DEFAULT: Duration = Duration::from_millis(10);
/// Each watcher of a scope makes this much longer: all of them begin a session when they are told, which takes the hub
/// about so long.
pub const WATCH_PACE: Duration = Duration::from_millis(2);
/// How long a look may take. On a connection that was forgotten somewhere on its way nobody answers any more, which the
/// operating system finds out after a quarter of an hour.
pub const WATCH_LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause between news that a watcher may ask for.
pub const WATCH_INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// Rows of an upload that are judged at a time, with both sides of each in memory.
pub const JUDGED_ROWS_MAX: usize = 1_024;
/// Bytes of both sides of the rows that are judged at a time; a larger row is judged alone.
pub const JUDGED_BYTES_MAX: u64 = 4 << 20;
/// Records that the poll looks at before it answers MAYBE.
pub const PROBE_RECORDS_MAX: u32 = 1_000;
/// How long a client waits for another one of the same PostgreSQL leaf: for one that has just ended, no longer.
pub const LEAF_HOLD_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections to a PostgreSQL database.
pub const POSTGRES_CONNECTIONS_MAX: u32 = 16;
/// Connections of a process to a PostgreSQL database that only look whether something is new, beside those.
pub const POSTGRES_LOOKS_MAX: u32 = 4;
/// A connection that was idle for no longer is taken for alive without asking.
pub const POSTGRES_IDLE_TRUSTED: Duration = Duration::from_secs(1);
/// How long a PostgreSQL server may take to answer when a database is opened.
pub const POSTGRES_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Snapshots of a PostgreSQL database that may be open at once. Each holds a connection for as long as its enumeration
/// lasts and needs another now and then to note how far it is: so they never take all.
pub const POSTGRES_SNAPSHOTS_MAX: usize = 8;
const _: () = assert!(POSTGRES_SNAPSHOTS_MAX < POSTGRES_CONNECTIONS_MAX as usize);
/// Read connections to a SQLite file that are kept open.
pub const SQLITE_READERS_MAX: usize = 8;

/// How long a session is kept without a call.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
/// How long results of applied uploads are kept.
pub const RESULTS_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// An enumeration's snapshot is closed, and another opened later, at this age.
pub const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(15 * 60);
/// Stored bytes of one session that may wait in the spool.
pub const SPOOL_SESSION_BYTES_MAX: u64 = 256 << 20;
/// Stored bytes of all sessions that may wait in the spool.
pub const SPOOL_BYTES_MAX: u64 = 16 << 30;
/// Bytes of an upload that are collected before they are written as one piece.
pub const SPOOL_PART_BYTES: usize = 1 << 20;
/// Bytes of the spool that are read at once.
pub const SPOOL_READ_BYTES: usize = 128 << 10;
/// Sessions that may be open at once.
pub const SESSIONS_MAX: u32 = 10_000;
/// Uploads that may be received at once.
pub const UPLOADS_MAX: usize = 256;
/// How often a long call says that it is still at it.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// How often a hub folds its logs and sweeps its spool when nobody asks.
pub const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);
