//! The exit status: what programs and scripts go by.

use std::process::ExitCode;

use crate::failure::{Failure, FailureReason};

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done. Conflicts that a policy settled are done.
    Done,
    /// 1: it failed, and the message says why and what to do.
    Failed,
    /// 2: bad usage.
    Usage,
    /// 3: done, but this run left rows behind that could not be applied.
    LeftBehind,
    /// 4: temporary, after the retries were used up: run it again.
    Temporary,
    /// 130: interrupted. What was transferred is kept.
    Interrupted,
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::LeftBehind => 3,
            Self::Temporary => 4,
            Self::Interrupted => 130,
        }
    }

    /// What a failure ends with.
    pub(crate) const fn of(failure: &Failure) -> Self {
        match failure.reason {
            FailureReason::Usage => Self::Usage,
            FailureReason::Interrupted => Self::Interrupted,
            FailureReason::Protocol(reason) if reason.is_temporary() => Self::Temporary,
            FailureReason::Protocol(_)
            | FailureReason::ScopeFileInvalid
            | FailureReason::ConfigInvalid
            | FailureReason::DatabaseOpen => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use syncline::error::ErrorReason;

    use super::*;

    fn check(reason: FailureReason, code: u8) {
        assert_eq!(Exit::of(&Failure::new(reason, "")).code(), code, "{reason:?}");
    }

    #[test]
    fn failures_end_with_the_documented_status() {
        check(FailureReason::Usage, 2);
        check(FailureReason::Interrupted, 130);
        check(FailureReason::ScopeFileInvalid, 1);
        check(FailureReason::ConfigInvalid, 1);
        check(FailureReason::DatabaseOpen, 1);
        for reason in ErrorReason::ALL {
            check(FailureReason::Protocol(*reason), if reason.is_temporary() { 4 } else { 1 });
        }
        check(FailureReason::Protocol(ErrorReason::ScopeNotFound), 1);
        check(FailureReason::Protocol(ErrorReason::RowErrors), 1);
        check(FailureReason::Protocol(ErrorReason::DatabaseUnavailable), 4);
        check(FailureReason::Protocol(ErrorReason::Draining), 4);
    }

    #[test]
    fn the_other_ends_have_their_numbers() {
        assert_eq!((Exit::Done.code(), Exit::LeftBehind.code()), (0, 3));
    }
}
