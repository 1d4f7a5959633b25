//! Scope files: read, and shown with the line and a caret where they are wrong.

use std::fmt;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use syncline_engine::scope::{DefineError, Problem, ScopeDefinition, parse};

use crate::failure::{Failure, FailureProblem, FailureReason};

/// Bytes of a scope file: as many tables as a scope may have, with a kilobyte for each.
const SCOPE_FILE_BYTES_MAX: u64 = 1 << 20;

/// A scope file and what it says.
#[derive(Debug)]
pub(crate) struct ScopeFile {
    name: String,
    text: String,
    /// What it says.
    pub(crate) definition: ScopeDefinition,
}

impl ScopeFile {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let text = read_text(path).map_err(|problem| {
            Failure::new(FailureReason::ScopeFileInvalid, problem)
                .with_remedy("name a scope file; docs/OPERATIONS.md shows one")
        })?;
        match parse(&text) {
            Ok(definition) => Ok(Self { name, text, definition }),
            Err(error) => Err(failure(&name, &text, error)),
        }
    }

    /// What the database said of it.
    pub(crate) fn refused(&self, error: DefineError) -> Failure {
        failure(&self.name, &self.text, error)
    }
}

/// The whole file, if it is text and no larger than a scope file may be.
fn read_text(path: &Path) -> Result<String, String> {
    let name = path.display();
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(SCOPE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("can't read {name}: {error}"))?;
    if bytes.len() as u64 > SCOPE_FILE_BYTES_MAX {
        return Err(format!("{name} has more than {SCOPE_FILE_BYTES_MAX} bytes; is it a scope file?"));
    }
    String::from_utf8(bytes).map_err(|_| format!("{name} is not text (UTF-8)"))
}

fn failure(name: &str, text: &str, error: DefineError) -> Failure {
    let problems = match error {
        DefineError::Failed(error) => return error.into(),
        DefineError::Problems(problems) => problems,
    };
    let count = match problems.len() {
        1 => "one problem".to_owned(),
        more => format!("{more} problems"),
    };
    let mut failure = Failure::new(FailureReason::ScopeFileInvalid, format!("{name} has {count}"));
    let rendered: String = problems.iter().map(|problem| render(name, text, problem)).collect();
    failure.rendered = Some(rendered.into());
    failure.problems = problems
        .into_iter()
        .map(|problem| {
            let (line, column) = place(text, problem.span.start);
            FailureProblem {
                file: Some(name.to_owned()),
                line: Some(line),
                column: Some(column),
                message: problem.message,
                remedy: problem.remedy,
            }
        })
        .collect();
    failure
}

/// Line and column, in characters, from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    (line, column)
}

fn render(name: &str, text: &str, problem: &Problem) -> String {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let shown = Shown { problem, source: NamedSource::new(name, text.to_owned()) };
    let mut rendered = String::new();
    match GraphicalReportHandler::new_themed(theme).with_width(100).render_report(&mut rendered, &shown) {
        Ok(()) => rendered,
        // Writing to a String does not fail; a source that can't be shown has still a message.
        Err(fmt::Error) => format!("{}: {}\n", problem.message, problem.remedy),
    }
}

#[derive(Debug)]
struct Shown<'p> {
    problem: &'p Problem,
    source: NamedSource<String>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.problem.remedy))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        // A problem of the whole file has no place to point at.
        (!self.problem.span.is_empty()).then_some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.problem.span.clone();
        (!span.is_empty()).then(|| {
            Box::new(std::iter::once(LabeledSpan::underline(span))) as Box<dyn Iterator<Item = LabeledSpan>>
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ScopeFile, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shop.toml");
        std::fs::write(&path, text).unwrap();
        ScopeFile::read(&path)
    }

    #[test]
    fn problems_have_file_line_and_column() {
        let text = "name = \"shöp\"\n\n[[tables]]\nname = \"tä\"\n  direktion = \"up\"\n";
        let failure = read(text).unwrap_err();
        assert_eq!(failure.reason, FailureReason::ScopeFileInvalid);
        assert!(failure.message.ends_with("shop.toml has 2 problems"), "{}", failure.message);
        let places: Vec<_> = failure.problems.iter().map(|p| (p.line.unwrap(), p.column.unwrap())).collect();
        assert_eq!(places, [(1, 8), (5, 3)]);
        assert_eq!(failure.problems[1].remedy, "did you mean `direction`?");
        assert_eq!(failure.document()["error"]["problems"][1]["line"], 5);
    }

    #[test]
    fn the_line_is_shown_with_what_is_wrong_underlined() {
        let shown =
            read("name = \"s\"\n[[tables]]\nname = \"t\"\nfilter = \"a\"\n").unwrap_err().rendered.unwrap();
        assert!(shown.contains("filters are not supported by this version"), "{shown}");
        assert!(shown.contains("filter = \"a\"") && shown.contains("shop.toml:4:1"), "{shown}");
        assert!(shown.contains("help: remove the filter"), "{shown}");
    }

    #[test]
    fn a_file_that_is_not_there_is_said() {
        let failure = ScopeFile::read(Path::new("/nowhere/shop.toml")).unwrap_err();
        assert_eq!(failure.reason, FailureReason::ScopeFileInvalid);
        assert!(failure.message.starts_with("can't read /nowhere/shop.toml: "), "{}", failure.message);
    }

    #[test]
    fn a_good_file_is_taken() {
        assert_eq!(read("name = \"s\"\n[[tables]]\nname = \"t\"\n").unwrap().definition.tables.len(), 1);
    }
}
