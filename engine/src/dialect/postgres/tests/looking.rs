//! Looks for commits, over a connection that answers and over one that does not.

use std::process::Command;

use syncline::error::ErrorReason;

use super::kit::Database;
use crate::dialect::meta::MetaStore as _;

fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args([name, process]).status().unwrap().success());
}

/// A stopped process is to us what a forgotten connection is: nothing comes, not even an error.
#[tokio::test]
async fn a_look_that_nobody_answers_fails_soon() {
    let database = Database::with("CREATE TABLE item (id int PRIMARY KEY)").await;
    let mut commits = database.hub.commits().await.unwrap();
    assert!(commits.look().await.unwrap());
    assert!(!commits.look().await.unwrap());
    let process = database
        .cell(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND query LIKE 'SELECT pg_catalog.pg_current_snapshot()::text'",
        )
        .await;
    signal("-STOP", &process);
    let answer = commits.look().await;
    signal("-CONT", &process);
    assert_eq!(answer.unwrap_err().reason(), ErrorReason::DatabaseUnavailable);
}
