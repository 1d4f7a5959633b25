//! Why something failed: one table of reasons, shared by the service, the engine and every SDK.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::pb;

/// The `domain` of every `google.rpc.ErrorInfo` that Syncline sends.
pub const ERROR_DOMAIN: &str = "syncline";

/// The gRPC status that a reason travels with (the names and numbers are gRPC's own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusCode {
    /// A field of the request is wrong.
    InvalidArgument = 3,
    /// What was named is not there.
    NotFound = 5,
    /// The caller may not do that.
    PermissionDenied = 7,
    /// There is no room at the moment.
    ResourceExhausted = 8,
    /// Never repeat unchanged.
    FailedPrecondition = 9,
    /// Repeat at a higher level.
    Aborted = 10,
    /// An offset lies beyond what is there.
    OutOfRange = 11,
    /// The service can't do that.
    Unimplemented = 12,
    /// A fault of the service.
    Internal = 13,
    /// Repeat the same call.
    Unavailable = 14,
    /// Bytes were damaged.
    DataLoss = 15,
    /// The caller did not say who it is.
    Unauthenticated = 16,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $wire:ident, $text:literal, $status:ident;)*) => {
        /// Why a call failed. `ErrorReason` of the protocol, whose comments say what to do about each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorReason { $($(#[$doc])* $name),* }

        impl ErrorReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name that travels, `SCOPE_NOT_FOUND` for example.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
            /// The status that it travels with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),* }
            }
            /// The number in the protocol's enum.
            #[must_use]
            pub const fn wire(self) -> pb::ErrorReason {
                match self { $(Self::$name => pb::ErrorReason::$wire),* }
            }
            /// The reason of this name; `None` for one that a newer service made up.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
            }
        }
    };
}

reasons! {
    /// No scope of that name that the caller may see.
    ScopeNotFound = ScopeNotFound, "SCOPE_NOT_FOUND", NotFound;
    /// No such session, or it ended.
    SessionNotFound = SessionNotFound, "SESSION_NOT_FOUND", NotFound;
    /// No such batch in this session.
    BatchNotFound = BatchNotFound, "BATCH_NOT_FOUND", NotFound;
    /// The replica's tables do not fit the scope.
    SchemaMismatch = SchemaMismatch, "SCHEMA_MISMATCH", FailedPrecondition;
    /// The replica has another version of the scope.
    ScopeVersionUnsupported = ScopeVersionUnsupported, "SCOPE_VERSION_UNSUPPORTED", FailedPrecondition;
    /// The scope needs what the client did not list.
    CapabilityRequired = CapabilityRequired, "CAPABILITY_REQUIRED", FailedPrecondition;
    /// The session's lease ran out.
    SessionExpired = SessionExpired, "SESSION_EXPIRED", FailedPrecondition;
    /// Another holder went on with the session.
    SessionSuperseded = SessionSuperseded, "SESSION_SUPERSEDED", FailedPrecondition;
    /// The call does not fit the session's state.
    SessionState = SessionState, "SESSION_STATE", FailedPrecondition;
    /// Not all bytes of a batch have arrived.
    BatchIncomplete = BatchIncomplete, "BATCH_INCOMPLETE", FailedPrecondition;
    /// A row is larger than was agreed.
    RowTooLarge = RowTooLarge, "ROW_TOO_LARGE", FailedPrecondition;
    /// The replica must compare everything anew.
    ReinitializeRequired = ReinitializeRequired, "REINITIALIZE_REQUIRED", FailedPrecondition;
    /// The session chain is broken: one side was restored or copied.
    ReplicaDiverged = ReplicaDiverged, "REPLICA_DIVERGED", FailedPrecondition;
    /// Triggers, partitions or columns are not as provisioned.
    TrackingBroken = TrackingBroken, "TRACKING_BROKEN", FailedPrecondition;
    /// Rows could not be applied, and the session fails for it.
    RowErrors = RowErrors, "ROW_ERRORS", FailedPrecondition;
    /// A batch is larger than was agreed.
    BatchTooLarge = BatchTooLarge, "BATCH_TOO_LARGE", InvalidArgument;
    /// Knowledge does not decode or breaks its rules.
    KnowledgeInvalid = KnowledgeInvalid, "KNOWLEDGE_INVALID", InvalidArgument;
    /// A scope parameter is missing, unknown or wrong.
    ParameterInvalid = ParameterInvalid, "PARAMETER_INVALID", InvalidArgument;
    /// A field of the request is wrong.
    RequestInvalid = RequestInvalid, "REQUEST_INVALID", InvalidArgument;
    /// A row of a batch is wrong.
    RowInvalid = RowInvalid, "ROW_INVALID", InvalidArgument;
    /// The bytes of a batch do not have its digest or do not decode.
    BatchCorrupt = BatchCorrupt, "BATCH_CORRUPT", DataLoss;
    /// An offset lies beyond what is there.
    OffsetMismatch = OffsetMismatch, "OFFSET_MISMATCH", OutOfRange;
    /// This version can't do that.
    FeatureUnsupported = FeatureUnsupported, "FEATURE_UNSUPPORTED", Unimplemented;
    /// The spool has no room.
    SpoolFull = SpoolFull, "SPOOL_FULL", ResourceExhausted;
    /// Too many sessions or uploads at once.
    Overloaded = Overloaded, "OVERLOADED", ResourceExhausted;
    /// Knowledge is beyond its bounds.
    KnowledgeTooLarge = KnowledgeTooLarge, "KNOWLEDGE_TOO_LARGE", ResourceExhausted;
    /// A newer call of the same session took over.
    CallReplaced = CallReplaced, "CALL_REPLACED", Aborted;
    /// The database (or the service) does not answer.
    DatabaseUnavailable = DatabaseUnavailable, "DATABASE_UNAVAILABLE", Unavailable;
    /// A lock did not come in time.
    LockTimeout = LockTimeout, "LOCK_TIMEOUT", Unavailable;
    /// The service is about to stop.
    Draining = Draining, "DRAINING", Unavailable;
    /// The caller may not do that.
    PermissionDenied = PermissionDenied, "PERMISSION_DENIED", PermissionDenied;
    /// The caller did not say who it is.
    Unauthenticated = Unauthenticated, "UNAUTHENTICATED", Unauthenticated;
    /// A fault of ours.
    Internal = Internal, "INTERNAL", Internal;
}

