//! The rows of an upload: each is locked, judged, and written or not.

use syncline::knowledge::Version;

use super::super::fold::LOCK_WAITS_MAX;
use super::super::hub::Hub;
use super::super::judge::{Held, Judgement, Sender, UploadedRow, judge};
use super::super::policy::{Conflict, Place};
use super::super::row::{RowState, replica_name, row_name};
use super::super::tracking::HubKind;
use super::super::transaction::TransactionId;
use super::super::world::{Fault, World};
use super::{Apply, ApplyProgress, Queued, held};

impl Apply {
    /// Applies one row.
    pub(super) fn row(
        &mut self,
        world: &mut World,
        hub: &mut Hub,
        transaction: TransactionId,
        mut queued: Queued,
    ) -> ApplyProgress {
        let key = queued.row.key.clone();
        if hub.is_locked(transaction, &key) || Self::is_cascade_locked(hub, transaction, &queued.row) {
            self.queue.push_front(queued);
            return self.wait(hub, LOCK_WAITS_MAX);
        }
        self.waits = 0;
        hub.transaction(transaction).locks.insert(key.clone());
        let version = Version { replica: self.upload.sender, tick: queued.row.tick };
        if self.applied_before.contains(&key, version) {
            return ApplyProgress::Running;
        }
        let reads_apart = !world.rules.one_stmt && hub.state.kind == HubKind::Transactions;
        if reads_apart && queued.record_read.is_none() {
            queued.record_read = Some(hub.state.records.get(&key).copied());
            self.queue.push_front(queued);
            return ApplyProgress::Running;
        }
        if hub.is_taken(transaction, &key, queued.row.state.content.as_ref()) {
            self.refuse_or_retry(world, queued);
            return ApplyProgress::Running;
        }
        let judged_by = match self.read_before_locking.remove(&key) {
            Some(early) => early,
            None => held(world, hub, transaction, &key, queued.record_read),
        };
        let sender = Sender {
            id: self.upload.sender,
            made_with: &self.made_with,
            applied_before: &self.applied_before,
        };
        match judge(sender, &queued.row, &judged_by, &world.rules) {
            Judgement::Apply => self.write(world, hub, transaction, &queued.row, &judged_by),
            Judgement::Same => hub.transaction(transaction).same.push((key, queued.row.state)),
            Judgement::Conflict => self.resolve(world, hub, transaction, &queued.row, &judged_by),
        }
        ApplyProgress::Running
    }

    /// A value that is taken may be free once the others are written; if it is not, the row is refused.
    fn refuse_or_retry(&mut self, world: &mut World, mut queued: Queued) {
        if queued.is_last_attempt {
            world.tell(|| format!("row error: {}", row_name(&queued.row.key)));
            self.refused.insert(queued.row.key);
        } else {
            queued.is_last_attempt = true;
            queued.record_read = None;
            self.queue.push_back(queued);
        }
    }

    fn write(
        &mut self,
        world: &mut World,
        hub: &mut Hub,
        transaction: TransactionId,
        row: &UploadedRow,
        judged_by: &Held,
    ) {
        if self.is_held_by_children(world, hub, transaction, row) {
            return;
        }
        self.judge_overwrite(world, hub, transaction, row, judged_by);
        hub.put(world, transaction, &row.key, row.state.clone(), Some(self.upload.sender));
    }

    fn resolve(
        &mut self,
        world: &mut World,
        hub: &mut Hub,
        transaction: TransactionId,
        row: &UploadedRow,
        held: &Held,
    ) {
        let mine = held.state.clone().unwrap_or_else(|| world.write(None, None));
        let leaf_won = hub.policy.prefers_leaf(&mine, &row.state);
        if leaf_won && self.is_held_by_children(world, hub, transaction, row) {
            return;
        }
        self.record(world, row, (&mine, held.version), leaf_won);
        if leaf_won {
            let winner = row.state.clone().having_seen(&mine);
            hub.put(world, transaction, &row.key, winner, Some(self.upload.sender));
        } else if held.version.is_none() {
            // A tombstone, so that the sender hears of it.
            let tombstone = world.write(Some(&mine), None);
            hub.put(world, transaction, &row.key, tombstone, None);
        }
    }

    fn record(
        &mut self,
        world: &mut World,
        row: &UploadedRow,
        (mine, version): (&RowState, Option<Version>),
        leaf_won: bool,
    ) {
        let sender = self.upload.sender;
        let place = (Place::Hub, sender);
        self.conflicts.push(Conflict::new(&row.key, place, (mine, &row.state), leaf_won, &self.made_with));
        world.tell(|| {
            let (name, leaf) = (row_name(&row.key), replica_name(sender));
            let (held, uploaded) = (mine.write.0, row.state.write.0);
            format!("conflict at hub: {name}, hub {held} and {leaf} {uploaded}, leaf won: {leaf_won}")
        });
        if self.is_needless(world, row, (mine, version)) {
            let what = format!("{}: {} and {}", row_name(&row.key), mine.write.0, row.state.write.0);
            world.ledger.violation(Fault::NeedlessConflict, what);
        }
        world.ledger.record(mine);
        world.ledger.record(&row.state);
    }
}
