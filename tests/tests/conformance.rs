//! Written once, run on the oracle, on every pairing of databases, and through gRPC: generated histories of plain
//! operations end with the rows that the oracle holds; and every meeting of two changes ends as the oracle says.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use sqlx::{AssertSqlSafe, Connection as _};
use syncline::knowledge::RowKey;
use syncline_engine::testing::histories::sequential::{Step, operations_of};
use syncline_engine::testing::oracle::plain::Operation;
use syncline_engine::testing::oracle::{HubKind, Oracle, OracleOptions, Policy, row_key};
use syncline_tests::database::{Database, Kind, PAIRINGS, Rows, open};
use syncline_tests::world::{Reach, World, WorldOptions};

const SCHEMA: &str = "CREATE TABLE item (id VARCHAR(10) PRIMARY KEY, value TEXT)";
const LEAVES: usize = 2;
const HISTORIES: u32 = 3;
const LENGTH: usize = 40;
/// Shorter histories that are tried once one goes wrong: each takes about a second.
const SHRINKS_MAX: u32 = 200;

/// Pairings, near and through gRPC.
const WAYS: [(Kind, Kind, Reach); 5] = [
    (Kind::Sqlite, Kind::Sqlite, Reach::Near),
    (Kind::Sqlite, Kind::Sqlite, Reach::Grpc),
    (Kind::Postgres, Kind::Sqlite, Reach::Grpc),
    (Kind::Sqlite, Kind::Postgres, Reach::Near),
    (Kind::Postgres, Kind::Postgres, Reach::Near),
];

/// A step of a history. Which rows and transactions it names is settled where it is played: any list of steps is a
/// history, so that a shorter one can be tried.
fn step(leaves: usize) -> impl Strategy<Value = Step> {
    let pick = any::<u8>;
    prop_oneof![
        4 => (any::<bool>(), pick(), pick(), 0..4_u8)
            .prop_map(|(shared, row, place, deletes)| Step::Write { shared, row, place, deletes: deletes == 0 }),
        2 => Just(Step::Begin),
        2 => (pick(), 0..5_u8).prop_map(|(place, fails)| Step::End { place, commits: fails > 0 }),
        4 => (0..leaves, pick()).prop_map(|(leaf, row)| Step::LeafWrite { leaf, row }),
        2 => (0..leaves, pick()).prop_map(|(leaf, row)| Step::LeafDelete { leaf, row }),
        5 => (0..leaves).prop_map(|leaf| Step::Session { leaf }),
    ]
}

fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::ServerWins => "server_wins",
        Policy::ClientWins => "client_wins",
        Policy::LastWriterWins => "last_writer_wins",
    }
}

async fn world(hub: Kind, leaf: Kind, reach: Reach, policy: Policy) -> World {
    let scope =
        format!("name = \"shop\"\nconflict = \"{}\"\n[[tables]]\nname = \"item\"\n", policy_name(policy));
    World::new(WorldOptions { hub, leaf, leaves: LEAVES, reach, schema: SCHEMA, scope: &scope }).await
}

fn hub_kind(kind: Kind) -> HubKind {
    match kind {
        Kind::Sqlite => HubKind::Folds,
        Kind::Postgres => HubKind::Transactions,
    }
}

/// A transaction of a user's at the hub.
enum Transaction {
    Sqlite(rusqlite::Connection),
    Postgres(sqlx::PgConnection),
}

impl Transaction {
    async fn begin(database: &Database) -> Self {
        match database {
            Database::Sqlite(path) => {
                let connection = open(path);
                connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                Self::Sqlite(connection)
            }
            Database::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
                Self::Postgres(connection)
            }
        }
    }

    async fn run(&mut self, sql: &str) {
        match self {
            Self::Sqlite(connection) => connection.execute_batch(sql).unwrap(),
            Self::Postgres(connection) => {
                sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
            }
        }
    }
}

fn name(key: &RowKey) -> String {
    String::from_utf8(key.key.to_vec()).unwrap()
}

