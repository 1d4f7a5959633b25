//! What to do about each reason: one table.

use syncline::error::ErrorReason as Reason;

use crate::failure::FailureReason;

/// What to do about a failure.
pub(crate) const fn remedy(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::Usage => "`--help` after the command shows its options and an example",
        FailureReason::ScopeFileInvalid => "correct the scope file; nothing was changed",
        FailureReason::ConfigInvalid => "correct the configuration; docs/OPERATIONS.md lists every key",
        FailureReason::DatabaseOpen => "check the URL, that the database is there, and that you may open it",
        FailureReason::Interrupted => "run the command again: it goes on where it stopped",
        FailureReason::Protocol(reason) => of_protocol(reason),
    }
}

const fn of_protocol(reason: Reason) -> &'static str {
    match reason {
        Reason::ScopeNotFound => "check the name; `syncline scope list` at the hub shows what there is",
        Reason::SessionNotFound | Reason::SessionExpired => "run the command again: it begins a new session",
        Reason::BatchNotFound | Reason::BatchIncomplete => {
            "run the command again: what is missing is sent again"
        }
        Reason::SchemaMismatch => {
            "make the local tables fit, or name a database without them; `syncline scope drop` at a leaf leaves a scope"
        }
        Reason::ScopeVersionUnsupported => "run the command again: it fetches the scope's new form",
        Reason::CapabilityRequired => "update this client, or leave the named column out of the scope",
        Reason::SessionSuperseded => "another process synchronises this database: let it finish, or stop it",
        Reason::SessionState => "run the command again; if it stays so, update client and service",
        Reason::RowTooLarge => "make the named row smaller, or raise row_bytes_max at the service",
        Reason::ReinitializeRequired => "run the command again: everything is compared anew, edits are kept",
        Reason::ReplicaDiverged => "run the command again: the replica takes a new id, edits are kept",
        Reason::TrackingBroken => {
            "where the message has no simpler way: at a hub apply the scope again (`syncline scope apply`); at a leaf leave \
             it (`syncline scope drop`) and synchronise again: everything is compared then"
        }
        Reason::RowErrors => "correct the named rows, or set row_errors = \"skip\" in the scope file",
        Reason::BatchTooLarge => "choose a smaller --batch-bytes",
        Reason::KnowledgeInvalid => "run the command again; if it stays so, synchronise into a new database",
        Reason::ParameterInvalid => "check the parameters against the scope",
        Reason::RequestInvalid => "correct what the message names; client and service may differ in version",
        Reason::RowInvalid => "correct the named row",
        Reason::BatchCorrupt => "run the command again; if it stays so, check disk and network",
        Reason::OffsetMismatch => "run the command again: it goes on at the right place",
        Reason::FeatureUnsupported => "leave it out, or update",
        Reason::SpoolFull => {
            "wait until other clients have finished, or raise spool_bytes_max at the service"
        }
        Reason::Overloaded => "wait a moment and run the command again",
        Reason::KnowledgeTooLarge => "mend the rows that can't be applied, then run the command again",
        Reason::CallReplaced => "another process synchronises this database: let it finish, or stop it",
        Reason::DatabaseUnavailable => {
            "check that service and database run and can be reached, then run the command again"
        }
        Reason::LockTimeout => {
            "another client or long transactions hold the database: let them end, then run the command again"
        }
        Reason::Draining => "the service restarts: run the command again in a moment",
        Reason::PermissionDenied => "ask for the right to do this",
        Reason::Unauthenticated => "say who you are",
        Reason::Internal => "see the log; with --verbose the details are shown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_remedy_that_is_a_fragment() {
        for reason in Reason::ALL {
            let text = remedy(FailureReason::Protocol(*reason));
            assert!(text.len() > 10 && !text.ends_with('.'), "{}: {text}", reason.as_str());
        }
    }
}
