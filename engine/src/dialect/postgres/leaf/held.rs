//! Keeps local changes from going along with what a download removes.
//!
//! **Invariant:** a row with a local change is removed by a download only where the row itself came in and was judged:
//! then the loser is in the conflict log. A removal that would take one along by a cascade (of however many levels, into
//! whichever table that is tracked here, of another scope too) is taken back: that row waits, and is a row error at
//! last, which comes again once the local change has gone up.
//!
//! Nothing tells beforehand how far a cascade reaches. So the rows with local changes that are there are noted before a
//! removal, and looked for after it. What another transaction deletes in between counts as lost too: the removal then
//! waits for its next turn.

use sqlx::PgConnection;
use syncline::error::{ErrorReason, Result};

use super::apply::Apply;
use super::fold::flag;
use super::tables::{self, LeafTable};
use crate::dialect::meta::subscriptions;
use crate::dialect::postgres::meta;
use crate::store::Subscription;

/// The tables of all scopes of this database that local changes are tracked in; none if no removal in this scope
/// cascades.
pub(super) async fn tracked_tables(
    connection: &mut PgConnection,
    subscription: &Subscription,
    own: &[LeafTable],
) -> Result<Vec<LeafTable>> {
    if !own.iter().any(|table| table.tracked.catalog.referenced_with_action) {
        return Ok(Vec::new());
    }
    let mut all = own.to_vec();
    for row in meta::run(connection, subscriptions::list()).await? {
        let other = subscriptions::from_row(&row)?;
        if other.schema.name == subscription.schema.name {
            continue;
        }
        match tables::load(connection, &other.schema).await {
            Ok(tables) => all.extend(tables),
            // That scope's own session says so; its local changes can't be told any more.
            Err(error) if error.reason() == ErrorReason::TrackingBroken => {
                tracing::warn!(scope = %other.schema.name, %error, "local changes of another scope are not guarded");
            }
            Err(error) => return Err(error),
        }
    }
    all.retain(LeafTable::tracks);
    Ok(all)
}

impl Apply<'_> {
    /// Notes the rows with local changes that are there.
    pub(super) async fn hold_local_changes(&mut self) -> Result<()> {
        for table in self.context.tracked {
            for statement in table.hold() {
                self.run(&statement).await?;
            }
        }
        Ok(())
    }

    /// Whether a row that was noted is gone.
    pub(super) async fn lost_local_changes(&mut self) -> Result<bool> {
        for table in self.context.tracked {
            if flag(self.connection, &table.lost_held()).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
