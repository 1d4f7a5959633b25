//! Goal: an apply that nobody waits for any more is given up soon, whatever holds it up; and afterwards the upload is
//! either applied and recorded, or nothing of it is there. By a hub in this process, and a row of the user's own that
//! makes the hub's trigger slow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::Connection as _;
use syncline::batch::{Codec, encode};
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{BatchSequence, Mark, SessionId};
use syncline_engine::dialect::sqlite::SqliteDatabase;
use syncline_engine::hub::{Hub, HubConfig};
use syncline_engine::replica::{
    ApplyEvent, ApplyRequest, ApplyResult, BeginRequest, Begun, EndRequest, HubReplica as _, SessionRef,
};
use syncline_engine::scope;
use syncline_engine::spool::Spool;
use syncline_engine::store::{LeafStore as _, LeafUpload, Subscription};
use syncline_tests::database::{Database, Kind};
use syncline_tests::world::hub_store;

/// While there is a row in `switch`, a write of an item lasts longer than any test.
const POSTGRES_SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE switch (id INTEGER);
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN IF EXISTS (SELECT 1 FROM switch) THEN PERFORM pg_sleep(600); END IF; RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION slow()";
const SQLITE_SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE switch (id INTEGER);
    CREATE TABLE sink (count INTEGER);
    CREATE VIEW endless AS WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number)
      SELECT count(*) AS count FROM number;
    CREATE TRIGGER slow AFTER INSERT ON item WHEN EXISTS (SELECT 1 FROM switch)
      BEGIN INSERT INTO sink SELECT count FROM endless; END";

const KINDS: [Kind; 2] = [Kind::Sqlite, Kind::Postgres];
/// Far less than what holds the apply up, far more than giving up takes.
const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) hub: Hub,
    pub(crate) database: Database,
    leaf: Arc<SqliteDatabase>,
    pub(crate) leaf_database: Database,
    pub(crate) subscription: Subscription,
    /// As the leaf keeps them: the mark that was answered, the mark that was drawn.
    pub(crate) marks: (Option<Mark>, Option<Mark>),
}

impl Stage {
    pub(crate) async fn new(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::new(kind, directory.path(), "hub").await;
        database.execute(if kind == Kind::Sqlite { SQLITE_SCHEMA } else { POSTGRES_SCHEMA }).await;
        let store = hub_store(&database).await;
        store.open_hub().await.unwrap();
        let definition = scope::parse("name = \"shop\"\n[[tables]]\nname = \"item\"\n").unwrap();
        store.define_scope(&definition, false).await.unwrap();
        let hub = open_hub(&database, directory.path()).await;
        let leaf_database = Database::new(Kind::Sqlite, directory.path(), "leaf").await;
        let Database::Sqlite(path) = &leaf_database else { unreachable!("it was made as one") };
        let leaf = SqliteDatabase::open(path).await.unwrap();
        let served = hub.scope(&"shop".parse().unwrap()).await.unwrap();
        let subscription = leaf.subscribe(&served.schema, hub.id()).await.unwrap();
        leaf_database.execute("INSERT INTO item VALUES (1, 'of the leaf')").await;
        Self { directory, hub, database, leaf, leaf_database, subscription, marks: (None, None) }
    }

    /// With the slow trigger switched on.
    pub(crate) async fn slow(kind: Kind) -> Self {
        let stage = Self::new(kind).await;
        stage.database.execute("INSERT INTO switch VALUES (1)").await;
        stage
    }

    pub(crate) async fn begin(&mut self, session: SessionId) -> Begun {
        let begun = soon(self.hub.begin(self.begin_request(session))).await.unwrap();
        self.marks.0 = begun.upload_mark;
        begun
    }

    pub(crate) fn begin_request(&self, session: SessionId) -> BeginRequest {
        BeginRequest {
            session,
            replica: self.subscription.replica,
            scope: "shop".parse().unwrap(),
            parameters: Vec::new(),
            knowledge: Bytes::new(),
            upload_mark_answered: self.marks.0,
            upload_mark_drawn: self.marks.1,
            download_mark: None,
            codecs: vec![Codec::Identity],
            batch_bytes_max: None,
            row_bytes_max: None,
            schema_fingerprint: self.subscription.schema.fingerprint(),
            client_name: String::new(),
            ahead: false,
        }
    }

