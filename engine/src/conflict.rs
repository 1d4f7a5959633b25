//! Who wins: pure decisions over values. The rules are those of the algebra; I/O surrounds them.

use syncline::conflict::{ConflictKind, Outcome, Side};
use syncline::knowledge::{Knowledge, RowKey, Version};
use syncline::schema::ConflictPolicy;

/// What a hub holds of a row when an uploaded change of it is judged: read after the row was locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubRow {
    /// Whether the base row is there.
    pub present: bool,
    /// The row's version: its newest visible log entry's or record's, else the table's baseline if the row is there;
    /// `None` if the hub has it neither as row nor as tombstone.
    pub version: Option<Version>,
    /// Whether the row's `via` is the sender: its own upload, whatever a trigger made of it since.
    pub via_sender: bool,
    /// When it was changed, in microseconds since 1970 UTC.
    pub changed_at: i64,
}

/// An uploaded change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncomingRow {
    /// Whether the row is removed.
    pub removes: bool,
    /// Whether the row was born at the sender since its last acknowledgement, and the hub does not know the tick of its
    /// birth: what it knows it has had, also if the leaf never heard of it.
    pub born: bool,
    /// When it was changed, corrected by the clock offset and never later than the hub's now.
    pub changed_at: i64,
}

/// What to do with an uploaded change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write it.
    Apply,
    /// The hub holds the same already: keep the hub's version.
    Unchanged,
    /// It is an update of a row that the hub lacks, which loses: write a tombstone so that the sender hears of it,
    /// and log the conflict.
    ConflictTombstone(ConflictKind),
    /// Log it, and write the row if the outcome says so.
    Conflict(ConflictKind, Outcome),
}

/// Whether the change was made with knowledge of what the hub holds (rules 3 and 5).
#[must_use]
pub fn is_plain(row: &RowKey, held: &HubRow, incoming: &IncomingRow, made_with: &Knowledge) -> bool {
    match held.version {
        Some(version) => held.via_sender || made_with.contains(row, version),
        // Nothing is held: plain for a row that was born at the sender, and for a delete of nothing.
        None => incoming.removes || incoming.born,
    }
}

/// Judges an uploaded change that the leaf's clock does not contain yet. `equal_content` says whether the base row and
/// the incoming row hold the same canonical values; it is looked at only if both are there.
#[must_use]
pub fn judge_upload(
    row: &RowKey,
    held: &HubRow,
    incoming: &IncomingRow,
    made_with: &Knowledge,
    equal_content: bool,
    policy: ConflictPolicy,
) -> Verdict {
    if is_plain(row, held, incoming, made_with) {
        // A delete of what is not there changes nothing.
        return if incoming.removes && !held.present { Verdict::Unchanged } else { Verdict::Apply };
    }
    if (incoming.removes && !held.present) || (!incoming.removes && held.present && equal_content) {
        return Verdict::Unchanged;
    }
    let kind = upload_kind(held, incoming);
    let outcome = match policy {
        ConflictPolicy::ServerWins => Outcome::Local,
        ConflictPolicy::ClientWins => Outcome::Remote,
        ConflictPolicy::LastWriterWins if incoming.changed_at > held.changed_at => Outcome::Remote,
        ConflictPolicy::LastWriterWins => Outcome::Local,
    };
    if held.version.is_none() && outcome == Outcome::Local {
        return Verdict::ConflictTombstone(kind);
    }
    Verdict::Conflict(kind, outcome)
}

fn upload_kind(held: &HubRow, incoming: &IncomingRow) -> ConflictKind {
    let remote = match (incoming.removes, incoming.born && held.present) {
        (true, _) => Side::Delete,
        (false, true) => Side::Insert,
        (false, false) => Side::Update,
    };
    let local = match (held.present, remote) {
        (false, _) => Side::Delete,
        (true, Side::Insert) => Side::Insert,
        (true, _) => Side::Update,
    };
    ConflictKind { local, remote }
}

/// What a leaf holds of a row that is dirty when a change of it comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirtyRow {
    /// Whether the base row is there.
    pub present: bool,
    /// Whether it was born here since its last acknowledgement.
    pub born: bool,
    /// When it was changed.
    pub changed_at: i64,
}

/// What a leaf does with a change that meets a dirty row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafVerdict {
    /// Same content: take it, the row is clean.
    Same,
    /// Log it and take the incoming row.
    TakeIncoming(ConflictKind),
    /// Log it and keep the leaf's row, under a new tick.
    KeepOwn {
        /// What met what.
        kind: ConflictKind,
        /// Whether it is born again at that tick: the hub has deleted it. Otherwise its birth stays as it was.
        born_again: bool,
    },
}

/// Judges a change that comes down to a dirty row. The hub's policy names the sides the other way round here: at a leaf
/// the incoming row is the server's.
#[must_use]
pub fn judge_download(
    dirty: &DirtyRow,
    incoming_removes: bool,
    incoming_changed_at: Option<i64>,
    equal_content: bool,
    policy: ConflictPolicy,
) -> LeafVerdict {
    let both_gone = incoming_removes && !dirty.present;
    if both_gone || (!incoming_removes && dirty.present && equal_content) {
        return LeafVerdict::Same;
    }
    let remote = match (incoming_removes, dirty.born) {
        (true, _) => Side::Delete,
        (false, true) => Side::Insert,
        (false, false) => Side::Update,
    };
    let local = match (dirty.present, remote) {
        (false, _) => Side::Delete,
        (true, Side::Insert) => Side::Insert,
        (true, _) => Side::Update,
    };
    // A dirty delete meets an update, whatever was born before it.
    let remote = if local == Side::Delete && remote == Side::Insert { Side::Update } else { remote };
    let kind = ConflictKind { local, remote };
    let keep = match policy {
        ConflictPolicy::ServerWins => false,
        ConflictPolicy::ClientWins => true,
        // Ties go to the hub. A removal that carries no time of its own is judged as the hub's latest word.
        ConflictPolicy::LastWriterWins => incoming_changed_at.is_some_and(|at| dirty.changed_at > at),
    };
    if keep {
        LeafVerdict::KeepOwn { kind, born_again: incoming_removes }
    } else {
        LeafVerdict::TakeIncoming(kind)
    }
}
