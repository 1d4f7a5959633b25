//! Checks a message's fields into strict types, and collects everything that is wrong with it.
//!
//! A check answers `None` where it found a fault; [`Fields::finish`] turns what was checked into plain values, or
//! into one error that names all faults. So no rpc goes on with an `Option` that means "required".

use bytes::Bytes;
use syncline::batch::BatchInfo;
use syncline::error::{ErrorReason, FieldViolation, Result, SyncError};
use syncline::ids::{BatchId, IdError, Mark, ReplicaId, ScopeName, SessionId, SessionToken, TableId};
use syncline::knowledge::RowKey;
use syncline::limits;
use syncline::pb;
use syncline_engine::replica::{ExceptedKey, SessionRef};

/// Faults found so far.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// Before each field's name: the path of the message that is being checked.
    prefix: String,
    violations: Vec<FieldViolation>,
    /// A fault that has a reason of its own. A wrong field goes before it.
    refusal: Option<SyncError>,
}

impl Fields {
    /// Of a request itself.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A field is wrong.
    pub(super) fn wrong(&mut self, field: &str, description: impl Into<String>) {
        let field = format!("{}{field}", self.prefix);
        self.violations.push(FieldViolation { field, description: description.into() });
    }

    /// The request is refused for a reason of its own.
    pub(super) fn refuse(&mut self, error: SyncError) {
        self.refusal.get_or_insert(error);
    }

    /// Checks the fields of a message within the message.
    pub(super) fn within<T>(&mut self, path: &str, check: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.prefix.len();
        self.prefix.push_str(path);
        self.prefix.push('.');
        let checked = check(self);
        self.prefix.truncate(length);
        checked
    }

