//! Goal: the cheap poll is right for every commit that was acknowledged before the call, and for every change of the
//! scope, though polls share their reads and the hub keeps what it has read of a scope. By a hub in this process, over
//! both databases; whoever writes has connections of their own.

use std::sync::Arc;

use bytes::Bytes;
use syncline::error::ErrorReason;
use syncline::ids::ReplicaId;
use syncline::knowledge::{ViewId, ViewKnowledge};
use syncline_engine::hub::{Hub, HubConfig};
use syncline_engine::replica::{
    ChangesEvent, ChangesRequest, EndRequest, HubReplica as _, Pending, PollRequest,
};
use syncline_engine::scope;
use syncline_engine::spool::Spool;
use syncline_engine::store::HubStore;
use syncline_tests::database::{Database, Kind};
use syncline_tests::world::hub_store;
use tokio_util::sync::CancellationToken;

use crate::slow_clients::begin_request;

const KINDS: [Kind; 2] = [Kind::Sqlite, Kind::Postgres];
const SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)";
const SCOPE: &str = "name = \"shop\"\n[[tables]]\nname = \"item\"\n";
/// Commits, each followed by a poll.
const COMMITS: i64 = 60;
/// Polls that are always under way beside them.
const POLLERS: usize = 4;

struct Shop {
    _directory: tempfile::TempDir,
    hub: Hub,
    store: Arc<dyn HubStore>,
    database: Database,
    view: ViewId,
}

impl Shop {
    async fn open(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::new(kind, directory.path(), "hub").await;
        database.execute(SCHEMA).await;
        let store = hub_store(&database).await;
        store.open_hub().await.unwrap();
        store.define_scope(&scope::parse(SCOPE).unwrap(), false).await.unwrap();
        let spool = Spool::directory(&directory.path().join("spool")).unwrap();
        let hub = Hub::open(Arc::clone(&store), spool, HubConfig::default()).await.unwrap();
        let view = view_of(&hub).await;
        Self { _directory: directory, hub, store, database, view }
    }

    /// As somebody asks who knows everything by now.
    async fn request(&self) -> PollRequest {
        let name = "shop".parse().unwrap();
        let stored = self.store.scope(&name).await.unwrap().unwrap();
        self.store.fold(&stored).await.unwrap();
        let knowledge = self.store.snapshot(&stored).await.unwrap().knowledge().clone();
        PollRequest {
            replica: ReplicaId::fresh(),
            scope: name,
            parameters: Vec::new(),
            knowledge: ViewKnowledge { view: self.view.clone(), knowledge }.encode().unwrap(),
            schema_fingerprint: stored.schema.fingerprint(),
        }
    }

    async fn poll(&self, request: &PollRequest) -> Pending {
        self.hub.poll(request.clone()).await.unwrap()
    }
}

/// The view, as a session names it that has downloaded.
async fn view_of(hub: &Hub) -> ViewId {
    use futures_util::StreamExt as _;
    let served = hub.scope(&"shop".parse().unwrap()).await.unwrap();
    let session = hub.begin(begin_request(&served)).await.unwrap().session;
    let asked = ChangesRequest { knowledge: Bytes::new(), excepted_keys: Vec::new(), first_sequence: 1 };
    let mut events = hub.changes(session, asked).await.unwrap();
    let learned = loop {
        if let ChangesEvent::End(end) = events.next().await.unwrap().unwrap() {
            break end.learned;
        }
    };
    hub.end(session, EndRequest::abandoned()).await.unwrap();
    ViewKnowledge::decode(&learned).unwrap().view
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_after_a_commit_never_answers_from_a_read_that_is_older() {
    for kind in KINDS {
        let shop = Shop::open(kind).await;
        for commit in 0..COMMITS {
            let request = shop.request().await;
            assert_eq!(shop.poll(&request).await, Pending::None, "{kind:?}: nothing is new");
            // Reads are under way all the time, so that one that has begun before the commit is there to be misused.
            let enough = CancellationToken::new();
            let pollers = (0..POLLERS).map(|_| {
                let (hub, request, enough) = (shop.hub.clone(), request.clone(), enough.clone());
                tokio::spawn(async move {
                    while !enough.is_cancelled() {
                        hub.poll(request.clone()).await.unwrap();
                    }
                })
            });
            let pollers: Vec<_> = pollers.collect();
            shop.database.execute(&format!("INSERT INTO item VALUES ({commit}, 'new')")).await;
            assert_ne!(
                shop.poll(&request).await,
                Pending::None,
                "{kind:?}: commit {commit} was acknowledged"
            );
            enough.cancel();
            for poller in pollers {
                poller.await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_another_process_changes_is_another_at_once() {
    for kind in KINDS {
        let shop = Shop::open(kind).await;
        let request = shop.request().await;
        assert_eq!(shop.poll(&request).await, Pending::None);
        // With a pool of its own, and nothing else in common.
        let other = hub_store(&shop.database).await;
        shop.database.execute("ALTER TABLE item ADD COLUMN note TEXT").await;
        other.define_scope(&scope::parse(SCOPE).unwrap(), false).await.unwrap();
        assert_eq!(shop.poll(&request).await, Pending::Some, "{kind:?}: the schema is another");
        let request = shop.request().await;
        assert_eq!(shop.poll(&request).await, Pending::None);
        other.drop_scope(&"shop".parse().unwrap()).await.unwrap();
        let error = shop.hub.poll(request.clone()).await.unwrap_err();
        assert_eq!(error.reason(), ErrorReason::ScopeNotFound, "{kind:?}");
        other.define_scope(&scope::parse(SCOPE).unwrap(), false).await.unwrap();
        assert_eq!(shop.poll(&request).await, Pending::Some, "{kind:?}: it is another scope of that name");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_slept_longest_is_answered_together_with_the_others() {
    for kind in KINDS {
        let shop = Shop::open(kind).await;
        let early = shop.request().await;
        // Ticks move on, though nothing of the scope does.
        shop.database
            .execute("CREATE TABLE other (id INTEGER PRIMARY KEY); INSERT INTO other VALUES (1)")
            .await;
        let late = shop.request().await;
        for _ in 0..3 {
            let (first, second) = tokio::join!(shop.poll(&late), shop.poll(&early));
            assert_eq!((first, second), (Pending::None, Pending::None), "{kind:?}");
        }
        shop.database.execute("INSERT INTO item VALUES (1, 'new')").await;
        let (first, second) = tokio::join!(shop.poll(&late), shop.poll(&early));
        assert_eq!((first, second), (Pending::Some, Pending::Some), "{kind:?}");
        // Who knows it by then is not held up by who does not.
        let knowing = shop.request().await;
        let (first, second) = tokio::join!(shop.poll(&knowing), shop.poll(&early));
        assert_eq!((first, second), (Pending::None, Pending::Some), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_tracked_any_more_is_no_table_without_news() {
    for change in ["ALTER TABLE item DISABLE TRIGGER ALL", "ALTER TABLE item RENAME COLUMN name TO title"] {
        let shop = Shop::open(Kind::Postgres).await;
        let request = shop.request().await;
        assert_eq!(shop.poll(&request).await, Pending::None);
        shop.database.execute(change).await;
        let error = shop.hub.poll(request).await.unwrap_err();
        assert_eq!(error.reason(), ErrorReason::TrackingBroken, "{change}");
    }
}
