//! What a command says: tables and sentences for people, or one JSON document for programs.

mod numbers;
mod progress;
mod table;

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::failure::Failure;

pub(crate) use numbers::{bytes, count, duration, parse_bytes, time};
pub(crate) use progress::watch;
pub(crate) use table::Table;

/// Where answers go.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    verbose: bool,
}

impl Output {
    /// Answers as JSON, or for people; `verbose` shows the details of failures.
    pub(crate) fn new(json: bool, verbose: bool) -> Self {
        Self { json, verbose }
    }

    /// Whether a person watches: progress bars make sense.
    pub(crate) fn is_watched(&self) -> bool {
        !self.json && std::io::stderr().is_terminal()
    }

    /// The answer: the document for programs, the text for people.
    pub(crate) fn answer(&self, document: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.document(document);
        } else {
            print(&text());
        }
    }

    /// A JSON document, on one line.
    fn document(&self, document: &impl Serialize) {
        match serde_json::to_string(document) {
            Ok(line) => print(&line),
            // Our documents have text keys and no writer behind them, so they always serialise.
            Err(error) => self.aside(&error.to_string()),
        }
    }

    /// A line for people; nothing for programs.
    pub(crate) fn line(&self, text: &str) {
        if !self.json {
            print(text);
        }
    }

    /// A line beside the answer, on standard error; nothing where a program reads.
    pub(crate) fn aside(&self, text: &str) {
        if !self.json {
            writeln!(std::io::stderr(), "{text}").ok();
        }
    }

    /// What went wrong.
    pub(crate) fn failure(&self, failure: &Failure) {
        let detail = failure.detail.as_ref().filter(|_| self.verbose);
        if self.json {
            let mut document = failure.document();
            if let (None, Some(error)) = (detail, document["error"].as_object_mut()) {
                error.remove("detail");
            }
            self.document(&document);
            return;
        }
        let mut text = String::new();
        match &failure.rendered {
            Some(rendered) => text.push_str(rendered),
            None => {
                for problem in &failure.problems {
                    text.push_str(&format!("  - {}\n", problem.message));
                }
            }
        }
        text.push_str(&format!("error: {} ({})\n", failure.message, failure.reason.as_str()));
        if let Some(detail) = detail {
            text.push_str(&format!("details: {detail}\n"));
        }
        text.push_str(&format!("what to do: {}", failure.remedy));
        self.aside(&text);
    }
}

/// A reader that went away (`| head`) is no failure of ours.
fn print(text: &str) {
    writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n')).ok();
}
