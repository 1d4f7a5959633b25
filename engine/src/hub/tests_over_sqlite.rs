//! A hub over a SQLite file, asked call by call.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use syncline::batch::{Codec, encode};
use syncline::error::ErrorReason;
use syncline::ids::{BatchSequence, Mark, ReplicaId, SessionId, Tick};
use syncline::knowledge::Clock;

use super::{Hub, HubConfig, now_micros};
use crate::dialect::meta::sessions::{self, SessionRow};
use crate::dialect::sqlite::SqliteDatabase;
use crate::replica::{
    ApplyRequest, BeginRequest, ChangesEvent, ChangesRequest, HubReplica as _, PollRequest,
};
use crate::scope;
use crate::spool::Spool;
use crate::store::HubStore as _;

struct Stage {
    directory: tempfile::TempDir,
    hub: Hub,
}

impl Stage {
    async fn new() -> Self {
        Self::with(HubConfig::default()).await
    }

    async fn with(config: HubConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hub.db");
        let table = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)";
        rusqlite::Connection::open(&path).unwrap().execute_batch(table).unwrap();
        let store = SqliteDatabase::open(&path).await.unwrap();
        store.open_hub().await.unwrap();
        let definition = scope::parse("name = \"shop\"\n[[tables]]\nname = \"item\"\n").unwrap();
        store.define_scope(&definition, false).await.unwrap();
        let spool = Spool::directory(&directory.path().join("spool")).unwrap();
        let hub = Hub::open(store, spool, config).await.unwrap();
        Self { directory, hub }
    }

    async fn session_row(&self, session: SessionId) -> Option<SessionRow> {
        let found = self.hub.store().read(sessions::load(session)).await.unwrap();
        found.first().map(|row| sessions::from_row(row).unwrap())
    }

    async fn begin_request(&self) -> BeginRequest {
        let scope = self.hub.scope(&"shop".parse().unwrap()).await.unwrap();
        begin_request(ReplicaId::fresh(), scope.schema.fingerprint())
    }
}

/// A new session of a replica that knows nothing, in the scope `shop`.
pub(super) fn begin_request(replica: ReplicaId, schema_fingerprint: [u8; 32]) -> BeginRequest {
    BeginRequest {
        session: SessionId::fresh(),
        replica,
        scope: "shop".parse().unwrap(),
        parameters: Vec::new(),
        knowledge: Bytes::new(),
        upload_mark_answered: None,
        upload_mark_drawn: None,
        download_mark: None,
        codecs: vec![Codec::Identity],
        batch_bytes_max: None,
        row_bytes_max: None,
        schema_fingerprint,
        client_name: String::new(),
        ahead: false,
    }
}

#[tokio::test]
async fn a_session_that_was_taken_up_since_it_was_found_expired_stays() {
    let stage = Stage::new().await;
    let request = stage.begin_request().await;
    let begun = stage.hub.begin(request).await.unwrap();
    let row = stage.session_row(begun.session.id).await.unwrap();
    assert!(row.lease_until > now_micros());
    stage.hub.remove_expired(&row, row.lease_until - 1).await.unwrap();
    assert!(stage.session_row(row.id).await.is_some());
    stage.hub.remove_expired(&row, row.lease_until + 1).await.unwrap();
    assert!(stage.session_row(row.id).await.is_none());
}

#[tokio::test]
async fn sessions_that_wait_leave_room_for_those_that_work() {
    let config = HubConfig { sessions_max: 4, ..HubConfig::default() };
    let stage = Stage::with(config).await;
    let begin = async |ahead| stage.hub.begin(BeginRequest { ahead, ..stage.begin_request().await }).await;
    for _ in 0..2 {
        begin(true).await.unwrap();
    }
    assert_eq!(begin(true).await.unwrap_err().reason(), ErrorReason::Overloaded);
    for _ in 2..4 {
        begin(false).await.unwrap();
    }
    assert_eq!(begin(false).await.unwrap_err().reason(), ErrorReason::Overloaded);
}

