//! Every bound and deadline of the service, in one place.

use std::time::Duration;

use syncline::limits::{CHUNK_BYTES_MAX, CHUNK_CHANNEL_MAX};

/// Bytes that a client may send ahead on one stream: what an uploader can pin.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that a client may send ahead on one connection: what may be on its way when this side dies, and is sent again
/// then.
pub const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// An HTTP/2 frame: a chunk fits into one.
pub const FRAME_BYTES_MAX: u32 = 256 << 10;
/// Headers of one request.
pub const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Calls at once on one connection.
pub const CONNECTION_CALLS_MAX: u32 = 128;
/// Silence on a connection after which it is pinged.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long a ping may stay without an answer.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// No connection grows older: every call can be taken up on another one.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// How long calls of a connection that has grown too old may go on.
pub const CONNECTION_AGE_GRACE: Duration = Duration::from_secs(60);
/// Pause after the machine had no room for another connection.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at once, if the configuration does not say otherwise.
pub const CONNECTIONS_MAX_DEFAULT: usize = 4_096;
/// Calls at once, over all connections, if the configuration does not say otherwise.
pub const CALLS_MAX_DEFAULT: usize = 4_096;

/// Deadline of BeginSession.
pub const BEGIN_DEADLINE: Duration = Duration::from_secs(30);
/// Deadline of the other unary calls.
pub const UNARY_DEADLINE: Duration = Duration::from_secs(10);
/// An upload without a chunk for this long ends; what has arrived is kept.
pub const CHUNK_DEADLINE: Duration = Duration::from_secs(30);
/// Silence of GetChanges and ApplyChanges after which Progress is sent (the protocol promises 10 s).
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// When a caller that was turned away should come back.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Characters of a request id that the client chose.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// The message of a status.
pub const STATUS_MESSAGE_BYTES_MAX: usize = 1 << 10;
/// What a field violation, or a value of an error's metadata, says.
pub const STATUS_TEXT_BYTES_MAX: usize = 256;

/// Scopes on a page, if the caller does not say otherwise.
pub const PAGE_SIZE_DEFAULT: usize = 50;
/// Scopes on a page at most.
pub const PAGE_SIZE_MAX: usize = 1_000;

/// How long calls may go on after the service was told to stop, if the configuration does not say otherwise.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(25);
/// After the last call has ended: for the last answers to leave.
pub const CLOSE_FLUSH: Duration = Duration::from_secs(1);
/// After the grace period: at least this is left for the hub to park what it does.
pub const PARK_MIN: Duration = Duration::from_secs(5);
/// How long the hub has to roll back what it did not finish in that time.
pub const ABORT_MAX: Duration = Duration::from_secs(2);

// A slow reader holds at most one stream window of chunks.
const _: () = assert!(CHUNK_BYTES_MAX * CHUNK_CHANNEL_MAX <= STREAM_WINDOW_BYTES as usize);
const _: () = assert!(KEEPALIVE_INTERVAL.as_secs() < 10);
const _: () = assert!(STATUS_MESSAGE_BYTES_MAX < syncline::limits::STATUS_DETAILS_BYTES_MAX);
