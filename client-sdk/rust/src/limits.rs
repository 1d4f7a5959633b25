//! Every bound of the client, in one place.

use std::time::Duration;

use syncline::limits as protocol;

/// The HTTP/2 window of a stream, in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The HTTP/2 window of a connection, in bytes: what may be on its way when this side dies, and is sent again then. Less
/// than a batch of the usual size takes as it is stored. A line carries as much in a round trip: 4.9 MB/s at 100 ms.
pub const CONNECTION_WINDOW_BYTES: u32 = 480 << 10;
/// The largest HTTP/2 frame that is taken, in bytes: fewer and larger ones cost a third less CPU.
pub const FRAME_BYTES_MAX: u32 = 256 << 10;

/// How long a connection may take to come about.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a ping goes out while calls are open.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long the answer to a ping may take.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The deadline of BeginSession.
pub const BEGIN_DEADLINE: Duration = Duration::from_secs(30);
/// The deadline of the other unary calls.
pub const UNARY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a transfer of bytes may go without progress.
pub const CHUNK_DEADLINE: Duration = Duration::from_secs(30);
/// How long GetChanges and ApplyChanges may be silent; the service says something every 10 s.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The pause before the first retry; it doubles with each, and a random part of it is waited.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two attempts, unless the service asks for a longer one.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// For how long temporary failures are retried if nobody says otherwise, counted from the last progress.
pub const RETRY_FOR_DEFAULT: Duration = Duration::from_secs(120);

/// How often one run begins a new session because the service no longer has the old one, or what it listed.
pub const RESTARTS_MAX: u32 = 3;
/// How often an apply goes back to uploading because the service lacks bytes.
pub const APPLY_ROUNDS_MAX: u32 = 3;
/// Batches of an upload that are encoded and written to the disk at once.
pub const BATCHES_ENCODED_MAX: usize = 2;
/// Batches that are listed and wait for one of the transfers in flight.
pub const LISTED_WAITING_MAX: usize = 64;
/// Batches that are durable here and wait to be released at the service.
pub const RELEASE_WAITING_MAX: usize = 256;
/// Chunks of a batch that are written to its file at once.
pub const CHUNKS_WRITTEN_MAX: usize = 4;
/// Batches in flight, whatever the service offers.
pub const BATCHES_IN_FLIGHT_MAX: u32 = 32;
/// How often a client that follows a hub looks for changes of its own database.
pub const LOCAL_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// After so many failures in a row to watch the hub, it is polled beside it.
pub const WATCH_FAILURES_MAX: u32 = 3;
/// How often the hub is polled while it can't be watched.
pub const WATCH_POLL_INTERVAL: Duration = Duration::from_secs(30);
/// How long a client that follows a hub waits at least after a run that failed; a random part of it is added.
pub const FAILED_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause before another attempt to watch; a random part of it is waited.
pub const WATCH_PAUSE_MAX: Duration = Duration::from_secs(30);
/// For how long a session that was opened ahead waits for news.
pub const AHEAD_KEPT: Duration = Duration::from_secs(60);
/// How long opening a session ahead may take, or telling the hub that it is not needed.
pub const AHEAD_DEADLINE: Duration = Duration::from_secs(1);
/// How often rows that the hub refused are tried again by a client that follows it.
pub const LEFT_BEHIND_INTERVAL: Duration = Duration::from_secs(60);
/// How often the rows that were applied are looked at for the progress.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

// Of a download a killed client loses less than a batch of the usual size: what is on its way, and what waits to be
// written of each transfer in flight.
const _: () = assert!(
    CONNECTION_WINDOW_BYTES as usize
        + protocol::BATCHES_IN_FLIGHT as usize * CHUNKS_WRITTEN_MAX * protocol::CHUNK_BYTES_SENT
        < protocol::BATCH_BYTES_DEFAULT as usize
);
const _: () = assert!(SILENCE_MAX.as_secs() > 2 * 10 && CHUNK_DEADLINE.as_secs() < SILENCE_MAX.as_secs());
const _: () =
    assert!(STREAM_WINDOW_BYTES as usize >= protocol::BATCHES_IN_FLIGHT as usize * protocol::CHUNK_BYTES_MAX);
const _: () = assert!(2 * FAILED_PAUSE.as_secs() < WATCH_POLL_INTERVAL.as_secs());
const _: () = assert!(RELEASE_WAITING_MAX <= protocol::RELEASE_BATCHES_MAX);
