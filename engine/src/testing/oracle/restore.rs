//! Databases that go back in time: backups, and what a hub does once it has noticed.

use syncline::ids::Tick;
use syncline::knowledge::Clock;

use super::hub::Hub;
use super::leaf::Leaf;
use super::tracking::{HubKind, HubState};
use super::world::World;

/// A copy of a hub's database.
#[derive(Debug, Clone)]
pub struct HubBackup(HubState);

impl HubBackup {
    /// The tick of the last durable mark: up to there, this database's past is the one that others know.
    pub(super) const fn last_tick(&self) -> Tick {
        match self.0.kind {
            HubKind::Transactions => self.0.ended,
            HubKind::Folds => self.0.folds,
        }
    }
}

/// A copy of a leaf's database.
#[derive(Debug, Clone)]
pub struct LeafBackup(pub(super) Leaf);

impl Hub {
    /// A copy of what is committed; `None` while transactions are open, for simplicity.
    pub(super) fn back_up(&self) -> Option<HubBackup> {
        self.open.is_empty().then(|| HubBackup(self.state.clone()))
    }

    /// The database is as it was. What was spooled is gone, and so is every open transaction.
    pub(super) fn restore(&mut self, backup: HubBackup) {
        self.open.clear();
        self.spools.clear();
        self.state = backup.0;
    }

    /// The hub has noticed that it was restored. Its old id becomes a peer that stands still at `last_tick`; what it
    /// wrote above that, between the restore and now, gets versions of the new id. No transaction may be open.
    pub(super) fn take_new_id(&mut self, world: &mut World, last_tick: Tick) {
        let (old, new) = (self.state.id, world.draw_replica(&self.name));
        for (key, record) in self.state.folded(&self.state.log) {
            let stored = self.state.records.get(&key);
            if stored.is_none_or(|stored| stored.sequence < record.sequence) {
                self.state.records.insert(key, record);
            }
        }
        self.state.log.clear();
        if self.state.kind == HubKind::Folds {
            self.state.folds = self.state.folds.next();
        }
        let records = self.state.records.values_mut().map(|record| &mut record.version);
        let truncation = self.state.truncation.as_mut().map(|truncation| &mut truncation.version);
        for version in records.chain(truncation) {
            if version.replica == old && version.tick > last_tick {
                version.replica = new;
            }
        }
        self.state.peers.set_clock(old, Clock::up_to(last_tick));
        self.state.id = new;
        world.tell(|| format!("{} has a new id", self.told()));
    }
}
