//! Temporary failures are waited out: exponential backoff with full jitter, for a time that begins anew with progress.

use std::future::Future;
use std::time::Duration;

use syncline::error::{Result, SyncError};
use tokio::time::Instant;

use super::progress::Progress;
use crate::limits::{RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};

/// The failures of one call or transfer.
pub(super) struct Backoff<'a> {
    retry_for: Duration,
    progress: &'a Progress,
    failing_since: Option<Instant>,
    failures: u32,
}

impl<'a> Backoff<'a> {
    pub(super) const fn new(retry_for: Duration, progress: &'a Progress) -> Self {
        Self { retry_for, progress, failing_since: None, failures: 0 }
    }

    /// Something moved: the next failure is the first one again.
    pub(super) fn progressed(&mut self) {
        if self.failing_since.take().is_some() {
            self.failures = 0;
            self.progress.update(|state| state.waiting_for = None);
        }
    }

    /// Waits, if repeating may help and there is time left.
    ///
    /// # Errors
    /// The error itself, if not.
    pub(super) async fn pause_after(&mut self, error: SyncError) -> Result<()> {
        if !is_temporary(&error) {
            return Err(error);
        }
        let failing_since = *self.failing_since.get_or_insert_with(Instant::now);
        let left = self.retry_for.saturating_sub(failing_since.elapsed());
        if left.is_zero() {
            return Err(error);
        }
        // What the service asks for is waited in full, within the time that is left.
        let asked = error.retry_pause().unwrap_or_default();
        let pause = (asked + jitter(ceiling(self.failures))).min(left);
        self.failures += 1;
        tracing::info!(reason = error.reason().as_str(), ?pause, "waiting before another attempt: {error}");
        self.progress.update(|state| state.waiting_for = Some(error.message().to_owned()));
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether repeating may help: the reason says so, or the service does by asking for a pause.
pub(crate) fn is_temporary(error: &SyncError) -> bool {
    error.reason().is_temporary() || error.retry_pause().is_some()
}

/// Repeats a call until it answers, fails for good, or time is up.
pub(super) async fn retry<T, F>(
    retry_for: Duration,
    progress: &Progress,
    mut call: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut backoff = Backoff::new(retry_for, progress);
    loop {
        match call().await {
            Ok(answer) => {
                backoff.progressed();
                return Ok(answer);
            }
            Err(error) => backoff.pause_after(error).await?,
        }
    }
}

/// The longest pause after so many failures before this one.
pub(super) fn ceiling(failures: u32) -> Duration {
    RETRY_PAUSE_MIN.saturating_mul(2_u32.saturating_pow(failures)).min(RETRY_PAUSE_MAX)
}

/// A random part of the pause: clients that failed together don't come back together.
pub(super) fn jitter(ceiling: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use syncline::error::ErrorReason;

    use super::*;

    fn unavailable() -> SyncError {
        SyncError::new(ErrorReason::DatabaseUnavailable, "gone")
    }

    #[tokio::test(start_paused = true)]
    async fn temporary_failures_are_retried_for_the_time_that_was_given() {
        let started = Instant::now();
        let mut calls = 0;
        let call = || {
            calls += 1;
            std::future::ready(Err::<(), _>(unavailable()))
        };
        let error = retry(Duration::from_secs(60), &Progress::unseen(), call).await.unwrap_err();
        assert_eq!(error.reason(), ErrorReason::DatabaseUnavailable);
        assert_eq!(started.elapsed().as_secs(), 60);
        assert!(calls > 8, "{calls}");
    }

    #[tokio::test(start_paused = true)]
    async fn other_failures_are_not_retried() {
        let call = || std::future::ready(Err::<(), _>(SyncError::new(ErrorReason::SchemaMismatch, "no")));
        let started = Instant::now();
        assert!(retry(Duration::from_secs(60), &Progress::unseen(), call).await.is_err());
        assert!(started.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_the_service_asks_for_is_waited() {
        let started = Instant::now();
        let mut first = true;
        let call = || {
            let answer = if std::mem::take(&mut first) {
                Err(unavailable().retry_after(Duration::from_secs(7)))
            } else {
                Ok(())
            };
            std::future::ready(answer)
        };
        retry(Duration::from_secs(60), &Progress::unseen(), call).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_begins_the_time_anew() {
        let progress = Progress::unseen();
        let mut backoff = Backoff::new(Duration::from_secs(1), &progress);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(5) {
            backoff.pause_after(unavailable()).await.unwrap();
            backoff.progressed();
        }
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        assert_eq!(ceiling(0), RETRY_PAUSE_MIN);
        assert_eq!(ceiling(1), RETRY_PAUSE_MIN * 2);
        assert_eq!(ceiling(40), RETRY_PAUSE_MAX);
        assert!(jitter(RETRY_PAUSE_MAX) <= RETRY_PAUSE_MAX);
    }
}