fn upsert(key: &RowKey, value: &str) -> String {
    let id = name(key);
    format!(
        "INSERT INTO item (id, value) VALUES ('{id}', '{value}') ON CONFLICT (id) DO UPDATE SET value = '{value}'"
    )
}

fn delete(key: &RowKey) -> String {
    format!("DELETE FROM item WHERE id = '{}'", name(key))
}

/// Databases give changes the time of a clock that ticks in milliseconds (SQLite); last_writer_wins can't tell apart
/// what happens within one, and no two operations of a history do.
fn wait_for_the_next_millisecond() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let this = now();
    while now() <= this + 1 {
        std::hint::spin_loop();
    }
}

/// Plays an operation on the real databases.
async fn play(world: &World, open: &mut Vec<Option<Transaction>>, operation: &Operation) {
    wait_for_the_next_millisecond();
    match operation {
        Operation::HubBegin => open.push(Some(Transaction::begin(&world.hub).await)),
        Operation::HubWrite(number, key, value) => {
            open[*number].as_mut().unwrap().run(&upsert(key, value)).await
        }
        Operation::HubDelete(number, key) => open[*number].as_mut().unwrap().run(&delete(key)).await,
        Operation::HubTruncate(number) => open[*number].as_mut().unwrap().run("TRUNCATE item").await,
        Operation::HubCommit(number) => open[*number].take().unwrap().run("COMMIT").await,
        Operation::HubRollback(number) => open[*number].take().unwrap().run("ROLLBACK").await,
        Operation::LeafWrite(leaf, key, value) => world.leaves[*leaf].execute(&upsert(key, value)).await,
        Operation::LeafDelete(leaf, key) => world.leaves[*leaf].execute(&delete(key)).await,
        Operation::Session(leaf) => {
            world.sync(*leaf).await;
        }
    }
}

async fn rows(database: &Database) -> BTreeMap<String, String> {
    let rows: Rows = database.rows("item", &["id"], &["value"]).await;
    rows.into_iter().map(|(key, cells)| (key, cells[0].clone().unwrap_or_default())).collect()
}

fn oracle_rows(oracle: &Oracle) -> BTreeMap<String, String> {
    oracle.hub_rows().into_iter().map(|(key, content)| (name(&key), content.value)).collect()
}

/// Plays a history on the oracle and on real databases, and compares what all hold in the end.
async fn compare(
    (hub, leaf, reach): (Kind, Kind, Reach),
    policy: Policy,
    history: &[Operation],
) -> Result<(), TestCaseError> {
    let mut oracle = Oracle::new(OracleOptions::plain(hub_kind(hub), policy));
    let world = world(hub, leaf, reach, policy).await;
    // The tables are there from the beginning, at the leaves too.
    for number in 0..LEAVES {
        world.sync(number).await;
        oracle.run_session(number);
    }
    let (mut transactions, mut open) = (Vec::new(), Vec::new());
    for operation in history {
        // What the oracle refuses, a database would refuse or do nothing for.
        let _ = oracle.play(&mut transactions, operation);
        play(&world, &mut open, operation).await;
    }
    for number in 0..LEAVES {
        world.sync(number).await;
        oracle.run_session(number);
    }
    let what = format!("{hub:?} {leaf:?} {reach:?} {policy:?}");
    let expected = oracle_rows(&oracle);
    prop_assert_eq!(rows(&world.hub).await, expected.clone(), "hub, {}\n{:#?}", what, history);
    for number in 0..LEAVES {
        let found = rows(&world.leaves[number]).await;
        prop_assert_eq!(found, expected.clone(), "leaf {}, {}\n{:#?}", number, what, history);
        prop_assert!(world.sync(number).await.up_to_date, "not quiet: {}\n{:#?}", what, history);
    }
    Ok(())
}

