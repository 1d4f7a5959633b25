//! What an uploaded delete takes along by the hub's own cascades: judged as if the leaf had deleted it too.

use syncline::knowledge::RowKey;

use super::super::hub::Hub;
use super::super::judge::{Judgement, Sender, UploadedRow, judge};
use super::super::policy::{Conflict, Place};
use super::super::row::{is_live, row_name};
use super::super::transaction::TransactionId;
use super::super::world::World;
use super::{Apply, held};

impl Apply {
    /// Whether another transaction holds a row that would go along.
    pub(super) fn is_cascade_locked(hub: &Hub, transaction: TransactionId, row: &UploadedRow) -> bool {
        goes_along(hub, transaction, row).iter().any(|child| hub.is_locked(transaction, child))
    }

    /// Judges the rows that would go along with a delete that is about to be written. Those that lose are kept in the
    /// log. If one of them wins, the delete loses with it: its row stays, the sender gets it back, and this answers true.
    pub(super) fn is_held_by_children(
        &mut self,
        world: &mut World,
        hub: &mut Hub,
        transaction: TransactionId,
        row: &UploadedRow,
    ) -> bool {
        let mut losers = Vec::new();
        for child in goes_along(hub, transaction, row) {
            hub.transaction(transaction).locks.insert(child.clone());
            let judged_by = held(world, hub, transaction, &child, None);
            let sender = Sender {
                id: self.upload.sender,
                made_with: &self.made_with,
                applied_before: &self.applied_before,
            };
            let uploaded = UploadedRow { key: child.clone(), birth: None, ..row.clone() };
            let Some(mine) = judged_by.state.clone() else { continue };
            if judge(sender, &uploaded, &judged_by, &world.rules) != Judgement::Conflict {
                continue;
            }
            if !hub.policy.prefers_leaf(&mine, &row.state) {
                self.keep(world, hub, transaction, row);
                return true;
            }
            losers.push((child, mine));
        }
        let place = (Place::Hub, self.upload.sender);
        for (child, mine) in losers {
            self.conflicts.push(Conflict::new(&child, place, (&mine, &row.state), true, &self.made_with));
            world.ledger.record(&mine);
            world.tell(|| format!("{} goes along with {}", row_name(&child), row_name(&row.key)));
        }
        false
    }

    fn keep(&mut self, world: &mut World, hub: &mut Hub, transaction: TransactionId, row: &UploadedRow) {
        let Some(mine) = hub.row(transaction, &row.key).cloned() else { return };
        let sender = self.upload.sender;
        let place = (Place::Hub, sender);
        self.conflicts.push(Conflict::new(&row.key, place, (&mine, &row.state), false, &self.made_with));
        world.ledger.record(&row.state);
        world.tell(|| format!("{} stays for what refers to it", row_name(&row.key)));
        // To everybody it is as if the hub had written it again: else the sender would not hear of it.
        let again = world.write(Some(&mine), mine.content.clone());
        // What it holds is in the log.
        world.ledger.record(&again);
        hub.put_record(transaction, &row.key, again.clone(), Some(sender), false);
        hub.transaction(transaction).writes.insert(row.key.clone(), again);
    }
}

fn goes_along(hub: &Hub, transaction: TransactionId, row: &UploadedRow) -> Vec<RowKey> {
    if row.state.is_live() || !is_live(hub.row(transaction, &row.key)) {
        return Vec::new();
    }
    let children = hub.triggers.cascades.get(&row.key).into_iter().flatten();
    children.filter(|child| is_live(hub.row(transaction, child))).cloned().collect()
}
