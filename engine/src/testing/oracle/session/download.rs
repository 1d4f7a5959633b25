//! The download of a session: what is enumerated, also under a second snapshot, and how the leaf takes it.

use syncline::ids::Mark;
use syncline::knowledge::{Knowledge, RowKey};

use super::super::download::Download;
use super::super::hub::Hub;
use super::super::leaf::Leaf;
use super::super::row::replica_name;
use super::super::snapshot::{Opening, Question, Snapshot};
use super::super::tracking::DownloadMarks;
use super::super::world::{World, told};
use super::{Ending, Session, SessionNumber, Spool, Stage};

/// GetChanges: goes on with what is spooled, or opens a snapshot.
pub(super) fn begin(hub: &Hub, leaf: &Leaf) -> Stage {
    match hub.spools.get(&leaf.id) {
        Some(spool) if spool.is_complete => Stage::Spooled,
        _ => Stage::Opening(Opening::Begun),
    }
}

impl Session {
    /// A snapshot is open: the session's first, or one to go on under.
    pub(super) fn enumerate(
        &self,
        world: &mut World,
        hub: &mut Hub,
        leaf: &Leaf,
        snapshot: &Snapshot,
    ) -> Stage {
        let Some(session) = leaf.session else { return Stage::Ended(Ending::StartOver) };
        let spool = match hub.spools.remove(&leaf.id) {
            None => first(world, hub, leaf, snapshot, session),
            Some(spool) => match second(world, hub, leaf, snapshot, spool) {
                Some(spool) => spool,
                None => return Stage::Ended(Ending::StartOver),
            },
        };
        let breaks_off = self.options.breaks_off && !spool.is_complete;
        let spool = Spool { is_complete: !breaks_off, ..spool };
        hub.spools.insert(leaf.id, spool);
        if breaks_off { Stage::Opening(Opening::Begun) } else { Stage::Spooled }
    }

    /// The leaf applies what is spooled, and learns.
    pub(super) fn download(&mut self, world: &mut World, hub: &Hub, leaf: &mut Leaf) -> Stage {
        let Some(spool) = hub.spools.get(&leaf.id) else { return Stage::Ended(Ending::StartOver) };
        let download =
            Download { rows: spool.rows.clone(), learned: spool.learned.clone(), is_whole: spool.is_whole };
        world.tell(|| {
            let rows: Vec<_> = download.rows.iter().map(|(key, state)| told(key, state)).collect();
            format!("{} downloads {rows:?}, whole: {}", replica_name(leaf.id), download.is_whole)
        });
        let conflicts_before = leaf.conflicts.len();
        leaf.apply(world, &download, hub.is_unique);
        leaf.marks.entry(hub.name.clone()).or_default().download = Some(spool.mark);
        leaf.session = None;
        self.report.downloaded = download.rows.len();
        self.report.conflicts.extend_from_slice(&leaf.conflicts[conflicts_before..]);
        Stage::Applied
    }
}

/// What the leaf lacks in the session's first snapshot. `is_complete` says whether there is nothing to break off.
fn first(
    world: &mut World,
    hub: &mut Hub,
    leaf: &Leaf,
    snapshot: &Snapshot,
    session: SessionNumber,
) -> Spool {
    let stored = if leaf.must_reinitialise { Knowledge::new() } else { leaf.knowledge.clone() };
    let compares = snapshot.must_compare(&stored, &world.rules);
    let asked = if compares { Knowledge::new() } else { stored };
    let is_first = asked.is_empty() && world.rules.first_full;
    let rows = snapshot.enumerate(&question(world, leaf, &asked, &asked), &world.rules);
    Spool {
        session,
        is_complete: rows.is_empty(),
        rows,
        learned: snapshot.knowledge(),
        is_whole: leaf.must_reinitialise || compares || is_first,
        asked,
        mark: draw_mark(world, hub, leaf),
    }
}

/// Goes on where the first enumeration broke off. What was read before may be older than what is read now: so what
/// changed between the two snapshots comes last.
fn second(world: &mut World, hub: &mut Hub, leaf: &Leaf, snapshot: &Snapshot, spool: Spool) -> Option<Spool> {
    let read_before = spool.asked.merge(&spool.learned);
    if snapshot.must_compare(&read_before, &world.rules) {
        return None;
    }
    let keys: Vec<RowKey> = spool.rows.keys().cloned().chain(snapshot.keys()).collect();
    let last_read = world.pick(&keys).clone();
    let now = snapshot.enumerate(&question(world, leaf, &spool.asked, &spool.asked), &world.rules);
    let mut rows = spool.rows;
    rows.retain(|key, _| *key <= last_read);
    rows.extend(now.into_iter().filter(|(key, _)| *key > last_read));
    if world.rules.resume_between {
        rows.extend(snapshot.enumerate(&question(world, leaf, &spool.asked, &read_before), &world.rules));
    }
    world.tell(|| format!("{}: second snapshot", leaf.name));
    Some(Spool {
        rows,
        learned: snapshot.knowledge(),
        is_complete: true,
        mark: draw_mark(world, hub, leaf),
        asked: spool.asked,
        ..spool
    })
}

/// Own rows are left out only where the leaf is known to hold what it sent: if it asked with knowledge of this view.
fn question<'a>(world: &World, leaf: &Leaf, asked: &Knowledge, known: &'a Knowledge) -> Question<'a> {
    let is_echo_left_out = !asked.is_empty() || !world.rules.echo_off;
    Question { known, leaf: leaf.id, is_echo_left_out }
}

/// The hub draws a mark after each snapshot, and commits it before what is learned is handed out.
fn draw_mark(world: &mut World, hub: &mut Hub, leaf: &Leaf) -> Mark {
    let mark = world.draw_mark();
    let presented = leaf.marks.get(&hub.name).and_then(|marks| marks.download);
    let marks = DownloadMarks { presented, drawn: Some(mark) };
    hub.state.download_marks.insert(leaf.id, marks);
    mark
}
