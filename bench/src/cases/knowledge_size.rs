//! What a leaf must know grows with hubs, not with leaves: its knowledge after a hundred leaves have synchronised, and
//! after a hundred thousand.
//!
//! Each leaf is a new one with a session of its own, told to the hub's engine call by call: a row goes up, what the hub
//! has comes down, what was learned is acknowledged. The hub is a SQLite file.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use syncline::batch::{Block, Codec, Operation, encode};
use syncline::column::Column;
use syncline::ids::{BatchSequence, Mark, ReplicaId, SessionId, Tick};
use syncline::knowledge::{Clock, ViewKnowledge};
use syncline::value::Cell;
use syncline_engine::hub::{Hub, HubConfig};
use syncline_engine::replica::{
    ApplyEvent, ApplyRequest, BeginRequest, ChangesEnd, ChangesEvent, ChangesRequest, EndRequest,
    HubReplica as _, SessionRef,
};
use syncline_engine::spool::Spool;
use syncline_engine::store::StoredScope;

use crate::bench::{Bench, Kind, say};
use crate::database::{Database, open};
use crate::report::{CaseReport, Samples, Target};
use crate::rows::TABLE;
use crate::scope;

/// After so many leaves it is looked at first.
const FEW: u32 = 100;
/// So often the application takes away what leaves have inserted, so that what comes down does not grow with them.
const CLEARED_EVERY: u32 = 50;
/// Not a byte more.
const TARGET: Target = Target::ratio(1.0);

/// Measures it, once: sizes do not vary.
pub(crate) async fn run(bench: &Bench) -> Result<Vec<CaseReport>> {
    let many = bench.counts.leaves.max(FEW + 1);
    let database = bench.database(Kind::Sqlite).await?;
    database.execute(&format!("CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, name TEXT)")).await?;
    let (store, scope) = scope::tracked(&database).await?;
    let hub = Hub::open(store, Spool::directory(&bench.fresh("spool")?)?, HubConfig::default()).await?;
    let (mut few, mut learned) = (Size::default(), Size::default());
    for number in 1..=many {
        learned = Session::run(&hub, &scope, number).await?;
        if number == FEW {
            few = learned;
        }
        if number % CLEARED_EVERY == 0 {
            database.execute(&format!("DELETE FROM {TABLE}")).await?;
        }
        if number % 10_000 == 0 {
            say(&format!("knowledge_size: {number} of {many} leaves, {learned:?}"));
        }
    }
    hub.drain().await;
    drop(hub);
    check(&database, many)?;
    database.remove().await?;
    let report = |figure, of: fn(&Size) -> usize| {
        let samples = Samples { ours: vec![of(&learned) as f64], limit: vec![of(&few) as f64] };
        CaseReport::new(("knowledge_size", figure), figure, samples, TARGET, None)
    };
    Ok(vec![report("clocks", |size| size.clocks), report("bytes", |size| size.bytes)])
}

/// Each leaf has left a clock of its own behind at the hub.
fn check(database: &Database, leaves: u32) -> Result<()> {
    let Database::Sqlite(path) = database else { anyhow::bail!("the hub is a SQLite file here") };
    let count = "SELECT count(*) FROM syncline_leaves WHERE clock IS NOT NULL AND acknowledged IS NOT NULL";
    let found: u32 = open(path)?.query_row(count, [], |row| row.get(0))?;
    ensure!(found == leaves, "{found} leaves have synchronised, not {leaves}");
    Ok(())
}

/// What a leaf must store.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    clocks: usize,
    bytes: usize,
}

/// A session of a leaf that is new.
struct Session<'a> {
    hub: &'a Hub,
    scope: &'a StoredScope,
    reference: SessionRef,
    leaf: ReplicaId,
}

impl<'a> Session<'a> {
    async fn run(hub: &'a Hub, scope: &'a StoredScope, number: u32) -> Result<Size> {
        let leaf = ReplicaId::fresh();
        let begun = hub
            .begin(BeginRequest {
                session: SessionId::fresh(),
                replica: leaf,
                scope: scope.schema.name.clone(),
                parameters: Vec::new(),
                knowledge: Bytes::new(),
                upload_mark_answered: None,
                upload_mark_drawn: None,
                download_mark: None,
                codecs: vec![Codec::Identity],
                batch_bytes_max: None,
                row_bytes_max: None,
                schema_fingerprint: scope.schema.fingerprint(),
                client_name: String::new(),
                ahead: false,
            })
            .await?;
        let session = Self { hub, scope, reference: begun.session, leaf };
        session.upload(number).await?;
        let end = session.download().await?;
        let learned = ViewKnowledge::decode(&end.learned)?;
        ensure!(learned.knowledge.clock(hub.id()).is_some(), "a leaf must know what the hub had");
        session.end(&end).await?;
        Ok(Size { clocks: learned.knowledge.clocks().len(), bytes: end.learned.len() })
    }

    /// A new row, whose key is the leaf's number, at tick 1 of the leaf.
    async fn upload(&self, number: u32) -> Result<()> {
        let table = self.scope.schema.tables.first().context("the scope has a table")?;
        let columns = table.columns.iter().map(|described| {
            let mut column = Column::new(described.id, described.ty);
            column.push(match described.name.as_str() {
                "id" => Cell::Int64(number.into()),
                _ => Cell::Text("a leaf's"),
            })?;
            anyhow::Ok(column)
        });
        let mut block = Block::new(table.id, Operation::Upsert, columns.collect::<Result<_>>()?);
        (block.ticks, block.births, block.changed_at) = (vec![Tick(1)], vec![Tick(1)], vec![1]);
        let batch = encode([block], BatchSequence(1), Codec::Identity, self.scope.schema.version)?;
        let request = ApplyRequest {
            batches: vec![(batch.info, Some(batch.stored))],
            made_with: Bytes::new(),
            excepted_keys: Vec::new(),
            leaf: self.leaf,
            leaf_clock: Clock::up_to(Tick(1)),
            upload_mark: Mark::fresh(),
            clock_offset_us: 0,
        };
        let events: Vec<_> = self.hub.apply(self.reference, request).await?.try_collect().await?;
        match events.last() {
            Some(ApplyEvent::Result(result)) if result.upserts == 1 => Ok(()),
            other => anyhow::bail!("a leaf's row was not applied: {other:?}"),
        }
    }

    async fn download(&self) -> Result<ChangesEnd> {
        let request =
            ChangesRequest { knowledge: Bytes::new(), excepted_keys: Vec::new(), first_sequence: 1 };
        let mut events = self.hub.changes(self.reference, request).await?;
        while let Some(event) = events.try_next().await? {
            if let ChangesEvent::End(end) = event {
                return Ok(end);
            }
        }
        anyhow::bail!("the changes have no end")
    }

    async fn end(&self, end: &ChangesEnd) -> Result<()> {
        let request = EndRequest {
            abandoned: false,
            knowledge: end.learned.clone(),
            download_mark: Some(end.download_mark),
            rows_downloaded: end.rows,
            bytes_downloaded: 0,
            conflicts: 0,
            row_errors: 0,
        };
        Ok(self.hub.end(self.reference, request).await?)
    }
}
