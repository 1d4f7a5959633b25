//! What a hub has from another peer. Peers are not played here; but their clocks, and rows that could not be applied,
//! travel on to the leaves.

use syncline::ids::{ReplicaId, Tick};
use syncline::knowledge::{Clock, RowKey, Version};

use super::Oracle;
use super::row::Content;
use super::tracking::Record;

impl Oracle {
    /// The hub learns all that a peer knows of itself up to `tick`, but could not apply this row.
    pub fn hub_learns_all_but(&mut self, peer: ReplicaId, tick: Tick, failed: &RowKey) {
        let peers = &mut self.hub.state.peers;
        let before = peers.clocks_for(failed).clone();
        peers.set_clock(peer, Clock::up_to(tick));
        peers.except(failed.clone(), before);
    }

    /// The hub can apply the peer's row at last: the version is stored unchanged.
    pub fn hub_applies(&mut self, version: Version, key: &RowKey, value: &str) {
        let state = self.world.write(None, Some(Content::of(value)));
        self.world.ledger.at_hub.insert(state.write);
        let record = Record { version, via: None, origin: None, sequence: self.hub.next_sequence() };
        self.hub.state.committed.insert(state.write);
        self.hub.state.rows.insert(key.clone(), state);
        self.hub.state.records.insert(key.clone(), record);
        self.hub.state.peers.unexcept(key);
    }
}
