//! What the hub holds of a row, read by a transaction that has locked it.

use syncline::knowledge::RowKey;

use super::super::hub::Hub;
use super::super::judge::Held;
use super::super::rules::Rules;
use super::super::tracking::Record;
use super::super::transaction::TransactionId;
use super::super::world::World;

/// What the hub holds of a row, as the transaction sees it. `record_read` is a record that was read before the log.
pub(super) fn held(
    world: &World,
    hub: &Hub,
    transaction: TransactionId,
    key: &RowKey,
    record_read: Option<Option<Record>>,
) -> Held {
    let state = hub.row(transaction, key).cloned();
    let record = hub.record_seen_by(transaction, key, record_read, &world.rules);
    let version = match record {
        Some(record) => Some(record.version),
        None => hub.state.baseline_of(state.as_ref()),
    };
    Held { state, record, version }
}

impl Hub {
    /// The row's record as the transaction sees it: what it wrote itself comes first.
    fn record_seen_by(
        &self,
        transaction: TransactionId,
        key: &RowKey,
        record_read: Option<Option<Record>>,
        rules: &Rules,
    ) -> Option<Record> {
        let own = self.open.get(&transaction)?;
        if let Some(direct) = own.direct.get(key) {
            return Some(*direct);
        }
        let newest = own.entries.iter().rev().find(|(_, entry)| entry.key == *key);
        if let Some((sequence, entry)) = newest {
            let version = self.state.own(entry.tick);
            return Some(Record { version, via: None, origin: None, sequence: *sequence });
        }
        let stored = record_read.unwrap_or_else(|| self.state.records.get(key).copied());
        self.state.record_over(key, stored, rules)
    }
}