/// The same histories in every run; one that goes wrong is made as short as it gets.
fn runner() -> TestRunner {
    let config = Config {
        cases: HISTORIES,
        failure_persistence: None,
        max_shrink_iters: SHRINKS_MAX,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

#[test]
fn histories_end_with_the_rows_that_the_oracle_holds() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for way in WAYS {
        for policy in Policy::ALL {
            let hub = hub_kind(way.0);
            let histories = prop::collection::vec(step(LEAVES), LENGTH / 2..=LENGTH)
                .prop_map(move |steps| operations_of(hub, LEAVES, &steps));
            let played = runner().run(&histories, |history| runtime.block_on(compare(way, policy, &history)));
            if let Err(failure) = played {
                panic!("{failure}");
            }
        }
    }
}

/// What one side does to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Insert,
    Update,
    Delete,
}

const CHANGES: [Change; 4] = [Change::None, Change::Insert, Change::Update, Change::Delete];

impl Change {
    /// Whether it can happen to a row that is there, or is not.
    fn fits(self, is_there: bool) -> bool {
        match self {
            Self::None => true,
            Self::Insert => !is_there,
            Self::Update | Self::Delete => is_there,
        }
    }

    fn sql(self, key: &RowKey, value: &str) -> Option<String> {
        match self {
            Self::None => None,
            Self::Insert | Self::Update => Some(upsert(key, value)),
            Self::Delete => Some(delete(key)),
        }
    }
}

/// Both sides change a row that both have, or that neither has.
#[tokio::test]
async fn every_meeting_of_two_changes_ends_as_the_oracle_says_and_keeps_the_loser() {
    for (hub, leaf) in PAIRINGS {
        for policy in Policy::ALL {
            let world = world(hub, leaf, Reach::Near, policy).await;
            let mut oracle = Oracle::new(OracleOptions::plain(hub_kind(hub), policy));
            let mut cases = Vec::new();
            for is_there in [false, true] {
                for at_hub in CHANGES.into_iter().filter(|change| change.fits(is_there)) {
                    for at_leaf in CHANGES.into_iter().filter(|change| change.fits(is_there)) {
                        cases.push((is_there, at_hub, at_leaf, row_key(&format!("r{}", cases.len()))));
                    }
                }
            }
            for (_, _, _, key) in cases.iter().filter(|case| case.0) {
                world.hub.execute(&upsert(key, "old")).await;
                write(&mut oracle, Change::Insert, key, "old");
            }
            world.sync(0).await;
            oracle.run_session(0);
            for (_, at_hub, at_leaf, key) in &cases {
                wait_for_the_next_millisecond();
                if let Some(sql) = at_hub.sql(key, "hub") {
                    world.hub.execute(&sql).await;
                    write(&mut oracle, *at_hub, key, "hub");
                }
                wait_for_the_next_millisecond();
                if let Some(sql) = at_leaf.sql(key, "leaf") {
                    world.leaves[0].execute(&sql).await;
                    match at_leaf {
                        Change::Delete => oracle.leaf_delete(0, key).unwrap(),
                        _ => oracle.leaf_write(0, key, "leaf").unwrap(),
                    }
                }
            }
            for _ in 0..2 {
                world.sync(0).await;
                oracle.run_session(0);
            }
            let what = format!("{hub:?} {leaf:?} {policy:?}");
            let expected = oracle_rows(&oracle);
            assert_eq!(rows(&world.hub).await, expected, "hub, {what}");
            assert_eq!(rows(&world.leaves[0]).await, expected, "leaf, {what}");
            let logged = world.hub_conflicts().await;
            for (_, at_hub, at_leaf, key) in &cases {
                let both = *at_hub != Change::None && *at_leaf != Change::None;
                let both_deleted = *at_hub == Change::Delete && *at_leaf == Change::Delete;
                let row = format!("{{\"id\":\"{}\"}}", name(key));
                let entries = logged.iter().filter(|entry| entry.summary.key_json == row).count();
                assert_eq!(entries, usize::from(both && !both_deleted), "{at_hub:?} {at_leaf:?} {what}");
            }
        }
    }
}

fn write(oracle: &mut Oracle, change: Change, key: &RowKey, value: &str) {
    let open = oracle.hub_begin().unwrap();
    match change {
        Change::Delete => oracle.hub_delete(open, key).unwrap(),
        _ => oracle.hub_write(open, key, value).unwrap(),
    }
    oracle.hub_commit(open);
}