/// Each call first reads the session and then writes: in between it may go, or be taken up by somebody else.
#[tokio::test]
async fn a_session_that_goes_in_the_middle_of_a_call_is_gone_not_superseded() {
    let stage = Stage::new().await;
    let request = stage.begin_request().await;
    let session = stage.hub.begin(request.clone()).await.unwrap().session;
    let checked = stage.hub.checked(session).await.unwrap();
    let newer = stage.hub.begin(request).await.unwrap().session;
    let error = stage.hub.note_apply(&checked, [7; 32]).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::SessionSuperseded);

    let checked = stage.hub.checked(newer).await.unwrap();
    let mut another = rusqlite::Connection::open(stage.directory.path().join("hub.db")).unwrap();
    let transaction = another.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    transaction.execute("DELETE FROM syncline_sessions", []).unwrap();
    // The download reads the session, which is still there for it, and waits to write.
    let asked = ChangesRequest { knowledge: Bytes::new(), excepted_keys: Vec::new(), first_sequence: 1 };
    let mut changes = stage.hub.changes(newer, asked).await.unwrap();
    transaction.commit().unwrap();
    let error = changes.next().await.unwrap().err().unwrap();
    assert_eq!(error.reason(), ErrorReason::SessionNotFound);
    let error = stage.hub.note_apply(&checked, [7; 32]).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::SessionNotFound);
}

#[tokio::test]
async fn what_watchers_are_told_of_is_folded_before_they_come() {
    let stage = Stage::new().await;
    let begin = stage.begin_request().await;
    let request = PollRequest {
        replica: begin.replica,
        scope: begin.scope,
        parameters: Vec::new(),
        knowledge: Bytes::new(),
        schema_fingerprint: begin.schema_fingerprint,
    };
    let mut told = stage.hub.watch(request, Duration::ZERO).await.unwrap();
    told.next().await.unwrap().unwrap();
    let scope = stage.hub.stored_scope(&"shop".parse().unwrap()).await.unwrap();
    let path = stage.directory.path().join("hub.db");
    let written = "INSERT INTO item (name) VALUES ('one'), ('two')";
    rusqlite::Connection::open(path).unwrap().execute_batch(written).unwrap();
    told.next().await.unwrap().unwrap();
    let counts =
        async || stage.hub.store().tracking_counts(&scope).await.unwrap().into_values().next().unwrap();
    let folded = async {
        while counts().await != (0, 2) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), folded).await.unwrap();
}

/// Of a scope whose tables are not tracked as they were its own watchers hear, and nobody else.
#[tokio::test]
async fn a_broken_scope_ends_nobodys_watch() {
    let stage = Stage::new().await;
    let file = rusqlite::Connection::open(stage.directory.path().join("hub.db")).unwrap();
    file.execute_batch("CREATE TABLE note (id INTEGER PRIMARY KEY)").unwrap();
    let other = "name = \"other\"\n[[tables]]\nname = \"note\"\n";
    stage.hub.store().define_scope(&scope::parse(other).unwrap(), false).await.unwrap();
    let request = |scope: &str| PollRequest {
        replica: ReplicaId::fresh(),
        scope: scope.parse().unwrap(),
        parameters: Vec::new(),
        knowledge: Bytes::new(),
        schema_fingerprint: [0; 32],
    };
    let mut shop = stage.hub.watch(request("shop"), Duration::ZERO).await.unwrap();
    let mut told = stage.hub.watch(request("other"), Duration::ZERO).await.unwrap();
    for watched in [&mut shop, &mut told] {
        watched.next().await.unwrap().unwrap();
    }
    file.execute_batch("ALTER TABLE item RENAME TO thing").unwrap();
    shop.next().await.unwrap().unwrap();
    assert_eq!(stage.hub.poll(request("shop")).await.unwrap_err().reason(), ErrorReason::TrackingBroken);
    file.execute_batch("INSERT INTO note VALUES (1)").unwrap();
    told.next().await.unwrap().unwrap();
    file.execute_batch("ALTER TABLE thing RENAME TO item; INSERT INTO item VALUES (1, 'a')").unwrap();
    shop.next().await.unwrap().unwrap();
    stage.hub.poll(request("shop")).await.unwrap();
}

