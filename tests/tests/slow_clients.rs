//! Goal: a client may take as long as it likes to fetch a download: the hub waits for it with no snapshot open, and in
//! the end the client has what the hub has, whatever was written meanwhile. By a hub in this process whose spool holds
//! next to nothing, or whose snapshots are old at once; so the enumeration goes on under later ones time and again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use syncline::batch::{BatchInfo, Codec};
use syncline::error::Result;
use syncline::ids::{BatchId, ReplicaId, SessionId};
use syncline_engine::hub::{Hub, HubConfig};
use syncline_engine::replica::{
    BeginRequest, ChangesEvent, ChangesRequest, HubReplica as _, ServedScope, SessionRef,
};
use syncline_engine::scope;
use syncline_engine::spool::Spool;
use syncline_tests::database::{Database, Kind};
use syncline_tests::world::hub_store;

use crate::abandoned_applies::soon;

const KINDS: [Kind; 2] = [Kind::Sqlite, Kind::Postgres];
const SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)";
/// Some 300 KiB in batches of 64 KiB.
const ROWS: i64 = 3_000;

/// A hub with a table of rows, and a client that fetches them by hand.
struct Download {
    _directory: tempfile::TempDir,
    hub: Hub,
    database: Database,
    session: SessionRef,
    events: BoxStream<'static, Result<ChangesEvent>>,
    /// What the client has: the names by id.
    rows: BTreeMap<String, String>,
    unreleased: Vec<BatchId>,
    ended: bool,
}

impl Download {
    async fn begin(kind: Kind, config: HubConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::new(kind, directory.path(), "hub").await;
        database.execute(SCHEMA).await;
        let filler = "x".repeat(90);
        let rows: Vec<_> = (0..ROWS).map(|id| format!("({id}, '{filler}')")).collect();
        database.execute(&format!("INSERT INTO item VALUES {}", rows.join(", "))).await;
        let store = hub_store(&database).await;
        store.open_hub().await.unwrap();
        let definition = scope::parse("name = \"shop\"\n[[tables]]\nname = \"item\"\n").unwrap();
        store.define_scope(&definition, false).await.unwrap();
        let spool = Spool::directory(&directory.path().join("spool")).unwrap();
        let hub = Hub::open(store, spool, config).await.unwrap();
        let served = hub.scope(&"shop".parse().unwrap()).await.unwrap();
        let session = hub.begin(begin_request(&served)).await.unwrap().session;
        let asked = ChangesRequest { knowledge: Bytes::new(), excepted_keys: Vec::new(), first_sequence: 1 };
        let events = hub.changes(session, asked).await.unwrap();
        let (rows, unreleased) = (BTreeMap::new(), Vec::new());
        Self { _directory: directory, hub, database, session, events, rows, unreleased, ended: false }
    }

    /// The next batch, applied and not released. Answers whether it named a row that the client had.
    async fn next_batch(&mut self) -> bool {
        loop {
            match soon(self.events.next()).await.unwrap().unwrap() {
                ChangesEvent::Batch(info, inline) => return self.apply(info, inline).await,
                ChangesEvent::End(_) => {
                    self.ended = true;
                    return false;
                }
                ChangesEvent::Begin(_) | ChangesEvent::Progress { .. } => {}
            }
        }
    }

    async fn apply(&mut self, info: BatchInfo, inline: Option<Bytes>) -> bool {
        let bytes = match inline {
            Some(bytes) => bytes,
            None => {
                let mut stream = self.hub.read_batch(self.session, info.id, 0).await.unwrap();
                let mut all = BytesMut::new();
                while let Some(piece) = stream.next().await {
                    all.extend_from_slice(&piece.unwrap());
                }
                all.freeze()
            }
        };
        self.unreleased.push(info.id);
        let mut had = false;
        for block in info.decode(&bytes).unwrap() {
            for row in 0..block.rows() {
                let cell = |column: usize| block.columns[column].cell(row).to_json();
                let id = cell(0).to_string();
                had |= match block.operation.removes() {
                    true => self.rows.remove(&id),
                    false => self.rows.insert(id, cell(1).as_str().unwrap().to_owned()),
                }
                .is_some();
            }
        }
        had
    }

    async fn release(&mut self) {
        let released = std::mem::take(&mut self.unreleased);
        self.hub.release(self.session, &released).await.unwrap();
    }

    async fn read_all(&mut self) {
        while !self.ended {
            // The hub may be waiting for this.
            self.release().await;
            self.next_batch().await;
        }
        let held = self.database.rows("item", &["id"], &["name"]).await;
        let held = held.into_iter().map(|(id, mut cells)| (id, cells.remove(0).unwrap())).collect();
        assert_eq!(self.rows, held);
    }

    /// Answers once no snapshot of the hub's database is open, where one can be seen.
    async fn until_no_snapshot_is_open(&self) {
        if self.database.kind() == Kind::Sqlite {
            return;
        }
        let holding = "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL \
                       AND datname = current_database() AND pid <> pg_backend_pid()";
        soon(async { while self.database.count(holding).await > 0 {} }).await;
    }
}

pub(crate) fn begin_request(served: &ServedScope) -> BeginRequest {
    BeginRequest {
        session: SessionId::fresh(),
        replica: ReplicaId::fresh(),
        scope: "shop".parse().unwrap(),
        parameters: Vec::new(),
        knowledge: Bytes::new(),
        upload_mark_answered: None,
        upload_mark_drawn: None,
        download_mark: None,
        codecs: vec![Codec::Identity],
        batch_bytes_max: Some(64 << 10),
        row_bytes_max: None,
        schema_fingerprint: served.schema.fingerprint(),
        client_name: String::new(),
        ahead: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_snapshot_is_open_while_the_hub_waits_for_the_client() {
    for kind in KINDS {
        // Full with the first batch.
        let config = HubConfig { spool_session_bytes_max: 1, ..HubConfig::default() };
        let mut download = Download::begin(kind, config).await;
        download.next_batch().await;
        download.until_no_snapshot_is_open().await;
        download.database.execute("UPDATE item SET name = name || '2'").await;
        // On to the changes since the first snapshot: much more than the spool holds.
        loop {
            download.release().await;
            if download.next_batch().await {
                break;
            }
        }
        download.until_no_snapshot_is_open().await;
        // Of what has been sent again, and of what has not.
        download.database.execute("UPDATE item SET name = name || '3' WHERE id % 3 = 0").await;
        download.database.execute("DELETE FROM item WHERE id % 5 = 0").await;
        download.read_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_snapshots_follow_each_other_arrives() {
    for kind in KINDS {
        let config = HubConfig {
            snapshot_age_max: Duration::ZERO,
            spool_session_bytes_max: 1,
            ..HubConfig::default()
        };
        let mut download = Download::begin(kind, config).await;
        for round in 0..20 {
            download.next_batch().await;
            assert!(!download.ended, "it has not sent the last changes yet");
            let script = format!(
                "UPDATE item SET name = name || '{round}' WHERE id % 100 = {round}; \
                 DELETE FROM item WHERE id % 200 = {round}; INSERT INTO item VALUES ({}, 'new')",
                ROWS + round
            );
            download.database.execute(&script).await;
            download.release().await;
        }
        download.read_all().await;
    }
}