impl ErrorReason {
    /// Whether repeating the same call (after a pause) may help.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::DatabaseUnavailable
                | Self::LockTimeout
                | Self::Draining
                | Self::SpoolFull
                | Self::Overloaded
                | Self::CallReplaced
        )
    }
}

/// A field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// Whether a failed commit may have happened all the same; the retry of an upload depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitOutcome {
    /// Certainly nothing was committed.
    #[default]
    Aborted,
    /// The connection broke while the commit was under way: only a look into the database tells.
    Unknown,
}

/// What went wrong: a reason of the protocol, a sentence for people, and what programs need to go on.
///
/// The message is safe to show to the caller; `detail` is not (it may hold SQL, paths or values) and goes to the log,
/// or to the caller only where verbose errors are switched on.
#[derive(Clone)]
pub struct SyncError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    reason: ErrorReason,
    message: Cow<'static, str>,
    detail: Option<String>,
    metadata: BTreeMap<&'static str, String>,
    violations: Vec<FieldViolation>,
    retry_after: Option<Duration>,
    commit_outcome: CommitOutcome,
}

impl SyncError {
    /// A failure with a reason, and a message for people: a lowercase fragment that says what to do.
    #[must_use]
    pub fn new(reason: ErrorReason, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            reason,
            message: message.into(),
            detail: None,
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: None,
            commit_outcome: CommitOutcome::Aborted,
        }))
    }

    /// A field of a request is wrong.
    #[must_use]
    pub fn invalid(field: &str, description: impl Into<String>) -> Self {
        let description = description.into();
        let mut error = Self::new(ErrorReason::RequestInvalid, format!("{field}: {description}"));
        error.0.violations.push(FieldViolation { field: field.to_owned(), description });
        error
    }

    /// A fault of ours: the detail goes to the log only.
    #[must_use]
    pub fn internal(detail: impl fmt::Display) -> Self {
        Self::new(ErrorReason::Internal, "an internal fault; the log says more").with_detail(detail)
    }

    /// Adds what only the log may say.
    #[must_use]
    pub fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        self.0.detail = Some(detail.to_string());
        self
    }

    /// Adds what programs need to go on (`table`, `batch_id`, `committed_size` ...).
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.metadata.insert(key, value.to_string());
        self
    }

    /// Says when a retry makes sense.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.0.retry_after = Some(pause);
        self
    }

    /// Says that the commit may have happened.
    #[must_use]
    pub fn commit_unknown(mut self) -> Self {
        self.0.commit_outcome = CommitOutcome::Unknown;
        self
    }

    /// Adds a field that is wrong too.
    #[must_use]
    pub fn violation(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.0.violations.push(FieldViolation { field: field.into(), description: description.into() });
        self
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> ErrorReason {
        self.0.reason
    }

    /// The sentence for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What only the log may say.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// What programs need to go on.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<&'static str, String> {
        &self.0.metadata
    }

    /// The fields that are wrong.
    #[must_use]
    pub fn violations(&self) -> &[FieldViolation] {
        &self.0.violations
    }

    /// When a retry makes sense.
    #[must_use]
    pub fn retry_pause(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether a failed commit may have happened.
    #[must_use]
    pub fn commit_outcome(&self) -> CommitOutcome {
        self.0.commit_outcome
    }
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.reason.as_str(), self.0.message)?;
        if !self.0.metadata.is_empty() {
            write!(f, " {:?}", self.0.metadata)?;
        }
        if let Some(detail) = &self.0.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

impl std::error::Error for SyncError {}

impl From<crate::knowledge::KnowledgeError> for SyncError {
    fn from(error: crate::knowledge::KnowledgeError) -> Self {
        let reason = match error {
            crate::knowledge::KnowledgeError::TooLarge { .. } => ErrorReason::KnowledgeTooLarge,
            _ => ErrorReason::KnowledgeInvalid,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<crate::ids::IdError> for SyncError {
    fn from(error: crate::ids::IdError) -> Self {
        Self::invalid(error.what, error.problem)
    }
}

/// The result of most of what Syncline does.
pub type Result<T, E = SyncError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number_and_name() {
        for reason in ErrorReason::ALL {
            assert_eq!(reason.wire().as_str_name(), format!("ERROR_REASON_{}", reason.as_str()));
            assert_eq!(ErrorReason::from_name(reason.as_str()), Some(*reason));
        }
    }
}
