//! Where a run is killed, and which calls fail.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use syncline::error::{ErrorReason, Result, SyncError};
use tokio::sync::Notify;

/// What happens to a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It fails and has done nothing.
    Fail(ErrorReason),
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// Its stream breaks after so many bytes (or events).
    CutAfter(usize),
    /// A byte that comes with it is another one.
    Corrupt,
}

/// Faults by call, and the point at which the process is killed.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    plan: Mutex<Plan>,
    killed: Notify,
}

#[derive(Debug, Default)]
struct Plan {
    by_call: HashMap<&'static str, VecDeque<Fault>>,
    calls: Vec<&'static str>,
    points: usize,
    kill_at: Option<usize>,
}

impl Faults {
    /// What happens to the next calls of this name, in order.
    pub(crate) fn plan(&self, call: &'static str, faults: &[Fault]) {
        self.plan.lock().unwrap().by_call.entry(call).or_default().extend(faults);
    }

    /// From now on the process dies at the point of this number.
    pub(crate) fn kill_at(&self, point: Option<usize>) {
        let mut plan = self.plan.lock().unwrap();
        (plan.kill_at, plan.points) = (point, 0);
    }

    /// Answers when the process has died.
    pub(crate) async fn killed(&self) {
        self.killed.notified().await;
    }

    /// The calls since the last time it was asked.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.plan.lock().unwrap().calls)
    }

    /// A place where the process may die: then nothing comes after it.
    pub(crate) async fn point(&self) {
        let dies = {
            let mut plan = self.plan.lock().unwrap();
            plan.points += 1;
            plan.kill_at == Some(plan.points)
        };
        if dies {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// A call begins.
    pub(crate) async fn enter(&self, call: &'static str) -> Result<Fault> {
        let fault = {
            let mut plan = self.plan.lock().unwrap();
            plan.calls.push(call);
            plan.by_call.get_mut(call).and_then(VecDeque::pop_front).unwrap_or(Fault::None)
        };
        self.point().await;
        match fault {
            Fault::Fail(reason) => Err(SyncError::new(reason, format!("{call} fails"))),
            fault => Ok(fault),
        }
    }

    /// A call has been done.
    pub(crate) async fn leave<T>(&self, fault: Fault, answer: T) -> Result<T> {
        self.point().await;
        match fault {
            Fault::LoseAnswer => Err(broken()),
            _ => Ok(answer),
        }
    }
}

/// The connection is gone.
pub(crate) fn broken() -> SyncError {
    SyncError::new(ErrorReason::DatabaseUnavailable, "the connection broke")
}
