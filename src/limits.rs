//! Every bound of the protocol, in one place. Sizes in bytes.

/// Characters of a scope's name.
pub const SCOPE_NAME_BYTES_MAX: usize = 63;
/// What a client calls itself.
pub const CLIENT_NAME_BYTES_MAX: usize = 200;

/// Batch size before compression: what is agreed if nobody says otherwise. Both sides hold a few batches in memory at any
/// moment, and what a broken connection costs is less than one.
pub const BATCH_BYTES_DEFAULT: u64 = 2 << 20;
/// The smallest batch size that can be agreed.
pub const BATCH_BYTES_MIN: u64 = 64 << 10;
/// The largest batch size that can be agreed.
pub const BATCH_BYTES_MAX: u64 = 64 << 20;
/// A row larger than a batch has a batch of its own, up to this.
pub const ROW_BYTES_DEFAULT: u64 = 64 << 20;
/// The largest row bound that can be agreed.
pub const ROW_BYTES_MAX: u64 = 512 << 20;
/// What framing may add to a batch's rows, in the decoded form.
pub const BATCH_OVERHEAD_BYTES_MAX: u64 = 1 << 20;
/// Rows of a batch.
pub const BATCH_ROWS_MAX: u32 = 1 << 20;
/// Cells of a batch (rows times columns, NULLs too), as a multiple of the agreed batch size in bytes. Senders count a cell
/// as a byte at least; twice that leaves room for a last row that went beyond the size.
pub const BATCH_CELLS_A_BYTE_MAX: u64 = 2;
/// Blocks of a batch.
pub const BATCH_BLOCKS_MAX: usize = 4_096;
/// Columns of a block, and of a table.
pub const BLOCK_COLUMNS_MAX: usize = 1_600;
/// A batch of at most this many stored bytes may travel inline.
pub const INLINE_BATCH_BYTES_MAX: usize = 64 << 10;
/// Inline bytes of one call.
pub const INLINE_CALL_BYTES_MAX: usize = 1 << 20;
/// Batches of one direction of a session.
pub const SESSION_BATCHES_MAX: u32 = 1 << 20;
/// Batches of one upload: their infos travel in one message.
pub const UPLOAD_BATCHES_MAX: usize = 8_192;
/// Batches in flight at once, each way: one at a time leaves a long link idle. Batches smaller than
/// [`BATCH_BYTES_DEFAULT`] travel one by one: what a broken connection costs is less than a batch of the agreed size, and
/// the windows that several share hold more than a small one.
pub const BATCHES_IN_FLIGHT: u32 = 4;

/// A chunk of a stream: what a receiver takes.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;
/// A chunk of a stream: what a sender makes. What of a message has arrived when a connection breaks is lost, so on links
/// that break often large chunks never arrive at all: four in flight share what passes between two breaks.
pub const CHUNK_BYTES_SENT: usize = 16 << 10;
const _: () = assert!(CHUNK_BYTES_SENT <= CHUNK_BYTES_MAX);
/// The data of one unary upload.
pub const UNARY_CHUNK_BYTES_MAX: usize = 1 << 20;
/// A gRPC message.
pub const MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Chunks that wait between a reader and a stream.
pub const CHUNK_CHANNEL_MAX: usize = 4;
/// Batches that one ReleaseBatches names.
pub const RELEASE_BATCHES_MAX: usize = 4_096;

/// Clocks in a knowledge.
pub const KNOWLEDGE_CLOCKS_MAX: usize = 4_096;
/// Missing ranges in a clock.
pub const CLOCK_RANGES_MAX: usize = 16_384;
/// Row exceptions in a knowledge, and excepted keys in a request.
pub const ROW_EXCEPTIONS_MAX: usize = 10_000;
/// A knowledge on the wire.
pub const KNOWLEDGE_BYTES_MAX: usize = 512 << 10;

/// Parameters of a scope.
pub const PARAMETERS_MAX: usize = 32;
/// A parameter's value.
pub const PARAMETER_BYTES_MAX: usize = 4_096;
/// Tables of a scope.
pub const SCOPE_TABLES_MAX: usize = 1_024;

/// Status details: tonic's client loses the whole status above about 11 KB.
pub const STATUS_DETAILS_BYTES_MAX: usize = 4 << 10;
/// Field violations that a status names.
pub const FIELD_VIOLATIONS_MAX: usize = 20;
/// Conflicts that an answer lists; the rest is in the log.
pub const CONFLICTS_LISTED_MAX: usize = 1_000;
/// Row errors of one session; more of them fail it.
pub const ROW_ERRORS_MAX: usize = 10_000;

/// The zstd window that a decoder takes.
pub const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;
/// The zstd level of live batches: 5 and above cost much and give nothing.
pub const ZSTD_LEVEL: i32 = 1;
/// The gzip level of live batches: level 6 is 20 times slower.
pub const GZIP_LEVEL: u32 = 1;

const _: () = assert!(BATCH_BYTES_MIN <= BATCH_BYTES_DEFAULT && BATCH_BYTES_DEFAULT <= BATCH_BYTES_MAX);
const _: () = assert!(ROW_BYTES_DEFAULT <= ROW_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES_MAX < MESSAGE_BYTES_MAX && UNARY_CHUNK_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () =
    assert!(INLINE_BATCH_BYTES_MAX <= INLINE_CALL_BYTES_MAX && INLINE_CALL_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(KNOWLEDGE_BYTES_MAX < MESSAGE_BYTES_MAX);
