//! Filling tables that were empty: many blocks are one COPY, and whatever it meets is as if its rows had come one by one.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Connection as _;
use syncline::batch::Block;
use syncline::conflict::RowErrorReason;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::schema::{RowErrorPolicy, ScopeSchema};
use syncline::value::{CanonicalType as T, Value};

use super::conflicts::waits_for_lock;
use super::kit::{Leaf, WHOLE, int, items, refers, run, scope, table, text, up};
use crate::replica::ChangesEnd;
use crate::store::{BatchSource, DownloadSource, LeafStore as _};

/// Counts the statements that insert into `item`.
const COUNTED: &str = "CREATE TABLE statements (n bigint); INSERT INTO statements VALUES (0); \
    CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS \
    $$BEGIN UPDATE statements SET n = n + 1; RETURN NULL; END$$; \
    CREATE TRIGGER counted AFTER INSERT ON item FOR EACH STATEMENT EXECUTE FUNCTION counted();";
const CHECKED: &str = "CREATE TABLE item (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'));";

/// One batch comes, and no other.
struct Stopping(Vec<Block>);

#[async_trait]
impl BatchSource for Stopping {
    async fn blocks(&self, index: usize) -> Result<Option<Vec<Block>>> {
        if index == 0 { Ok(Some(self.0.clone())) } else { Err(stopped()) }
    }
}

#[async_trait]
impl DownloadSource for Stopping {
    async fn end(&self) -> Result<ChangesEnd> {
        Err(stopped())
    }
}

fn stopped() -> SyncError {
    SyncError::new(ErrorReason::DatabaseUnavailable, "no more will come")
}

async fn subscribed(schema: ScopeSchema, sql: &str) -> Leaf {
    let leaf = Leaf::unsubscribed(schema, sql).await;
    leaf.subscribe().await.unwrap();
    leaf
}

/// Batches of blocks of ten rows each, with ascending keys from 1; a row of `bad` is called so.
fn batches(schema: &ScopeSchema, blocks: &[usize], bad: &[i64]) -> Vec<Vec<Block>> {
    let mut next = 1;
    let mut block = || {
        let ids = next..next + 10;
        next += 10;
        let name = |id: &i64| text(if bad.contains(id) { "bad" } else { "good" });
        up(schema, "item", &ids.map(|id| [int(id), name(&id)]).collect::<Vec<_>>())
    };
    blocks.iter().map(|count| (0..*count).map(|_| block()).collect()).collect()
}

#[tokio::test]
async fn blocks_of_several_batches_are_one_statement() {
    let mut leaf = subscribed(items(), &format!("{CHECKED}{COUNTED}")).await;
    let batches = batches(&leaf.schema, &[3, 4], &[]);
    let report = leaf.try_download(leaf.job(WHOLE), batches).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (70, 0));
    assert_eq!(leaf.rows("SELECT count(*), min(id), max(id) FROM item").await, "70|1|70");
    assert_eq!(leaf.rows("SELECT n FROM statements").await, "1");
    assert!(leaf.dirty().await.0.is_empty());
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_in_the_middle_is_skipped() {
    let mut leaf = subscribed(items(), CHECKED).await;
    // In the second block of the second batch, and in a batch after it.
    let bad = [45, 72];
    let batches = batches(&leaf.schema, &[3, 3, 2], &bad);
    let report = leaf.try_download(leaf.job(WHOLE), batches).await.unwrap();
    assert_eq!(report.upserts, 78);
    let errors: Vec<_> =
        report.row_errors.iter().map(|error| (error.key_json.as_str(), error.reason)).collect();
    assert_eq!(errors, [("{\"id\":45}", RowErrorReason::Check), ("{\"id\":72}", RowErrorReason::Check)]);
    assert_eq!(leaf.rows("SELECT count(*), min(id), max(id) FROM item").await, "78|1|80");
    assert_eq!(leaf.subscription().await.excepted_keys.len(), 2);
    assert!(leaf.dirty().await.0.is_empty());
}

