//! Goal: copies of a leaf that synchronise at the same time under one replica id lose nothing: the sessions and applies
//! of a replica follow each other, whichever process serves them. By two hubs over one PostgreSQL database (in SQLite
//! the file's lock does it), and locks that hold each step where it matters.

use sqlx::Connection as _;
use syncline::error::ErrorReason;
use syncline::ids::{Mark, SessionId};
use syncline_engine::hub::Hub;
use syncline_engine::replica::{EndRequest, HubReplica as _};
use syncline_tests::database::{Database, Kind};

use crate::abandoned_applies::{Stage, open_hub, outcome, soon};

/// While there is a row in `switch`, a write of an item waits.
const WAITS_FOR_THE_SWITCH: &str = "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN WHILE EXISTS (SELECT 1 FROM switch) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NULL; END $$";

/// A hub whose apply is under way, and another process over the same database.
async fn under_way() -> (Stage, Hub) {
    let stage = Stage::slow(Kind::Postgres).await;
    stage.database.execute(WAITS_FOR_THE_SWITCH).await;
    let other = open_hub(&stage.database, stage.directory.path()).await;
    (stage, other)
}

async fn until_waiting(database: &Database, waiters: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    soon(async { while database.count(waiting).await < waiters {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_begins_while_the_original_uploads_has_diverged() {
    let (mut stage, other) = under_way().await;
    let (_, events) = stage.held_up(SessionId::fresh()).await;
    // As a copy that was made before: it does not know the mark that the original has drawn.
    let mut request = stage.begin_request(SessionId::fresh());
    request.upload_mark_drawn = Some(Mark::fresh());
    let copy = tokio::spawn(async move { other.begin(request).await });
    until_waiting(&stage.database, 1).await;
    stage.database.execute("DELETE FROM switch").await;
    outcome(events).await.unwrap();
    let error = soon(copy).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), ErrorReason::ReplicaDiverged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_begins_again_elsewhere_hears_of_the_apply_that_was_under_way() {
    let (mut stage, other) = under_way().await;
    let (_, events) = stage.held_up(SessionId::fresh()).await;
    let drawn = stage.marks.1;
    let request = stage.begin_request(SessionId::fresh());
    let again = tokio::spawn({
        let other = other.clone();
        async move { other.begin(request).await }
    });
    until_waiting(&stage.database, 1).await;
    stage.database.execute("DELETE FROM switch").await;
    outcome(events).await.unwrap();
    let begun = soon(again).await.unwrap().unwrap();
    assert_eq!(begun.upload_mark, drawn);
    // And what it uploads in that session is applied.
    stage.marks.0 = begun.upload_mark;
    stage.leaf_database.execute("INSERT INTO item VALUES (2, 'later')").await;
    let request = stage.upload().await;
    outcome(other.apply(begun.session, request).await.unwrap()).await.unwrap();
    assert_eq!(stage.database.count("SELECT count(*) FROM item").await, 2);
}

/// A client whose connection broke takes its session up again, and need not wait for the apply that it has begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_taken_up_while_its_apply_is_under_way() {
    let (mut stage, other) = under_way().await;
    let session = SessionId::fresh();
    let (_, events) = stage.held_up(session).await;
    let begun = soon(other.begin(stage.begin_request(session))).await.unwrap();
    assert!(begun.resume.resumed && begun.resume.apply_started && !begun.resume.applied);
    stage.database.execute("DELETE FROM switch").await;
    outcome(events).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_replica_that_begin_at_the_same_time_follow_each_other() {
    let mut stage = Stage::new(Kind::Postgres).await;
    let begun = stage.begin(SessionId::fresh()).await;
    soon(stage.hub.end(begun.session, EndRequest::abandoned())).await.unwrap();
    let Database::Postgres(url) = &stage.database else { unreachable!("it was made as one") };
    let mut holder = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT 1 FROM syncline.leaves FOR UPDATE").execute(&mut holder).await.unwrap();
    let begins: Vec<_> = (0..2)
        .map(|_| {
            let (hub, request) = (stage.hub.clone(), stage.begin_request(SessionId::fresh()));
            tokio::spawn(async move { hub.begin(request).await })
        })
        .collect();
    until_waiting(&stage.database, 2).await;
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    for begin in begins {
        soon(begin).await.unwrap().unwrap();
    }
    assert_eq!(stage.database.count("SELECT count(*) FROM syncline.sessions").await, 1);
}
