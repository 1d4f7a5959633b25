//! A commit whose outcome nobody heard: the connection to PostgreSQL dies in it, or the service does. Whatever happened,
//! the upload is applied exactly once, and the answer is what the first one would have been.
//!
//! The moment is hit exactly: with a standby that never answers (`synchronous_standby_names`), every commit of the
//! service waits after it is durable and before it is visible or answered. Cancelled there, it is answered as done;
//! terminated there, it is done, and the connection breaks.

use sqlx::{Connection as _, PgConnection};
use syncline_engine::throwaway::{ThrowawayCluster, ThrowawayOptions};
use syncline_tests::database::{Database, Kind};
use syncline_tests::leaf::{Leaf, Run};
use syncline_tests::proxy::Proxy;
use syncline_tests::service::Service;
use syncline_tests::shop;

const ROWS: u32 = 200;
/// More than the commits of a session.
const COMMITS_MAX: usize = 30;
const OPTIONS: ThrowawayOptions = ThrowawayOptions { durable: false };

struct Setup {
    _directory: tempfile::TempDir,
    cluster: ThrowawayCluster,
    hub: Database,
    service: Service,
    proxy: Proxy,
    leaf: Leaf,
}

impl Setup {
    /// A hub in a cluster of its own that counts how often each row of an upload was written, and a leaf with an upload.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cluster = ThrowawayCluster::start(OPTIONS).unwrap();
        let hub = Database::Postgres(cluster.fresh_database());
        shop::fill(&hub, 3).await;
        let audit = "CREATE TABLE audit (product_id INTEGER);
                     CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                       'BEGIN INSERT INTO public.audit VALUES (NEW.id); RETURN NULL; END';
                     CREATE TRIGGER note AFTER INSERT OR UPDATE ON product FOR EACH ROW EXECUTE FUNCTION note()";
        hub.execute(audit).await;
        let service = Service::start(&hub, shop::SCOPE, directory.path()).await;
        let proxy = Proxy::start(service.port()).await;
        let database = Database::new(Kind::Sqlite, directory.path(), "leaf").await;
        let leaf = Leaf::new(&database, proxy.url());
        leaf.sync().await;
        Self { _directory: directory, cluster, hub, service, proxy, leaf }
    }

    /// The leaf writes the same rows in every round.
    async fn edit(&self, round: usize) {
        if round == 0 {
            self.leaf.database.execute(&shop::bulk(ROWS)).await;
        }
        let edit = format!("UPDATE product SET name = name || '{round}' WHERE id > 1000");
        self.leaf.database.execute(&edit).await;
    }

    async fn admin(&self) -> PgConnection {
        let Database::Postgres(url) = &self.hub else { unreachable!() };
        PgConnection::connect(url).await.unwrap()
    }

    fn start(&self) -> tokio::task::JoinHandle<Run> {
        let leaf = self.leaf.clone();
        tokio::spawn(async move { leaf.run().await })
    }

    async fn assert_applied_once(&self, run: Run, round: usize, what: &str) {
        assert_eq!(run.status, Some(0), "{what}: {} {}", run.report, run.errors);
        assert_eq!(run.number("/uploaded/upserts"), u64::from(ROWS), "{what}: {}", run.report);
        assert_eq!(run.number("/conflicts"), 0, "{what}");
        let twice = format!(
            "SELECT count(*) FROM (SELECT product_id FROM audit WHERE product_id > 1000 GROUP BY product_id \
             HAVING count(*) <> {}) t",
            round + 1
        );
        assert_eq!(self.hub.count(&twice).await, 0, "not written once: {what}");
        // The result of the last session, and of no other.
        let applies = "SELECT count(*) FROM syncline.applies WHERE result IS NOT NULL";
        assert_eq!(self.hub.count(applies).await, 1, "{what}");
        shop::assert_same(&self.hub, &self.leaf.database).await;
        assert_eq!(self.leaf.sync().await.report["up_to_date"], true, "{what}");
    }
}

/// Whether commits wait.
async fn hold_commits(admin: &mut PgConnection, hold: bool) {
    let setting =
        if hold { "SET synchronous_standby_names = 'nobody'" } else { "RESET synchronous_standby_names" };
    let alter = format!("ALTER SYSTEM {setting}");
    sqlx::query("SET synchronous_commit = local").execute(&mut *admin).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(alter)).execute(&mut *admin).await.unwrap();
    sqlx::query("SELECT pg_reload_conf()").execute(&mut *admin).await.unwrap();
    let is_set =
        "SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = 'nobody'";
    loop {
        // A connection of its own: an idle one reads the configuration late.
        let held: i64 = sqlx::query_scalar(is_set).fetch_one(&mut *admin).await.unwrap();
        if (held == 1) == hold {
            return;
        }
    }
}

/// Backends of the service whose commit waits.
async fn waiting(admin: &mut PgConnection) -> Vec<i32> {
    let waiting =
        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'syncline'";
    sqlx::query_scalar(waiting).fetch_all(admin).await.unwrap()
}

async fn signal(admin: &mut PgConnection, function: &str, pid: i32) {
    let call = format!("SELECT {function}({pid})");
    sqlx::query(sqlx::AssertSqlSafe(call)).execute(&mut *admin).await.unwrap();
    // Until it has gone on: seen again it would be counted as another commit.
    while waiting(admin).await.contains(&pid) {
        tokio::task::yield_now().await;
    }
}

