//! The reference replica: one hub and its leaves in memory, following the algebra's rules word by word.
//!
//! It is what real databases are compared with, and it is itself held to the invariants by random histories
//! ([`crate::testing::histories`]). It is written to be right, not fast: a snapshot is a copy of everything.
//!
//! ```text
//!  leaf: user ─> rows + log ─fold─> dirty ─enumerate─> upload ─judge─> hub: rows + log ─harvest, fold─> records
//!  leaf: rows + knowledge <─apply─ download <─spool─ enumerate <─ snapshot + clock <─┘
//! ```
//!
//! There are two ways to drive it. One call after the other ([`plain`]): users write at the hub and at leaves, and
//! whole sessions run. Or step by step ([`stepwise`]): sessions, applies and folds stop after each step, may be killed
//! there, and databases go back in time.
//!
//! Beside what a product holds, the oracle keeps *ghost* state, by which it judges losses and which no decision reads:
//! every write has a number, and every state of a row remembers which writes its writer had seen.
//!
//! Each rule can be switched off ([`Rules`]), and the tests of [`crate::testing`] show for each that histories notice.
//! Not here yet, because only a later stage makes it matter:
//!
//! - filters: rows outside the sender's filter, departures (from records, logs and harvests), the leaf's own filter,
//!   changes of view. Two rules are followed, but show only with filters: that an acknowledgement leaves a record whose
//!   row has newer entries (else the leaf would test an edited row against its filter; without one, the entries make
//!   the row dirty again), and that who does not know of a TRUNCATE made its changes with empty knowledge (without
//!   filters, no version survives a TRUNCATE that anybody could know);
//! - clean-up: forgotten knowledge and its missing ticks, second snapshots below it, tombstones that are acknowledged;
//! - peers: one order everywhere, baselines that are inherited, merged and custom results. Times are those of one clock
//!   that all replicas share;
//! - several scopes: a leaf has one clock per scope at its hub, here there is one scope.

mod apply;
mod download;
mod fold;
mod foreign;
mod hub;
mod judge;
mod leaf;
pub mod plain;
mod policy;
mod restore;
mod row;
mod rules;
mod session;
mod snapshot;
pub mod stepwise;
mod tracking;
mod transaction;
mod triggers;
mod verdict;
mod world;

pub use fold::{Fold, Progress};
pub use hub::Refused;
pub use leaf::{LeafKind, REFUSALS_MAX};
pub use policy::{Conflict, Place, Policy};
pub use restore::{HubBackup, LeafBackup};
pub use row::{Content, Rows, TABLE, row_key};
pub use rules::Rules;
pub use session::{Ending, Report, Session, SessionOptions, Standing};
pub use tracking::HubKind;
pub use transaction::TransactionId;
pub use triggers::UserTriggers;
pub use world::{Fault, Violation};

use hub::Hub;
use leaf::Leaf;
use row::replica_named;
use world::World;

use super::random::Random;

/// What an oracle is made of.
#[derive(Debug, Clone)]
pub struct OracleOptions {
    /// Where the hub's ticks come from.
    pub hub_kind: HubKind,
    /// How the leaves read their logs.
    pub leaf_kind: LeafKind,
    /// How conflicts are resolved.
    pub policy: Policy,
    /// How many leaves there are.
    pub leaves: usize,
    /// Whether the column `value` is unique, at the hub and at the leaves.
    pub is_unique: bool,
    /// What the users' triggers at the hub do.
    pub triggers: UserTriggers,
    /// The rules that are followed.
    pub rules: Rules,
    /// What decides where a broken-off enumeration stopped, and other small things; `None`: always the same.
    pub seed: Option<u64>,
    /// Whether events are told.
    pub is_told: bool,
}

impl OracleOptions {
    /// One hub with two leaves, all rules, no triggers.
    #[must_use]
    pub fn plain(hub_kind: HubKind, policy: Policy) -> Self {
        Self {
            hub_kind,
            leaf_kind: LeafKind::FoldsFirst,
            policy,
            leaves: 2,
            is_unique: false,
            triggers: UserTriggers::default(),
            rules: Rules::all(),
            seed: None,
            is_told: true,
        }
    }
}

/// A hub and its leaves, which are named by their numbers from 0.
#[derive(Debug)]
pub struct Oracle {
    world: World,
    hub: Hub,
    leaves: Vec<Leaf>,
    is_unique: bool,
}

impl Oracle {
    /// Empty databases.
    #[must_use]
    pub fn new(options: OracleOptions) -> Self {
        let OracleOptions { hub_kind, leaf_kind, policy, leaves, is_unique, .. } = options;
        let random = options.seed.map(Random::from_seed);
        let mut hub = Hub::new("hub", replica_named("H"), hub_kind, policy);
        hub.is_unique = is_unique;
        hub.triggers = options.triggers;
        let leaf = |number: usize| {
            let name = format!("L{number}");
            Leaf::new(&name, replica_named(&name), leaf_kind, policy)
        };
        Self {
            world: World::new(options.rules, random, options.is_told),
            hub,
            leaves: (0..leaves).map(leaf).collect(),
            is_unique,
        }
    }
}