#[tokio::test]
async fn a_copy_is_ended_before_it_is_too_long_and_what_it_wrote_stays() {
    let mut leaf = subscribed(items(), &format!("{CHECKED}{COUNTED}")).await;
    let long = "x".repeat(1 << 20);
    let name = |id: i64| if id == 70 { text("bad") } else { text(&long) };
    let batches = (1..=72).map(|id| vec![up(&leaf.schema, "item", &[[int(id), name(id)]])]).collect();
    let report = leaf.try_download(leaf.job(WHOLE), batches).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (71, 1));
    assert_eq!(leaf.rows("SELECT count(*) FROM item").await, "71");
    // The first copy; then, from where the second began, one for each row that can be written.
    let staged = 71 - crate::limits::FILL_BYTES_MAX as i64 / (1 << 20);
    assert_eq!(leaf.rows("SELECT n FROM statements").await, (1 + staged).to_string());
}

#[tokio::test]
async fn each_batch_that_is_committed_by_itself_skips_what_it_must() {
    let mut leaf = subscribed(items(), CHECKED).await;
    let batches = batches(&leaf.schema, &[2, 2, 2], &[25]);
    let job = crate::store::DownloadJob { per_batch: true, ..leaf.job(WHOLE) };
    let report = leaf.try_download(job, batches).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (59, 1));
    assert_eq!(leaf.rows("SELECT count(*) FROM item").await, "59");
    assert_eq!(leaf.subscription().await.excepted_keys.len(), 1);
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_in_the_middle_aborts_all() {
    let schema = ScopeSchema { row_error_policy: RowErrorPolicy::Abort, ..items() };
    let mut leaf = subscribed(schema, CHECKED).await;
    let batches = batches(&leaf.schema, &[3, 3, 2], &[45]);
    let error = leaf.try_download(leaf.job(WHOLE), batches).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RowErrors);
    assert!(error.message().contains("{\"id\":45}"), "{error}");
    assert_eq!(leaf.rows("SELECT count(*) FROM item").await, "0");
    assert!(!leaf.subscription().await.applied);
}

#[tokio::test]
async fn a_cell_that_cant_be_sent_in_the_middle_is_skipped() {
    let sql = "CREATE TABLE item (id integer PRIMARY KEY, name text)";
    let mut leaf = subscribed(items(), sql).await;
    let s = leaf.schema.clone();
    let batch = vec![
        up(&s, "item", &[[int(1), text("a")], [int(2), text("b")]]),
        up(&s, "item", &[[int(3), text("a\0b")], [int(4), text("d")], [int(3_000_000_000), text("e")]]),
        up(&s, "item", &[[int(5), text("f")]]),
    ];
    let report = leaf.try_download(leaf.job(WHOLE), vec![batch]).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (4, 2));
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|a 2|b 4|d 5|f");
}

#[tokio::test]
async fn a_row_that_is_refused_before_a_cell_that_cant_be_sent() {
    let mut leaf = subscribed(items(), CHECKED).await;
    let s = leaf.schema.clone();
    // More than is sent at once: the server has refused the first row before the last is looked at.
    let long = "x".repeat(1 << 20);
    let batch = vec![
        up(&s, "item", &[[int(1), text("bad")], [int(2), text(&long)], [int(3), text(&long)]]),
        up(&s, "item", &[[int(4), text("a\0b")]]),
    ];
    let report = leaf.try_download(leaf.job(WHOLE), vec![batch]).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (2, 2), "{report:?}");
    assert_eq!(leaf.rows("SELECT id FROM item ORDER BY id").await, "2 3");
}

#[tokio::test]
async fn a_download_that_stops_in_the_middle_leaves_nothing() {
    let mut leaf = subscribed(items(), CHECKED).await;
    let source = Stopping(batches(&leaf.schema, &[2], &[]).remove(0));
    let done = Arc::default();
    let applying =
        leaf.store.apply_download(&leaf.subscription().await, leaf.job(WHOLE), Arc::new(source), done).await;
    assert_eq!(applying.unwrap_err().reason(), ErrorReason::DatabaseUnavailable);
    assert_eq!(leaf.rows("SELECT count(*) FROM item").await, "0");
    let batches = batches(&leaf.schema, &[2], &[]);
    assert_eq!(leaf.try_download(leaf.job(WHOLE), batches).await.unwrap().upserts, 20);
}