#[tokio::test]
async fn a_batch_of_another_version_of_the_scope_is_refused_inline_too() {
    let stage = Stage::new().await;
    let request = stage.begin_request().await;
    let replica = request.replica;
    let session = stage.hub.begin(request).await.unwrap().session;
    let of_version = |version| {
        let batch =
            encode(Vec::<syncline::batch::Block>::new(), BatchSequence(1), Codec::Identity, version).unwrap();
        ApplyRequest {
            leaf: replica,
            batches: vec![(batch.info, Some(batch.stored))],
            made_with: Bytes::new(),
            excepted_keys: Vec::new(),
            leaf_clock: Clock::up_to(Tick(1)),
            upload_mark: Mark::fresh(),
            clock_offset_us: 0,
        }
    };
    let error = stage.hub.apply(session, of_version(2)).await.err().unwrap();
    assert_eq!(error.reason(), ErrorReason::RequestInvalid);
    assert!(stage.hub.apply(session, of_version(1)).await.is_ok());
}

/// However long it waited before it asked: of a later version it would be told what it has no tables for.
#[tokio::test]
async fn what_is_enumerated_is_of_the_version_that_the_session_was_begun_with() {
    let stage = Stage::new().await;
    let request = stage.begin_request().await;
    let session = stage.hub.begin(request).await.unwrap().session;
    let file = rusqlite::Connection::open(stage.directory.path().join("hub.db")).unwrap();
    file.execute_batch("CREATE TABLE note (id INTEGER PRIMARY KEY); INSERT INTO note VALUES (1)").unwrap();
    let wider = "name = \"shop\"\n[[tables]]\nname = \"item\"\n[[tables]]\nname = \"note\"\n";
    stage.hub.store().define_scope(&scope::parse(wider).unwrap(), false).await.unwrap();
    let asked = ChangesRequest { knowledge: Bytes::new(), excepted_keys: Vec::new(), first_sequence: 1 };
    let error = stage.hub.changes(session, asked).await.err().unwrap();
    assert_eq!(error.reason(), ErrorReason::SessionExpired);
}

/// As where two services of one hub have spools of their own.
#[tokio::test]
async fn a_batch_whose_bytes_are_not_in_the_spool_is_not_found() {
    let stage = Stage::new().await;
    let file = rusqlite::Connection::open(stage.directory.path().join("hub.db")).unwrap();
    file.execute_batch(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
         INSERT INTO item SELECT i, hex(randomblob(40)) FROM n",
    )
    .unwrap();
    let session = stage.hub.begin(stage.begin_request().await).await.unwrap().session;
    let asked = ChangesRequest { knowledge: Bytes::new(), excepted_keys: Vec::new(), first_sequence: 1 };
    let events: Vec<_> = stage.hub.changes(session, asked).await.unwrap().try_collect().await.unwrap();
    let listed = events.into_iter().find_map(|event| match event {
        ChangesEvent::Batch(info, None) => Some(info),
        _ => None,
    });
    let batch = listed.unwrap().id;
    let read = async |offset| match stage.hub.read_batch(session, batch, offset).await {
        Ok(bytes) => bytes.try_fold(0, async |sum, chunk| Ok(sum + chunk.len())).await,
        Err(error) => Err(error),
    };
    let whole = read(0).await.unwrap();
    assert!(whole > 0);
    let there = stage.directory.path().join("spool").join(session.id.to_string());
    std::fs::remove_dir_all(there).unwrap();
    for offset in [0, whole as u64] {
        assert_eq!(read(offset).await.unwrap_err().reason(), ErrorReason::BatchNotFound);
    }
}

#[tokio::test]
async fn a_watch_that_is_refused_leaves_nothing_behind() {
    let stage = Stage::new().await;
    let begin = stage.begin_request().await;
    let request = PollRequest {
        replica: begin.replica,
        scope: begin.scope,
        parameters: vec![("region".to_owned(), "north".to_owned())],
        knowledge: Bytes::from_static(b"not knowledge"),
        schema_fingerprint: begin.schema_fingerprint,
    };
    assert!(stage.hub.watch(request, Duration::ZERO).await.is_err());
    assert_eq!(stage.hub.watches().calls(), 0);
}
