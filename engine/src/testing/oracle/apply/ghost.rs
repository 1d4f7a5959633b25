//! Ghost: what an apply may not do. No decision reads any of this.

use syncline::knowledge::Version;

use super::super::hub::Hub;
use super::super::judge::{Held, UploadedRow};
use super::super::row::{RowState, replica_name, row_name};
use super::super::transaction::TransactionId;
use super::super::world::{Fault, World};
use super::{Apply, held};

impl Apply {
    /// Ghost: what is overwritten must have been seen, or be in a record.
    pub(super) fn judge_overwrite(
        &self,
        world: &mut World,
        hub: &Hub,
        transaction: TransactionId,
        row: &UploadedRow,
        judged_by: &Held,
    ) {
        let Some(present) = hub.row(transaction, &row.key).cloned() else { return };
        let sender = self.upload.sender;
        let record = held(world, hub, transaction, &row.key, None).record;
        let is_senders = record.is_some_and(|record| record.via == Some(sender));
        // What a trigger of the hub made of the sender's own row, the sender may overwrite unseen.
        if is_senders && world.ledger.completes.contains_key(&present.write) {
            world.ledger.recorded.insert(present.write);
        }
        // Of a row that a forgotten delete removed, a new life may begin.
        let is_forgotten = judged_by.version.is_none() && !present.is_live();
        if is_forgotten && !present.includes(row.state.life) {
            world.ledger.record(&present);
        }
        if !row.state.includes(present.write) && !world.ledger.recorded.contains(&present.write) {
            let (name, leaf) = (row_name(&row.key), replica_name(sender));
            let what =
                format!("{name}: write {} replaced by {leaf}'s {}", present.write.0, row.state.write.0);
            world.ledger.violation(Fault::LostUpdate, what);
        }
    }

    /// Ghost: whether one of the two had seen the other (or what a trigger of the hub made of it).
    pub(super) fn is_needless(
        &self,
        world: &World,
        row: &UploadedRow,
        (mine, version): (&RowState, Option<Version>),
    ) -> bool {
        let completed = world.ledger.completes.get(&mine.write).copied();
        let has_completed_it = completed.is_some_and(|completed| row.state.includes(completed));
        // Who does not know of a TRUNCATE is judged as if it had seen nothing.
        let is_made_with_kept = version.is_none() || self.made_with == self.upload.made_with;
        let has_seen_it = row.state.includes(mine.write) && is_made_with_kept;
        let is_needless = has_completed_it || has_seen_it || mine.includes(row.state.write);
        is_needless && !self.upload.is_confused
    }
}