    /// All dirty rows of the leaf as one batch, with a mark that is drawn for it.
    pub(crate) async fn upload(&mut self) -> ApplyRequest {
        let bounds = LeafUpload { block_bytes_max: 1 << 20, row_bytes_max: 1 << 20 };
        let mut snapshot = self.leaf.enumerate_dirty(&self.subscription, bounds).await.unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = snapshot.blocks.recv().await {
            blocks.push(block.unwrap());
        }
        let version = self.subscription.schema.version;
        let batch = encode(blocks, BatchSequence(1), Codec::Identity, version).unwrap();
        let mark = Mark::fresh();
        self.marks.1 = Some(mark);
        ApplyRequest {
            leaf: self.subscription.replica,
            batches: vec![(batch.info, Some(batch.stored))],
            made_with: Bytes::new(),
            excepted_keys: Vec::new(),
            leaf_clock: snapshot.clock,
            upload_mark: mark,
            clock_offset_us: 0,
        }
    }

    /// An apply that has come to the slow trigger.
    pub(crate) async fn held_up(
        &mut self,
        session: SessionId,
    ) -> (SessionRef, BoxStream<'static, Result<ApplyEvent>>) {
        let begun = self.begin(session).await;
        let request = self.upload().await;
        let events = self.hub.apply(begun.session, request).await.unwrap();
        self.until_held_up().await;
        (begun.session, events)
    }

