//! placeholder
use super::{DefineError, ScopeDefinition};
/// Parses a scope file.
///
/// # Errors
/// All problems at once.
pub fn parse(_text: &str) -> Result<ScopeDefinition, DefineError> {
    Err(DefineError::Problems(Vec::new()))
}
