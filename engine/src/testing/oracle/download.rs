//! Applying a download at a leaf: all batches in one transaction, together with what they teach.

use std::collections::BTreeMap;

use syncline::knowledge::{Knowledge, RowKey, merge_clocks};

use super::leaf::{Birth, Leaf, LeafKind};
use super::policy::{Conflict, Place};
use super::row::{RowState, content_of, row_name};
use super::world::{World, told};

/// Passes over rows whose unique values are still taken; what is left then may be swapped values.
const PASSES_MAX: usize = 4;

/// What a hub sends to a leaf.
#[derive(Debug, Clone)]
pub(super) struct Download {
    pub(super) rows: BTreeMap<RowKey, RowState>,
    pub(super) learned: Knowledge,
    /// Whether rows that are not among these are gone.
    pub(super) is_whole: bool,
}

impl Leaf {
    /// Applies a download.
    pub(super) fn apply(&mut self, world: &mut World, download: &Download, is_unique: bool) {
        if self.kind == LeafKind::FoldsFirst && world.rules.apply_fold {
            self.fold();
        }
        let before = if download.is_whole { Knowledge::new() } else { self.knowledge.clone() };
        let failed = self.write_rows(world, &download.rows, is_unique);
        if download.is_whole {
            self.remove_others(world, &download.rows);
            self.knowledge = download.learned.clone();
            self.must_reinitialise = false;
            self.is_diverged = false;
        } else {
            self.knowledge = learn(world, &self.knowledge, &download.learned);
        }
        for key in download.rows.keys() {
            if !download.learned.exceptions().contains_key(key) {
                self.knowledge.unexcept(key);
            }
        }
        for key in failed {
            world.tell(|| format!("{} can't apply {}", self.name, row_name(&key)));
            let clocks = before.clocks_for(&key).clone();
            self.knowledge.except(key, clocks);
        }
    }

    /// Writes what can be written, in as many passes as it takes. Answers what could not.
    fn write_rows(
        &mut self,
        world: &mut World,
        rows: &BTreeMap<RowKey, RowState>,
        is_unique: bool,
    ) -> Vec<RowKey> {
        let mut left: Vec<_> = rows.iter().collect();
        for _ in 0..PASSES_MAX {
            left.retain(|(key, state)| {
                let is_blocked = is_unique && self.is_taken(key, state.content.as_ref());
                if !is_blocked {
                    self.write_row(world, key, state);
                }
                is_blocked
            });
        }
        if !left.is_empty() && self.are_swapped(&left) {
            for (key, state) in std::mem::take(&mut left) {
                self.take(world, key, state.clone());
            }
        }
        left.into_iter().map(|(key, _)| key.clone()).collect()
    }

    /// Whether clean rows block nothing but each other: then all are set aside, and written at once.
    fn are_swapped(&self, left: &[(&RowKey, &RowState)]) -> bool {
        let mut end = self.rows.clone();
        end.extend(left.iter().map(|(key, state)| ((*key).clone(), (*state).clone())));
        let mut values: Vec<_> =
            end.values().filter_map(|state| state.content.as_ref().map(|content| &content.value)).collect();
        let count = values.len();
        values.sort_unstable();
        values.dedup();
        values.len() == count && left.iter().all(|(key, _)| !self.is_dirty(key))
    }

    fn write_row(&mut self, world: &mut World, key: &RowKey, incoming: &RowState) {
        let mine = self.rows.get(key).filter(|_| self.is_dirty(key)).cloned();
        let Some(mine) = mine else { return self.take(world, key, incoming.clone()) };
        if content_of(Some(&mine)) == content_of(Some(incoming)) {
            return self.take(world, key, incoming.clone().having_seen(&mine));
        }
        let leaf_won = self.policy.prefers_leaf(incoming, &mine);
        self.record(world, key, (&mine, incoming), leaf_won);
        if leaf_won {
            self.keep(world, key, mine.having_seen(incoming), incoming.is_live());
        } else {
            self.take(world, key, incoming.clone());
        }
    }

    /// The leaf's row wins: it is a new change, made in sight of what came.
    fn keep(&mut self, world: &World, key: &RowKey, mine: RowState, is_there: bool) {
        self.rows.insert(key.clone(), mine);
        if world.rules.keep_new_tick {
            self.mark(key, world.rules.mark_new);
        }
        if let Some(dirty) = self.dirty.get_mut(key)
            && world.rules.born_on_delete
            && !is_there
        {
            dirty.birth = Birth::At(dirty.tick);
        }
    }

    /// The incoming row wins.
    fn take(&mut self, world: &mut World, key: &RowKey, incoming: RowState) {
        self.judge_replacement(world, key, Some(&incoming));
        self.rows.insert(key.clone(), incoming);
        self.clean(key, world.rules.take_log);
    }

    /// Removes clean rows that the hub does not have.
    fn remove_others(&mut self, world: &mut World, rows: &BTreeMap<RowKey, RowState>) {
        let live = self.rows.iter().filter(|(_, state)| state.is_live()).map(|(key, _)| key);
        let others = live.filter(|key| !rows.contains_key(*key) && !self.is_dirty(key));
        for key in others.cloned().collect::<Vec<_>>() {
            self.judge_replacement(world, &key, None);
            if let Some(state) = self.rows.get_mut(&key) {
                state.content = None;
            }
        }
    }

    fn record(
        &mut self,
        world: &mut World,
        key: &RowKey,
        (mine, incoming): (&RowState, &RowState),
        won: bool,
    ) {
        let place = (Place::Leaf, self.id);
        self.conflicts.push(Conflict::new(key, place, (incoming, mine), won, &self.knowledge));
        world.tell(|| format!("conflict at {}: {} and {}", self.name, told(key, mine), told(key, incoming)));
        world.ledger.record(mine);
        world.ledger.record(incoming);
    }

    /// What is replaced at a leaf that diverged goes to its conflict log. Ghost: a state that is replaced by one that
    /// has not seen it is noted.
    fn judge_replacement(&mut self, world: &mut World, key: &RowKey, incoming: Option<&RowState>) {
        let Some(mine) = self.rows.get(key) else { return };
        let (content, replacing) = (&mine.content, incoming.and_then(|incoming| incoming.content.as_ref()));
        if self.is_diverged && content.is_some() && content.as_ref() != replacing && !self.is_dirty(key) {
            self.conflicts.push(Conflict {
                key: key.clone(),
                place: Place::Leaf,
                leaf: self.id,
                hub: replacing.cloned(),
                client: content.clone(),
                leaf_won: false,
                made_with: Knowledge::new(),
            });
        }
        if incoming.is_some_and(|incoming| incoming.includes(mine.write)) {
            return;
        }
        let what = format!("{}: write {} at {}", row_name(key), mine.write.0, self.name);
        world.ledger.replaced_edits.push((mine.write, what));
    }
}

/// What the leaf knows once the download is applied.
fn learn(world: &World, known: &Knowledge, learned: &Knowledge) -> Knowledge {
    if world.rules.exc_merge {
        return known.merge(learned);
    }
    // Without the rule, what the source could not apply itself is taken for known.
    let naive = Knowledge::from_clocks(learned.clocks().clone());
    let mut merged = known.merge(&naive);
    for (key, clocks) in known.exceptions() {
        merged.except(key.clone(), merge_clocks(clocks, learned.clocks()));
    }
    merged
}
