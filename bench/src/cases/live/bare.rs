//! The least that could bring a commit to another place: it is heard of, and a row is inserted there.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rusqlite::Connection;
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::mpsc;

use super::{ARRIVAL_MAX, LOOK_INTERVAL};
use crate::bench::{Bench, Kind};
use crate::database::{Database, open};

const CHANNEL: &str = "bare";
/// The shortest time that is reported, so that there is something to compare with.
const LEAST: Duration = Duration::from_micros(1);

/// A database that nobody tracks, and a file to which its commits are brought.
pub(super) struct Bare {
    database: Database,
    writer: Writer,
    /// When an insert was committed.
    arrivals: mpsc::UnboundedReceiver<Instant>,
    place: PathBuf,
}

enum Writer {
    Postgres(PgConnection),
    Sqlite(Connection),
}

impl Bare {
    /// Beside the hub: in the same server, or another file.
    pub(super) async fn start(bench: &Bench, hub: &Database) -> Result<Self> {
        let kind = if matches!(hub, Database::Postgres(_)) { Kind::Postgres } else { Kind::Sqlite };
        let database = bench.database(kind).await?;
        database.execute("CREATE TABLE told (number integer NOT NULL)").await?;
        let place = bench.fresh("bare.db")?;
        let insert = Insert::into_file(&place)?;
        let (sender, arrivals) = mpsc::unbounded_channel();
        let writer = match &database {
            Database::Postgres(url) => {
                let mut listener = PgListener::connect(url).await?;
                listener.listen(CHANNEL).await?;
                tokio::spawn(async move {
                    // Ends with an error when the database is removed.
                    while listener.recv().await.is_ok() && insert.one().is_ok() {
                        let _ = sender.send(Instant::now());
                    }
                });
                Writer::Postgres(PgConnection::connect(url).await?)
            }
            Database::Sqlite(path) => {
                let (looker, writer) = (open(path)?, open(path)?);
                std::thread::spawn(move || tell(&looker, &insert, &sender));
                Writer::Sqlite(writer)
            }
        };
        Ok(Self { database, writer, arrivals, place })
    }

    /// Commits after a pause; answers how long the insert took to be there.
    pub(super) async fn sample(&mut self, pause: Duration) -> Result<Duration> {
        tokio::time::sleep(pause).await;
        let insert = "INSERT INTO told VALUES (1)";
        match &mut self.writer {
            Writer::Postgres(connection) => {
                let notify = format!("BEGIN; {insert}; NOTIFY {CHANNEL}; COMMIT");
                sqlx::raw_sql(AssertSqlSafe(notify)).execute(connection).await?;
            }
            Writer::Sqlite(connection) => connection.execute_batch(insert)?,
        }
        let committed = Instant::now();
        match tokio::time::timeout(ARRIVAL_MAX, self.arrivals.recv()).await {
            // It may have been heard of before the writer has its answer.
            Ok(Some(arrived)) => Ok(arrived.saturating_duration_since(committed).max(LEAST)),
            _ => bail!("a commit was not heard of"),
        }
    }

    /// Gives back its room.
    pub(super) async fn stop(mut self) -> Result<()> {
        self.arrivals.close();
        self.database.remove().await?;
        let directory = self.place.parent().context("the file is in a directory")?;
        Ok(std::fs::remove_dir_all(directory)?)
    }
}

/// Inserts a row whenever another connection has committed, until nobody listens any more.
fn tell(looker: &Connection, insert: &Insert, sender: &mpsc::UnboundedSender<Instant>) -> Result<()> {
    let version = || looker.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0));
    let mut last = version()?;
    while !sender.is_closed() {
        let now = version()?;
        if now == last {
            std::thread::sleep(LOOK_INTERVAL);
            continue;
        }
        last = now;
        insert.one()?;
        let _ = sender.send(Instant::now());
    }
    Ok(())
}

/// Inserts into a file, durably.
struct Insert(Connection);

impl Insert {
    fn into_file(path: &std::path::Path) -> Result<Self> {
        let connection = open(path)?;
        connection.execute_batch("CREATE TABLE heard (number INTEGER NOT NULL)")?;
        Ok(Self(connection))
    }

    fn one(&self) -> Result<()> {
        self.0.prepare_cached("INSERT INTO heard VALUES (1)")?.execute([])?;
        Ok(())
    }
}
