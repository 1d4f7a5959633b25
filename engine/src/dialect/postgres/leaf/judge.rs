//! Incoming rows that meet dirty ones: who wins.

use syncline::conflict::{ConflictKind, Outcome, Side};
use syncline::error::{ErrorReason, Result, SyncError};

use super::apply::{Apply, Context, Set};
use super::conflicts::Finding;
use crate::conflict::{DirtyRow, LeafVerdict, judge_download};
use crate::dialect::meta::conflicts::ConflictEntry;
use crate::dialect::postgres::copy::{CopyRow, CopyRows};
use crate::dialect::postgres::errors;
use crate::dialect::postgres::statements::{copy_out, query};

/// Cells that stand before the base row's in what is judged.
const FIRST_CELL: usize = 7;

/// What was judged, column by column, as it is bound.
#[derive(Debug, Default)]
struct Verdicts {
    ordinals: Vec<i64>,
    verdicts: Vec<&'static str>,
    seen_seqs: Vec<i64>,
    kept_at: Vec<Option<i64>>,
    kept_births: Vec<Option<i64>>,
    conflicts: Vec<ConflictEntry>,
}

impl Apply<'_> {
    /// Judges staged rows that meet dirty ones. The base rows are locked first, and the records read in a later
    /// statement: else a wait could return the new row beside the old record.
    pub(super) async fn judge(&mut self, set: &Set) -> Result<()> {
        let table = &self.context.tables[set.table];
        query(&table.lock_dirty()).execute(&mut *self.connection).await.map_err(errors::database)?;
        self.run("SAVEPOINT syncline_judge").await?;
        let compare = !set.removes && !set.unnamed;
        let verdicts = match self.read_verdicts(set, compare).await {
            // A cell that can't be converted can't be equal; writing it will tell.
            Err(error) if compare && error.reason() == ErrorReason::Internal => {
                self.run("ROLLBACK TO SAVEPOINT syncline_judge").await?;
                self.read_verdicts(set, false).await?
            }
            read => read?,
        };
        self.run("RELEASE SAVEPOINT syncline_judge").await?;
        if verdicts.ordinals.is_empty() {
            return Ok(());
        }
        query(&table.note_verdicts())
            .bind(verdicts.ordinals)
            .bind(verdicts.verdicts)
            .bind(verdicts.seen_seqs)
            .bind(verdicts.kept_at)
            .bind(verdicts.kept_births)
            .execute(&mut *self.connection)
            .await
            .map_err(errors::database)?;
        for statement in table.settle() {
            self.run(&statement).await?;
        }
        self.log_conflicts(&verdicts.conflicts).await
    }

    async fn read_verdicts(&mut self, set: &Set, compare: bool) -> Result<Verdicts> {
        let context = self.context;
        let sql = context.tables[set.table].judge(&set.places, compare);
        let stream = copy_out(self.connection, &sql).await.map_err(errors::database)?;
        let (mut rows, mut row) = (CopyRows::new(stream), CopyRow::new());
        let mut verdicts = Verdicts::default();
        while rows.next(&mut row).await? {
            judge_row(context, set, &row, &mut verdicts)?;
        }
        Ok(verdicts)
    }

    /// Logs clean rows that are about to be replaced by others or removed: what this leaf held when it lost touch with
    /// the hub, nobody may have.
    pub(super) async fn log_replaced(&mut self, set: &Set) -> Result<()> {
        let context = self.context;
        let sql = context.tables[set.table].replaced(&set.places, set.removes);
        let remote = if set.removes { Side::Delete } else { Side::Update };
        let kind = ConflictKind { local: Side::Update, remote };
        let mut entries = Vec::new();
        {
            let stream = copy_out(self.connection, &sql).await.map_err(errors::database)?;
            let (mut rows, mut row) = (CopyRows::new(stream), CopyRow::new());
            while rows.next(&mut row).await? {
                let finding = Finding { kind, outcome: Outcome::Remote, present: true };
                entries.push(context.conflict(set, &row, 1, finding)?);
            }
        }
        self.log_conflicts(&entries).await
    }
}

fn judge_row(context: Context<'_>, set: &Set, row: &CopyRow, verdicts: &mut Verdicts) -> Result<()> {
    let missing = || SyncError::internal("a dirty record without time or sequence");
    let number = |at: usize| row.int8(at)?.ok_or_else(missing);
    let (changed_at, birth) = (number(1)?, number(2)?);
    let present = row.bool(4);
    verdicts.ordinals.push(number(0)?);
    verdicts.seen_seqs.push(number(3)?);
    if set.unnamed {
        // A comparison removes clean rows only.
        verdicts.push("i", None);
        return Ok(());
    }
    // By the hub's clock, and never later than its now.
    let by_hub = changed_at.min(context.now_us).saturating_add(context.job.clock_offset_us);
    let dirty = DirtyRow { present, born: birth != 0, changed_at: by_hub };
    let policy = context.tables[set.table].policy;
    match judge_download(&dirty, set.removes, row.int8(5)?, row.bool(6), policy) {
        LeafVerdict::Same => verdicts.push("s", None),
        LeafVerdict::TakeIncoming(kind) => {
            let finding = Finding { kind, outcome: Outcome::Remote, present };
            verdicts.conflicts.push(context.conflict(set, row, FIRST_CELL, finding)?);
            verdicts.push("w", None);
        }
        LeafVerdict::KeepOwn { kind, born_again } => {
            let finding = Finding { kind, outcome: Outcome::Local, present };
            verdicts.conflicts.push(context.conflict(set, row, FIRST_CELL, finding)?);
            verdicts.push("k", Some((changed_at, (!born_again).then_some(birth))));
        }
    }
    Ok(())
}

impl Verdicts {
    fn push(&mut self, verdict: &'static str, kept: Option<(i64, Option<i64>)>) {
        self.verdicts.push(verdict);
        self.kept_at.push(kept.map(|(at, _)| at));
        self.kept_births.push(kept.and_then(|(_, birth)| birth));
    }
}
