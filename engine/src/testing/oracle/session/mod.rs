//! A session of a leaf with its hub, step by step: it can be killed after each, and be taken up again.
//!
//! ```text
//!  begin ── marks match? ── no ──> REPLICA_DIVERGED
//!    └─> upload ──> apply at the hub ──> answer ──> snapshot ──> spool ──> apply at the leaf ──> end
//!                                                      └─ broken off ─> second snapshot ─┘
//! ```

mod download;
mod upload;

use std::collections::{BTreeMap, BTreeSet};

use syncline::ids::Mark;
use syncline::knowledge::{Knowledge, RowKey};

use super::apply::{Apply, ApplyProgress, Upload};
use super::fold::Progress;
use super::hub::Hub;
use super::leaf::Leaf;
use super::policy::Conflict;
use super::row::RowState;
use super::snapshot::{Opened, Opening};
use super::world::World;

/// Names a session; a leaf takes up the one that it has not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionNumber(pub(super) u64);

/// What a session shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// It uploads nothing (a leaf that must reinitialise uploads all the same).
    pub is_download_only: bool,
    /// Its enumeration breaks off, and goes on under a second snapshot.
    pub breaks_off: bool,
}

impl SessionOptions {
    /// A session as it usually is.
    pub const WHOLE: Self = Self { is_download_only: false, breaks_off: false };
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything was exchanged.
    Complete,
    /// The leaf has a new id now; the next session compares everything.
    Diverged,
    /// A lock did not come in time; to be repeated.
    LockTimeout,
    /// What was enumerated can't be gone on with; to be repeated.
    StartOver,
}

/// What a session did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// How it ended, if it has.
    pub ending: Option<Ending>,
    /// Rows that were uploaded.
    pub uploaded: usize,
    /// Rows that the hub refused.
    pub refused: BTreeSet<RowKey>,
    /// Rows that were downloaded.
    pub downloaded: usize,
    /// Conflicts that were found at the hub, then those at the leaf.
    pub conflicts: Vec<Conflict>,
}

/// How far a session is: what its next step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// BeginSession.
    Begin,
    /// The leaf enumerates its dirty rows.
    Upload,
    /// The hub applies them.
    Apply,
    /// The hub has committed them, and its answer arrives.
    Answer,
    /// The download is asked for.
    Download,
    /// The hub opens a snapshot, and enumerates.
    Enumerate,
    /// The leaf applies what is spooled.
    Receive,
    /// The hub is told that the leaf has everything.
    End,
    /// Nothing: it has ended.
    Ended,
}

/// What was enumerated for a leaf.
#[derive(Debug)]
pub(super) struct Spool {
    session: SessionNumber,
    rows: BTreeMap<RowKey, RowState>,
    learned: Knowledge,
    /// What the enumeration was asked to leave out.
    asked: Knowledge,
    is_whole: bool,
    is_complete: bool,
    mark: Mark,
}

/// A session that goes on.
#[derive(Debug)]
pub struct Session {
    /// The place of its leaf in the oracle.
    pub(super) leaf: usize,
    options: SessionOptions,
    stage: Stage,
    pub(super) report: Report,
}

#[derive(Debug)]
enum Stage {
    Beginning,
    Uploading {
        /// Without the rule: a mark that was drawn before the snapshot.
        drawn_early: Option<Mark>,
    },
    Applying {
        apply: Box<Apply>,
        upload: Upload,
    },
    Answering {
        upload: Upload,
        refused: BTreeSet<RowKey>,
    },
    Downloading,
    Opening(Opening),
    Spooled,
    Applied,
    Ended(Ending),
}

impl Session {
    pub(super) fn new(leaf: usize, options: SessionOptions) -> Self {
        Self { leaf, options, stage: Stage::Beginning, report: Report::default() }
    }

