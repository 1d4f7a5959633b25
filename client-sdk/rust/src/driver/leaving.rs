//! Tables that leave the scope with changes that were not uploaded: from then on these go nowhere.
//!
//! **Invariant:** before a table leaves, each of its changes that the hub has not taken has an entry in the leaf's conflict
//! log. A run that is killed before the table has left makes the entries again: they have the same ids, and stay one each.

use sha2::{Digest as _, Sha256};
use syncline::batch::Block;
use syncline::conflict::{ConflictKind, ConflictSummary, Outcome, Side};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ConflictId, ReplicaId, SessionId};
use syncline::schema::{ScopeSchema, TableSchema};
use syncline::value::{key_cells, row_json};
use syncline_engine::dialect::meta::conflicts::{self, ConflictEntry};
use syncline_engine::store::{LeafUpload, Subscription};

use super::Run;
use super::begin::now_us;

/// What is read at once.
const BLOCK_BYTES_MAX: usize = 256 << 10;

impl Run<'_> {
    /// Writes down what is pending in tables that the scope has no more in its next version.
    pub(super) async fn keep_what_leaves(&mut self, known: &Subscription, next: &ScopeSchema) -> Result<()> {
        let stays =
            |table: &TableSchema| next.tables.iter().any(|one| one.name.eq_ignore_ascii_case(&table.name));
        let mut leaving = known.clone();
        leaving.schema.tables.retain(|table| table.direction.uploads() && !stays(table));
        if leaving.schema.tables.is_empty() {
            return Ok(());
        }
        let upload = LeafUpload { block_bytes_max: BLOCK_BYTES_MAX, row_bytes_max: usize::MAX };
        let mut pending = match self.store.enumerate_dirty(&leaving, upload).await {
            Ok(pending) => pending,
            // Nobody can tell what has changed in a table that is not tracked as it was.
            Err(error) if error.reason() == ErrorReason::TrackingBroken => return Ok(()),
            Err(error) => return Err(error),
        };
        let found_in = SessionId::fresh();
        while let Some(block) = pending.blocks.recv().await {
            let entries = entries(&leaving, found_in, &block?)?;
            self.report.conflicts += entries.len() as u64;
            let mut transaction = self.store.begin().await?;
            transaction.run_all(entries.iter().map(conflicts::insert_once).collect()).await?;
            transaction.commit().await?;
        }
        Ok(())
    }
}

fn entries(leaving: &Subscription, found_in: SessionId, block: &Block) -> Result<Vec<ConflictEntry>> {
    let schema = &leaving.schema;
    let table = schema.table(block.table).ok_or_else(|| SyncError::internal("a table nobody asked for"))?;
    // The hub has its row still, of which only the scope is silent.
    let (local, remote) =
        if block.operation.removes() { (Side::Delete, Side::Update) } else { (Side::Update, Side::Delete) };
    (0..block.rows())
        .map(|row| {
            let key = block.key(&table.key, row).map_err(SyncError::internal)?;
            let summary = ConflictSummary {
                id: id_of(leaving.replica, table, &key, block.ticks[row].0),
                table: table.id,
                table_name: table.name.clone(),
                key_json: key_json(table, &key),
                kind: ConflictKind { local, remote },
                policy: schema.policy(table),
                outcome: Outcome::Remote,
            };
            let cells = block
                .columns
                .iter()
                .filter_map(|column| Some((table.column(column.id())?.name.as_str(), column.cell(row))));
            Ok(ConflictEntry {
                summary,
                // There was none: it groups what was found at once.
                session: found_in,
                scope: schema.name.clone(),
                local_row: (!block.operation.removes()).then(|| row_json(cells)),
                remote_row: None,
                row_key: key,
                detected_at: now_us(),
                made_with: String::new(),
            })
        })
        .collect()
}

/// One id for one change of a row, whenever it is asked for.
fn id_of(replica: ReplicaId, table: &TableSchema, key: &[u8], tick: u64) -> ConflictId {
    let hash = Sha256::new()
        .chain_update(replica.as_bytes())
        .chain_update(table.id.0.to_be_bytes())
        .chain_update(tick.to_be_bytes())
        .chain_update(key)
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    ConflictId::from_uuid(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

fn key_json(table: &TableSchema, key: &[u8]) -> String {
    let values = key_cells(key).unwrap_or_default();
    let names = table.key.iter().filter_map(|id| Some(table.column(*id)?.name.as_str()));
    row_json(names.zip(values.iter().map(syncline::value::Value::cell))).to_string()
}
