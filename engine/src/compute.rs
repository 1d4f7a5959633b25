//! Threads for work that keeps a processor busy, such as encoding and decoding batches: as many as there are processors,
//! and always the same ones.
//!
//! On tokio's pool for work that blocks, such jobs go from thread to thread, and the C library's allocator keeps for each
//! of them what its largest job needed: several times what is needed at any moment.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use syncline::error::{Result, SyncError};
use tokio::sync::{mpsc, oneshot};

use crate::limits::COMPUTE_WAITING_MAX;

type Work = Box<dyn FnOnce() + Send>;

static THREADS: LazyLock<mpsc::Sender<Work>> = LazyLock::new(|| {
    let (sender, waiting) = mpsc::channel(COMPUTE_WAITING_MAX);
    let waiting = Arc::new(Mutex::new(waiting));
    for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        let waiting = Arc::clone(&waiting);
        std::thread::spawn(move || work_on(&waiting));
    }
    sender
});

fn work_on(waiting: &Mutex<mpsc::Receiver<Work>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(work) = next else { return };
        // Who waits for the answer hears of it: the other end of its channel is dropped.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(work));
    }
}

/// Does work that keeps a processor busy. It is done also if nobody waits for it any more.
///
/// # Errors
/// What the work answers; INTERNAL if it panics.
pub async fn compute<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (answer, answered) = oneshot::channel();
    let work = Box::new(move || {
        let _ = answer.send(work());
    });
    THREADS.send(work).await.map_err(SyncError::internal)?;
    answered.await.map_err(SyncError::internal)?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_answered_and_a_panic_ends_no_thread() {
        for _ in 0..100 {
            assert_eq!(compute(|| Ok(7)).await.unwrap(), 7);
            compute::<()>(|| panic!("on purpose")).await.unwrap_err();
        }
    }
}