#[tokio::test]
async fn triggers_of_the_user_swallow_and_change_rows() {
    let sql = "CREATE TABLE item (id bigint PRIMARY KEY, name text); \
        CREATE FUNCTION pick() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
        IF NEW.id % 10 = 5 THEN RETURN NULL; END IF; NEW.name = NEW.name || NEW.id; RETURN NEW; END$$; \
        CREATE TRIGGER pick BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION pick();";
    let mut leaf = subscribed(items(), sql).await;
    let batches = batches(&leaf.schema, &[3, 1], &[]);
    let report = leaf.try_download(leaf.job(WHOLE), batches).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (36, 0), "those that are there");
    assert_eq!(
        leaf.rows("SELECT count(*), count(*) FILTER (WHERE name = 'good' || id) FROM item").await,
        "36|36"
    );
    assert!(leaf.dirty().await.0.is_empty(), "what it made of the rows is not the application's change");
}

#[tokio::test]
async fn a_row_that_the_application_inserts_meanwhile_is_met_in_the_middle() {
    let mut leaf = subscribed(items(), CHECKED).await;
    let mut other = sqlx::PgConnection::connect(&leaf.url).await.unwrap();
    run(&mut other, "BEGIN; INSERT INTO item VALUES (35, 'mine'), (99, 'new')").await;
    let batches = batches(&leaf.schema, &[3, 3], &[]);
    let download = leaf.try_download(leaf.job(WHOLE), batches);
    let commit = async {
        waits_for_lock(&leaf).await;
        run(&mut other, "COMMIT").await;
    };
    let (report, ()) = tokio::join!(download, commit);
    let report = report.unwrap();
    assert_eq!((report.upserts, report.conflicts), (60, 1));
    assert_eq!(
        leaf.conflicts().await,
        ["insert_insert remote {\"id\":35}: {\"id\":35,\"name\":\"mine\"} / {\"id\":35,\"name\":\"good\"}"]
    );
    assert_eq!(leaf.rows("SELECT name FROM item WHERE id IN (35, 99) ORDER BY id").await, "good new");
    assert_eq!(leaf.dirty().await.0, ["+item 99,\"new\"*"]);
}

#[tokio::test]
async fn several_tables_a_reference_backwards_and_one_to_its_own_table() {
    let mut parent = table(11, "parent", &[("id", T::Int64), ("chief", T::Int64)]);
    parent.foreign_keys = vec![refers(2, 11)];
    let mut child = table(12, "child", &[("id", T::Int64), ("parent", T::Int64)]);
    child.foreign_keys = vec![refers(2, 11)];
    let mut leaf = Leaf::subscribed(scope(vec![parent, child])).await;
    let s = leaf.schema.clone();
    let batches = vec![
        vec![
            up(&s, "parent", &[[int(1), int(3)], [int(2), Value::Null]]),
            up(&s, "parent", &[[int(3), int(1)], [int(4), int(6)]]),
            up(&s, "child", &[[int(1), int(2)], [int(2), int(5)], [int(3), int(77)]]),
        ],
        vec![up(&s, "parent", &[[int(5), int(4)], [int(6), int(5)]])],
    ];
    let report = leaf.try_download(leaf.job(WHOLE), batches).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (8, 1), "{report:?}");
    assert_eq!(report.row_errors[0].key_json, "{\"id\":3}");
    assert_eq!(leaf.rows("SELECT * FROM parent ORDER BY id").await, "1|3 2|NULL 3|1 4|6 5|4 6|5");
    assert_eq!(leaf.rows("SELECT * FROM child ORDER BY id").await, "1|2 2|5");
}

#[tokio::test]
async fn a_key_that_comes_twice_in_a_batch_keeps_its_last_state() {
    let mut leaf = subscribed(items(), CHECKED).await;
    let s = leaf.schema.clone();
    let batch = vec![
        up(&s, "item", &[[int(1), text("old")], [int(2), text("b")]]),
        up(&s, "item", &[[int(1), text("new")]]),
    ];
    let report = leaf.try_download(leaf.job(WHOLE), vec![batch]).await.unwrap();
    assert!(report.row_errors.is_empty());
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|new 2|b");
}