/// The connection of each commit of a session in turn is broken after the commit.
#[tokio::test]
async fn a_connection_that_dies_in_a_commit_is_settled() {
    let mut hit = 0;
    let setup = Setup::new().await;
    let mut admin = setup.admin().await;
    for target in 0..COMMITS_MAX {
        setup.edit(target).await;
        hold_commits(&mut admin, true).await;
        let running = setup.start();
        let (mut seen, mut broken) = (0, false);
        while !running.is_finished() {
            for pid in waiting(&mut admin).await {
                broken |= seen == target;
                let function = if seen == target { "pg_terminate_backend" } else { "pg_cancel_backend" };
                signal(&mut admin, function, pid).await;
                seen += 1;
            }
            tokio::task::yield_now().await;
        }
        hold_commits(&mut admin, false).await;
        setup.assert_applied_once(running.await.unwrap(), target, &format!("commit {target}")).await;
        if !broken {
            break;
        }
        hit += 1;
    }
    assert!((3..COMMITS_MAX).contains(&hit), "{hit} commits were hit");
}

/// The service is killed while its commit is under way, and started again: the second one waits for the first one's
/// transaction, and answers its result.
#[tokio::test]
async fn a_service_that_dies_in_the_commit_of_an_apply_answers_the_same_result() {
    let mut setup = Setup::new().await;
    setup.edit(0).await;
    let mut admin = setup.admin().await;
    hold_commits(&mut admin, true).await;
    let running = setup.start();
    let is_apply = "SELECT pid FROM pg_stat_activity a WHERE wait_event = 'SyncRep' AND EXISTS (SELECT FROM pg_locks l \
                    WHERE l.pid = a.pid AND l.relation = 'syncline.applies'::regclass AND l.mode = 'RowExclusiveLock')";
    let apply: i32 = 'found: loop {
        for pid in waiting(&mut admin).await {
            let applies: Vec<i32> = sqlx::query_scalar(is_apply).fetch_all(&mut admin).await.unwrap();
            if applies.contains(&pid) {
                break 'found pid;
            }
            signal(&mut admin, "pg_cancel_backend", pid).await;
        }
        assert!(!running.is_finished(), "the apply was missed");
        tokio::task::yield_now().await;
    };
    setup.service.kill().await;
    setup.service.restart().await;
    // The client comes again, and with it another apply of the session: it finds the first one's claim.
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'syncline'";
    loop {
        for pid in waiting(&mut admin).await.into_iter().filter(|pid| *pid != apply) {
            signal(&mut admin, "pg_cancel_backend", pid).await;
        }
        let blocked: i64 = sqlx::query_scalar(blocked).fetch_one(&mut admin).await.unwrap();
        if blocked > 0 {
            break;
        }
        assert!(!running.is_finished(), "it did not wait for the first apply");
        tokio::task::yield_now().await;
    }
    hold_commits(&mut admin, false).await;
    setup.assert_applied_once(running.await.unwrap(), 0, "killed in the commit").await;
}

/// The server fails as in a power failure, at points all over a session, and comes back.
#[tokio::test]
async fn a_server_that_fails_in_a_session_is_waited_for() {
    let setup = Setup::new().await;
    for (round, bytes) in [500, 2_000, 4_000, 6_000, 7_000].into_iter().enumerate() {
        setup.edit(round).await;
        let (down, up) = setup.proxy.passed();
        let mut running = setup.start();
        tokio::select! {
            () = setup.proxy.wait_until_passed(down + up + bytes) => {}
            run = &mut running => panic!("it passed less than {bytes} bytes: {:?}", run.unwrap()),
        }
        setup.cluster.crash_and_restart(OPTIONS).unwrap();
        setup.assert_applied_once(running.await.unwrap(), round, &format!("after {bytes} bytes")).await;
    }
}

/// The apply waits for a row that somebody else has written, and its connection is broken there: nothing was committed,
/// and it is done again.
#[tokio::test]
async fn a_connection_that_dies_before_the_commit_is_repeated() {
    let setup = Setup::new().await;
    setup.edit(0).await;
    let mut admin = setup.admin().await;
    setup.leaf.database.execute("UPDATE customer SET name = 'waits' WHERE id = 1").await;
    let mut writer = setup.admin().await;
    sqlx::raw_sql(
        "BEGIN; UPDATE customer SET credit = 1 WHERE id = 2; SELECT * FROM customer WHERE id = 1 FOR UPDATE",
    )
    .execute(&mut writer)
    .await
    .unwrap();
    let running = setup.start();
    let waits =
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'syncline'";
    loop {
        let pids: Vec<i32> = sqlx::query_scalar(waits).fetch_all(&mut admin).await.unwrap();
        if let Some(pid) = pids.first() {
            sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut admin).await.unwrap();
            break;
        }
        assert!(!running.is_finished(), "nothing waited");
        tokio::task::yield_now().await;
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut writer).await.unwrap();
    let run = running.await.unwrap();
    assert_eq!(run.status, Some(0), "{} {}", run.report, run.errors);
    assert_eq!(run.number("/uploaded/upserts"), u64::from(ROWS) + 1, "{}", run.report);
    let written = "SELECT count(*) FROM audit WHERE product_id > 1000";
    assert_eq!(setup.hub.count(written).await, i64::from(ROWS));
    shop::assert_same(&setup.hub, &setup.leaf.database).await;
}
