//! How the engine's own writes get their records.

use std::collections::BTreeMap;

use syncline::ids::ReplicaId;
use syncline::knowledge::RowKey;

use super::super::hub::Hub;
use super::super::tracking::Record;
use super::super::transaction::TransactionId;

/// Before the engine's own transaction commits, its entries become records, which say whose rows they are.
pub(super) fn harvest(hub: &mut Hub, transaction: TransactionId, sender: ReplicaId) -> Vec<(RowKey, Record)> {
    let tick = hub.tick(transaction);
    let version = hub.state.own(tick);
    let open = hub.transaction(transaction);
    let mut records = BTreeMap::new();
    // In the order of the sequence: the last entry of a row stays.
    for (sequence, entry) in std::mem::take(&mut open.entries) {
        let intent = open.intents.get(&entry.key).filter(|intent| intent.sender == Some(sender));
        let written = open.writes.get(&entry.key).and_then(|state| state.content.as_ref());
        let via = intent.map(|_| sender);
        let origin = intent.filter(|intent| intent.content.as_ref() == written).map(|_| sender);
        records.insert(entry.key, Record { version, via, origin, sequence });
    }
    records.extend(std::mem::take(&mut open.direct));
    // Popped from the end: in the order of the keys.
    records.into_iter().rev().collect()
}
