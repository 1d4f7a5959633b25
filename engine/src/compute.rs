//! Threads for work that keeps a processor busy, such as encoding and decoding batches: as many as there are processors,
//! and always the same ones.
//!
//! On tokio's pool for work that blocks, such jobs go from thread to thread, and the C library's allocator keeps for each
//! of them what its largest job needed: several times what is needed at any moment. For the same reason a job goes to
//! the thread that has become idle last: work that comes one after the other is done by one thread.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use syncline::error::{Result, SyncError};
use tokio::sync::{Semaphore, oneshot};

use crate::limits::COMPUTED_AT_ONCE_BYTES_MAX;

/// Work, and what tells its outcome to who waits for it.
type Work = Box<dyn FnOnce() -> Answer + Send>;
type Answer = Box<dyn FnOnce() + Send>;

/// **Invariant:** there is an idle thread for each permit.
struct Pool {
    idle: Mutex<Vec<Sender<Work>>>,
    free: Semaphore,
}

static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let idle = (0..threads).map(|_| {
        let (sender, work) = channel();
        let own = sender.clone();
        std::thread::spawn(move || work_on(&work, &own));
        sender
    });
    Pool { idle: Mutex::new(idle.collect()), free: Semaphore::new(threads) }
});

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Sender<Work>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work_on(work: &Receiver<Work>, own: &Sender<Work>) {
    while let Ok(next) = work.recv() {
        // Who waits for the answer of work that panicked hears of it: the other end of its channel is dropped.
        let answer = std::panic::catch_unwind(AssertUnwindSafe(next));
        // Idle first: whoever hears the answer may have more work, and finds this thread on top.
        POOL.idle().push(own.clone());
        POOL.free.add_permits(1);
        if let Ok(answer) = answer {
            answer();
        }
    }
}

/// Does work that keeps a processor busy. Once begun, it is done also if nobody waits for it any more.
///
/// # Errors
/// What the work answers; INTERNAL if it panics.
pub async fn compute<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (answer, answered) = oneshot::channel();
    let job = move || -> Answer {
        let outcome = work();
        Box::new(move || {
            let _ = answer.send(outcome);
        })
    };
    let pool = &*POOL;
    let permit = pool.free.acquire().await.map_err(SyncError::internal)?;
    let thread = pool.idle().pop().ok_or_else(|| SyncError::internal("no thread is idle"))?;
    // The thread gives it back.
    permit.forget();
    thread.send(Box::new(job)).map_err(|_| SyncError::internal("a thread is gone"))?;
    answered.await.map_err(SyncError::internal)?
}

/// As [`compute`]. Work on so few `bytes` that to hand it to another thread, and to be woken by it, would take longer
/// than to do it, is done at once.
///
/// # Errors
/// As [`compute`].
pub async fn compute_over<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if bytes > COMPUTED_AT_ONCE_BYTES_MAX {
        return compute(work).await;
    }
    let panicked = |_| SyncError::internal("a piece of work panicked");
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(panicked)?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn little_work_is_done_at_once_and_a_panic_of_it_is_an_error() {
        let here = std::thread::current().id();
        let thread = || Ok(std::thread::current().id());
        assert_eq!(compute_over(COMPUTED_AT_ONCE_BYTES_MAX, thread).await.unwrap(), here);
        assert_ne!(compute_over(COMPUTED_AT_ONCE_BYTES_MAX + 1, thread).await.unwrap(), here);
        compute_over::<()>(1, || panic!("on purpose")).await.unwrap_err();
    }

    #[tokio::test]
    async fn work_is_answered_and_a_panic_ends_no_thread() {
        for _ in 0..100 {
            assert_eq!(compute(|| Ok(7)).await.unwrap(), 7);
            compute::<()>(|| panic!("on purpose")).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn more_work_than_threads_waits_for_its_turn() {
        let work = (0..1_000).map(|number| compute(move || Ok(number)));
        let done = futures_util::future::join_all(work).await;
        assert!(done.into_iter().enumerate().all(|(place, number)| number.unwrap() == place));
    }
}
