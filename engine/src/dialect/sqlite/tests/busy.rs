//! Goal: nobody who writes to the file keeps the engine from it for good. Method: an application in a thread of its own, on a
//! connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use syncline::error::ErrorReason;

use super::support::*;
use crate::limits;
use crate::store::HubStore as _;

/// How long each of the application's transactions has the lock, beside the commit.
const HELD: Duration = Duration::from_millis(2);

#[tokio::test]
async fn an_application_that_writes_without_a_pause_starves_no_fold() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    file.run("CREATE TABLE diary (line TEXT)");
    let (goes_on, wanted) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (path, asked, awaited) = (file.path.clone(), Arc::clone(&goes_on), Arc::clone(&wanted));
    let writer = std::thread::spawn(move || {
        let app = application(&path);
        while asked.load(Ordering::SeqCst) {
            let customer = awaited.load(Ordering::SeqCst);
            app.execute_batch("BEGIN IMMEDIATE; INSERT INTO diary VALUES ('on and on')").unwrap();
            if customer {
                app.execute_batch("INSERT INTO customer (name) VALUES ('new')").unwrap();
            }
            let begun = Instant::now();
            while begun.elapsed() < HELD {
                std::hint::spin_loop();
            }
            app.execute_batch("COMMIT").unwrap();
            awaited.fetch_and(!customer, Ordering::SeqCst);
            // All that it does between two transactions.
            app.query_row("SELECT count(*) FROM diary", [], |row| row.get::<_, i64>(0)).unwrap();
        }
    });
    for folded in 1..=5 {
        wanted.store(true, Ordering::SeqCst);
        while wanted.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        file.database.fold(&scope).await.unwrap();
        assert_eq!(file.number("SELECT count(*) FROM syncline_record_1").await, folded);
    }
    goes_on.store(false, Ordering::SeqCst);
    writer.join().unwrap();
}

#[tokio::test]
async fn a_lock_that_does_not_come_in_time_is_an_error_that_says_so() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    file.run("INSERT INTO customer (name) VALUES ('a')");
    let app = application(&file.path);
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let error = file.database.fold(&scope).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::LockTimeout, "{error}");
    assert!(began.elapsed() >= limits::SQLITE_BUSY_TIMEOUT);
    app.execute_batch("COMMIT").unwrap();
    file.database.fold(&scope).await.unwrap();
}
