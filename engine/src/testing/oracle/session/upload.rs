//! The leaf's half of an upload: what it sends, and what an answer teaches it.

use std::collections::BTreeSet;

use syncline::ids::Mark;
use syncline::knowledge::{Knowledge, RowKey};

use super::super::apply::{Apply, Upload};
use super::super::hub::Hub;
use super::super::leaf::Leaf;
use super::super::row::replica_name;
use super::super::world::{World, told};
use super::{Session, Stage};

impl Session {
    /// Enumerates the dirty rows, and draws the mark of the upload in the same transaction.
    pub(super) fn upload(
        &self,
        world: &mut World,
        hub: &Hub,
        leaf: &mut Leaf,
        drawn_early: Option<Mark>,
    ) -> Stage {
        let is_late = world.rules.no_late_upload && hub.spools.contains_key(&leaf.id);
        let is_skipped = self.options.is_download_only && !leaf.must_reinitialise;
        if is_late || is_skipped || leaf.pending() == 0 {
            return Stage::Downloading;
        }
        if !world.rules.mark_after_snapshot && drawn_early.is_none() {
            let mark = world.draw_mark();
            leaf.marks.entry(hub.name.clone()).or_default().drawn = Some(mark);
            return Stage::Uploading { drawn_early: Some(mark) };
        }
        let mark = drawn_early.unwrap_or_else(|| world.draw_mark());
        let is_rolled_back = !world.rules.fold_commit && world.chance(30);
        let before_fold = is_rolled_back.then(|| leaf.clone());
        leaf.fold();
        let upload = leaf.enumerate(mark, made_with(world, leaf));
        if let Some(before_fold) = before_fold {
            world.tell(|| format!("{} rolls its fold back, and uploads all the same", leaf.name));
            *leaf = before_fold;
        }
        let marks = leaf.marks.entry(hub.name.clone()).or_default();
        marks.drawn = Some(mark);
        // What the hub answered when the session began.
        let begun = marks.answered;
        world.tell(|| {
            let rows = upload.rows.iter().map(|row| format!("{}@{}", told(&row.key, &row.state), row.tick));
            format!("{} uploads {:?}", replica_name(leaf.id), rows.collect::<Vec<_>>())
        });
        Stage::Applying { apply: Box::new(Apply::new(upload.clone(), begun)), upload }
    }
}

/// What the leaf's changes were built on.
fn made_with(world: &World, leaf: &Leaf) -> Knowledge {
    if leaf.is_diverged && world.rules.diverged_made { Knowledge::new() } else { leaf.knowledge.clone() }
}

/// The answer to an upload.
pub(super) fn answer(
    world: &mut World,
    hub: &Hub,
    leaf: &mut Leaf,
    upload: &Upload,
    refused: &BTreeSet<RowKey>,
) {
    if world.rules.ack_link {
        leaf.marks.entry(hub.name.clone()).or_default().answered = Some(upload.mark);
    }
    for row in &upload.rows {
        if refused.contains(&row.key) {
            leaf.refused(world, row);
        } else {
            leaf.acknowledged(world, row);
        }
    }
    world.tell(|| format!("{} has its answer", leaf.name));
}
