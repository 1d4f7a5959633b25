//! Why a command failed: a reason for programs, a sentence and a remedy for people.

use std::fmt::Display;

use serde::Serialize;
use serde_json::{Value, json};
use syncline::error::{ErrorReason, SyncError};

use crate::remedy::remedy;

/// The reason, as `--json` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureReason {
    /// One of the protocol's.
    Protocol(ErrorReason),
    /// The command line is wrong.
    Usage,
    /// The scope file is wrong.
    ScopeFileInvalid,
    /// The configuration is wrong.
    ConfigInvalid,
    /// The database can't be opened.
    DatabaseOpen,
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

impl FailureReason {
    /// Its name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Protocol(reason) => reason.as_str(),
            Self::Usage => "USAGE",
            Self::ScopeFileInvalid => "SCOPE_FILE_INVALID",
            Self::ConfigInvalid => "CONFIG_INVALID",
            Self::DatabaseOpen => "DATABASE_OPEN",
            Self::Interrupted => "INTERRUPTED",
        }
    }
}

/// One of several things that are wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FailureProblem {
    /// The file that it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<usize>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) remedy: String,
}

/// A command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Why.
    pub(crate) reason: FailureReason,
    /// What happened.
    pub(crate) message: String,
    /// What to do.
    pub(crate) remedy: String,
    /// All that is wrong, where there may be several things.
    pub(crate) problems: Vec<FailureProblem>,
    /// The problems as people see them, where that is more than a list.
    pub(crate) rendered: Option<Box<str>>,
    /// What only somebody who looks for the cause wants to know.
    pub(crate) detail: Option<Box<str>>,
}

impl Failure {
    /// A failure, with the remedy that its reason has.
    pub(crate) fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            remedy: remedy(reason).to_owned(),
            problems: Vec::new(),
            rendered: None,
            detail: None,
        }
    }

    /// A fault of ours.
    pub(crate) fn internal(error: impl Display) -> Self {
        let mut failure = Self::new(FailureReason::Protocol(ErrorReason::Internal), "an internal fault");
        failure.detail = Some(error.to_string().into());
        failure
    }

    /// Something that this version can't do yet.
    pub(crate) fn unsupported(what: &str, remedy: &str) -> Self {
        let reason = FailureReason::Protocol(ErrorReason::FeatureUnsupported);
        Self::new(reason, format!("{what} is not supported by this version")).with_remedy(remedy)
    }

    /// The command was interrupted.
    pub(crate) fn interrupted() -> Self {
        Self::new(FailureReason::Interrupted, "interrupted")
    }

    /// Another remedy than the reason's own.
    pub(crate) fn with_remedy(mut self, remedy: &str) -> Self {
        remedy.clone_into(&mut self.remedy);
        self
    }

    /// The answer with `--json`.
    pub(crate) fn document(&self) -> Value {
        let mut error = json!({
            "reason": self.reason.as_str(),
            "message": self.message,
            "remedy": self.remedy,
            "problems": self.problems,
        });
        if let Some(detail) = &self.detail {
            error["detail"] = (&**detail).into();
        }
        json!({ "error": error })
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        let mut failure = Self::new(FailureReason::Protocol(error.reason()), error.message());
        failure.detail = error.detail().map(Into::into);
        if let Some(remedy) = error.violations().first().and_then(|fault| option_remedy(&fault.field)) {
            remedy.clone_into(&mut failure.remedy);
        }
        // A single violation is the message already.
        if error.violations().len() > 1 {
            failure.problems = error
                .violations()
                .iter()
                .map(|violation| FailureProblem {
                    file: None,
                    line: None,
                    column: None,
                    message: format!("{}: {}", violation.field, violation.description),
                    remedy: String::new(),
                })
                .collect();
        }
        failure
    }
}

/// What to do about an option of the connection that the client names.
fn option_remedy(option: &str) -> Option<&'static str> {
    match option {
        "ca" => Some("name the certificate of the authority that signed the service's with --ca"),
        "cert" => Some("name a certificate that the service takes, and its key, with --cert and --key"),
        "server" => Some("correct --server: http:// or https://, and the name that the certificate is for"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_protocol_keeps_its_reason_and_gets_a_remedy() {
        let error = SyncError::new(ErrorReason::ScopeNotFound, "there is no scope \"shop\"");
        let document = Failure::from(error).document();
        assert_eq!(document["error"]["reason"], "SCOPE_NOT_FOUND");
        assert_eq!(document["error"]["message"], "there is no scope \"shop\"");
        assert!(document["error"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("scope list")));
        assert_eq!(document["error"]["problems"], json!([]));
        assert!(document["error"].get("detail").is_none());
    }

    #[test]
    fn several_violations_are_problems() {
        let error = SyncError::new(ErrorReason::SchemaMismatch, "the tables do not fit")
            .violation("customer.name", "is INTEGER, not TEXT")
            .violation("customer.city", "is missing");
        let document = Failure::from(error).document();
        assert_eq!(document["error"]["problems"][1]["message"], "customer.city: is missing");
        assert!(document["error"]["problems"][1].get("file").is_none());
    }
}