    pub(crate) async fn until_held_up(&self) {
        let held_up = async {
            loop {
                let held_up = match &self.database {
                    // The apply has the file's lock, for good.
                    Database::Sqlite(path) => {
                        let connection = rusqlite::Connection::open(path).unwrap();
                        connection.busy_timeout(Duration::from_millis(200)).unwrap();
                        connection.execute_batch("BEGIN IMMEDIATE").is_err()
                    }
                    Database::Postgres(_) => {
                        self.database
                            .count("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()")
                            .await
                            > 0
                    }
                };
                if held_up {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        soon(held_up).await;
    }

    async fn assert_nothing_applied(&self) {
        assert_eq!(self.database.count("SELECT count(*) FROM item").await, 0);
        let applies = match self.database.kind() {
            Kind::Sqlite => "SELECT count(*) FROM syncline_applies",
            Kind::Postgres => "SELECT count(*) FROM syncline.applies",
        };
        assert_eq!(self.database.count(applies).await, 0);
        if self.database.kind() == Kind::Postgres {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncline' \
                           AND datname = current_database() AND (state = 'active' OR wait_event_type = 'Lock')";
            soon(async { while self.database.count(waiting).await > 0 {} }).await;
        }
    }

    /// Another session uploads, and everything is there.
    async fn assert_goes_on(&mut self) {
        self.database.execute("DELETE FROM switch").await;
        let begun = self.begin(SessionId::fresh()).await;
        let request = self.upload().await;
        let events = self.hub.apply(begun.session, request).await.unwrap();
        outcome(events).await.unwrap();
        let rows = "SELECT count(*) FROM item";
        assert_eq!(self.database.count(rows).await, self.leaf_database.count(rows).await);
    }
}

pub(crate) async fn open_hub(database: &Database, directory: &std::path::Path) -> Hub {
    let spool = Spool::directory(&directory.join("spool")).unwrap();
    Hub::open(hub_store(database).await, spool, HubConfig::default()).await.unwrap()
}

pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("it takes too long")
}

pub(crate) async fn outcome(mut events: BoxStream<'static, Result<ApplyEvent>>) -> Result<ApplyResult> {
    let last = async {
        while let Some(event) = events.next().await {
            if let ApplyEvent::Result(result) = event? {
                return Ok(result);
            }
        }
        Err(SyncError::internal("no result"))
    };
    soon(last).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_apply_is_rolled_back_and_the_next_session_goes_on() {
    for kind in KINDS {
        let mut stage = Stage::slow(kind).await;
        let (session, events) = stage.held_up(SessionId::fresh()).await;
        soon(stage.hub.end(session, EndRequest::abandoned())).await.unwrap();
        assert_eq!(outcome(events).await.unwrap_err().reason(), ErrorReason::SessionNotFound);
        stage.assert_nothing_applied().await;
        stage.assert_goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_of_the_replica_gives_up_the_older_ones_apply() {
    for kind in KINDS {
        let mut stage = Stage::slow(kind).await;
        let (_, events) = stage.held_up(SessionId::fresh()).await;
        let begun = stage.begin(SessionId::fresh()).await;
        assert_eq!(begun.upload_mark, None);
        assert_eq!(outcome(events).await.unwrap_err().reason(), ErrorReason::SessionNotFound);
        stage.assert_nothing_applied().await;
        stage.assert_goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_stops_gives_up_the_apply_and_another_goes_on_with_the_session() {
    for kind in KINDS {
        let mut stage = Stage::slow(kind).await;
        let id = SessionId::fresh();
        let (_, events) = stage.held_up(id).await;
        soon(stage.hub.abort()).await;
        assert_eq!(outcome(events).await.unwrap_err().reason(), ErrorReason::Draining);
        stage.assert_nothing_applied().await;
        stage.hub = open_hub(&stage.database, stage.directory.path()).await;
        let begun = stage.begin(id).await;
        assert!(begun.resume.resumed && begun.resume.apply_started && !begun.resume.applied);
        stage.assert_goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_row_that_another_holds_ends_with_the_session() {
    let mut stage = Stage::new(Kind::Postgres).await;
    stage.database.execute("INSERT INTO item VALUES (1, 'of the hub')").await;
    let Database::Postgres(url) = &stage.database else { unreachable!("it was made as one") };
    let mut holder = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE item SET name = 'held' WHERE id = 1").execute(&mut holder).await.unwrap();

    let begun = stage.begin(SessionId::fresh()).await;
    let request = stage.upload().await;
    let events = stage.hub.apply(begun.session, request).await.unwrap();
    let waiters = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    soon(async { while stage.database.count(waiters).await == 0 {} }).await;
    soon(stage.hub.end(begun.session, EndRequest::abandoned())).await.unwrap();
    assert_eq!(stage.database.count(waiters).await, 0);
    assert_eq!(outcome(events).await.unwrap_err().reason(), ErrorReason::SessionNotFound);
    assert_eq!(stage.database.count("SELECT count(*) FROM syncline.applies").await, 0);

    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    stage.assert_goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandon_that_meets_the_commit_leaves_all_or_nothing() {
    for kind in KINDS {
        let mut stage = Stage::new(kind).await;
        let mut applied = 0;
        for round in 2..47_i64 {
            stage.leaf_database.execute(&format!("INSERT INTO item VALUES ({round}, 'raced')")).await;
            let begun = stage.begin(SessionId::fresh()).await;
            let request = stage.upload().await;
            let mark = request.upload_mark;
            let events = stage.hub.apply(begun.session, request).await.unwrap();
            let hub = stage.hub.clone();
            // Each round a little later: so long as some more questions to the same database take.
            let database = stage.database.clone();
            let abandon = async move {
                for _ in 0..round % 15 {
                    database.count("SELECT count(*) FROM item").await;
                }
                soon(hub.end(begun.session, EndRequest::abandoned())).await.unwrap();
            };
            let (outcome, ()) = tokio::join!(outcome(events), abandon);
            let there =
                stage.database.count(&format!("SELECT count(*) FROM item WHERE id = {round}")).await == 1;
            let recorded = stage.begin(SessionId::fresh()).await.upload_mark == Some(mark);
            assert_eq!(there, recorded, "{kind:?}, round {round}");
            match outcome {
                Ok(result) => assert!(recorded && result.upload_mark == mark),
                Err(error) => {
                    assert_eq!(error.reason(), ErrorReason::SessionNotFound, "{error}");
                    assert!(!recorded, "{kind:?}, round {round}: applied, and nobody heard of it");
                }
            }
            applied += i64::from(recorded);
        }
        println!("{kind:?}: {applied} of 45 were applied before they were abandoned");
        stage.assert_goes_on().await;
    }
}