    /// How far it is.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match self.stage {
            Stage::Beginning => Standing::Begin,
            Stage::Uploading { .. } => Standing::Upload,
            Stage::Applying { .. } => Standing::Apply,
            Stage::Answering { .. } => Standing::Answer,
            Stage::Downloading => Standing::Download,
            Stage::Opening(_) => Standing::Enumerate,
            Stage::Spooled => Standing::Receive,
            Stage::Applied => Standing::End,
            Stage::Ended(_) => Standing::Ended,
        }
    }

    /// One step.
    pub(super) fn advance(&mut self, world: &mut World, hub: &mut Hub, leaf: &mut Leaf) -> Progress {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended(Ending::LockTimeout));
        let (stage, progress) = match stage {
            Stage::Beginning => (begin(world, hub, leaf), Progress::Running),
            Stage::Uploading { drawn_early } => {
                (self.upload(world, hub, leaf, drawn_early), Progress::Running)
            }
            Stage::Applying { apply, upload } => self.apply(world, hub, leaf, apply, upload),
            Stage::Answering { upload, refused } => {
                upload::answer(world, hub, leaf, &upload, &refused);
                self.report.refused = refused;
                (Stage::Downloading, Progress::Running)
            }
            Stage::Downloading => (download::begin(hub, leaf), Progress::Running),
            Stage::Opening(opening) => self.open(world, hub, leaf, opening),
            Stage::Spooled => (self.download(world, hub, leaf), Progress::Running),
            Stage::Applied => {
                hub.spools.remove(&leaf.id);
                (Stage::Ended(Ending::Complete), Progress::Running)
            }
            Stage::Ended(ending) => (Stage::Ended(ending), Progress::Done),
        };
        self.stage = stage;
        let Stage::Ended(ending) = self.stage else { return progress };
        self.report.ending = Some(ending);
        Progress::Done
    }

    /// Stops it, wherever it is.
    pub(super) fn kill(self, hub: &mut Hub) {
        match self.stage {
            Stage::Applying { apply, .. } => apply.kill(hub),
            Stage::Opening(opening) => opening.kill(hub),
            _ => {}
        }
    }

    fn apply(
        &mut self,
        world: &mut World,
        hub: &mut Hub,
        leaf: &mut Leaf,
        mut apply: Box<Apply>,
        upload: Upload,
    ) -> (Stage, Progress) {
        match apply.advance(world, hub) {
            ApplyProgress::Running => (Stage::Applying { apply, upload }, Progress::Running),
            ApplyProgress::Waiting => (Stage::Applying { apply, upload }, Progress::Waiting),
            ApplyProgress::Committed { refused, conflicts } => {
                self.report.uploaded = upload.rows.len();
                self.report.conflicts = conflicts;
                (Stage::Answering { upload, refused }, Progress::Running)
            }
            ApplyProgress::GaveUp => (Stage::Ended(Ending::LockTimeout), Progress::Done),
            ApplyProgress::Diverged => {
                leaf.diverge(world);
                (Stage::Ended(Ending::Diverged), Progress::Done)
            }
        }
    }

    fn open(
        &mut self,
        world: &mut World,
        hub: &mut Hub,
        leaf: &mut Leaf,
        opening: Opening,
    ) -> (Stage, Progress) {
        match opening.advance(world, hub) {
            Opened::Waiting => (Stage::Opening(Opening::Begun), Progress::Waiting),
            Opened::Running(opening) => (Stage::Opening(opening), Progress::Running),
            Opened::Done(snapshot) => (self.enumerate(world, hub, leaf, &snapshot), Progress::Running),
        }
    }
}

/// BeginSession: both sides see whether they are who they were.
fn begin(world: &mut World, hub: &mut Hub, leaf: &mut Leaf) -> Stage {
    let session = *leaf.session.get_or_insert_with(|| world.number_session());
    if !do_marks_match(world, hub, leaf) {
        leaf.diverge(world);
        return Stage::Ended(Ending::Diverged);
    }
    let is_ahead = !hub.knowledge(world).covers(&leaf.knowledge);
    if is_ahead && world.rules.gate_reinit {
        world.tell(|| format!("{} knows more than its hub", leaf.name));
        leaf.must_reinitialise = true;
    }
    // A new session discards what the old one spooled.
    if hub.spools.get(&leaf.id).is_some_and(|spool| spool.session != session) {
        hub.spools.remove(&leaf.id);
    }
    // BeginSession answers the mark that the hub holds.
    let held = hub.state.upload_marks.get(&leaf.id).copied();
    let marks = leaf.marks.entry(hub.name.clone()).or_default();
    marks.drawn = held;
    marks.answered = held;
    Stage::Uploading { drawn_early: None }
}

fn do_marks_match(world: &World, hub: &Hub, leaf: &Leaf) -> bool {
    let presented = leaf.marks.get(&hub.name).copied().unwrap_or_default();
    let uploaded = hub.state.upload_marks.get(&leaf.id).copied();
    let downloaded = hub.state.download_marks.get(&leaf.id).copied().unwrap_or_default();
    let is_upload_right = uploaded == presented.drawn || uploaded == presented.answered;
    let is_download_right =
        presented.download == downloaded.presented || presented.download == downloaded.drawn;
    (is_upload_right || !world.rules.chain_upload) && (is_download_right || !world.rules.chain_down)
}
