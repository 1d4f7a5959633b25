//! An application that writes single rows, one after the other, and how long each took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::application::Application;
use crate::bench::Unit;
use crate::database::Database;
use crate::report::percentile;
use crate::rows::SplitMix64;

const SEED: u64 = 0x5EED_F01D;
/// It writes some of so many rows.
const KEYS: u64 = 1_000;

/// The application, with the times of its writes in milliseconds.
pub(super) struct Writer {
    /// Away while it writes.
    at_rest: Option<AtRest>,
    took_ms: Vec<f64>,
}

struct AtRest {
    application: Application,
    keys: Vec<String>,
    random: SplitMix64,
}

impl Writer {
    /// Connects to a database that has its rows.
    pub(super) async fn connect(database: &Database) -> Result<Self> {
        let rows = database.sum(crate::rows::TABLE).await?.rows();
        let keys = database.keys((rows / KEYS).max(1), 0).await?;
        let application = Application::connect(database).await?;
        let at_rest = Some(AtRest { application, keys, random: SplitMix64(SEED) });
        Ok(Self { at_rest, took_ms: Vec::new() })
    }

    /// Writes for as long as something else goes on, which begins when the first write is done; that one and those
    /// that begin later do not count.
    pub(super) async fn beside<T>(&mut self, other: impl Future<Output = Result<T>>) -> Result<T> {
        let mut writing = self.at_rest.take().context("it does not write twice at once")?;
        let over = Arc::new(AtomicBool::new(false));
        let (sender, begun) = oneshot::channel();
        let (is_over, runtime) = (Arc::clone(&over), Handle::current());
        let writes = tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                writing.write().await?;
                let _ = sender.send(());
                let mut took_ms = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    took_ms.push(Unit::Milliseconds.of(writing.write().await?));
                }
                anyhow::Ok((writing, took_ms))
            })
        });
        // If it has failed, it says so when it is joined.
        let _ = begun.await;
        let done = other.await;
        over.store(true, Ordering::SeqCst);
        let (at_rest, took_ms) = writes.await??;
        self.at_rest = Some(at_rest);
        self.took_ms.extend(took_ms);
        done
    }

    /// Writes for so long while nothing else goes on.
    pub(super) async fn alone(&mut self, lasts: Duration) -> Result<()> {
        self.beside(async {
            tokio::time::sleep(lasts).await;
            Ok(())
        })
        .await
    }

    /// What all but one in a hundred took at most, in milliseconds; forgets them.
    pub(super) fn take_p99(&mut self) -> f64 {
        percentile(&std::mem::take(&mut self.took_ms), 0.99)
    }
}

impl AtRest {
    async fn write(&mut self) -> Result<Duration> {
        let place = self.random.next() % self.keys.len() as u64;
        let key = self.keys.get(usize::try_from(place)?).context("there are rows")?;
        let started = Instant::now();
        self.application.change(key, (self.random.next() % 1_000).cast_signed()).await?;
        Ok(started.elapsed())
    }
}
