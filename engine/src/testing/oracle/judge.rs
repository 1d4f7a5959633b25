//! What an uploaded row meets at the hub: a pure decision over what both sides hold and know.

use syncline::ids::{ReplicaId, Tick};
use syncline::knowledge::{Knowledge, RowKey, Version};

use super::row::{RowState, content_of, is_live};
use super::rules::Rules;
use super::tracking::Record;

/// A row that a leaf uploads.
#[derive(Debug, Clone)]
pub(super) struct UploadedRow {
    pub(super) key: RowKey,
    pub(super) state: RowState,
    pub(super) tick: Tick,
    /// When it was born at the leaf, if it was since its last acknowledgement.
    pub(super) birth: Option<Tick>,
}

/// What is known of the sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) id: ReplicaId,
    /// What its changes were built on.
    pub(super) made_with: &'a Knowledge,
    /// What the hub has of it already.
    pub(super) applied_before: &'a Knowledge,
}

/// What the hub holds of the row.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) state: Option<RowState>,
    pub(super) record: Option<Record>,
    /// The version of the record, or the table's baseline.
    pub(super) version: Option<Version>,
}

/// What is to be done with an uploaded row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is written.
    Apply,
    /// There is nothing to write.
    Same,
    /// The policy decides.
    Conflict,
}

/// Judges an uploaded row by what the sender knew when it made it.
pub(super) fn judge(sender: Sender<'_>, uploaded: &UploadedRow, held: &Held, rules: &Rules) -> Judgement {
    let both_absent = !uploaded.state.is_live() && !is_live(held.state.as_ref());
    let is_known = match held.version {
        // An update of a row that is neither here nor has a tombstone met a delete that was forgotten.
        None => !rules.born || is_born(sender, uploaded, rules) || !uploaded.state.is_live(),
        Some(version) => knows(sender, &uploaded.key, version, rules) || is_from(sender, held, rules),
    };
    let is_equal = content_of(Some(&uploaded.state)) == content_of(held.state.as_ref());
    match (both_absent, is_known, is_equal) {
        (true, ..) | (false, false, true) => Judgement::Same,
        (false, true, _) => Judgement::Apply,
        (false, false, false) => Judgement::Conflict,
    }
}

/// Whether the row began its life at the sender, and the hub has not had it since.
fn is_born(sender: Sender<'_>, uploaded: &UploadedRow, rules: &Rules) -> bool {
    uploaded.birth.is_some_and(|tick| {
        let version = Version { replica: sender.id, tick };
        !rules.born_tick || !sender.applied_before.contains(&uploaded.key, version)
    })
}

fn knows(sender: Sender<'_>, key: &RowKey, version: Version, rules: &Rules) -> bool {
    if rules.exc_made {
        sender.made_with.contains(key, version)
    } else {
        sender.made_with.contains_version(version)
    }
}

/// Whether the row that the hub holds came from the sender.
fn is_from(sender: Sender<'_>, held: &Held, rules: &Rules) -> bool {
    held.record.is_some_and(|record| {
        let source = if rules.via { record.via } else { record.origin };
        source == Some(sender.id)
    })
}
