//! Waiting for a database file that somebody else writes to.
//!
//! SQLite has no queue for its lock: whoever waits asks again, and gets it if nobody has it just then. Its own way of
//! waiting soon asks ten times a second only, which an application that writes without a pause outlasts: the lock is free
//! for a hundredth of the time, and all those questions fall beside it. So this one asks more often, and after a while, in
//! which the application has had its turn, as often as it takes not to be starved.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use syncline::error::Result;
use tokio_util::sync::CancellationToken;

use super::errors::DatabaseResult as _;
use crate::limits;

/// The first pauses between two questions, in milliseconds; the last one is repeated.
const FIRST_PAUSES_MS: [u64; 4] = [1, 2, 5, 10];
/// The pause, once the application has been left its turn for long enough.
const INSISTENT_PAUSE: Duration = Duration::from_millis(1);
const _: () = assert!(
    FIRST_PAUSES_MS[FIRST_PAUSES_MS.len() - 1] as u128 <= limits::GIVE_UP_INTERVAL.as_millis(),
    "what is given up must not wait longer"
);

/// From now on the connection waits for others for [`limits::SQLITE_BUSY_TIMEOUT`] at most, and no longer than until `stop` is
/// cancelled, if there is one.
pub(super) fn wait_for_others(connection: &mut Connection, stop: Option<CancellationToken>) -> Result<()> {
    let mut since = Instant::now();
    let handler = move |asked_before: i32| {
        if asked_before == 0 {
            since = Instant::now();
        }
        let waited = since.elapsed();
        let given_up = stop.as_ref().is_some_and(CancellationToken::is_cancelled);
        if given_up || waited >= limits::SQLITE_BUSY_TIMEOUT {
            return false;
        }
        std::thread::sleep(pause(asked_before, waited));
        true
    };
    connection.busy_handler(Some(handler)).db()
}

/// How long to wait, after so many questions, before the next.
fn pause(asked_before: i32, waited: Duration) -> Duration {
    if waited >= limits::SQLITE_POLITE_WAIT {
        return INSISTENT_PAUSE;
    }
    let place = usize::try_from(asked_before).unwrap_or(0).min(FIRST_PAUSES_MS.len() - 1);
    Duration::from_millis(FIRST_PAUSES_MS[place])
}