    /// The values, if nothing was wrong.
    ///
    /// # Errors
    /// REQUEST_INVALID with every field that is wrong, else the first refusal.
    pub(super) fn finish<P: Present>(self, values: P) -> Result<P::Values> {
        let Self { violations, refusal, .. } = self;
        if let Some(first) = violations.first() {
            let more = violations.len() - 1;
            let message = match more {
                0 => format!("{}: {}", first.field, first.description),
                _ => format!("{}: {} (and {more} more)", first.field, first.description),
            };
            let error = SyncError::new(ErrorReason::RequestInvalid, message);
            return Err(violations
                .into_iter()
                .fold(error, |error, fault| error.violation(fault.field, fault.description)));
        }
        match (refusal, values.present()) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(values)) => Ok(values),
            // Whoever answers `None` says what is wrong; forgetting it must not let a request through.
            (None, None) => Err(SyncError::internal("a field was refused without a word")),
        }
    }

    fn id<T>(&mut self, field: &str, checked: Result<T, IdError>) -> Option<T> {
        checked.map_err(|error| self.wrong(field, error.problem)).ok()
    }

    /// `session_id` and `session_token`.
    pub(super) fn session(&mut self, id: &[u8], token: &[u8]) -> Option<SessionRef> {
        let id = self.id("session_id", SessionId::from_slice(id));
        let token = self.id("session_token", SessionToken::from_slice(token));
        Some(SessionRef { id: id?, token: token? })
    }

    /// `session_id`.
    pub(super) fn session_id(&mut self, id: &[u8]) -> Option<SessionId> {
        self.id("session_id", SessionId::from_slice(id))
    }

    /// `replica_id`.
    pub(super) fn replica(&mut self, id: &[u8]) -> Option<ReplicaId> {
        self.id("replica_id", ReplicaId::from_slice(id))
    }

    /// The id of a batch.
    pub(super) fn batch(&mut self, field: &str, id: &[u8]) -> Option<BatchId> {
        self.id(field, BatchId::from_slice(id))
    }

    /// A mark that must be there.
    pub(super) fn mark(&mut self, field: &str, mark: &[u8]) -> Option<Mark> {
        self.id(field, Mark::from_slice(mark))
    }

    /// A mark that may be empty.
    pub(super) fn optional_mark(&mut self, field: &str, mark: &[u8]) -> Option<Option<Mark>> {
        if mark.is_empty() { Some(None) } else { self.mark(field, mark).map(Some) }
    }

    /// `scope`.
    pub(super) fn scope(&mut self, name: &str) -> Option<ScopeName> {
        self.id("scope", name.parse::<ScopeName>())
    }

    /// `schema_fingerprint`.
    pub(super) fn fingerprint(&mut self, bytes: &[u8]) -> Option<[u8; 32]> {
        let checked = <[u8; 32]>::try_from(bytes);
        checked.map_err(|_| self.wrong("schema_fingerprint", expected_bytes(32, bytes.len()))).ok()
    }

    /// Knowledge is opaque here; only its size is looked at. The engine decodes it, once.
    pub(super) fn knowledge(&mut self, field: &str, bytes: Bytes) -> Option<Bytes> {
        if bytes.len() <= limits::KNOWLEDGE_BYTES_MAX {
            return Some(bytes);
        }
        self.refuse(SyncError::new(
            ErrorReason::KnowledgeTooLarge,
            format!(
                "{}{field} has {} bytes; at most {} are allowed",
                self.prefix,
                bytes.len(),
                limits::KNOWLEDGE_BYTES_MAX
            ),
        ));
        None
    }

    /// `excepted_keys`: bounded, each with a key. Whether tables and keys fit is for the engine to say.
    pub(super) fn excepted_keys(&mut self, keys: Vec<pb::ExceptedKey>) -> Option<Vec<ExceptedKey>> {
        if keys.len() > limits::ROW_EXCEPTIONS_MAX {
            self.wrong("excepted_keys", at_most(limits::ROW_EXCEPTIONS_MAX, keys.len()));
            return None;
        }
        let checked = keys.into_iter().enumerate().map(|(index, key)| {
            self.within(&format!("excepted_keys[{index}]"), |fields| {
                if key.key.is_empty() {
                    fields.wrong("key", "must not be empty");
                }
                let knowledge_before = fields.knowledge("knowledge_before", key.knowledge_before)?;
                let row = RowKey { table: TableId(key.table_id), key: key.key };
                Some(ExceptedKey { row, knowledge_before })
            })
        });
        // Every key is looked at, also after a wrong one.
        let checked: Vec<_> = checked.collect();
        checked.into_iter().collect()
    }

    /// `parameters`: bounded, named, each once. Whether the scope has them is for the engine to say.
    pub(super) fn parameters(&mut self, parameters: Vec<pb::Parameter>) -> Option<Vec<(String, String)>> {
        let before = self.violations.len();
        if parameters.len() > limits::PARAMETERS_MAX {
            self.wrong("parameters", at_most(limits::PARAMETERS_MAX, parameters.len()));
            return None;
        }
        for (index, parameter) in parameters.iter().enumerate() {
            self.within(&format!("parameters[{index}]"), |fields| {
                if parameter.name.is_empty() || parameter.name.len() > limits::SCOPE_NAME_BYTES_MAX {
                    let bound = limits::SCOPE_NAME_BYTES_MAX;
                    fields
                        .wrong("name", format!("must have 1 to {bound} bytes, not {}", parameter.name.len()));
                } else if parameters[..index].iter().any(|earlier| earlier.name == parameter.name) {
                    fields.wrong("name", "was given before");
                }
                if parameter.value.len() > limits::PARAMETER_BYTES_MAX {
                    let bound = limits::PARAMETER_BYTES_MAX;
                    fields.wrong(
                        "value",
                        format!("must have at most {bound} bytes, not {}", parameter.value.len()),
                    );
                }
            });
        }
        (self.violations.len() == before)
            .then(|| parameters.into_iter().map(|parameter| (parameter.name, parameter.value)).collect())
    }

    /// What names a batch, within the service's own bounds; the engine holds it against the session's agreement.
    pub(super) fn batch_info(
        &mut self,
        path: &str,
        message: &pb::BatchInfo,
        content_bytes_max: u64,
    ) -> Option<BatchInfo> {
        self.within(path, |fields| {
            fields.batch("batch_id", &message.batch_id)?;
            match BatchInfo::from_wire(message, content_bytes_max) {
                Ok(info) => Some(info),
                Err(error) => {
                    fields.adopt("batch.", error);
                    None
                }
            }
        })
    }

    /// Takes over the faults that a shared type found, under the path that they have in this message.
    pub(super) fn adopt(&mut self, their_prefix: &str, error: SyncError) {
        if error.violations().is_empty() {
            self.refuse(error);
            return;
        }
        for fault in error.violations() {
            let field = fault.field.strip_prefix(their_prefix).unwrap_or(&fault.field);
            self.wrong(field, fault.description.clone());
        }
    }
}

/// What a field with too many elements is told.
pub(super) fn at_most(bound: usize, found: usize) -> String {
    format!("may have at most {bound} elements, not {found}")
}

fn expected_bytes(bound: usize, found: usize) -> String {
    format!("must be {bound} bytes, not {found}")
}

/// A tuple of checked fields, all of which must be there.
pub(super) trait Present {
    /// The tuple without the options.
    type Values;
    /// `None` if one is missing.
    fn present(self) -> Option<Self::Values>;
}

macro_rules! present {
    ($($($name:ident)+;)*) => {$(
        impl<$($name),+> Present for ($(Option<$name>,)+) {
            type Values = ($($name,)+);
            #[allow(non_snake_case, reason = "the names stand for types and for their values")]
            fn present(self) -> Option<Self::Values> {
                let ($($name,)+) = self;
                Some(($($name?,)+))
            }
        }
    )*};
}

present! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
    A B C D E F G H I J;
    A B C D E F G H I J K;
    A B C D E F G H I J K L;
}
